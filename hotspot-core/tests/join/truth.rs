//! What people really did: devices that change hands, roam, lose their address to each other, and reports about it that are lost,
//! late and in any order. Whoever the join names without a doubt must have been there.

use std::net::IpAddr;

use hotspot_core::WallNs;
use hotspot_core::attribute::{Attributor, Seen};
use hotspot_core::fact::{DeviceEvent, DeviceFact, DeviceSource, IdentitySource, SessionEvent, SessionFact};
use hotspot_core::record::Attribution;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::histories::mac;
use crate::{SECOND, devices, sessions};

const USERS: [&str; 3] = ["ann", "bob", "cyd"];
const INTERIM_S: i64 = 30;
const EVENING_S: i64 = 600;
/// Reports say whole seconds, and how long a session lasted in whole seconds too.
const BLUR_NS: WallNs = 2 * SECOND;

/// Somebody on a device, by way of one NAS.
#[derive(Clone, Debug)]
struct Stay {
    device: u8,
    user: usize,
    nas: u8,
    from_ns: WallNs,
    to_ns: WallNs,
    announces: bool,
}

#[derive(Clone, Debug)]
struct Evening {
    stays: Vec<Stay>,
    facts: Vec<SessionFact>,
    /// What devices and their server said of addresses, by time.
    shown: Vec<DeviceFact>,
    /// Device, whose address it uses, when.
    flows: Vec<(u8, u8, WallNs)>,
}

const EPOCH_S: i64 = 150;
const ADDRESSES: u8 = 5;

/// Devices take each other's addresses now and then; within an evening none gets back one that it gave up.
fn address(device: u8, at_ns: WallNs) -> IpAddr {
    let epoch = u8::try_from(at_ns / (EPOCH_S * SECOND)).unwrap();
    [10, 0, 0, (device + epoch) % ADDRESSES].into()
}

/// Leases that were seen, and what those say who use somebody else's address.
fn shown(seen: &[bool], flows: &[(u8, u8, WallNs)]) -> Vec<DeviceFact> {
    let fact = |device, at_ns, event| DeviceFact {
        at_ns,
        client_mac: mac(device),
        vlan: 0,
        inner_vlan: 0,
        source: DeviceSource::Dhcp,
        event,
    };
    let epochs =
        (0..EVENING_S / EPOCH_S).flat_map(|epoch| (1u8..4).map(move |device| (epoch * EPOCH_S * SECOND, device)));
    let leases = epochs.zip(seen.iter().cycle()).filter(|(_, is_seen)| **is_seen).map(|((at_ns, device), _)| {
        fact(device, at_ns, DeviceEvent::Leased { ip: address(device, at_ns), lease_s: 200 })
    });
    let forged = flows.iter().filter(|(_, spoofs, _)| *spoofs > 0).map(|(device, spoofs, at_ns)| {
        fact(*device, *at_ns, DeviceEvent::Uses { ip: address(device + spoofs, *at_ns) })
    });
    let mut shown: Vec<DeviceFact> = leases.chain(forged).collect();
    shown.sort_by_key(|fact| fact.at_ns);
    shown
}

/// Which of a stay's reports arrive, in thirds; how late, in seconds.
type Fate = (Vec<bool>, Vec<u8>);

fn reports(stay: &Stay, number: usize, fate: &Fate) -> Vec<SessionFact> {
    let mut moments: Vec<(SessionEvent, WallNs)> = vec![(SessionEvent::Start, stay.from_ns)];
    let mut at_ns = stay.from_ns + INTERIM_S * SECOND;
    while stay.announces && at_ns < stay.to_ns {
        moments.push((SessionEvent::Interim, at_ns));
        at_ns += INTERIM_S * SECOND;
    }
    moments.push((SessionEvent::Stop, stay.to_ns));
    let arrives = |position: usize| fate.0[position % fate.0.len()];
    let any_arrives = (0..moments.len()).any(arrives);
    let delivered = moments.iter().enumerate().filter(|(position, _)| arrives(*position) || !any_arrives);
    let facts = delivered.map(|(position, (event, at_ns))| {
        let whole_ns = at_ns / SECOND * SECOND;
        let lasted_ns = (at_ns - stay.from_ns) / SECOND * SECOND;
        SessionFact {
            event: *event,
            source: IdentitySource::Radius,
            session_id: number.to_string(),
            user: Some(USERS[stay.user].to_owned()),
            auth_method: None,
            client_mac: Some(mac(stay.device)),
            client_ips: vec![address(stay.device, *at_ns)],
            client_prefixes: Vec::new(),
            ap_mac: None,
            ssid: None,
            nas: Some(stay.nas.to_string()),
            nas_port: None,
            at_ns: whole_ns,
            started_ns: (*event != SessionEvent::Start).then_some(whole_ns - lasted_ns),
            received_ns: at_ns + SECOND * WallNs::from(fate.1[position % fate.1.len()]),
            counters: None,
            end_cause: None,
            interim_interval_s: stay.announces.then_some(u32::try_from(INTERIM_S).unwrap()),
            details: None,
        }
    });
    facts.collect()
}

