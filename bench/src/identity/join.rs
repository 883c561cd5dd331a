//! What the join costs: sessions that change all the while, and flows that look for theirs and for their translation.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use hotspot_core::attribute::{Attributor, Seen};
use hotspot_core::device::DeviceTable;
use hotspot_core::fact::{
    DeviceEvent, DeviceFact, DeviceSource, IdentitySource, NatEvent, NatFact, SessionEvent, SessionFact,
};
use hotspot_core::nat::{NatTable, Tuple};
use hotspot_core::record::Attribution;
use hotspot_core::sessions::{SessionTable, SessionTimeouts};
use hotspot_core::{MacAddr, WallNs};
use serde::Serialize;

const SECOND: WallNs = 1_000_000_000;
const SESSIONS: u32 = 100_000;
/// In one rotation.
const CHANGES_PER_S: u32 = 1000;
const ROTATION_S: u32 = 300;
const FLOWS: u32 = 2_000_000;

#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Attribution and translation of one flow, with the making of the index.
    join_ns_per_flow: f64,
    /// The index of it; and each of the two asked alone, once more.
    index_ns_per_flow: f64,
    attribution_ns_per_flow: f64,
    translation_ns_per_flow: f64,
    /// The same for flows in no order, as no segment has them.
    join_scattered_ns_per_flow: f64,
    sessions: u32,
    /// Reports of one rotation, and the time to take and to fold them and to forget what does not matter any more.
    session_changes: u32,
    session_seal_ms: f64,
    /// What the tables take, sessions and 2 million bindings.
    session_table_mib: u64,
    nat_table_mib: u64,
}

/// Measures and prints.
#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
pub(super) fn measure() -> Figures {
    let before = resident_mib();
    let mut nat = NatTable::default();
    // Connections of all devices come mixed.
    (0..FLOWS).for_each(|position| nat.apply(&binding(anywhere(position))));
    let with_nat = resident_mib();
    let mut table = SessionTable::default();
    for number in 0..SESSIONS {
        table.apply(report(number, SessionEvent::Start, 0));
    }
    let began = Instant::now();
    let changes = CHANGES_PER_S * ROTATION_S;
    for change in 0..changes {
        let at_ns = WallNs::from(change) * SECOND / WallNs::from(CHANGES_PER_S);
        // Every third change ends one session and begins another of the same device.
        let number = change * 7919 % SESSIONS;
        let event = if change % 3 == 0 { SessionEvent::Stop } else { SessionEvent::Interim };
        table.apply(report(number, event, 600 * SECOND + at_ns));
    }
    let (now_ns, timeouts) = (900 * SECOND, SessionTimeouts::default());
    let sessions = table.sessions(&timeouts, now_ns);
    let with_sessions = resident_mib();
    let folded = began.elapsed();
    let began = Instant::now();
    let mut forgotten = table.clone();
    forgotten.forget(&sessions, &timeouts, now_ns);
    let session_seal_ms = (folded + began.elapsed()).as_secs_f64() * 1e3;
    drop(forgotten);
    let mut devices = DeviceTable::default();
    (0..SESSIONS).for_each(|number| devices.apply(&lease(number)));

    let began = Instant::now();
    let mut attributor = Attributor::new(&sessions).with_devices(&devices);
    let index_ns = began.elapsed().as_nanos() as f64;
    let index_ns = index_ns / f64::from(FLOWS);
    let translate = |flow: &Seen, tuple: &Tuple| nat.lookup(tuple, flow.start_ns, flow.end_ns).1.is_some();
    let mut join = |flow: &Seen, tuple: &Tuple| is_known(&mut attributor, flow) && translate(flow, tuple);
    let ordered = ns_per_flow(|number| number, &mut join);
    let scattered = ns_per_flow(anywhere, join);
    let attribution = ns_per_flow(|number| number, |flow, _| is_known(&mut attributor, flow));
    let translation = ns_per_flow(|number| number, translate);
    let figures = Figures {
        join_ns_per_flow: ordered + index_ns,
        index_ns_per_flow: index_ns,
        attribution_ns_per_flow: attribution,
        translation_ns_per_flow: translation,
        join_scattered_ns_per_flow: scattered + index_ns,
        sessions: SESSIONS,
        session_changes: changes,
        session_seal_ms,
        session_table_mib: with_sessions.saturating_sub(with_nat),
        nat_table_mib: with_nat.saturating_sub(before),
    };
    println!(
        "{:>13}  {:>8}  {:>14}  {:>14}  {:>12}  {:>9}  {:>8}  {:>7}  {:>12}  {:>7}",
        "join ns/flow",
        "of index",
        "attribution ns",
        "translation ns",
        "in no order",
        "sessions",
        "changes",
        "seal ms",
        "sessions MiB",
        "NAT MiB"
    );
    println!(
        "{:>13.0}  {:>8.0}  {:>14.0}  {:>14.0}  {:>12.0}  {:>9}  {:>8}  {:>7.0}  {:>12}  {:>7}",
        figures.join_ns_per_flow,
        figures.index_ns_per_flow,
        figures.attribution_ns_per_flow,
        figures.translation_ns_per_flow,
        figures.join_scattered_ns_per_flow,
        figures.sessions,
        figures.session_changes,
        figures.session_seal_ms,
        figures.session_table_mib,
        figures.nat_table_mib
    );
    figures
}

