//! What a root stands for, and what no proof can say.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotspot_core::MacAddr;
use hotspot_core::fact::{DeviceSource, IdentitySource, SessionCounters, SessionDetails};
use hotspot_core::record::{
    Attribution, CoverageRecord, DeviceRecord, EndReason, FlowRecord, Identity, NatState, PublicEndpoint,
    SessionRecord, SessionStatus, Tallied,
};
use proptest::prelude::*;

use super::*;
use crate::keys::{DataKey, Identity as Secret, Keyring, Recipients};
use crate::layout::Class;
use crate::segment::tests::varied;
use crate::segment::{Origin, write_coverage, write_devices, write_flows, write_sessions};

fn origin(sequence: u64) -> Origin {
    Origin { site: "s".into(), gateway: "g".into(), sequence }
}

fn open(path: &Path) -> SegmentReader {
    SegmentReader::open(path, &Keyring::none()).unwrap()
}

fn session(number: u64) -> SessionRecord {
    let is = |every: u64| number.is_multiple_of(every);
    SessionRecord {
        session_id: format!("nas/{number}"),
        user: is(2).then(|| "Người dùng".into()),
        auth_method: is(3).then(|| "radius".into()),
        source: IdentitySource::Portal,
        client_mac: is(4).then_some(MacAddr([2, 0, 0, 0, 0, 1])),
        client_ips: if is(5) { Vec::new() } else { vec![[10, 0, 0, 1].into(), "2001:db8::1".parse().unwrap()] },
        client_prefixes: if is(2) { Vec::new() } else { vec![("2001:db8:1::".parse().unwrap(), 64)] },
        ap_mac: is(2).then_some(MacAddr([0xfe, 0, 0, 0, 0, 0xff])),
        ssid: is(3).then(String::new),
        nas: Some("nas".into()),
        nas_port: None,
        started_ns: -1_999,
        ended_ns: is(2).then_some(2_001),
        end_cause: is(2).then(|| "User-Request".into()),
        counters: is(3).then_some(SessionCounters {
            packets_out: number,
            bytes_out: u64::MAX,
            packets_in: 0,
            bytes_in: 1 << 40,
        }),
        details: SessionDetails { class: is(2).then(|| "a b".into()), ..SessionDetails::default() }.shared(),
        status: SessionStatus::ALL[usize::try_from(number % 4).unwrap()],
    }
}

fn device(number: u64) -> DeviceRecord {
    let client_mac = MacAddr([u8::try_from(number % 3).unwrap() * 2, 0, 0, 0, 0, 1]);
    DeviceRecord {
        client_mac,
        random_mac: client_mac.is_random(),
        many_addresses: None,
        device_vendor: number.is_multiple_of(2).then(|| "Maker".into()),
        hostname: Some(format!("phone-{number}")),
        vendor_class: None,
        dhcp_fingerprint: Some("1,3,6".into()),
        client_id: None,
        ips: vec![[10, 0, 0, 1].into()],
        first_seen_ns: 1_795_392_000_123_456_789,
        last_seen_ns: 1_795_392_000_123_456_999,
        sources: vec![DeviceSource::Dhcp, DeviceSource::Arp],
    }
}

fn coverage(number: u64) -> CoverageRecord {
    if number.is_multiple_of(3) {
        return CoverageRecord::gap("", 1_000, 2_000, "no power");
    }
    CoverageRecord {
        interface: "lan".into(),
        generation: number,
        from_ns: 1_000,
        to_ns: 2_000,
        hook: "in:tcx out:tcx".into(),
        seen: Tallied { packets: 3, bytes: 180 },
        flows: Tallied { packets: 2, bytes: 120 },
        overflow: Tallied::default(),
        outcomes: vec![("arp".into(), Tallied { packets: 1, bytes: 60 })],
        happenings: vec![("evicted".into(), 7)],
        clock_offset_ns: Some(-5),
        gap: None,
    }
}

