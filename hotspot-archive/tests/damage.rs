//! Journals that were cut or changed: whatever is cut, and whichever byte is changed, what lies before it is read, what is missing is
//! named, and nothing panics.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how long it took is worth knowing")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hotspot_archive::entry::{
    DeviceBatch, Entry, GenerationDone, GenerationPart, InterfaceName, JournalHeader, RingBatch,
};
use hotspot_archive::journal::{JournalError, JournalKeys, JournalWriter, Replayed, Tail, replay, replay_what_is_left};
use hotspot_archive::keys::{Identity, Recipients};
use hotspot_common::FlowKey;
use hotspot_core::MacAddr;
use hotspot_core::device::DeviceTable;
use hotspot_core::fact::{
    DeviceEvent, DeviceFact, DeviceSource, FlowDelta, FlowOpened, IdentitySource, NatEvent, NatFact, NatWatch,
    NatWatchFact, Overflow, SessionEvent, SessionFact,
};
use hotspot_core::merge::OpenFlow;
use hotspot_core::record::CoverageRecord;

/// Bytes of the file's own header.
const FILE_HEADER: usize = 16;

fn header() -> JournalHeader {
    JournalHeader {
        sequence: 1,
        site: "s".into(),
        gateway: "g".into(),
        boot_id: "b".into(),
        opened_ns: 1,
        software: "test".into(),
        clock: None,
    }
}

fn device_fact() -> DeviceFact {
    DeviceFact {
        at_ns: 5,
        client_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        vlan: 0,
        inner_vlan: 0,
        source: DeviceSource::Lease,
        event: DeviceEvent::Leased { ip: [10, 0, 0, 1].into(), lease_s: 600 },
    }
}

fn session() -> SessionFact {
    SessionFact {
        event: SessionEvent::Start,
        source: IdentitySource::Radius,
        session_id: "s1".into(),
        user: Some("alice".into()),
        auth_method: None,
        client_mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        client_ips: Vec::new(),
        client_prefixes: Vec::new(),
        ap_mac: None,
        ssid: None,
        nas: None,
        nas_port: None,
        at_ns: 3,
        started_ns: None,
        received_ns: 3,
        counters: None,
        end_cause: None,
        interim_interval_s: None,
        details: None,
    }
}

/// Commits with at least one entry of every kind; the last has several.
fn commits() -> Vec<Vec<Entry>> {
    let key = FlowKey { client_ip: [7; 16], client_mac: [2, 0, 0, 0, 0, 1], protocol: 6, ..FlowKey::default() };
    let delta = FlowDelta { key, first_ns: 1, last_ns: 2, packets: 3, bytes: 180, tcp_flags: 2 };
    let overflow = Overflow { key, first_ns: 1, last_ns: 2, packets: 3, bytes: 180 };
    let nat = NatFact {
        event: NatEvent::Created,
        at_ns: 3,
        protocol: 6,
        client_ip: [10, 0, 0, 1].into(),
        client_port: 1,
        peer_ip: [203, 0, 113, 1].into(),
        peer_port: 2,
        public_ip: [198, 51, 100, 1].into(),
        public_port: 3,
    };
    let mut devices = DeviceTable::default();
    devices.apply(&device_fact());
    let ring = |end_position| {
        let opened = vec![(1, FlowOpened { key, at_ns: 1 })];
        Entry::Ring(RingBatch {
            capture: 1,
            cpu: 0,
            end_position,
            opened,
            evicted: vec![(1, delta)],
            totals: vec![(1, overflow)],
        })
    };
    let part = |generation| {
        Entry::Part(GenerationPart { capture: 1, generation, deltas: vec![delta; 2], overflow: vec![overflow] })
    };
    let done = |generation| {
        let coverage = vec![CoverageRecord::gap("lan", 1, 2, "")];
        Entry::Done(GenerationDone { capture: 1, generation, coverage, wall_offset_ns: 1, boot_offset_ns: 0 })
    };
    vec![
        vec![Entry::Interface(InterfaceName { number: 1, name: "lan".into() })],
        vec![ring(64)],
        vec![part(1), part(1), done(1)],
        vec![Entry::Gap(CoverageRecord::gap("lan", 1, 2, "asleep")), Entry::Session(session())],
        vec![Entry::Nat(vec![nat; 3])],
        vec![Entry::NatWatch(NatWatchFact { watch: NatWatch::Started, at_ns: 5 })],
        vec![Entry::Devices(DeviceBatch { capture: 1, end_position: 9, facts: vec![device_fact()] })],
        vec![Entry::Leases(vec![device_fact()])],
        vec![Entry::DeviceState(devices.devices())],
        vec![Entry::Sessions(vec![session(); 2])],
        vec![Entry::OpenFlows(vec![OpenFlow { flow_id: 1, key, last_ns: 2, flags_out: 1, flags_in: 2 }])],
        vec![Entry::Closed { at_ns: 9, shutdown: false }],
        vec![ring(128), part(2), done(2)],
    ]
}

/// A journal, where each of its entries ends in it, and the entries.
struct Sample {
    dir: tempfile::TempDir,
    path: PathBuf,
    keys: JournalKeys,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Of each entry, where its commit ends.
    commit_ends: Vec<usize>,
}

