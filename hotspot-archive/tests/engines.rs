//! Other engines read the plain archive as it lies: types, partitions, and the same sums as the rows that were written.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use hotspot_archive::layout::{Class, segment_path};
use hotspot_archive::segment::{Origin, write_flows};
use hotspot_core::MacAddr;
use hotspot_core::fact::IdentitySource;
use hotspot_core::record::{Attribution, EndReason, FlowRecord, Identity, NatState, PublicEndpoint};
use serde_json::json;

const DAY_NS: i64 = 86_400_000_000_000;
/// 2026-11-24T00:00:00.123456Z.
const BEGIN_NS: i64 = 1_795_478_400_123_456_000;
const ROWS: u64 = 30_000;

/// Who claims some of the rows, and not the victim.
const CLAIMANTS: [&str; 2] = ["x, victim", "other \"quoted\""];

fn is_claimed(number: u64) -> bool {
    number.is_multiple_of(7)
}

fn flow(number: u64) -> FlowRecord {
    let one = format!("09{:08}", number / 100);
    let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    random ^= random >> 31;
    let is_v6 = random.is_multiple_of(3);
    let [a, b, c, d, ..] = random.to_le_bytes();
    let identity = Identity {
        users: if is_claimed(number) { CLAIMANTS.map(str::to_owned).to_vec() } else { vec![one.clone()] },
        session_ids: if is_claimed(number) { vec!["s, 1".into(), "s, 2".into()] } else { vec![one] },
        auth_method: None,
        source: IdentitySource::Radius,
        ap_mac: Some(MacAddr([2, 0, 0, 0, 1, 1])),
        ssid: Some("Café \"x\"".into()),
        nas: None,
    };
    let start_ns = BEGIN_NS + i64::try_from(number).unwrap() * 1_001_000;
    FlowRecord {
        flow_id: 1 << 32 | number,
        start_ns,
        end_ns: start_ns + i64::from(a) * 4_000_000,
        interface: "br-lan".into(),
        vlan: Some(100),
        inner_vlan: None,
        client_mac: MacAddr([2, 0, 0, 0, 0, u8::try_from(number / 1000).unwrap()]),
        client_ip: if is_v6 { "2001:db8::14".parse().unwrap() } else { [10, 20, 0, 14].into() },
        client_port: Some(40_000 + u16::from(a)),
        public: (!is_v6).then_some(PublicEndpoint { ip: [203, 0, 113, 7].into(), port: Some(65_535 - u16::from(b)) }),
        nat: Some(if is_v6 { NatState::None } else { NatState::Exact }),
        peer_ip: Some([198, 51, c, d].into()),
        peer_port: Some(443),
        protocol: Some(6),
        icmp_type: None,
        icmp_code: None,
        packets_out: 1 + random % 1000,
        // More than 32 bits hold.
        bytes_out: 60 + random % 9_000_000_000,
        packets_in: random % 3,
        bytes_in: random % 100_000,
        tcp_flags_out: Some(0x1b),
        tcp_flags_in: is_v6.then_some(0x12),
        end_reason: EndReason::Idle,
        attribution: if is_claimed(number) { Attribution::Ambiguous } else { Attribution::Authenticated },
        identity: (!number.is_multiple_of(5)).then(|| Arc::new(identity)),
        hostname: None,
        device_vendor: None,
    }
}

/// Two gateways of two sites, and two days; in JSON, what every engine must say of it.
fn archive(root: &Path) -> String {
    let rows: Vec<FlowRecord> = (0..ROWS).map(flow).collect();
    let third = rows.len() / 3;
    for (part, (site, gateway, day)) in
        [("cafe-1", "gw1", 0), ("cafe-1", "gw1", 1), ("hall-2", "gw2", 0)].into_iter().enumerate()
    {
        let origin = Origin { site: site.into(), gateway: gateway.into(), sequence: part as u64 + 1 };
        let path = segment_path(Class::Flows, site, gateway, origin.sequence, BEGIN_NS + day * DAY_NS);
        write_flows(&root.join(path), &origin, None, &rows[part * third..(part + 1) * third]).unwrap();
    }
    let sum = |count: fn(&FlowRecord) -> u64| rows.iter().map(count).sum::<u64>();
    let users = || rows.iter().filter_map(|row| row.identity.as_deref()).map(|who| &who.users);
    json!({
        "rows": ROWS,
        "flow_id_max": 1_u64 << 32 | (ROWS - 1),
        "bytes_out": sum(|row| row.bytes_out),
        "packets_out": sum(|row| row.packets_out),
        "packets_in": sum(|row| row.packets_in),
        "with_user": users().count(),
        "claimed": users().filter(|users| **users == CLAIMANTS).count(),
        "framed": 0,
        "persons": users().flatten().collect::<BTreeSet<_>>().len(),
        "claimants": CLAIMANTS,
        "translated": rows.iter().filter(|row| row.public.is_some()).count(),
        "public_port_sum": sum(|row| row.public.and_then(|public| public.port).map_or(0, u64::from)),
        "end_after_start_us": sum(|row| u64::try_from((row.end_ns - row.start_ns) / 1000).unwrap()),
        "first": "2026-11-24T00:00:00.123456",
        "ipv6": rows.iter().filter(|row| row.client_ip.is_ipv6()).count(),
        "partitions": [["cafe-1", "2026-11-24", 10_000], ["cafe-1", "2026-11-25", 10_000], ["hall-2", "2026-11-24", 10_000]],
        "ssid": ["Café \"x\""],
    })
    .to_string()
}

fn read_with(engine: &str) {
    let dir = tempfile::tempdir().unwrap();
    let expected = archive(dir.path());
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = crate_dir.join("../target/venv/bin/python");
    let golden = crate_dir.join("tests/golden");
    let output = Command::new(&python)
        .arg(crate_dir.join("tests/engines.py"))
        .args([engine, &dir.path().join("flows").display().to_string(), &expected])
        .args([golden.join("3/claimants.parquet"), golden.join("claimants.jsonl")])
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", python.display()));
    assert!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn duckdb_reads_the_archive_as_it_lies() {
    read_with("duckdb");
}

#[test]
fn pyarrow_reads_the_archive_as_it_lies() {
    read_with("pyarrow");
}

#[test]
fn spark_reads_the_archive_as_it_lies() {
    read_with("spark");
}
