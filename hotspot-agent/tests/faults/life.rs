//! The life of a gateway without its kernel programs: recovering, recording, rotating, sealing, by the code that does so in the agent.
//!
//! What the kernel holds is here a list of numbers: it keeps what was not released, and loses it with the power. Each number is one
//! flow, each report one row of coverage, so that afterwards it can be counted what of them is in the archive.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use hotspot_agent::capture::clock::ClockReading;
use hotspot_agent::cli::UpkeepArguments;
use hotspot_agent::journals::Journals;
use hotspot_agent::recovery::{Found, Left};
use hotspot_agent::sealer::{SealJob, Sealer};
use hotspot_agent::upkeep::Upkeep;
use hotspot_archive::chain::Pins;
use hotspot_archive::entry::{Entry, InterfaceName, JournalHeader, RingBatch};
use hotspot_archive::journal::{JournalKeys, replay_what_is_left};
use hotspot_archive::keys::{Identity, Keyring, Recipients};
use hotspot_archive::layout::DataDir;
use hotspot_archive::manifest::{GatewayKey, Manifest};
use hotspot_archive::pieces::read_chains;
use hotspot_archive::segment::{Records, SegmentReader};
use hotspot_archive::verify::{Trust, verify};
use hotspot_common::FlowKey;
use hotspot_common::control::Control;
use hotspot_core::fact::FlowDelta;
use hotspot_core::record::CoverageRecord;
use hotspot_core::vendor::VendorTable;

use crate::tap;

/// 2026-11-23T00:00:00Z.
const BEGAN_NS: i64 = 1_795_392_000_000_000_000;

/// More than any fault has calls.
const ATTEMPTS_MAX: usize = 100;

/// Something that was to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    boot: u64,
    /// Its source was told that it is recorded.
    pub is_acknowledged: bool,
    /// Its source was told that it is not.
    is_refused: bool,
}

/// What was asked of a gateway, and what it said, over all its lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub items: Vec<Item>,
    /// By number of the item; what the kernel still holds.
    unreleased: Vec<usize>,
    boot: u64,
    /// The agent was killed since something was refused: it may be in the journal all the same.
    pub(crate) was_killed: bool,
    /// Reports were refused, and the agent lived on until it could record again.
    pub(crate) gap_is_due: bool,
}

/// For whom archives are encrypted, if they are.
pub(crate) struct Secrets {
    recipients: Option<Recipients>,
    keyring: Keyring,
}

impl Secrets {
    pub(crate) fn new(encrypts: bool) -> Self {
        let identities = if encrypts { vec![Identity::generate(), Identity::generate()] } else { Vec::new() };
        let texts: Vec<String> = identities.iter().map(Identity::recipient).collect();
        let recipients = encrypts.then(|| Recipients::parse(&texts, false).unwrap());
        Self { recipients, keyring: Keyring::of(identities) }
    }
}

/// A running agent.
pub(crate) struct Gateway {
    asked: Asked,
    running: Running,
    closed: Vec<u64>,
}

struct Running {
    journals: Journals,
    sealer: Sealer,
    jobs: Receiver<SealJob>,
}

fn names() -> Vec<Entry> {
    vec![Entry::Interface(InterfaceName { number: 1, name: "lan".into() })]
}

fn flow(number: usize, capture: u64) -> Entry {
    let [.., a, b, c] = number.to_be_bytes();
    let mut client_ip = [0; 16];
    client_ip[10..].copy_from_slice(&[0xff, 0xff, 10, a, b, c]);
    let key = FlowKey { client_ip, client_mac: [2, 0, 0, a, b, c], protocol: 17, origin: 1, ..FlowKey::default() };
    let at_ns = BEGAN_NS + i64::try_from(number).unwrap();
    let delta = FlowDelta { key, first_ns: at_ns, last_ns: at_ns, packets: 1, bytes: 60, tcp_flags: 0 };
    Entry::Ring(RingBatch {
        capture,
        cpu: 0,
        end_position: number as u64 + 1,
        opened: Vec::new(),
        evicted: vec![(1, delta)],
        totals: Vec::new(),
    })
}

