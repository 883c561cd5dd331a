//! A sealed archive as others meet it: a thief who searches its bytes, and readers that are not ours.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use hotspot_archive::chain::Pins;
use hotspot_archive::entry::{Entry, JournalHeader};
use hotspot_archive::journal::{JournalKeys, JournalWriter};
use hotspot_archive::keys::{Identity, Keyring, Recipients, sidecar_path};
use hotspot_archive::manifest::{GatewayKey, Manifest, Sealing};
use hotspot_archive::pieces::read_chains;
use hotspot_archive::segment::{Origin, SegmentReader};
use hotspot_archive::state;
use hotspot_archive::verify::{Trust, verify};
use hotspot_core::MacAddr;
use hotspot_core::fact::{FlowDelta, IdentitySource};
use hotspot_core::record::{
    Attribution, CoverageRecord, EndReason, FlowRecord, Identity as Who, NatState, PublicEndpoint, SessionRecord,
    SessionStatus,
};

const FLOWS: u64 = 4000;

/// A value for each row that occurs nowhere else.
fn mac(row: u64) -> MacAddr {
    let bytes = (0x02_5e_a7_00_00_00 + row * 7919).to_be_bytes();
    MacAddr(bytes[2..].try_into().unwrap())
}

fn user(row: u64) -> String {
    format!("0912{:06}", row * 37 % 1_000_000)
}

fn hostname(row: u64) -> String {
    format!("phone-of-{row:05}")
}

fn client_ip(row: u64) -> IpAddr {
    if row.is_multiple_of(2) {
        let [_, _, _, _, _, _, high, low] = row.to_be_bytes();
        [10, 213, high, low].into()
    } else {
        format!("2001:db8:77::{row:x}").parse().unwrap()
    }
}

fn peer_ip(row: u64) -> IpAddr {
    let [_, _, _, _, _, _, high, low] = row.to_be_bytes();
    [198, 19, high, low].into()
}

fn flow(row: u64) -> FlowRecord {
    FlowRecord {
        flow_id: 1 << 32 | row,
        start_ns: 1_795_392_000_123_456_000 + i64::try_from(row).unwrap() * 1_000_000,
        end_ns: 1_795_392_001_123_456_000 + i64::try_from(row).unwrap() * 1_000_000,
        interface: "lan".into(),
        vlan: None,
        inner_vlan: None,
        client_mac: mac(row),
        client_ip: client_ip(row),
        client_port: Some(40_000),
        public: Some(PublicEndpoint { ip: [203, 0, 113, 7].into(), port: Some(45_678) }),
        nat: Some(NatState::Exact),
        peer_ip: Some(peer_ip(row)),
        peer_port: Some(443),
        protocol: Some(6),
        icmp_type: None,
        icmp_code: None,
        packets_out: 1,
        bytes_out: row,
        packets_in: 1,
        bytes_in: 1500,
        tcp_flags_out: Some(0x1b),
        tcp_flags_in: None,
        end_reason: EndReason::EndOfFlow,
        attribution: Attribution::Authenticated,
        identity: Some(Arc::new(Who {
            users: vec![user(row)],
            session_ids: vec![format!("nas-{row:05}")],
            auth_method: None,
            source: IdentitySource::Radius,
            ap_mac: None,
            ssid: Some("Café".into()),
            nas: None,
        })),
        hostname: Some(hostname(row).into()),
        device_vendor: None,
    }
}

fn session(row: u64) -> SessionRecord {
    SessionRecord {
        session_id: format!("nas-{row:05}"),
        user: Some(user(row)),
        auth_method: None,
        source: IdentitySource::Radius,
        client_mac: Some(mac(row)),
        client_ips: vec![client_ip(row)],
        client_prefixes: Vec::new(),
        details: None,
        ap_mac: None,
        ssid: None,
        nas: None,
        nas_port: None,
        started_ns: 1_795_392_000_000_000_000,
        ended_ns: None,
        end_cause: None,
        counters: None,
        status: SessionStatus::Active,
    }
}

/// Seals markers, with an open journal and a state beside the archive.
fn data_dir(dir: &Path, recipients: Option<&Recipients>) -> Manifest {
    let key = GatewayKey::open(&dir.join("keys/signing.key")).unwrap();
    let mut manifest = Manifest::open(&dir.join("archive"), "g", key).unwrap().encrypted_for(recipients.cloned());
    let flows: Vec<_> = (0..FLOWS).map(flow).collect();
    let sessions: Vec<_> = (0..FLOWS).map(session).collect();
    let coverage = [CoverageRecord { interface: "lan".into(), generation: 1, ..CoverageRecord::default() }];
    seal(&mut manifest, 1, &flows, &sessions, &coverage);
    let keys = JournalKeys::new(dir.join("keys/journal"), recipients.cloned());
    let header = JournalHeader {
        sequence: 2,
        site: "s".into(),
        gateway: "g".into(),
        boot_id: "b".into(),
        opened_ns: 1,
        software: "t".into(),
        clock: None,
    };
    let mut journal = JournalWriter::create(&dir.join("2.journal"), &header, &keys).unwrap();
    let entries: Vec<Entry> = (0..FLOWS).map(journal_entry).collect();
    entries.iter().for_each(|entry| journal.append(entry).unwrap());
    journal.commit().unwrap();
    state::write(&dir.join("1.state"), &header, entries, &keys).unwrap();
    manifest
}

