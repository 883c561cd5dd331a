//! Random histories: reports about a few sessions, devices and addresses, so that everything collides, what devices showed of their
//! addresses, and flows to ask about.

use std::net::IpAddr;

use hotspot_core::fact::{
    DeviceEvent, DeviceFact, DeviceSource, IdentitySource, SessionDetails, SessionEvent, SessionFact,
};
use hotspot_core::{MacAddr, WallNs};
use proptest::prelude::*;

use crate::SECOND;

/// Everything happens at a multiple of it.
pub(crate) const HALF: WallNs = SECOND / 2;
/// Half seconds.
const LONG: i64 = 1600;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) mac: MacAddr,
    pub(crate) ip: IpAddr,
    pub(crate) vlan: u16,
    pub(crate) start_ns: WallNs,
    pub(crate) end_ns: WallNs,
}

#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) facts: Vec<SessionFact>,
    /// By time.
    pub(crate) shown: Vec<DeviceFact>,
    pub(crate) flows: Vec<Flow>,
    pub(crate) now_ns: WallNs,
}

pub(crate) fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn address(number: u8) -> IpAddr {
    match number {
        0..=2 => [10, 0, 0, number].into(),
        _ => format!("2001:db8::{number}").parse().unwrap(),
    }
}

fn any_event() -> impl Strategy<Value = SessionEvent> {
    prop_oneof![
        5 => Just(SessionEvent::Start),
        5 => Just(SessionEvent::Interim),
        4 => Just(SessionEvent::Stop),
        1 => Just(SessionEvent::NasReset),
        1 => Just(SessionEvent::Rejected),
    ]
}

/// Mostly as a whole history has it; sometimes anything.
fn any_user() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        2 => Just(None),
        4 => Just(Some("ann".to_owned())),
        3 => Just(Some("bob".to_owned())),
        1 => Just(Some("anonymous@uni.example".to_owned())),
        1 => Just(Some("02-00-00-00-00-01".to_owned())),
    ]
}

/// How late a report is by what it claims, in half seconds: a NAS's clock steps back, and counters are absurd; the gateway's own
/// clock may be behind that of the NAS.
fn any_lateness() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => Just(0i64),
        4 => 0i64..100,
        1 => -20i64..0,
        1 => -1300i64..0,
        2 => prop_oneof![Just(1i64), Just(120), Just(121), 0i64..1500],
    ]
}

/// Half seconds a session is told to have lasted; a clock that was set meanwhile counts anything.
fn any_length() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![7 => Just(None), 3 => (0i64..120).prop_map(Some), 1 => (0i64..3_600_000_000).prop_map(Some)]
}

fn any_chargeable() -> impl Strategy<Value = Option<std::sync::Arc<SessionDetails>>> {
    prop::option::weighted(0.15, 0u8..2).prop_map(|number| {
        let chargeable_user = Some(format!("cui-{}", number?));
        SessionDetails { chargeable_user, ..SessionDetails::default() }.shared()
    })
}

fn any_fact() -> impl Strategy<Value = SessionFact> {
    let what = (any_event(), 0u8..3, 0u8..2, any::<bool>(), any_user(), prop::option::weighted(0.7, 1u8..3));
    let places =
        (prop::collection::vec(0u8..5, 0..3), prop::option::weighted(0.1, 0u8..2), prop::option::weighted(0.3, 7u8..9));
    let times = (0i64..LONG, any_lateness(), any_length(), prop::option::weighted(0.3, 3u32..40), any_chargeable());
    (what, places, times).prop_map(|(what, places, times)| {
        let (event, id, nas, portal, user, client) = what;
        let (at, late, lasted, interim_interval_s, details) = times;
        let is_reset = event == SessionEvent::NasReset;
        let at_ns = at * HALF;
        let prefix = |number: u8| (format!("2001:db8:0:{number}::").parse().unwrap(), 64);
        SessionFact {
            event,
            source: if portal { IdentitySource::Portal } else { IdentitySource::Radius },
            session_id: if is_reset { String::new() } else { id.to_string() },
            user: user.filter(|_| !is_reset),
            auth_method: None,
            client_mac: client.map(mac).filter(|_| !is_reset),
            client_ips: if is_reset { Vec::new() } else { places.0.into_iter().map(address).collect() },
            client_prefixes: places.1.map(prefix).into_iter().filter(|_| !is_reset).collect(),
            ap_mac: places.2.map(mac),
            ssid: None,
            nas: Some(format!("nas{nas}")),
            nas_port: None,
            at_ns,
            started_ns: lasted.map(|lasted| at_ns - lasted * HALF).filter(|_| !is_reset),
            received_ns: at_ns + late * HALF,
            counters: None,
            end_cause: None,
            interim_interval_s,
            details: details.filter(|_| !is_reset),
        }
    })
}

/// Mostly in the one network that flows are in.
fn any_vlan() -> impl Strategy<Value = u16> {
    prop_oneof![9 => Just(0u16), 1 => Just(20u16)]
}

fn any_shown() -> impl Strategy<Value = DeviceFact> {
    let event = (0u8..5, prop_oneof![4 => Just(0u8), 2 => Just(1u8), 1 => Just(2u8)], 1u32..300);
    (event, 1u8..4, any_vlan(), 0i64..LONG).prop_map(|((ip, kind, lease_s), client, vlan, at)| DeviceFact {
        at_ns: at * HALF,
        client_mac: mac(client),
        vlan,
        inner_vlan: 0,
        source: DeviceSource::Arp,
        event: match kind {
            0 => DeviceEvent::Uses { ip: address(ip) },
            1 => DeviceEvent::Leased { ip: address(ip), lease_s },
            _ => DeviceEvent::Released { ip: address(ip) },
        },
    })
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let lasted = prop_oneof![Just(0i64), 0i64..200];
    (1u8..4, 0u8..6, any_vlan(), -20i64..LONG, lasted).prop_map(|(client, ip, vlan, start, lasted)| Flow {
        mac: mac(client),
        ip: if ip == 5 { "2001:db8:0:1::5".parse().unwrap() } else { address(ip) },
        vlan,
        start_ns: start * HALF + 1,
        end_ns: (start + lasted) * HALF + 1,
    })
}

pub(crate) fn any_history() -> impl Strategy<Value = History> {
    let facts = prop::collection::vec(any_fact(), 0..14);
    let shown = prop::collection::vec(any_shown(), 0..8);
    let flows = prop::collection::vec(any_flow(), 1..6);
    (facts, shown, flows).prop_map(|(facts, mut shown, flows)| {
        shown.sort_by_key(|fact| fact.at_ns);
        History { facts, shown, flows, now_ns: LONG * HALF }
    })
}