fn recipients(encrypts: bool) -> Option<Recipients> {
    encrypts.then(|| Recipients::parse(&[Identity::generate().recipient()], true).unwrap())
}

fn sample(encrypts: bool) -> Sample {
    // In memory where that is possible: each cut is flushed.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let (path, keys) = (dir.path().join("1.journal"), JournalKeys::new(dir.path().join("keys"), recipients(encrypts)));
    let mut writer = JournalWriter::create(&path, &header(), &keys).unwrap();
    let (mut entries, mut commit_ends) = (vec![Entry::Header(header())], vec![usize::try_from(writer.len()).unwrap()]);
    for commit in commits() {
        commit.iter().for_each(|entry| writer.append(entry).unwrap());
        writer.commit().unwrap();
        commit_ends.extend(commit.iter().map(|_| usize::try_from(writer.len()).unwrap()));
        entries.extend(commit);
    }
    drop(writer);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(commit_ends.last(), Some(&bytes.len()));
    Sample { dir, path, keys, bytes, entries, commit_ends }
}

fn read(path: &Path, keys: &JournalKeys) -> (Vec<Entry>, Replayed) {
    let mut entries = Vec::new();
    let replayed = replay(path, keys, |entry| entries.push(entry)).unwrap();
    (entries, replayed)
}

#[test]
fn a_journal_with_every_kind_of_entry_cut_anywhere_is_a_prefix_and_goes_on() {
    for encrypts in [false, true] {
        let Sample { dir: _dir, path, keys, bytes, entries, .. } = sample(encrypts);
        for len in 0..bytes.len() {
            fs::write(&path, &bytes[..len]).unwrap();
            if len < FILE_HEADER {
                assert!(matches!(replay(&path, &keys, |_| {}), Err(JournalError::NotAJournal { .. })), "cut to {len}");
                let left = replay_what_is_left(&path, &keys, |_| {}).unwrap();
                assert_eq!((left.damage[0].from, left.damage[0].to), (0, len as u64));
                continue;
            }
            let (found, replayed) = read(&path, &keys);
            assert_eq!(found, entries[..found.len()], "cut to {len}");
            assert!(replayed.damage.is_empty(), "a cut is a torn tail, not damage");
            let (mut writer, _) = JournalWriter::reopen(&path, &keys, |_| {}).unwrap();
            writer.append(&entries[2]).unwrap();
            writer.commit().unwrap();
            let (again, replayed) = read(&path, &keys);
            assert_eq!(again, [&entries[..found.len()], &entries[2..3]].concat(), "cut to {len}");
            assert!(replayed.damage.is_empty() && matches!(replayed.tail, Tail::Clean { .. }), "cut to {len}");
        }
    }
}

/// Changes each byte to what `values` says of it, and looks what is read then.
fn change_every_byte(encrypts: bool, values: impl Fn(u8) -> Vec<u8>) {
    let Sample { dir: _dir, path, keys, bytes, entries, commit_ends } = sample(encrypts);
    let file = File::options().write(true).open(&path).unwrap();
    let (mut changes, mut slowest) = (0, 0.0_f64);
    for at in 0..bytes.len() {
        for value in values(bytes[at]).into_iter().filter(|value| *value != bytes[at]) {
            file.write_all_at(&[value], at as u64).unwrap();
            let began = Instant::now();
            let (found, replayed) = read(&path, &keys);
            slowest = slowest.max(began.elapsed().as_secs_f64());
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
            changes += 1;
            let context = format!("byte {at} is {value:#04x}, encrypted: {encrypts}, {replayed:?}");
            assert_eq!(replayed.damage.len(), 1, "{context}");
            let damage = replayed.damage[0];
            assert!((damage.from..damage.to).contains(&(at as u64)), "{context}");
            if at < FILE_HEADER {
                assert_eq!(found, entries, "{context}");
                continue;
            }
            // The entry that was hit; of the last commit, which may not have been acknowledged, also those behind it.
            let is_last = commit_ends.iter().find(|end| **end > at) == Some(&bytes.len());
            let first = (0..entries.len()).find(|number| found.get(*number) != entries.get(*number)).unwrap();
            let left = &found[first..];
            if is_last {
                assert_eq!(left, [], "{context}");
            } else {
                assert_eq!(left, &entries[first + 1..], "{context}");
            }
        }
    }
    println!("{changes} changes of a journal of {} bytes, the slowest read in {slowest:.3} s", bytes.len());
}

#[test]
fn every_changed_byte_of_a_journal_is_named_and_costs_one_entry() {
    for encrypts in [false, true] {
        change_every_byte(encrypts, |byte| [0x01, 0x80, 0xff].into_iter().map(|bits| byte ^ bits).chain([0]).collect());
    }
}

#[test]
#[ignore = "a minute; `cargo xtask test soak`"]
fn every_value_of_every_byte_of_a_journal_is_named_and_costs_one_entry() {
    for encrypts in [false, true] {
        change_every_byte(encrypts, |_| (0..=255).collect());
    }
}