/// Asks for every flow in some order; the time of one, without that of making it up.
fn ns_per_flow(order: impl Fn(u32) -> u32, finds: impl FnMut(&Seen, &Tuple) -> bool) -> f64 {
    let made_up = ns_of_a_turn(&order, |flow, tuple| {
        black_box((flow, tuple));
        true
    });
    ns_of_a_turn(&order, finds) - made_up
}

fn ns_of_a_turn(order: impl Fn(u32) -> u32, mut finds: impl FnMut(&Seen, &Tuple) -> bool) -> f64 {
    let began = Instant::now();
    let mut found = 0;
    for position in 0..FLOWS {
        let number = order(position);
        let tuple = tuple(number);
        let start_ns = 700 * SECOND + WallNs::from(position);
        let mac = mac(device(number));
        let seen = Seen { mac, ip: tuple.client_ip, vlan: 0, inner_vlan: 0, start_ns, end_ns: start_ns + SECOND };
        found += usize::from(finds(&seen, &tuple));
    }
    let took = began.elapsed().as_nanos() as f64;
    assert!(found > FLOWS as usize / 2, "flows find what is theirs: {found}");
    took / f64::from(FLOWS)
}

fn is_known(attributor: &mut Attributor<'_>, flow: &Seen) -> bool {
    let (attribution, identity) = attributor.attribute(flow);
    attribution != Attribution::Unknown && identity.is_some()
}

/// All flows, in no order.
fn anywhere(position: u32) -> u32 {
    // A prime that does not divide their number: every flow comes once.
    let number = u64::from(position) * 2_654_435_761 % u64::from(FLOWS);
    u32::try_from(number).unwrap_or(0)
}

/// Flows are in the order of a segment: by device.
fn device(flow: u32) -> u32 {
    flow / (FLOWS / SESSIONS)
}

fn mac(device: u32) -> MacAddr {
    let [a, b, c, d] = device.to_be_bytes();
    MacAddr([2, 1, a, b, c, d])
}

fn address(device: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + device).into()
}

fn report(number: u32, event: SessionEvent, at_ns: WallNs) -> SessionFact {
    SessionFact {
        event,
        source: IdentitySource::Radius,
        session_id: format!("ap{}/{number:08x}", number % 500),
        user: Some(format!("09{number:08}")),
        auth_method: Some("radius".to_owned()),
        client_mac: Some(mac(number)),
        client_ips: vec![address(number)],
        client_prefixes: Vec::new(),
        ap_mac: Some(MacAddr([2, 2, 0, 0, 0, 1])),
        ssid: Some("Venue Wi-Fi".to_owned()),
        nas: Some(format!("ap{}", number % 500)),
        nas_port: None,
        at_ns,
        started_ns: (event != SessionEvent::Start).then_some(0),
        received_ns: at_ns,
        counters: None,
        end_cause: None,
        interim_interval_s: Some(600),
        details: None,
    }
}

fn lease(number: u32) -> DeviceFact {
    let event = DeviceEvent::Leased { ip: address(number), lease_s: 3600 };
    DeviceFact { at_ns: 0, client_mac: mac(number), vlan: 0, inner_vlan: 0, source: DeviceSource::Dhcp, event }
}

fn tuple(flow: u32) -> Tuple {
    let [_, a, b, c] = (flow % 50_000).to_be_bytes();
    Tuple {
        protocol: 6,
        client_ip: address(device(flow)),
        client_port: u16::try_from(1024 + flow % 60_000).unwrap_or(1),
        peer_ip: [198, 18 + a, b, c].into(),
        peer_port: 443,
    }
}

fn binding(flow: u32) -> NatFact {
    let tuple = tuple(flow);
    NatFact {
        event: NatEvent::Created,
        at_ns: 690 * SECOND + WallNs::from(flow),
        protocol: tuple.protocol,
        client_ip: tuple.client_ip,
        client_port: tuple.client_port,
        peer_ip: tuple.peer_ip,
        peer_port: tuple.peer_port,
        public_ip: [203, 0, 113, 7].into(),
        public_port: tuple.client_port,
    }
}

/// Memory this process has now.
fn resident_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
