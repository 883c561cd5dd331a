//! Sealing: closed journals become segments, in order, once late identities had their chance.
//!
//! A journal is only removed after its line is in the manifest; a crash at any point leaves enough to do it again with the same
//! result. What cannot be sealed now (a full disk) is tried again and again, and nothing is dropped.

mod files;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use hotspot_archive::chain::Record;
use hotspot_archive::draft::Draft;
use hotspot_archive::entry::{Entry, InterfaceName, JournalHeader};
use hotspot_archive::journal::{JournalError, JournalKeys, Replayed, replay_what_is_left};
use hotspot_archive::layout::DataDir;
use hotspot_archive::manifest::{Manifest, ManifestError, Sealing};
use hotspot_archive::segment::Origin;
use hotspot_archive::state;
use hotspot_core::WallNs;
use hotspot_core::assembly::{Assembled, Assembly, Ending, Params, State};
use hotspot_core::fact::SessionFact;
use hotspot_core::record::CoverageRecord;
use hotspot_core::sessions::SESSIONS_PER_NAS_MAX;
use hotspot_core::vendor::VendorTable;
use tracing::{error, info, warn};

pub(crate) use files::put_away;
use files::{made_ns, remove, written_ns};

use crate::capture::clock::ClockReading;
use crate::upkeep::{self, Upkeep};

/// How long to wait before trying again what failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How often a seal that failed is tried again while the agent is stopping; the next start tries again too.
const RETRIES_AT_STOP: u32 = 2;

/// What the sealer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealJob {
    /// The journal with this sequence is closed.
    Closed { sequence: u64 },
    /// Seal what is left without waiting, and end.
    Finish,
}

/// Why a journal is not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the journal {} has no header", path.display())]
    NoHeader { path: PathBuf },
    #[error("{} cannot be removed", path.display())]
    Remove { path: PathBuf, source: std::io::Error },
}

/// Seals the journals of one data directory.
pub struct Sealer {
    data: DataDir,
    keys: JournalKeys,
    manifest: Manifest,
    boot_id: String,
    grace: Duration,
    upkeep: Upkeep,
    vendors: Arc<VendorTable>,
}

/// A journal as it was replayed.
struct Journal {
    header: JournalHeader,
    closed: Option<(WallNs, bool)>,
    last_ns: WallNs,
    replayed: Replayed,
    /// Whether all was there that was open when the segment before was sealed.
    state_is_whole: bool,
}

impl Sealer {
    #[must_use]
    pub fn new(
        data: DataDir,
        keys: JournalKeys,
        manifest: Manifest,
        boot_id: String,
        grace: Duration,
        upkeep: Upkeep,
        vendors: Arc<VendorTable>,
    ) -> Self {
        Self { data, keys, manifest, boot_id, grace, upkeep, vendors }
    }

