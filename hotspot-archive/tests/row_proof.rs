//! Proofs of rows as others check them: test vectors that never change, and a verifier that is not ours.
//!
//! `tests/vectors/row-proof.json` and the segments beside it were written once, when version 1 of the encoding was current; both the product and
//! `tests/python/verify_rows.py` must agree with them for ever. To make those of a new version, name other files in `vectors`, and run
//! `cargo test -p hotspot-archive --test row_proof -- --ignored`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use hotspot_archive::keys::Keyring;
use hotspot_archive::layout::Class;
use hotspot_archive::manifest::to_hex;
use hotspot_archive::merkle::Hash;
use hotspot_archive::rows::{self, RowProof, RowsRoot, Value};
use hotspot_archive::segment::{Origin, SegmentReader, write_coverage, write_devices, write_flows, write_sessions};
use hotspot_core::MacAddr;
use hotspot_core::fact::{DeviceSource, IdentitySource, SessionCounters, SessionDetails};
use hotspot_core::record::{
    Attribution, CoverageRecord, DeviceRecord, EndReason, FlowRecord, Identity, NatState, PublicEndpoint,
    SessionRecord, SessionStatus, Tallied,
};
use serde_json::json;

const BEGIN_NS: i64 = 1_795_392_000_123_456_789;
const ROWS: u64 = 37;

fn flow(number: u64) -> FlowRecord {
    let is = |every: u64| number.is_multiple_of(every);
    let at_ns = BEGIN_NS + i64::try_from(number).unwrap() * 1_234_567;
    let claimants = ["0912345678", "Nguyễn, Văn A", ""].map(str::to_owned);
    FlowRecord {
        flow_id: 7 << 32 | number,
        start_ns: at_ns,
        end_ns: at_ns + 5_000_000_000,
        interface: "br-lan".into(),
        vlan: is(3).then_some(100),
        inner_vlan: is(6).then_some(4095),
        client_mac: MacAddr([2, 0, 0xab, 0, 0, u8::try_from(number / 8).unwrap()]),
        client_ip: if is(2) { [10, 20, 0, 14].into() } else { "2001:db8::14".parse().unwrap() },
        client_port: (!is(5)).then_some(40_000),
        public: is(2).then_some(PublicEndpoint { ip: [203, 0, 113, 7].into(), port: (!is(4)).then_some(258) }),
        nat: (!is(7)).then_some(NatState::ALL[usize::try_from(number % 3).unwrap()]),
        peer_ip: (!is(9)).then_some("2001:db8:ffff::1".parse().unwrap()),
        peer_port: Some(443),
        protocol: (!is(9)).then_some(6),
        icmp_type: is(5).then_some(8),
        icmp_code: is(5).then_some(0),
        packets_out: number,
        bytes_out: if is(11) { u64::MAX } else { number << number },
        packets_in: 128,
        bytes_in: 127,
        tcp_flags_out: Some(0x1b),
        tcp_flags_in: None,
        end_reason: EndReason::ALL[usize::try_from(number % 6).unwrap()],
        attribution: Attribution::ALL[usize::try_from(number % 7).unwrap()],
        identity: (!is(5)).then(|| {
            Arc::new(Identity {
                users: if is(4) {
                    &[][..]
                } else if is(7) {
                    &claimants
                } else {
                    &claimants[..1]
                }
                .to_vec(),
                session_ids: if is(7) { vec!["ap1/c1".into(), "ap1, c2".into()] } else { vec!["ap1/c1".into()] },
                auth_method: is(2).then(|| "802.1x".into()),
                source: IdentitySource::Radius,
                ap_mac: is(3).then_some(MacAddr([2, 0, 0, 0, 0xff, 1])),
                ssid: Some("Café \"x\"".into()),
                nas: is(3).then(|| "nas".into()),
            })
        }),
        hostname: is(2).then(|| "phone".into()),
        device_vendor: is(3).then(|| "Maker".into()),
    }
}