fn report(number: usize) -> Entry {
    Entry::Gap(CoverageRecord::gap("", BEGAN_NS, BEGAN_NS + 1, &format!("report {number}")))
}

/// Starts an agent, as `run` does. Also hands back the journals that wait to be sealed, and up to where the kernel's ring is recorded.
fn begin(root: &Path, secrets: &Secrets, boot: u64) -> Result<(Running, Vec<u64>, usize), String> {
    let text = |error: &dyn std::error::Error| hotspot_agent::sealer::chain(error);
    let data = DataDir(root.to_path_buf());
    data.create().map_err(|error| text(&error))?;
    let keys = JournalKeys::new(data.journal_keys(), secrets.recipients.clone());
    keys.forget_orphans(&[data.journals(), data.states()]).map_err(|error| text(&error))?;
    let key = GatewayKey::open(&data.signing_key()).map_err(|error| text(&error))?;
    let manifest = Manifest::open(&data.archive(), "g", key).map_err(|error| text(&error))?;
    let manifest = manifest.encrypted_for(secrets.recipients.clone());
    let boot_id = format!("boot {boot}");
    let control = Control { capture: boot, ..Control::default() };
    let left = Left::read(&data, &keys, manifest.last_sequence(), Found::of(&control), Vec::new());
    let mut left = left.map_err(|error| text(&error))?;
    let header = |sequence| JournalHeader {
        sequence,
        site: "s".into(),
        gateway: "g".into(),
        boot_id: boot_id.clone(),
        opened_ns: BEGAN_NS,
        software: "test".into(),
        clock: None,
    };
    let (mut journal, header) = left.go_on(&data, &keys, &boot_id, header).map_err(|error| text(&error))?;
    names().iter().try_for_each(|entry| journal.append(entry)).map_err(|error| text(&error))?;
    journal.commit().map_err(|error| text(&error))?;
    let recorded = left.found.positions.first().map_or(0, |(_, position)| usize::try_from(*position).unwrap());
    let (sender, jobs) = channel();
    let upkeep = Upkeep::new(&UpkeepArguments::default(), boot_id.clone());
    let vendors = Arc::new(VendorTable::default());
    let sealer = Sealer::new(data.clone(), keys.clone(), manifest, boot_id, Duration::ZERO, upkeep, vendors);
    let journals = Journals::new(journal, header, data, keys, sender);
    Ok((Running { journals, sealer, jobs }, left.waiting, recorded))
}

impl Gateway {
    /// Starts an agent, again and again while it fails.
    pub(crate) fn start(root: &Path, secrets: &Secrets, mut asked: Asked) -> Self {
        let mut failures = Vec::new();
        let (running, closed, recorded) = loop {
            match begin(root, secrets, asked.boot) {
                Ok(begun) => break begun,
                Err(failure) => failures.push(failure),
            }
            asked.was_killed = true;
            assert!(failures.len() < ATTEMPTS_MAX, "it never starts: {failures:?}");
        };
        // What the journal holds is skipped in the kernel.
        for number in asked.unreleased.extract_if(.., |number| *number < recorded) {
            asked.items[number].is_acknowledged = true;
            tap::note(number);
        }
        let again = std::mem::take(&mut asked.unreleased);
        let mut gateway = Self { asked, running, closed };
        gateway.read_ring(again);
        gateway
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) -> Asked {
        self.asked.was_killed = true;
        self.asked
    }

    /// Reads what is in the ring and flushes it, as a tick of the carrier does.
    fn read_ring(&mut self, numbers: Vec<usize>) {
        let capture = self.asked.boot;
        self.running.journals.append(numbers.iter().map(|number| flow(*number, capture))).unwrap();
        self.asked.unreleased.extend(numbers);
        let _ = self.running.journals.write(&[]).unwrap();
        self.release();
    }

    /// What is on disk by now is released.
    fn release(&mut self) {
        if !self.running.journals.is_failing() {
            for number in self.asked.unreleased.drain(..) {
                self.asked.items[number].is_acknowledged = true;
                tap::note(number);
            }
        }
    }

