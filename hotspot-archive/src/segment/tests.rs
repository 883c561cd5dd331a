//! Rows come back from a file as they were, and flows for tests elsewhere.

use std::net::IpAddr;
use std::sync::Arc;

use hotspot_core::MacAddr;
use hotspot_core::fact::{DeviceSource, IdentitySource, SessionCounters, SessionDetails};
use hotspot_core::record::{Attribution, EndReason, Identity, NatState, PublicEndpoint, SessionStatus, Tallied};

use super::*;

pub(crate) fn flow(number: u64) -> FlowRecord {
    let ip: IpAddr = if number.is_multiple_of(2) { [10, 20, 0, 14].into() } else { "2001:db8::14".parse().unwrap() };
    FlowRecord {
        flow_id: 1 << 32 | number,
        start_ns: 1_795_392_000_123_456_000 + i64::try_from(number).unwrap() * 1_000_000,
        end_ns: 1_795_392_001_123_456_000 + i64::try_from(number).unwrap() * 1_000_000,
        interface: "lan".into(),
        vlan: number.is_multiple_of(3).then_some(100),
        inner_vlan: None,
        client_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        client_ip: ip,
        client_port: Some(40_000),
        public: number.is_multiple_of(2).then_some(PublicEndpoint { ip: [203, 0, 113, 7].into(), port: Some(45_678) }),
        nat: Some(if number.is_multiple_of(2) { NatState::Exact } else { NatState::None }),
        peer_ip: Some([198, 51, 100, 1].into()),
        peer_port: Some(443),
        protocol: Some(6),
        icmp_type: None,
        icmp_code: None,
        packets_out: number,
        bytes_out: number * 60,
        packets_in: 1,
        bytes_in: 1500,
        tcp_flags_out: Some(0x1b),
        tcp_flags_in: None,
        end_reason: EndReason::EndOfFlow,
        attribution: Attribution::Authenticated,
        identity: (!number.is_multiple_of(5)).then(|| {
            Arc::new(Identity {
                users: vec!["0912345678".into()],
                session_ids: vec!["nas/1".into()],
                auth_method: None,
                source: IdentitySource::Radius,
                ap_mac: Some(MacAddr([2, 0, 0, 0, 1, 1])),
                ssid: Some("Café \"x\"".into()),
                nas: None,
            })
        }),
        hostname: None,
        device_vendor: None,
    }
}

/// Flows with every column known and unknown, in ever other company.
pub(crate) fn varied(number: u64) -> FlowRecord {
    let is = |every: u64| number.is_multiple_of(every);
    let mut flow = flow(number);
    flow.client_mac = MacAddr([2, 0, 0, 0, 0, u8::try_from(number / 8 % 6).unwrap()]);
    flow.attribution = match (is(7), is(2)) {
        (true, true) => Attribution::Ambiguous,
        (true, false) => Attribution::Conflict,
        (false, _) => Attribution::Authenticated,
    };
    if let Some(identity) = flow.identity.as_mut().map(Arc::make_mut) {
        if is(7) {
            identity.users = vec!["0912345678".into(), "lan, exact".into(), "lan".into()];
            identity.session_ids = vec!["nas/1".into(), "nas/2, nas/3".into()];
        }
        identity.users.retain(|_| !is(11));
        identity.nas = is(2).then(|| "lan".into());
    }
    flow.hostname = is(3).then(|| "LAN".into());
    flow.device_vendor = is(4).then(|| "Exact".into());
    flow.peer_ip = flow.peer_ip.filter(|_| !is(9));
    flow.protocol = if is(9) { None } else { Some([1, 6, 17][usize::try_from(number % 3).unwrap()]) };
    flow.client_port = flow.client_port.filter(|_| !is(6));
    flow.inner_vlan = is(5).then_some(1);
    flow.nat = flow.nat.filter(|_| !is(4));
    flow.end_reason = if is(2) { EndReason::Idle } else { EndReason::Overflow };
    flow.end_ns += i64::try_from(number % 4).unwrap() * 700_000_000;
    flow
}

fn origin() -> Origin {
    Origin { site: "s".into(), gateway: "g".into(), sequence: 1 }
}

fn read_all(path: &Path) -> Vec<Records> {
    SegmentReader::open(path, &Keyring::none()).unwrap().read().collect::<Result<_, _>>().unwrap()
}

#[test]
fn flows_are_read_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/x.parquet");
    let rows: Vec<_> = (0..20_000).map(flow).collect();
    write_flows(&path, &origin(), None, &rows).unwrap();
    let mut read = Vec::new();
    for records in read_all(&path) {
        let Records::Flows(flows) = records else { panic!("another class") };
        read.extend(flows);
    }
    assert_eq!(read, rows);
    assert_eq!(SegmentReader::open(&path, &Keyring::none()).unwrap().origin(), &origin());
}