/// A file of each class, and what its writer said stands for its rows.
fn files(dir: &Path, sequence: u64, key: Option<&DataKey>) -> Vec<(PathBuf, RowsRoot)> {
    let path = |class: Class| dir.join(format!("{}-{sequence}.parquet", class.label()));
    let origin = origin(sequence);
    let flows: Vec<_> = (0..9_000).map(|row| varied(row + sequence)).collect();
    let [sessions, devices, gaps] = [9_000, 300, 300];
    let sessions: Vec<_> = (0..sessions).map(session).collect();
    let devices: Vec<_> = (0..devices).map(device).collect();
    let coverages: Vec<_> = (0..gaps).map(coverage).collect();
    let written = [
        write_flows(&path(Class::Flows), &origin, key, &flows),
        write_sessions(&path(Class::Sessions), &origin, key, &sessions),
        write_devices(&path(Class::Devices), &origin, key, &devices),
        write_coverage(&path(Class::Coverage), &origin, key, &coverages),
    ];
    let classes = [Class::Flows, Class::Sessions, Class::Devices, Class::Coverage];
    classes.into_iter().zip(written).map(|(class, root)| (path(class), root.unwrap())).collect()
}

#[test]
fn the_root_of_what_was_written_is_that_of_what_the_file_holds() {
    let dir = tempfile::tempdir().unwrap();
    for (path, written) in files(dir.path(), 1, None) {
        assert_eq!(root(&open(&path)).unwrap(), written, "{}", path.display());
    }
    let path = dir.path().join("none.parquet");
    let nothing = write_flows(&path, &origin(1), None, &[]).unwrap();
    assert_eq!(root(&open(&path)).unwrap(), nothing);
    assert_eq!((nothing.rows, nothing.root), (0, merkle::root_of(&[])));
    // More rows than are made to columns at once, and than are compressed at once where one client's follow another's.
    let path = dir.path().join("many.parquet");
    let rows: Vec<_> = (0..70_000).map(varied).collect();
    let written = write_flows(&path, &origin(1), None, &rows).unwrap();
    assert_eq!(root(&open(&path)).unwrap(), written);
    assert_eq!(written.rows, 70_000);
}

#[test]
fn rows_that_differ_in_one_column_from_the_row_before_have_bytes_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let row = FlowRecord { hostname: Some("phone".into()), device_vendor: Some("Maker".into()), ..varied(2) };
    let other = |identity: &dyn Fn(&mut Identity)| {
        let mut who = row.identity.as_deref().unwrap().clone();
        identity(&mut who);
        FlowRecord { identity: Some(Arc::new(who)), ..row.clone() }
    };
    let others = [
        FlowRecord { interface: "wan".into(), ..row.clone() },
        FlowRecord { vlan: Some(7), ..row.clone() },
        FlowRecord { inner_vlan: Some(7), ..row.clone() },
        FlowRecord { client_mac: MacAddr([2, 9, 9, 9, 9, 9]), ..row.clone() },
        FlowRecord { client_ip: [10, 20, 0, 15].into(), ..row.clone() },
        FlowRecord { client_port: None, ..row.clone() },
        FlowRecord { identity: None, ..row.clone() },
        other(&|who| who.users.clear()),
        other(&|who| who.users.push("somebody".into())),
        other(&|who| who.session_ids = vec!["nas/2".into()]),
        other(&|who| who.session_ids.push("nas/2".into())),
        other(&|who| who.source = IdentitySource::File),
        other(&|who| who.ap_mac = None),
        FlowRecord { hostname: None, ..row.clone() },
        FlowRecord { hostname: Some("tablet".into()), ..row.clone() },
        FlowRecord { device_vendor: Some("Other".into()), ..row.clone() },
    ];
    let rows: Vec<_> = others.into_iter().flat_map(|other| [row.clone(), other]).collect();
    let written = write_flows(&path, &origin(1), None, &rows).unwrap();
    assert_eq!(root(&open(&path)).unwrap(), written);
}

fn text() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of("\\PC{0,12}".prop_map(Into::into))
}

fn identity() -> impl Strategy<Value = Option<Arc<Identity>>> {
    let source = prop::sample::select(&[IdentitySource::Radius, IdentitySource::Portal, IdentitySource::File][..]);
    let mac = prop::option::of(any::<[u8; 6]>().prop_map(MacAddr));
    let texts = |count| prop::collection::vec(prop_oneof!["\\PC{0,150}", "[a, \\\"]{0,4}"], count);
    prop::option::of((texts(0..4), texts(1..4), text(), source, mac, text(), text()).prop_map(
        |(users, session_ids, auth_method, source, ap_mac, ssid, nas)| {
            Arc::new(Identity { users, session_ids, auth_method, source, ap_mac, ssid, nas })
        },
    ))
}