    fn item(&mut self) -> usize {
        self.asked.items.push(Item { boot: self.asked.boot, is_acknowledged: false, is_refused: false });
        self.asked.items.len() - 1
    }

    /// The kernel hands over flows. While the journal fails nothing is read from it.
    pub(crate) fn flows(&mut self, count: usize) {
        self.tick();
        if !self.running.journals.is_failing() {
            let numbers = (0..count).map(|_| self.item()).collect();
            self.read_ring(numbers);
        }
    }

    /// A source reports, and is told what became of it.
    pub(crate) fn report(&mut self) {
        self.tick();
        let number = self.item();
        let mark = self.running.journals.mark();
        if self.running.journals.write(&[report(number)]).unwrap().is_ok() {
            self.asked.items[number].is_acknowledged = true;
            tap::note(number);
            self.release();
        } else {
            self.running.journals.withdraw(mark);
            self.asked.items[number].is_refused = true;
        }
    }

    pub(crate) fn tick(&mut self) {
        let was_failing = self.running.journals.is_failing();
        self.running.journals.try_next(names()).unwrap();
        self.asked.gap_is_due |= was_failing && !self.running.journals.is_failing();
        self.release();
        while let Ok(SealJob::Closed { sequence }) = self.running.jobs.try_recv() {
            self.closed.push(sequence);
        }
    }

    pub(crate) fn rotate(&mut self) {
        self.tick();
        if !self.running.journals.is_failing() {
            assert!(self.running.journals.close(&[], None).unwrap());
            self.running.journals.open_next(names()).unwrap();
        }
        self.tick();
    }

    /// Seals what is closed, as far as that can be done now.
    pub(crate) fn seal(&mut self) -> Result<(), String> {
        self.tick();
        while let Some(sequence) = self.closed.first() {
            self.running.sealer.seal(*sequence).map_err(|error| hotspot_agent::sealer::chain(&error))?;
            self.closed.remove(0);
        }
        Ok(())
    }

    /// Ends in order, once nothing fails any more.
    pub(crate) fn stop(mut self) -> Asked {
        let mut is_closed = false;
        for _ in 0..ATTEMPTS_MAX {
            self.tick();
            if !is_closed && !self.running.journals.is_failing() {
                assert!(self.running.journals.close(&[], Some(ClockReading::now().wall_now())).unwrap());
                is_closed = !self.running.journals.is_failing();
            }
            if is_closed && self.seal().is_ok() {
                return self.asked;
            }
        }
        panic!("work does not resume although the fault has ended: {:?}", self.seal());
    }
}

impl Asked {
    /// The machine goes down: what the kernel held is gone.
    pub(crate) fn lose_power(&mut self) {
        self.boot += 1;
        self.unreleased.clear();
    }

    /// What was known by a number of notes.
    pub(crate) fn as_of(&self, noted: &[usize]) -> Self {
        let mut asked = self.clone();
        asked.items.iter_mut().for_each(|item| item.is_acknowledged = false);
        noted.iter().for_each(|number| asked.items[*number].is_acknowledged = true);
        asked
    }

    /// Compares with what is in the archive and in journals that are not sealed yet. `Err` says what is wrong.
    pub(crate) fn check_unsealed(&self, root: &Path, secrets: &Secrets) -> Result<(), String> {
        let data = DataDir(root.to_path_buf());
        let mut found = BTreeMap::new();
        let sealed = if data.archive().join("manifest/g.jsonl").exists() {
            count_sealed(&data.archive(), &secrets.keyring, &mut found, &mut Vec::new())?
        } else {
            0
        };
        let keys = JournalKeys::new(data.journal_keys(), None);
        for sequence in data.list_journals().unwrap().into_iter().filter(|sequence| *sequence > sealed) {
            let mut is_closed = false;
            replay_what_is_left(&data.journal(sequence), &keys, |entry| {
                assert!(!is_closed, "{entry:?} follows the end of journal {sequence}");
                is_closed = matches!(entry, Entry::Closed { .. });
                count(&entry, &mut found);
            })
            .map_err(|error| error.to_string())?;
        }
        self.judge(&found, true)
    }