fn seal(
    manifest: &mut Manifest,
    sequence: u64,
    flows: &[FlowRecord],
    sessions: &[SessionRecord],
    coverage: &[CoverageRecord],
) {
    let origin = Origin { site: "s".into(), gateway: "g".into(), sequence };
    let mut draft = manifest.draft(&origin, 1_795_392_000_000_000_000).unwrap();
    flows.iter().for_each(|row| draft.flow(row).unwrap());
    let sealing = Sealing {
        closed_ns: 1_795_392_300_000_000_000,
        sealed_ns: 1_795_392_310_000_000_000,
        clock: None,
        step_ns: 0,
        sessions,
        devices: &[],
        coverage,
    };
    manifest.seal(draft, &sealing).unwrap();
}

/// One marker in each frame, so that compression hides none.
fn journal_entry(row: u64) -> Entry {
    let mut key = hotspot_common::FlowKey { client_mac: mac(row).0, ..hotspot_common::FlowKey::default() };
    if let IpAddr::V6(ip) = client_ip(row) {
        key.client_ip = ip.octets();
    }
    let delta = FlowDelta { key, first_ns: 1, last_ns: 2, packets: 1, bytes: 1, tcp_flags: 0 };
    Entry::Part(hotspot_archive::entry::GenerationPart {
        capture: 1,
        generation: 1,
        deltas: vec![delta],
        overflow: Vec::new(),
    })
}

/// What must not be found: values as text and as bytes, and their hashes as a Bloom filter's bits are derived from.
fn markers() -> HashSet<Vec<u8>> {
    let mut markers = HashSet::new();
    for row in 0..FLOWS {
        let mut texts = vec![user(row), hostname(row), mac(row).to_string(), client_ip(row).to_string()];
        texts.push(peer_ip(row).to_string());
        for text in texts {
            let hash = xxhash_rust::xxh64::xxh64(text.as_bytes(), 0);
            markers.extend([hash.to_le_bytes().to_vec(), hash.to_be_bytes().to_vec()]);
            markers.insert(text.into_bytes());
        }
        markers.insert(mac(row).0.to_vec());
        if let IpAddr::V6(ip) = client_ip(row) {
            markers.insert(ip.octets().to_vec());
        }
    }
    markers
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Markers in the files of a directory, per file.
fn leaks(dir: &Path) -> Vec<(PathBuf, usize)> {
    let markers = markers();
    let lengths: HashSet<usize> = markers.iter().map(Vec::len).collect();
    let mut paths = Vec::new();
    files(dir, &mut paths);
    let mut leaks = Vec::new();
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        let found = lengths.iter().map(|len| bytes.windows(*len).filter(|window| markers.contains(*window)).count());
        let found: usize = found.sum();
        if found > 0 {
            leaks.push((path, found));
        }
    }
    leaks
}

fn two() -> (Identity, Identity, Recipients) {
    let (first, second) = (Identity::generate(), Identity::generate());
    let recipients = Recipients::parse(&[first.recipient(), second.recipient()], false).unwrap();
    (first, second, recipients)
}

#[test]
fn no_marker_nor_its_hash_is_in_anything_that_is_written_encrypted() {
    let dir = tempfile::tempdir().unwrap();
    drop(data_dir(dir.path(), Some(&two().2)));
    assert!(markers().len() > 40_000);
    assert_eq!(leaks(dir.path()), []);
    // The same without encryption: or the search above would find nothing anyway.
    let plain = tempfile::tempdir().unwrap();
    drop(data_dir(plain.path(), None));
    let leaks = leaks(plain.path());
    for kind in ["flows", "index", "sessions", "2.journal", "1.state"] {
        assert!(leaks.iter().any(|(path, _)| path.display().to_string().contains(kind)), "{kind}: {leaks:?}");
    }
}

#[test]
fn a_write_that_fails_leaves_nothing_readable_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, recipients) = two();
    let path = dir.path().join("x.parquet");
    let key = recipients.fresh_key(&path).unwrap();
    let rows: Vec<_> = (0..FLOWS).map(flow).collect();
    let origin = Origin { site: "s".into(), gateway: "g".into(), sequence: 1 };
    // A directory in the place of the name: everything is written, and the name cannot be given.
    std::fs::create_dir(&path).unwrap();
    assert!(hotspot_archive::segment::write_flows(&path, &origin, Some(&key), &rows).is_err());
    assert!(!dir.path().join("x.parquet.tmp").exists(), "the temporary file is removed");
    assert_eq!(leaks(dir.path()), []);
}