fn any_evening() -> impl Strategy<Value = Evening> {
    let stay = (1u8..4, 0usize..3, 0u8..3, 3i64..120, 5i64..200, any::<bool>(), any::<bool>(), 0i64..1000);
    let fate = (prop::collection::vec(prop::bool::weighted(0.7), 1..6), prop::collection::vec(0u8..40, 1..5));
    let flow = (1u8..4, prop_oneof![4 => Just(0u8), 1 => 1u8..3], 0i64..EVENING_S * 1000);
    let stays = prop::collection::vec((stay, fate), 1..8);
    let seen = prop::collection::vec(prop::bool::weighted(0.7), 1..8);
    (stays, seen, prop::collection::vec(flow, 1..8)).prop_map(|(drawn, seen, flows)| {
        let mut evening = Evening { stays: Vec::new(), facts: Vec::new(), shown: Vec::new(), flows: Vec::new() };
        let mut free_ns = [0; 4];
        for ((device, user, nas, gap_s, lasts_s, announces, roams, millis), fate) in drawn {
            let free_ns = &mut free_ns[usize::from(device)];
            let from_ns = *free_ns + gap_s * SECOND + millis * 1_000_000;
            let to_ns = from_ns + lasts_s * SECOND;
            let stay = Stay { device, user, nas, from_ns, to_ns, announces };
            // On another access point the same user goes on before the first one noticed that the device left.
            let next =
                Stay { nas: nas + 1, from_ns: to_ns - 2 * SECOND, to_ns: to_ns + lasts_s * SECOND, ..stay.clone() };
            *free_ns = if roams { next.to_ns } else { to_ns };
            for stay in std::iter::once(stay).chain(roams.then_some(next)) {
                evening.facts.extend(reports(&stay, evening.stays.len(), &fate));
                evening.stays.push(stay);
            }
        }
        evening.flows = flows.into_iter().map(|(device, spoofs, at)| (device, spoofs, at * 1_000_000)).collect();
        evening.shown = shown(&seen, &evening.flows);
        evening
    })
}

/// Whether an answer that names one user is borne out.
fn is_true(evening: &Evening, device: u8, at_ns: WallNs, user: &str) -> bool {
    let of_device = || evening.stays.iter().filter(|stay| stay.device == device);
    let was_there = |stay: &&Stay| stay.from_ns - BLUR_NS <= at_ns && at_ns <= stay.to_ns + BLUR_NS;
    let nobody = !of_device().any(|stay| stay.from_ns <= at_ns && at_ns <= stay.to_ns);
    // Whose stop was lost seems to stay until silence shows it, while nobody else is there.
    let last = of_device().filter(|stay| stay.to_ns < at_ns).max_by_key(|stay| stay.to_ns);
    of_device().filter(was_there).any(|stay| USERS[stay.user] == user)
        || (nobody && last.is_some_and(|stay| USERS[stay.user] == user))
}

fn check(evening: &Evening) -> Result<(), TestCaseError> {
    let now_ns = EVENING_S * SECOND;
    let known = sessions(&evening.facts, now_ns);
    let devices = devices(&evening.shown);
    let mut attributor = Attributor::new(&known).with_devices(&devices);
    for (device, spoofs, at_ns) in &evening.flows {
        let ip = address(device + spoofs, *at_ns);
        let (mac, start_ns) = (mac(*device), *at_ns);
        let seen = Seen { mac, ip, vlan: 0, inner_vlan: 0, start_ns, end_ns: start_ns + SECOND };
        let (attribution, identity) = attributor.attribute(&seen);
        let user = identity.and_then(|identity| identity.users.first().cloned());
        match (attribution, user) {
            (Attribution::Authenticated | Attribution::MacOnly, Some(user)) => {
                let flow = (device, spoofs, at_ns, &user);
                prop_assert!(is_true(evening, *device, *at_ns, &user), "{:?} {:#?} {:#?}", flow, evening.stays, known);
            }
            (Attribution::BeforeLogin, Some(user)) => {
                let mut later = evening.stays.iter().filter(|stay| stay.device == *device && stay.to_ns > *at_ns);
                prop_assert!(later.any(|stay| USERS[stay.user] == user), "{user} never came");
            }
            (Attribution::IpOnly, _) => prop_assert!(false, "every session names a device"),
            (_, _) => {}
        }
    }
    Ok(())
}

pub(crate) fn run(cases: u32) {
    let config = Config { cases, max_shrink_iters: 20_000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&any_evening(), |evening| check(&evening)).unwrap();
}