prop_compose! {
    fn any_flow()(
        (flow_id, start_ns, end_ns) in (any::<u64>(), any::<i64>(), any::<i64>()),
        (interface, vlan, inner_vlan, mac) in ("\\PC{0,8}", any::<Option<u16>>(), any::<Option<u16>>(), any::<[u8; 6]>()),
        (client_ip, client_port, public, public_port) in (any::<IpAddr>(), any::<Option<u16>>(), any::<Option<IpAddr>>(), any::<Option<u16>>()),
        (peer_ip, peer_port, protocol) in (any::<Option<IpAddr>>(), any::<Option<u16>>(), any::<Option<u8>>()),
        (icmp_type, icmp_code, tcp_flags_out, tcp_flags_in) in any::<(Option<u8>, Option<u8>, Option<u8>, Option<u8>)>(),
        (packets_out, bytes_out, packets_in, bytes_in) in any::<(u64, u64, u64, u64)>(),
        nat in prop::option::of(prop::sample::select(NatState::ALL)),
        end_reason in prop::sample::select(EndReason::ALL),
        attribution in prop::sample::select(Attribution::ALL),
        identity in identity(), hostname in text(), device_vendor in text(),
    ) -> FlowRecord {
        FlowRecord {
            flow_id, start_ns, end_ns, interface: interface.into(), vlan, inner_vlan, client_mac: MacAddr(mac), client_ip, client_port,
            public: public.map(|ip| PublicEndpoint { ip, port: public_port }),
            nat, peer_ip, peer_port, protocol, icmp_type, icmp_code, packets_out, bytes_out, packets_in, bytes_in, tcp_flags_out,
            tcp_flags_in, end_reason, attribution, identity, hostname, device_vendor,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_flow_holds_record_and_columns_give_the_same_bytes(
        rows in prop::collection::vec((any_flow(), 1usize..4), 1..20)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        // Rows of which only one part differs follow each other.
        let rows: Vec<_> = rows.iter().flat_map(|(row, times)| {
            (0..*times).map(|time| FlowRecord { vlan: Some(u16::try_from(time / 2).unwrap()), ..row.clone() })
        }).collect();
        let written = write_flows(&path, &origin(1), None, &rows).unwrap();
        prop_assert_eq!(root(&open(&path)).unwrap(), written);
    }
}

/// What a proof says a column holds.
fn said(columns: &[(&'static str, Value)], name: &str) -> Option<Value> {
    columns.iter().find(|(column, _)| *column == name).map(|(_, value)| value.clone())
}

#[test]
fn every_row_is_proved_and_says_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let rows: Vec<_> = (0..257).map(varied).collect();
    let written = write_flows(&path, &origin(1), None, &rows).unwrap();
    let proofs = prove(&open(&path), &(0..257).rev().collect::<Vec<_>>()).unwrap();
    for (proof, row) in proofs.iter().zip(rows.iter().rev()) {
        assert!(proof.verify(&written.root, written.rows));
        assert_eq!(proof.to_string().parse::<RowProof>().as_ref(), Ok(proof));
        let (class, columns) = proof.columns().unwrap();
        let who = row.identity.as_deref();
        let text = |text: &Arc<str>| Value::Text(text.to_string());
        let number = |number: u64| Value::Number(i64::try_from(number).unwrap());
        assert_eq!(class, Class::Flows);
        for (name, value) in [
            ("gateway", Some(Value::Text("g".into()))),
            ("flow_id", Some(number(row.flow_id))),
            ("start", Some(Value::Micros(row.start_ns / 1000))),
            ("client_mac", Some(Value::Mac(row.client_mac))),
            ("client_ip", Some(Value::Ip(row.client_ip))),
            ("public_ip", row.public.map(|public| Value::Ip(public.ip))),
            ("nat", row.nat.map(|nat| Value::Text(nat.label().into()))),
            ("peer_ip", row.peer_ip.map(Value::Ip)),
            ("protocol", row.protocol.map(|protocol| number(protocol.into()))),
            ("bytes_out", Some(number(row.bytes_out))),
            ("end_reason", Some(Value::Text(row.end_reason.label().into()))),
            ("attribution", Some(Value::Text(row.attribution.label().into()))),
            ("user", who.filter(|who| !who.users.is_empty()).map(|who| Value::Texts(who.users.clone()))),
            ("session_id", who.map(|who| Value::Texts(who.session_ids.clone()))),
            ("ssid", who.and_then(|who| who.ssid.as_ref()).map(text)),
            ("hostname", row.hostname.as_ref().map(text)),
        ] {
            assert_eq!(said(&columns, name), value, "{name}");
        }
    }
    let error = prove(&open(&path), &[0, 257]).unwrap_err();
    assert!(matches!(error, RowsError::NoSuchRow { index: 257, rows: 257, .. }), "{error}");
}

#[test]
fn a_proof_is_of_its_row_its_place_and_its_file_only() {
    let dir = tempfile::tempdir().unwrap();
    let (all, later) = (files(dir.path(), 1, None), files(dir.path(), 2, None));
    let [asked, beside] = [4_321, 4_322];
    for ((path, written), (later, of_later)) in all.iter().zip(&later) {
        let (asked, beside) = (asked % written.rows, beside % written.rows);
        let proofs = prove(&open(path), &[asked, beside]).unwrap();
        let [proof, neighbour] = &proofs[..] else { panic!("two were asked") };
        let holds = |proof: &RowProof| proof.verify(&written.root, written.rows);
        assert!(holds(proof) && holds(neighbour));
        let refused = |what: &str, change: &dyn Fn(&mut RowProof)| {
            let mut changed = proof.clone();
            change(&mut changed);
            assert!(!holds(&changed), "{what}, {}", path.display());
        };
        for at in 0..proof.own.len() {
            refused("a changed row", &|proof| proof.own[at] ^= 1);
        }
        for at in 0..proof.shared.len() {
            refused("a changed row", &|proof| proof.shared[at] ^= 0x20);
        }
        refused("the row beside it", &|proof| proof.own.clone_from(&neighbour.own));
        refused("another place", &|proof| proof.index = beside);
        refused("a place that is none", &|proof| proof.index = proof.size);
        refused("another salt", &|proof| proof.salt[3] ^= 4);
        refused("the salt of the row beside it", &|proof| proof.salt = neighbour.salt);
        refused("a row that moved from one part to the other", &|proof| {
            let last = proof.shared.pop().unwrap();
            proof.own.insert(0, last);
        });
        refused("a shorter way", &|proof| proof.path.truncate(proof.path.len() - 1));
        refused("a longer way", &|proof| proof.path.push(written.root));
        refused("no way at all", &|proof| proof.path.clear());
        assert!(!proof.verify(&written.root, written.rows + 1) && !proof.verify(&written.root, written.rows - 1));
        let stranger = prove(&open(later), &[asked]).unwrap().remove(0);
        assert!(stranger.verify(&of_later.root, of_later.rows) && !holds(&stranger), "a row of another segment");
        for (other, of_other) in all.iter().filter(|(other, _)| other != path) {
            assert!(!proof.verify(&of_other.root, written.rows), "the root of {}", other.display());
        }
    }
}

#[test]
fn a_row_is_not_proved_at_a_place_of_a_smaller_file_to_which_the_same_hashes_lead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let written = write_flows(&path, &origin(1), None, &[varied(0), varied(1), varied(2)]).unwrap();
    let third = prove(&open(&path), &[2]).unwrap().remove(0);
    let as_second = RowProof { index: 1, size: 2, ..third.clone() };
    assert!(third.verify(&written.root, 3));
    assert!(as_second.verify(&written.root, 2), "which is why the number of rows must be from the line");
    assert!(!as_second.verify(&written.root, 3));
}

#[test]
fn rows_that_are_changed_swapped_dropped_or_added_give_another_root() {
    let dir = tempfile::tempdir().unwrap();
    // Under one key, so that salts are the same.
    let (first, second) = (Secret::generate(), Secret::generate());
    let recipients = Recipients::parse(&[first.recipient(), second.recipient()], false).unwrap();
    let path = dir.path().join("x.parquet");
    let key = recipients.fresh_key(&path).unwrap();
    let rows: Vec<_> = (0..100).map(varied).collect();
    let of = |rows: &[FlowRecord]| write_flows(&path, &origin(1), Some(&key), rows).unwrap();
    let whole = of(&rows);
    assert_eq!(whole, of(&rows));
    let mut changed = rows.clone();
    changed[50].end_ns += 1_000;
    assert_ne!(whole.root, of(&changed).root);
    let mut swapped = rows.clone();
    swapped.swap(50, 51);
    assert_ne!(whole.root, of(&swapped).root);
    assert_ne!(whole.root, of(&rows[..99]).root);
    assert_ne!(whole.root, of(&[&rows[..], &rows[99..]].concat()).root);
    // Below a microsecond the archive holds nothing, so a row does not either.
    let mut same = rows.clone();
    same[50].end_ns += 999;
    assert_eq!(whole, of(&same));
    let other = DataKey::generate().unwrap();
    assert_ne!(whole.root, write_flows(&path, &origin(1), Some(&other), &rows).unwrap().root, "other salts");
}

#[test]
fn whoever_opens_an_encrypted_file_proves_its_rows_and_whoever_checks_needs_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Secret::generate(), Secret::generate());
    let recipients = Recipients::parse(&[first.recipient(), second.recipient()], false).unwrap();
    let path = dir.path().join("x.parquet");
    let key = recipients.fresh_key(&path).unwrap();
    let rows: Vec<_> = (0..100).map(varied).collect();
    let written = write_flows(&path, &origin(1), Some(&key), &rows).unwrap();
    let reader = SegmentReader::open(&path, &Keyring::of(vec![second])).unwrap();
    assert_eq!(root(&reader).unwrap(), written);
    let proof = prove(&reader, &[7]).unwrap().remove(0);
    assert!(proof.verify(&written.root, written.rows));
    let text = proof.to_string();
    for secret in [crate::manifest::to_hex(key.expose()), SaltKey::derived(&key).unwrap().to_text()] {
        assert!(!text.contains(&secret[..16]));
    }
}