    /// Seals what it is told, until [`SealJob::Finish`].
    pub fn run(mut self, jobs: &Receiver<SealJob>) {
        let mut waiting: Vec<(u64, Instant)> = Vec::new();
        loop {
            let job = match waiting.first() {
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some((_, due)) => jobs.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match job {
                Ok(SealJob::Closed { sequence }) => waiting.push((sequence, Instant::now() + self.grace)),
                Ok(SealJob::Finish) | Err(RecvTimeoutError::Disconnected) => {
                    self.finish(&waiting);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    let (sequence, due) = &mut waiting[0];
                    match self.seal(*sequence) {
                        Ok(()) => {
                            waiting.remove(0);
                            self.upkeep.after_seal(&mut self.manifest);
                        }
                        Err(failure) => {
                            error!(sequence, error = %chain(&failure), "a journal could not be sealed; trying again");
                            *due = Instant::now() + RETRY_AFTER;
                        }
                    }
                }
            }
        }
    }

    fn finish(&mut self, waiting: &[(u64, Instant)]) {
        for (sequence, _) in waiting {
            let mut tries = 0;
            while let Err(failure) = self.seal(*sequence) {
                tries += 1;
                error!(sequence, error = %chain(&failure), "a journal could not be sealed");
                if tries > RETRIES_AT_STOP {
                    warn!("what is left in the journal directory is sealed at the next start");
                    return;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            self.upkeep.after_seal(&mut self.manifest);
        }
    }

    /// Seals one journal; done already is done.
    pub fn seal(&mut self, sequence: u64) -> Result<(), SealError> {
        let began = Instant::now();
        let mut is_damaged = None;
        if sequence > self.manifest.last_sequence() {
            let state = self.state_before(sequence)?;
            let (journal, assembly) = self.read(sequence, state)?;
            let (assembly, closed_ns, ending) = self.complete(sequence, &journal, assembly)?;
            let draft = self.manifest.draft(&origin_of(&journal.header), journal.header.opened_ns)?;
            let (assembled, draft, flows) = write_flows(draft, assembly, sequence, closed_ns, ending)?;
            self.write(&journal.header, draft, &assembled, closed_ns)?;
            info!(
                sequence,
                flows,
                sessions = assembled.sessions.len(),
                devices = assembled.devices.len(),
                ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                "sealed"
            );
            if assembled.reports_left_out > 0 {
                let (reports, sessions_max) = (assembled.reports_left_out, SESSIONS_PER_NAS_MAX);
                warn!(
                    sequence,
                    reports, sessions_max, "a NAS reports too many sessions at once; reports of more were left out"
                );
            }
            if !journal.replayed.damage.is_empty() {
                warn!(sequence, damage = ?journal.replayed.damage, "the journal was damaged; what was whole is sealed");
            }
            is_damaged = Some(!journal.replayed.damage.is_empty());
        }
        put_away(&self.data, &self.keys, sequence, is_damaged)?;
        for older in self.data.list_states().unwrap_or_default().into_iter().filter(|older| *older < sequence) {
            remove(&self.keys, self.data.state(older))?;
        }
        Ok(())
    }

    /// What was left open when the segment before was sealed.
    fn state_before(&self, sequence: u64) -> Result<state::Read, SealError> {
        if sequence == 1 {
            return Ok(state::Read { entries: Vec::new(), is_whole: true });
        }
        Ok(state::read(&self.data.state(sequence - 1), &self.keys)?)
    }

    /// Replays a journal into an assembly that begins with what was open before.
    fn read(&self, sequence: u64, state: state::Read) -> Result<(Journal, Assembly), SealError> {
        let path = self.data.journal(sequence);
        let state_is_whole = state.is_whole;
        let (mut closed, mut last_ns) = (None, 0);
        let (mut open, mut begun, mut failed) = (state.entries, None, None);
        let mut assembly_of = |header: JournalHeader| {
            let state = restored(std::mem::take(&mut open), header.step_ns());
            let fresh = Assembly::new(Params::default(), header.opened_ns, state);
            (fresh.with_vendors(Arc::clone(&self.vendors)), header)
        };
        let replayed = replay_what_is_left(&path, &self.keys, |entry| {
            if begun.is_none() && failed.is_none() {
                let header =
                    if let Entry::Header(found) = &entry { Ok(found.clone()) } else { self.header_instead(sequence) };
                match header {
                    Ok(header) => begun = Some(assembly_of(header)),
                    Err(error) => failed = Some(error),
                }
            }
            if let Entry::Closed { at_ns, shutdown } = entry {
                closed = Some((at_ns, shutdown));
            } else if let Some((assembly, _)) = &mut begun {
                last_ns = last_ns.max(entry.about_ns().unwrap_or(0));
                apply(assembly, entry);
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let begins_with_header = begun.is_some();
        let (assembly, header) = match begun {
            Some(begun) => begun,
            None => assembly_of(self.header_instead(sequence)?),
        };
        let last_ns = if begins_with_header { last_ns } else { last_ns.max(written_ns(&path)) }.max(header.opened_ns);
        Ok((Journal { header, closed, last_ns, replayed, state_is_whole }, assembly))
    }

    /// What stands in for a header that is damaged: the journal follows the segment before, or precedes the journal after it.
    fn header_instead(&self, sequence: u64) -> Result<JournalHeader, SealError> {
        let path = self.data.journal(sequence);
        let mut before = None;
        if self.manifest.last_sequence() > 0 {
            for record in self.manifest.records()? {
                if let Record::Segment(line) = record {
                    before = Some((line.site, line.to_ns));
                }
            }
        }
        let mut after = None;
        let next = self.data.journal(sequence + 1);
        if before.is_none() && next.exists() {
            replay_what_is_left(&next, &self.keys, |entry| {
                if let Entry::Header(header) = entry {
                    after = Some((header.site, header.opened_ns.min(made_ns(&path))));
                }
            })?;
        }
        let (site, opened_ns) = before.or(after).ok_or(SealError::NoHeader { path })?;
        Ok(JournalHeader {
            sequence,
            site,
            gateway: self.manifest.gateway().to_owned(),
            // Nobody knows: then flows that were announced and not read are kept as such.
            boot_id: String::new(),
            opened_ns,
            software: String::new(),
            clock: None,
        })
    }

    /// Adds what the journal itself does not say: its damage, and identities and translations known since.
    fn complete(
        &self,
        sequence: u64,
        journal: &Journal,
        mut assembly: Assembly,
    ) -> Result<(Assembly, WallNs, Ending), SealError> {
        let has_lost_key = self.keys.has_lost(&self.data.journal(sequence));
        for damage in &journal.replayed.damage {
            let why = if has_lost_key {
                format!("journal {sequence} could not be opened: its key is gone, and only its recipients can read it")
            } else {
                format!("journal {sequence} damaged from byte {} to {}", damage.from, damage.to)
            };
            assembly.gap(CoverageRecord::gap("", journal.header.opened_ns, journal.last_ns, &why));
        }
        if !journal.state_is_whole {
            let why = format!(
                "the state before segment {sequence} is damaged: sessions, translations and flows that were open are not all known"
            );
            warn!(sequence, "{why}");
            assembly.gap(CoverageRecord::gap("", journal.header.opened_ns, journal.last_ns, &why));
        }
        let next = self.data.journal(sequence + 1);
        if next.exists() {
            let mut step_ns = 0;
            let mut in_this_clock = |mut entry: Entry| {
                if let Entry::Header(header) = &entry {
                    step_ns = header.step_ns();
                }
                entry.shift(-step_ns);
                entry
            };
            replay_what_is_left(&next, &self.keys, |entry| match in_this_clock(entry) {
                Entry::Session(fact) => assembly.session(fact),
                Entry::Nat(facts) => facts.iter().for_each(|fact| assembly.nat(fact)),
                Entry::NatWatch(fact) => assembly.nat_watch(fact),
                Entry::Devices(batch) => batch.facts.into_iter().for_each(|fact| assembly.later_device(fact)),
                Entry::Leases(facts) => facts.into_iter().for_each(|fact| assembly.later_device(fact)),
                Entry::Header(_)
                | Entry::Interface(_)
                | Entry::Ring(_)
                | Entry::Part(_)
                | Entry::Done(_)
                | Entry::Gap(_)
                | Entry::Sessions(_)
                | Entry::DeviceState(_)
                | Entry::OpenFlows(_)
                | Entry::Closed { .. } => {}
            })?;
        }
        let (ended_ns, ending) = match journal.closed {
            Some((at_ns, true)) => (at_ns, Ending::Shutdown),
            Some((at_ns, false)) => (at_ns, Ending::Rotation),
            None if journal.header.boot_id == self.boot_id => (journal.last_ns, Ending::Rotation),
            None => (journal.last_ns, Ending::PowerLost),
        };
        Ok((assembly, ended_ns, ending))
    }

    fn write(
        &mut self,
        header: &JournalHeader,
        draft: Draft,
        assembled: &Assembled,
        closed_ns: WallNs,
    ) -> Result<(), SealError> {
        state::write(&self.data.state(header.sequence), header, open_of(&assembled.state), &self.keys)?;
        let now = ClockReading::now();
        let sealing = Sealing {
            closed_ns,
            sealed_ns: now.wall_now(),
            clock: Some(upkeep::evidence(&now, &self.boot_id)),
            step_ns: header.step_ns(),
            sessions: &assembled.sessions,
            devices: &assembled.devices,
            coverage: &assembled.coverage,
        };
        self.manifest.seal(draft, &sealing)?;
        Ok(())
    }
}

const ITEMS_PER_ENTRY: usize = 32_768;
/// Reports, some 300 bytes each as JSON.
const REPORTS_PER_ENTRY: usize = 1024;
/// A device with all it may hold is some 16 KiB as JSON.
const DEVICES_PER_ENTRY: usize = 512;

/// What is open, as the next segment needs it.
fn open_of(state: &State) -> impl Iterator<Item = Entry> {
    let interfaces = state
        .interfaces
        .iter()
        .map(|(number, name)| Entry::Interface(InterfaceName { number: *number, name: name.to_string() }));
    let mut reports = state.sessions.each_fact();
    let sessions = std::iter::from_fn(move || {
        let some: Vec<SessionFact> = reports.by_ref().take(REPORTS_PER_ENTRY).cloned().collect();
        (!some.is_empty()).then_some(Entry::Sessions(some))
    });
    let (nat, watch) = state.nat.facts();
    let nat: Vec<Entry> = nat.chunks(ITEMS_PER_ENTRY).map(|facts| Entry::Nat(facts.to_vec())).collect();
    let devices = state.devices.devices();
    let devices: Vec<Entry> =
        devices.chunks(DEVICES_PER_ENTRY).map(|devices| Entry::DeviceState(devices.to_vec())).collect();
    let flows = state.open_flows.chunks(ITEMS_PER_ENTRY).map(|flows| Entry::OpenFlows(flows.to_vec()));
    interfaces.chain(sessions).chain(nat).chain(watch.into_iter().map(Entry::NatWatch)).chain(devices).chain(flows)
}

fn origin_of(header: &JournalHeader) -> Origin {
    Origin { site: header.site.clone(), gateway: header.gateway.clone(), sequence: header.sequence }
}

/// What was open before, in the clock of a journal that is ahead by `step_ns`.
fn restored(open: Vec<Entry>, step_ns: i64) -> State {
    let mut state = State::default();
    for mut entry in open {
        entry.shift(step_ns);
        match entry {
            Entry::Interface(interface) => drop(state.interfaces.insert(interface.number, interface.name.into())),
            Entry::Session(fact) => state.sessions.apply(fact),
            Entry::Sessions(facts) => facts.into_iter().for_each(|fact| state.sessions.apply(fact)),
            Entry::Nat(facts) => facts.iter().for_each(|fact| state.nat.apply(fact)),
            Entry::NatWatch(fact) => state.nat.apply_watch(fact),
            Entry::DeviceState(devices) => devices.into_iter().for_each(|device| state.devices.restore(device)),
            Entry::OpenFlows(flows) => state.open_flows.extend(flows),
            Entry::Header(_)
            | Entry::Ring(_)
            | Entry::Part(_)
            | Entry::Done(_)
            | Entry::Gap(_)
            | Entry::Devices(_)
            | Entry::Leases(_)
            | Entry::Closed { .. } => {}
        }
    }
    state
}

/// Writes the flows as they are decided: they are never all in memory as rows.
fn write_flows(
    mut draft: Draft,
    assembly: Assembly,
    sequence: u64,
    ended_ns: WallNs,
    ending: Ending,
) -> Result<(Assembled, Draft, u64), SealError> {
    let (mut rows, mut written) = (0, Ok(()));
    let assembled = assembly.finish_into(sequence, ended_ns, ending, |row| {
        rows += 1;
        if written.is_ok() {
            written = draft.flow(&row);
        }
    });
    written?;
    Ok((assembled, draft, rows))
}

/// Hands an entry to the assembly.
fn apply(assembly: &mut Assembly, entry: Entry) {
    match entry {
        Entry::Interface(interface) => assembly.interface(interface.number, &interface.name),
        Entry::Ring(batch) => {
            let opened = batch.opened.into_iter().map(|(_, opened)| opened);
            let evicted = batch.evicted.into_iter().map(|(_, delta)| delta);
            let totals = batch.totals.into_iter().map(|(_, total)| total);
            assembly.ring(batch.capture, batch.cpu, batch.end_position, opened, evicted, totals);
        }
        Entry::Part(part) => assembly.part(part.capture, part.generation, part.deltas, part.overflow),
        Entry::Done(done) => assembly.done(done.capture, done.generation, done.coverage),
        Entry::Gap(gap) => assembly.gap(gap),
        Entry::Session(fact) => assembly.session(fact),
        Entry::Nat(facts) => facts.iter().for_each(|fact| assembly.nat(fact)),
        Entry::NatWatch(fact) => assembly.nat_watch(fact),
        Entry::Devices(batch) => assembly.devices(batch.capture, batch.end_position, &batch.facts),
        Entry::Leases(facts) => facts.iter().for_each(|fact| assembly.device(fact)),
        Entry::Header(_) | Entry::Sessions(_) | Entry::DeviceState(_) | Entry::OpenFlows(_) | Entry::Closed { .. } => {}
    }
}

/// An error with its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