    /// Compares with what is in the archive, where all is sealed. `Err` says what is wrong.
    pub(crate) fn check(&self, root: &Path, secrets: &Secrets, lost_power: bool) -> Result<Vec<String>, String> {
        let archive = root.join("archive");
        let keyring = &secrets.keyring;
        let trust = Trust { keyring: Some(keyring), ..Trust::default() };
        let report = verify(&archive, &trust, |_| {}).map_err(|error| error.to_string())?;
        if !report.is_whole() {
            return Err(format!("{:?}", report.findings));
        }
        let (mut found, mut gaps) = (BTreeMap::new(), Vec::new());
        count_sealed(&archive, keyring, &mut found, &mut gaps)?;
        self.judge(&found, lost_power)?;
        Ok(gaps)
    }

    fn judge(&self, found: &BTreeMap<usize, u64>, lost_power: bool) -> Result<(), String> {
        let mut ended = None;
        for (number, item) in self.items.iter().enumerate() {
            let times = found.get(&number).copied().unwrap_or(0);
            let (min, max) = match (item.is_acknowledged, item.is_refused) {
                (true, _) => (1, 1),
                (false, true) => (0, u64::from(lost_power || self.was_killed)),
                // Of the kernel's nothing is lost but with the power.
                (false, false) => (u64::from(!lost_power), 1),
            };
            if !(min..=max).contains(&times) {
                return Err(format!("{number}, {item:?}, is there {times} times, not {min} to {max}"));
            }
            if item.is_refused {
                continue;
            }
            // In each boot what is there ends somewhere, and nothing comes after it.
            match ended {
                Some((before, boot)) if boot == item.boot && times > 0 => {
                    return Err(format!("{number} is there, and {before}, before it, is not"));
                }
                Some((_, boot)) if boot == item.boot => {}
                Some(_) | None => ended = (times == 0).then_some((number, item.boot)),
            }
        }
        found
            .keys()
            .find(|number| **number >= self.items.len())
            .map_or(Ok(()), |number| Err(format!("{number} never was")))
    }
}

/// How often each number is there, in a journal.
fn count(entry: &Entry, found: &mut BTreeMap<usize, u64>) {
    if let Entry::Ring(batch) = entry {
        *found.entry(usize::try_from(batch.end_position).unwrap() - 1).or_default() += 1;
    } else if let Entry::Gap(CoverageRecord { gap: Some(gap), .. }) = entry
        && let Some(number) = gap.strip_prefix("report ")
    {
        *found.entry(number.parse().unwrap()).or_default() += 1;
    }
}

/// The same in the archive, with all other gaps. Says which sequence is the last.
fn count_sealed(
    archive: &Path,
    keyring: &Keyring,
    found: &mut BTreeMap<usize, u64>,
    gaps: &mut Vec<String>,
) -> Result<u64, String> {
    let mut last = 0;
    let chains = read_chains(archive, &Pins::default(), None).map_err(|error| error.to_string())?;
    for line in chains.segments() {
        last = line.sequence;
        for file in line.files.iter().filter(|file| matches!(file.class.as_str(), "flows" | "coverage")) {
            let reader = SegmentReader::open(&archive.join(&file.path), keyring).map_err(|error| error.to_string())?;
            for records in reader.read() {
                match records.map_err(|error| error.to_string())? {
                    Records::Flows(rows) => rows.iter().for_each(|row| {
                        let IpAddr::V4(ip) = row.client_ip else { panic!("{row:?}") };
                        let [_, a, b, c] = ip.octets();
                        *found.entry(u32::from_be_bytes([0, a, b, c]) as usize).or_default() += row.packets_out;
                    }),
                    Records::Coverage(rows) => {
                        for gap in rows.into_iter().filter_map(|row| row.gap) {
                            match gap.strip_prefix("report ") {
                                Some(number) => *found.entry(number.parse().unwrap()).or_default() += 1,
                                None => gaps.push(gap),
                            }
                        }
                    }
                    Records::Sessions(_) | Records::Devices(_) => {}
                }
            }
        }
    }
    Ok(last)
}