#[test]
fn ten_thousand_changed_proofs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let rows: Vec<_> = (0..1_000).map(varied).collect();
    let written = write_flows(&path, &origin(1), None, &rows).unwrap();
    let proofs = prove(&open(&path), &[0, 1, 511, 512, 998, 999]).unwrap();
    let texts: Vec<String> = proofs.iter().map(ToString::to_string).collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(10_000));
    let index = any::<prop::sample::Index>;
    let change = (
        0..texts.len(),
        0..texts.len(),
        0..6,
        index(),
        index(),
        prop::sample::select(&b"0123456789abcdefADEx \n+"[..]),
    );
    let outcome = runner.run(&change, |(of, other, how, at, to, byte)| {
        let mut changed = texts[of].clone().into_bytes();
        let lines: Vec<&[u8]> = texts[of].as_bytes().split_inclusive(|byte| *byte == b'\n').collect();
        let (at, to) = (at.index(changed.len()), to.index(changed.len()));
        match how {
            0 => changed[at] = byte,
            1 => drop(changed.remove(at)),
            2 => changed.insert(at, byte),
            3 => changed.swap(at, to),
            4 => changed.truncate(at),
            _ => {
                // A line of another proof in the place of one.
                let others: Vec<&[u8]> = texts[other].as_bytes().split_inclusive(|byte| *byte == b'\n').collect();
                let (at, to) = (at % lines.len(), to % others.len());
                changed = lines[..at]
                    .iter()
                    .chain([&others[to]])
                    .chain(&lines[at + 1..])
                    .flat_map(|line| line.to_vec())
                    .collect();
            }
        }
        let is_same = texts[of].as_bytes() == changed;
        let parsed = String::from_utf8(changed).ok().and_then(|text| text.parse::<RowProof>().ok());
        prop_assert_eq!(parsed.is_some_and(|proof| proof.verify(&written.root, written.rows)), is_same);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_proof_has_one_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let rows: Vec<_> = (0..20).map(varied).collect();
    write_flows(&path, &origin(1), None, &rows).unwrap();
    let proof = prove(&open(&path), &[7]).unwrap().remove(0);
    let text = proof.to_string();
    assert_eq!(text.parse(), Ok(proof));
    for (what, other) in [
        ("a leading zero", text.replacen("index 7", "index 07", 1)),
        ("a sign", text.replacen("index 7", "index +7", 1)),
        ("a space", text.replacen("size 20", "size  20", 1)),
        ("another order", text.replacen("index 7\nsize 20", "size 20\nindex 7", 1)),
        ("larger letters", text.to_uppercase().replacen("HOTSPOT ROW PROOF", "hotspot row proof", 1)),
        ("another version", text.replacen("proof 1", "proof 2", 1)),
        ("without its end", text.trim_end().to_owned()),
        ("something behind it", text.clone() + "x"),
        ("an empty line", text.clone() + "\n"),
        ("lines of Windows", text.replace('\n', "\r\n")),
        ("something before it", " ".to_owned() + &text),
        ("more hashes than any tree has", text.clone() + &("00".repeat(32) + "\n").repeat(64)),
        ("nothing", String::new()),
    ] {
        assert!(other.parse::<RowProof>().is_err(), "{what}");
    }
}

#[test]
fn a_file_from_before_rows_could_be_proved_says_so() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/2/flows.parquet");
    let error = prove(&open(&path), &[0]).unwrap_err();
    assert!(matches!(error, RowsError::NoSalts { .. }), "{error}");
}
