//! What an earlier agent left in the journals, and going on from there.
//!
//! Makes what it reads durable before anything is concluded from it: an agent that was killed may have left frames that are read and
//! yet not on disk. Damage costs what it covers and nothing else; it never keeps an agent from recording.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use hotspot_archive::entry::{Entry, JournalHeader};
use hotspot_archive::journal::{JournalError, JournalKeys, JournalWriter, flush, replay_what_is_left};
use hotspot_archive::layout::DataDir;
use hotspot_archive::manifest::LastSequence;
use hotspot_common::control::Control;
use hotspot_core::WallNs;
use hotspot_core::detail::Detail;
use hotspot_core::fact::{IdentitySource, SessionFact};
use tracing::{info, warn};

use crate::capture::clock::ClockReading;
use crate::capture::{Evictions, note_eviction, note_total};
use crate::sealer::put_away;

/// Notes the NAS of a report, and that it is known since then.
pub(crate) fn note_nas(known: &mut HashMap<String, WallNs>, fact: &SessionFact) {
    let Some(nas) = fact.nas.as_ref().filter(|_| fact.source == IdentitySource::Radius) else { return };
    if let Some(since_ns) = known.get_mut(nas) {
        *since_ns = fact.received_ns.min(*since_ns);
    } else {
        known.insert(nas.clone(), fact.received_ns);
    }
}

/// Why nothing can be concluded from the journals.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("the data directory {} cannot be used", path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What the journals of an earlier agent hold.
#[derive(Default)]
pub struct Found {
    /// The life of the kernel's maps it is about.
    capture: u64,
    pub positions: Vec<(u32, u64)>,
    /// In the ring of notices.
    pub notices: u64,
    pub evictions: Vec<Evictions>,
    pub drained: u64,
    pub last_ns: i64,
    /// Flows that clients have in detail in journals that are not sealed.
    pub detail: Detail,
    /// Until when the last journal says something, or was closed; 0 where nothing was recorded.
    pub until_ns: WallNs,
    /// NAS that reported, and since when.
    pub nas: HashMap<String, WallNs>,
    /// Of the boot in which the last of it was written.
    pub boot_id: String,
    /// Of the last journal, while that is not closed.
    open: Option<JournalHeader>,
    /// Where the wall clock was, from `CLOCK_BOOTTIME`.
    pub boot_to_wall_ns: Option<i64>,
}

impl Found {
    /// Nothing yet beside what the kernel's maps say.
    #[must_use]
    pub fn of(control: &Control) -> Self {
        Self { capture: control.capture, drained: control.drained, ..Self::default() }
    }

    fn recall<'a>(&mut self, keys: impl Iterator<Item = &'a hotspot_common::FlowKey>) {
        let now_ns = ClockReading::now().monotonic_ns;
        keys.for_each(|key| self.detail.recall(key, now_ns));
    }

    /// Where all journals are sealed, the last line of the chain says when the last ended, and by which clock.
    pub fn learn_of_sealed(&mut self, last: Option<&LastSequence>) {
        let Some(last) = last.filter(|_| self.until_ns == 0) else { return };
        (self.last_ns, self.until_ns) = (last.to_ns, last.to_ns);
        if let Some(clock) = &last.clock {
            self.boot_id.clone_from(&clock.boot);
            self.boot_to_wall_ns = Some(last.sealed_ns.saturating_sub(clock.boottime_ns));
        }
    }

    fn learn(&mut self, entry: &Entry) {
        let capture = self.capture;
        if matches!(entry, Entry::Header(_) | Entry::Closed { .. }) {
            // A journal may be by another clock than the one before, and is over when it says so.
            self.until_ns = 0;
        }
        self.until_ns = self.until_ns.max(entry.about_ns().unwrap_or(0));
        match entry {
            Entry::Header(header) => {
                self.last_ns = self.last_ns.max(header.opened_ns);
                self.boot_to_wall_ns = header.clock.map(|clock| clock.boot_to_wall_ns);
                self.boot_id.clone_from(&header.boot_id);
                self.open = Some(header.clone());
                self.detail.segment(header.sequence);
            }
            Entry::Ring(batch) if batch.capture == capture => {
                self.positions.retain(|(cpu, _)| *cpu != batch.cpu);
                self.positions.push((batch.cpu, batch.end_position));
                for (generation, delta) in &batch.evicted {
                    note_eviction(&mut self.evictions, low32(*generation), delta);
                }
                for (generation, total) in &batch.totals {
                    note_total(&mut self.evictions, low32(*generation), total);
                }
                let opened = batch.opened.iter().map(|(_, opened)| &opened.key);
                self.recall(opened.chain(batch.evicted.iter().map(|(_, delta)| &delta.key)));
            }
            Entry::Part(part) if part.capture == capture => self.recall(part.deltas.iter().map(|delta| &delta.key)),
            Entry::Session(fact) => note_nas(&mut self.nas, fact),
            Entry::Devices(batch) if batch.capture == capture => self.notices = batch.end_position,
            Entry::Done(done) if done.capture == capture => {
                self.drained = self.drained.max(done.generation);
                self.evictions.retain(|evicted| u64::from(evicted.generation) != done.generation & u64::from(u32::MAX));
                self.last_ns = done.coverage.iter().map(|row| row.to_ns).max().unwrap_or(self.last_ns);
                self.boot_to_wall_ns = Some(done.wall_offset_ns - done.boot_offset_ns);
            }
            Entry::Closed { at_ns, .. } => {
                self.open = None;
                self.last_ns = *at_ns;
            }
            Entry::Ring(_)
            | Entry::Done(_)
            | Entry::Part(_)
            | Entry::Interface(_)
            | Entry::Gap(_)
            | Entry::Nat(_)
            | Entry::NatWatch(_)
            | Entry::Devices(_)
            | Entry::Leases(_)
            | Entry::Sessions(_)
            | Entry::DeviceState(_)
            | Entry::OpenFlows(_) => {}
        }
    }
}