#[test]
fn several_claimants_are_read_back_in_runs_and_across_batches() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let lists: [&[&str]; 7] =
        [&["x, victim", "other"], &["victim"], &[""], &[], &["victim", "x, victim"], &["a", "a", "b"], &["other"]];
    let identities: Vec<_> = (lists.iter())
        .map(|users| {
            let mut who = flow(1).identity.unwrap().as_ref().clone();
            who.users = users.iter().map(|user| (*user).to_owned()).collect();
            who.session_ids = (0..=users.len()).map(|number| format!("nas/{number}, ")).collect();
            Arc::new(who)
        })
        .collect();
    // Runs of every length, some longer than a page and than a batch.
    let of_run = |number: usize| (!(number / 7).is_multiple_of(9)).then(|| Arc::clone(&identities[number % 7]));
    let runs =
        (0..200).chain([200, 201, 202]).map(|number| (number, if number < 200 { number % 5 + 1 } else { 70_000 }));
    let rows: Vec<_> = runs
        .flat_map(|(number, len)| std::iter::repeat_n(FlowRecord { identity: of_run(number), ..flow(1) }, len))
        .collect();
    write_flows(&path, &origin(), None, &rows).unwrap();
    let mut read = Vec::new();
    for records in read_all(&path) {
        let Records::Flows(flows) = records else { panic!("another class") };
        read.extend(flows);
    }
    assert!(read == rows, "{} rows of {}", read.len(), rows.len());
}

#[test]
fn sessions_devices_and_coverage_are_read_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.parquet");
    let session = SessionRecord {
        session_id: "nas/1".into(),
        user: Some("u".into()),
        auth_method: None,
        source: IdentitySource::Portal,
        client_mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        client_ips: vec![[10, 0, 0, 1].into(), "2001:db8::1".parse().unwrap()],
        client_prefixes: vec![("2001:db8:1::".parse().unwrap(), 64)],
        ap_mac: None,
        ssid: None,
        nas: Some("nas".into()),
        nas_port: None,
        started_ns: 1_000,
        ended_ns: Some(2_000),
        end_cause: Some("User-Request".into()),
        counters: Some(SessionCounters { packets_out: 1, bytes_out: 2, packets_in: 3, bytes_in: 4 }),
        details: SessionDetails { class: Some("gold".into()), ..SessionDetails::default() }.shared(),
        status: SessionStatus::Ended,
    };
    write_sessions(&path, &origin(), None, std::slice::from_ref(&session)).unwrap();
    assert_eq!(read_all(&path), [Records::Sessions(vec![session])]);
    let path = dir.path().join("d.parquet");
    let device = DeviceRecord {
        client_mac: MacAddr([0, 0x1b, 0x21, 0, 0, 1]),
        random_mac: false,
        many_addresses: Some(true),
        device_vendor: Some("Intel Corporate".into()),
        hostname: Some("tv\\xff".into()),
        vendor_class: None,
        dhcp_fingerprint: Some("1,3,6".into()),
        client_id: Some("01001b21000001".into()),
        ips: vec![[10, 0, 0, 1].into(), "2001:db8::1".parse().unwrap()],
        first_seen_ns: 1_000,
        last_seen_ns: 2_000,
        sources: vec![DeviceSource::Dhcp, DeviceSource::Nd],
    };
    write_devices(&path, &origin(), None, std::slice::from_ref(&device)).unwrap();
    assert_eq!(read_all(&path), [Records::Devices(vec![device])]);
    let path = dir.path().join("c.parquet");
    let coverage = CoverageRecord {
        interface: "lan".into(),
        generation: 3,
        from_ns: 1_000,
        to_ns: 2_000,
        hook: "in:tcx out:tcx".into(),
        seen: Tallied { packets: 3, bytes: 180 },
        flows: Tallied { packets: 2, bytes: 120 },
        overflow: Tallied::default(),
        outcomes: vec![("arp".into(), Tallied { packets: 1, bytes: 60 })],
        happenings: vec![("announced".into(), 1)],
        clock_offset_ns: Some(1_700_000_000_000_000_000),
        gap: None,
    };
    write_coverage(&path, &origin(), None, std::slice::from_ref(&coverage)).unwrap();
    assert_eq!(read_all(&path), [Records::Coverage(vec![coverage])]);
}

#[test]
fn a_cut_segment_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    write_flows(&path, &origin(), None, &[flow(1)]).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(SegmentReader::open(&path, &Keyring::none()), Err(SegmentError::Damaged { .. })));
}