fn session(number: u64) -> SessionRecord {
    let is = |every: u64| number.is_multiple_of(every);
    SessionRecord {
        session_id: format!("ap1/{number}"),
        user: is(2).then(|| "Nguyễn Văn A".into()),
        auth_method: is(3).then(|| "802.1x".into()),
        source: IdentitySource::Portal,
        client_mac: is(4).then_some(MacAddr([2, 0, 0, 0, 0, 1])),
        client_ips: if is(5) { Vec::new() } else { vec![[10, 0, 0, 1].into(), "2001:db8::1".parse().unwrap()] },
        client_prefixes: if is(2) { Vec::new() } else { vec![("2001:db8:1::".parse().unwrap(), 64)] },
        ap_mac: is(2).then_some(MacAddr([2, 0, 0, 0, 0xff, 1])),
        ssid: is(3).then(String::new),
        nas: Some("nas".into()),
        nas_port: None,
        started_ns: -1_999,
        ended_ns: is(2).then_some(BEGIN_NS),
        end_cause: is(2).then(|| "User-Request".into()),
        counters: is(3).then_some(SessionCounters {
            packets_out: number,
            bytes_out: 1 << 40,
            packets_in: 0,
            bytes_in: 300,
        }),
        details: SessionDetails { class: is(2).then(|| "a b".into()), ..SessionDetails::default() }.shared(),
        status: SessionStatus::ALL[usize::try_from(number % 4).unwrap()],
    }
}

fn device(number: u64) -> DeviceRecord {
    let client_mac = MacAddr([u8::try_from(number % 2 * 2).unwrap(), 0, 0, 0, 0, 1]);
    DeviceRecord {
        client_mac,
        random_mac: client_mac.is_random(),
        device_vendor: number.is_multiple_of(2).then(|| "Maker".into()),
        hostname: Some(format!("điện-thoại-{number}")),
        vendor_class: None,
        dhcp_fingerprint: Some("1,3,6".into()),
        client_id: None,
        ips: vec![[10, 0, 0, 1].into()],
        many_addresses: None,
        first_seen_ns: BEGIN_NS,
        last_seen_ns: BEGIN_NS + 999,
        sources: vec![DeviceSource::Dhcp, DeviceSource::Arp],
    }
}

fn coverage(number: u64) -> CoverageRecord {
    if number.is_multiple_of(3) {
        return CoverageRecord::gap("", BEGIN_NS, BEGIN_NS + 1, "no power");
    }
    CoverageRecord {
        interface: "br-lan".into(),
        generation: number,
        from_ns: BEGIN_NS,
        to_ns: BEGIN_NS + 2_000,
        hook: "in:tcx out:tcx".into(),
        seen: Tallied { packets: 3, bytes: 180 },
        flows: Tallied { packets: 2, bytes: 120 },
        overflow: Tallied::default(),
        outcomes: vec![("arp".into(), Tallied { packets: 1, bytes: 60 })],
        happenings: vec![("noticed".into(), 7), ("evicted".into(), 1)],
        clock_offset_ns: Some(-5),
        gap: None,
    }
}

/// A segment of a class in the clear.
fn write(path: &Path, class: Class) -> RowsRoot {
    let origin = Origin { site: "cafe-1".into(), gateway: "gw1".into(), sequence: 7 };
    let written = match class {
        Class::Flows => write_flows(path, &origin, None, &(0..ROWS).map(flow).collect::<Vec<_>>()),
        Class::Sessions => write_sessions(path, &origin, None, &(0..ROWS).map(session).collect::<Vec<_>>()),
        Class::Devices => write_devices(path, &origin, None, &(0..ROWS).map(device).collect::<Vec<_>>()),
        Class::Coverage => write_coverage(path, &origin, None, &(0..ROWS).map(coverage).collect::<Vec<_>>()),
    };
    written.unwrap()
}

fn open(path: &Path) -> SegmentReader {
    SegmentReader::open(path, &Keyring::none()).unwrap()
}