#[test]
fn one_lost_key_of_two_loses_nothing_and_a_new_one_can_take_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (lost, left, recipients) = two();
    drop(data_dir(dir.path(), Some(&recipients)));
    drop(lost);
    let archive = dir.path().join("archive");
    let keyring = Keyring::of(vec![left]);
    let trust = Trust { keyring: Some(&keyring), ..Trust::default() };
    let report = verify(&archive, &trust, |_| {}).unwrap();
    assert_eq!((report.findings.as_slice(), report.keys), ([].as_slice(), 3));
    let fresh = Identity::generate();
    let only = Recipients::parse(&[fresh.recipient()], true).unwrap();
    for line in read_chains(&archive, &Pins::default(), None).unwrap().segments() {
        // The index is under the key of its flows.
        for file in line.files.iter().filter(|file| file.key.is_some() && file.path.ends_with(".parquet")) {
            let path = archive.join(&file.path);
            let key = keyring.data_key(&path).unwrap();
            assert_eq!(Some(key.commitment()), file.key);
            only.wrap_to(&key, &hotspot_archive::keys::added_sidecar_path(&path, &fresh.recipient())).unwrap();
        }
    }
    let fresh = Keyring::of(vec![fresh]);
    for line in read_chains(&archive, &Pins::default(), None).unwrap().segments() {
        for file in line.files.iter().filter(|file| file.path.ends_with(".parquet")) {
            let reader = SegmentReader::open(&archive.join(&file.path), &fresh).unwrap();
            assert_eq!(reader.origin().sequence, line.sequence);
        }
    }
    assert_eq!(verify(&archive, &Trust::default(), |_| {}).unwrap().findings, []);
    let flows = archive.join("flows/site=s/date=2026-11-23/g-0000000001.parquet");
    // Somebody puts another key into the place of an added one.
    let added = hotspot_archive::keys::added_sidecar_path(&flows, &fresh.recipients().next().unwrap());
    only.wrap_to(&hotspot_archive::keys::DataKey::generate().unwrap(), &added).unwrap();
    let trust = Trust { keyring: Some(&fresh), ..Trust::default() };
    let report = verify(&archive, &trust, |_| {}).unwrap();
    assert!(report.findings[0].what.contains("another key"), "{:?}", report.findings);
    assert!(sidecar_path(&flows).exists());
}

fn python(script: &str, arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join("target/venv/bin/python");
    let output = Command::new(&python).arg(root.join("tests/python").join(script)).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", python.display()))
}

#[test]
fn pyarrow_reads_a_sealed_segment_with_its_unwrapped_key() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _, recipients) = two();
    drop(data_dir(dir.path(), Some(&recipients)));
    let flows = dir.path().join("archive/flows/site=s/date=2026-11-23/g-0000000001.parquet");
    let key = Keyring::of(vec![first]).data_key(&flows).unwrap();
    let hex = key.expose().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let output = python("read_encrypted.py", &[&flows.display().to_string(), &hex]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut users: Vec<String> = (0..FLOWS).map(user).collect();
    users.sort();
    let expected = serde_json::json!([FLOWS, users, FLOWS * (FLOWS - 1) / 2]);
    assert!(read["pyarrow"] == expected, "pyarrow");
    // DuckDB 2.0 knows no AAD prefix; the day it does, the documents can say so.
    assert!(read["duckdb"].as_str().is_some_and(|error| error.contains("AES tag")), "duckdb reads it too");
    let wrong = python("read_encrypted.py", &[&flows.display().to_string(), &"00".repeat(32)]);
    assert!(!wrong.status.success(), "another key opens nothing");
}

#[test]
fn an_independent_verifier_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = data_dir(dir.path(), Some(&two().2));
    manifest.begin_epoch(2, None).unwrap();
    let coverage = [CoverageRecord { interface: "lan".into(), generation: 1, ..CoverageRecord::default() }];
    seal(&mut manifest, 2, &[], &[], &coverage);
    let archive = dir.path().join("archive");
    let kept = dir.path().join("checkpoints");
    std::fs::write(&kept, format!("{}\n", manifest.checkpoint(3).unwrap())).unwrap();
    let kept = kept.display().to_string();
    let check = |expected: i32, what: &str| {
        let output = python("verify_manifest.py", &[&archive.display().to_string(), "--checkpoint", &kept]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{what}: {said}");
        let ours = verify(
            &archive,
            &Trust { checkpoints: &[std::fs::read_to_string(&kept).unwrap()], ..Trust::default() },
            |_| {},
        );
        assert_eq!(ours.unwrap().is_whole(), expected == 0, "{what}");
    };
    check(0, "untouched");
    let path = archive.join("manifest/g.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 3);
    std::fs::write(&path, lines[..2].concat()).unwrap();
    check(7, "cut");
    for (what, changed) in [
        ("removed", lines[0].to_owned() + lines[2]),
        ("reordered", lines[0].to_owned() + lines[2] + lines[1]),
        ("changed", text.replacen("\"bytes\":", "\"bytes\":1", 1)),
    ] {
        std::fs::write(&path, changed).unwrap();
        check(3, what);
    }
    std::fs::write(&path, &text).unwrap();
    let flows = archive.join("flows/site=s/date=2026-11-23/g-0000000001.parquet");
    let mut bytes = std::fs::read(&flows).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&flows, bytes).unwrap();
    check(3, "a file changed");
}