fn low32(generation: u64) -> u32 {
    u32::try_from(generation & u64::from(u32::MAX)).unwrap_or(0)
}

/// The journals an earlier agent left.
pub struct Left {
    /// Those that are not sealed, in order.
    pub waiting: Vec<u64>,
    /// The last sequence that is taken, 0 for none.
    last: u64,
    pub found: Found,
    pub earlier: Vec<Found>,
}

impl Left {
    /// Reads what is not sealed, and removes what is and a crash left.
    pub fn read(
        data: &DataDir,
        keys: &JournalKeys,
        sealed: u64,
        mut found: Found,
        mut earlier: Vec<Found>,
    ) -> Result<Self, RecoveryError> {
        let unusable = |source| RecoveryError::DataDir { path: data.journals(), source };
        let mut waiting: Vec<u64> = data.list_journals().map_err(unusable)?;
        for sequence in waiting.extract_if(.., |sequence| *sequence <= sealed) {
            if let Err(error) = put_away(data, keys, sequence, None) {
                // The next start tries again; nobody reads it.
                warn!(error = %crate::sealer::chain(&error), "a journal that is sealed stays");
            }
        }
        for sequence in &waiting {
            let path = data.journal(*sequence);
            flush(&path)?;
            found.open = None;
            let replayed = replay_what_is_left(&path, keys, |entry| {
                found.learn(&entry);
                earlier.iter_mut().for_each(|found| found.learn(&entry));
            })?;
            if keys.has_lost(&path) {
                warn!(
                    sequence,
                    "the key of a journal is gone, so nothing of it can be sealed; it is kept for its recipients: `hotspot decode --identity`"
                );
            }
            if let Some(last) = replayed.damage.last() {
                warn!(sequence, damage = ?replayed.damage, "a journal is damaged; what is whole counts");
                if last.to == replayed.tail.end() {
                    // What follows would make a commit that was torn look like one that was acknowledged.
                    found.open = None;
                }
            }
        }
        let last = waiting.last().copied().unwrap_or(sealed);
        Ok(Self { waiting, last, found, earlier })
    }

    /// The journal to go on with: the last, where it was left open in this boot, or a new one.
    pub fn go_on(
        &mut self,
        data: &DataDir,
        keys: &JournalKeys,
        boot_id: &str,
        begin: impl FnOnce(u64) -> JournalHeader,
    ) -> Result<(JournalWriter, JournalHeader), RecoveryError> {
        if let Some(header) = self.found.open.take_if(|open| open.boot_id == boot_id && open.sequence == self.last) {
            let (journal, replayed) = JournalWriter::reopen(&data.journal(self.last), keys, |_| {})?;
            self.waiting.pop();
            info!(sequence = self.last, entries = replayed.entries, tail = ?replayed.tail, "went on with an open journal");
            return Ok((journal, header));
        }
        let header = begin(self.last + 1);
        Ok((JournalWriter::create(&data.journal(header.sequence), &header, keys)?, header))
    }
}