/// The columns of a proved row as the verifier shows them.
fn shown(proof: &RowProof) -> serde_json::Value {
    let value = |value: &Value| match value {
        Value::Text(text) => json!(text),
        Value::Texts(texts) => json!(texts),
        Value::Number(number) | Value::Micros(number) => json!(number),
        Value::Flag(flag) => json!(flag),
        Value::Mac(mac) => json!(mac.to_string()),
        Value::Ip(ip) => json!(ip.to_string()),
    };
    let (_, columns) = proof.columns().unwrap();
    columns.iter().map(|(name, held)| ((*name).to_owned(), value(held))).collect::<serde_json::Map<_, _>>().into()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn vectors() -> PathBuf {
    repository().join("tests/vectors/row-proof.json")
}

fn python(arguments: &[&str]) -> Output {
    let python = repository().join("target/venv/bin/python");
    let script = repository().join("tests/python/verify_rows.py");
    let output = Command::new(&python).arg(script).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", python.display()))
}

/// What the verifier says, in JSON; `None` where it refuses.
fn verdict(arguments: &[&str]) -> Option<serde_json::Value> {
    let output = python(arguments);
    let said = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(0) => Some(serde_json::from_str(&said).unwrap_or_default()),
        Some(3) => None,
        _ => panic!("{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn the_test_vectors_hold_for_ever() {
    let vectors_path = vectors();
    let vectors: serde_json::Value = serde_json::from_slice(&fs::read(&vectors_path).unwrap()).unwrap();
    let segments = vectors["segments"].as_array().unwrap();
    assert_eq!(segments.len(), Class::ALL.len());
    for segment in segments {
        let reader = open(&vectors_path.with_file_name(segment["file"].as_str().unwrap()));
        let RowsRoot { rows, root } = rows::root(&reader).unwrap();
        assert_eq!((json!(to_hex(&root)), json!(rows)), (segment["rows_root"].clone(), segment["rows"].clone()));
        let proofs = segment["proofs"].as_array().unwrap();
        assert!(proofs.len() > 3);
        for proof in proofs {
            let text = proof["text"].as_str().unwrap();
            let parsed: RowProof = text.parse().unwrap();
            assert!(parsed.verify(&root, rows));
            assert_eq!(parsed.to_string(), text);
            assert_eq!(shown(&parsed), proof["columns"]);
            assert_eq!(rows::prove(&reader, &[parsed.index]).unwrap(), [parsed]);
        }
    }
}

#[test]
fn an_independent_verifier_agrees_with_the_test_vectors() {
    let output = python(&["vectors", &vectors().display().to_string()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn an_independent_verifier_computes_the_root_of_every_class() {
    let dir = tempfile::tempdir().unwrap();
    for class in Class::ALL {
        let path = dir.path().join(class.label());
        let written = write(&path, class);
        let said = verdict(&["root", &path.display().to_string()]).unwrap();
        assert_eq!(said, json!({"rows_root": to_hex(&written.root), "rows": written.rows}), "{}", class.label());
    }
}

#[test]
fn an_independent_verifier_takes_a_proof_and_refuses_a_changed_one() {
    let dir = tempfile::tempdir().unwrap();
    let (path, held) = (dir.path().join("flows.parquet"), dir.path().join("proof"));
    let written = write(&path, Class::Flows);
    let proof = rows::prove(&open(&path), &[36]).unwrap().remove(0);
    let check = |text: &str, root: &Hash, rows: u64| {
        fs::write(&held, text).unwrap();
        verdict(&["proof", &held.display().to_string(), &to_hex(root), &rows.to_string()])
    };
    let text = proof.to_string();
    let said = check(&text, &written.root, ROWS).unwrap();
    assert_eq!(said, json!({"class": "flows", "columns": shown(&proof)}));
    let mut other = written.root;
    other[0] ^= 1;
    assert_eq!(check(&text, &other, ROWS), None, "another root");
    assert_eq!(check(&text, &written.root, ROWS + 1), None, "another number of rows");
    let mut other_row = proof.clone();
    other_row.own[20] ^= 1;
    for (what, changed) in [
        ("another place", text.replacen("index 36", "index 35", 1)),
        ("another row", other_row.to_string()),
        ("another spelling", text.replacen("salt ", "salt 0", 1)),
        ("a shorter way", text[..=text.trim_end().rfind('\n').unwrap()].to_owned()),
        ("another end", text.trim_end().to_owned()),
    ] {
        assert_ne!(changed, text, "{what}");
        assert_eq!(check(&changed, &written.root, ROWS), None, "{what}");
        let ours = changed.parse::<RowProof>().is_ok_and(|proof| proof.verify(&written.root, ROWS));
        assert!(!ours, "{what}");
    }
}

#[test]
#[ignore = "writes the test vectors, once"]
fn make_the_test_vectors_of_this_version() {
    let path = vectors();
    assert!(!path.exists(), "{} is there already, and stays as it is", path.display());
    let dir = path.with_extension("");
    fs::create_dir_all(&dir).unwrap();
    let segments = Class::ALL.map(|class| {
        let name = format!("row-proof/{}.parquet", class.label());
        let written = write(&path.with_file_name(&name), class);
        let proofs = rows::prove(&open(&path.with_file_name(&name)), &[0, 1, 7, 31, 32, ROWS - 1]).unwrap();
        let proofs: Vec<_> =
            proofs.iter().map(|proof| json!({"text": proof.to_string(), "columns": shown(proof)})).collect();
        json!({
            "class": class.label(), "file": name, "rows": written.rows, "rows_root": to_hex(&written.root),
            "proofs": proofs,
        })
    });
    let text = serde_json::to_string_pretty(&json!({"segments": segments})).unwrap();
    fs::write(&path, text + "\n").unwrap();
}
