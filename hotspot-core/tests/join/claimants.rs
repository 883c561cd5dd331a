//! Of the model: who claims a flow, given every life there was, and how sure that is.

use hotspot_core::attribute::LOGIN_WINDOW_NS;
use hotspot_core::device::{Device, Held, LEARNT_LATE_NS};
use hotspot_core::fact::SessionFact;
use hotspot_core::record::Attribution;
use hotspot_core::sessions::SessionTimeouts;
use hotspot_core::{MacAddr, WallNs};

use crate::Answer;
use crate::histories::{Flow, HALF};
use crate::model::{Life, lives};

/// User-Name, Chargeable-User-Identity; the device where neither names anybody.
pub(crate) type Who = (Option<String>, Option<String>, Option<MacAddr>);

/// One User-Name is one person where no two identities are given for it, and it is not anonymous.
fn may_be_one(left: &Who, right: &Who) -> bool {
    let is_chargeable = match (&left.1, &right.1) {
        (Some(left), Some(right)) => left == right,
        (None, None) => true,
        _ => left.0.as_deref() != Some("anonymous@uni.example"),
    };
    let is_named = |who: &Who| who.0.is_some() || who.1.is_some();
    left.0 == right.0 && is_chargeable && left.2 == right.2 && is_named(left) == is_named(right)
}

pub(crate) fn attribute(
    facts: &[SessionFact],
    devices: &[Device],
    timeouts: &SessionTimeouts,
    now_ns: WallNs,
    flow: &Flow,
) -> Answer {
    let all = lives(facts, timeouts, now_ns);
    let persons: Vec<&Life> = all.iter().filter(|life| life.is_person()).collect();
    let everybody: Vec<&Life> = all.iter().collect();
    let answer = among(&persons, devices, flow).or_else(|| among(&everybody, devices, flow));
    answer.unwrap_or((Attribution::Unknown, None, None, None))
}

/// 2 for a lease, 1 for what a device said, 0 for nothing.
fn worth(device: &Device, flow: &Flow, when: impl Fn(&Held) -> bool) -> u8 {
    let of_flow = |held: &&Held| held.ip == flow.ip && (held.vlan, held.inner_vlan) == (flow.vlan, 0) && when(held);
    device.addresses.iter().filter(of_flow).map(|held| 1 + u8::from(held.is_leased)).max().unwrap_or(0)
}

/// What the flow's own device showed, and the devices that showed something else, with what it is worth.
fn shown(devices: &[Device], flow: &Flow) -> (u8, Vec<(MacAddr, u8)>) {
    let is_own = |device: &&Device| device.client_mac == flow.mac;
    let late_ns = flow.end_ns.max(flow.start_ns + LEARNT_LATE_NS);
    let own = devices
        .iter()
        .find(is_own)
        .map_or(0, |device| worth(device, flow, |held| held.from_ns <= late_ns && held.until_ns > flow.start_ns));
    let others = devices.iter().filter(|device| !is_own(device)).map(|device| {
        let at_start = |held: &Held| held.from_ns <= flow.start_ns && flow.start_ns < held.until_ns;
        (device.client_mac, worth(device, flow, at_start))
    });
    (own, others.filter(|(_, worth)| *worth > 0).collect())
}

/// Two IPv4 addresses in one network, each heard of after the other began.
fn in_turns(device: &Device) -> bool {
    let v4: Vec<&Held> = device.addresses.iter().filter(|held| held.ip.is_ipv4()).collect();
    v4.iter().any(|one| {
        let others = v4
            .iter()
            .filter(|other| other.ip != one.ip && (other.vlan, other.inner_vlan) == (one.vlan, one.inner_vlan));
        others.into_iter().any(|other| one.last_ns > other.from_ns && other.last_ns > one.from_ns)
    })
}

fn among(lives: &[&Life], devices: &[Device], flow: &Flow) -> Option<Answer> {
    let start_ns = flow.start_ns;
    let now = |life: &&&Life| life.covers(start_ns);
    let soon = |life: &&&Life| life.from_ns > start_ns && life.from_ns <= flow.end_ns;
    let of_device = |life: &&&Life| life.mac() == Some(flow.mac);
    let device: Vec<&&Life> = lives.iter().filter(of_device).filter(now).collect();
    let holds_when = |life: &Life, at_ns| life.mac().is_none() && life.holds(flow.ip, at_ns);
    let address: Vec<&&Life> = lives.iter().filter(now).filter(|life| holds_when(life, start_ns)).collect();
    let is_named = device.iter().any(|life| life.holds(flow.ip, start_ns));
    // Who names the address has it; who names others of its family has not.
    let device: Vec<&&Life> =
        device.into_iter().filter(|life| !(is_named && life.is_elsewhere(flow.ip, start_ns))).collect();
    let is_shared = devices.iter().any(|known| known.client_mac == flow.mac && in_turns(known));
    let speaks = |life: &&&Life| start_ns <= life.alone_until_ns || life.holds(flow.ip, start_ns) || is_shared;
    let device: Vec<&&Life> = device.into_iter().filter(speaks).collect();
    let is_shared = is_shared && flow.ip.is_ipv4();
    let until_ns = flow.end_ns.max(start_ns + LOGIN_WINDOW_NS);
    let later: Vec<&&Life> =
        lives.iter().filter(of_device).filter(|life| life.from_ns > start_ns && life.from_ns <= until_ns).collect();
    let by_name: Vec<&&Life> = later.iter().filter(|life| life.holds(flow.ip, life.from_ns)).copied().collect();
    let (mut claimants, mut contested): (Vec<&Life>, Vec<MacAddr>) = (Vec::new(), Vec::new());
    let sure = if device.is_empty() && address.is_empty() {
        let mut later = if by_name.is_empty() { later } else { by_name };
        later.retain(|life| !(is_shared && life.is_elsewhere(flow.ip, life.from_ns)));
        let first_ns = later.iter().map(|life| life.from_ns).min()?;
        claimants.extend(later.into_iter().filter(|life| life.from_ns == first_ns).copied());
        Attribution::BeforeLogin
    } else {
        let soon = lives.iter().filter(of_device).filter(soon);
        claimants.extend(soon.filter(|life| !(is_named && life.is_elsewhere(flow.ip, life.from_ns))));
        // Whoever comes to hold the address while the flow lasts.
        claimants.extend(lives.iter().filter(|life| life.mac().is_none()).filter(|life| {
            // Everything in a history happens at half seconds.
            let comes = (start_ns / HALF + 1..=flow.end_ns / HALF)
                .map(|halves| halves * HALF)
                .any(|at_ns| life.covers(at_ns) && life.holds(flow.ip, at_ns));
            comes && !(life.covers(start_ns) && life.holds(flow.ip, start_ns))
        }));
        let (own, others) = shown(devices, flow);
        let known = if is_named { 2 } else { own };
        contested = others.into_iter().filter(|(_, worth)| *worth >= known).map(|(mac, _)| mac).collect();
        for mac in &contested {
            let theirs = || lives.iter().filter(now).filter(|life| life.mac() == Some(*mac));
            let names = theirs().any(|life| life.holds(flow.ip, start_ns));
            claimants.extend(theirs().filter(|life| !(names && life.is_elsewhere(flow.ip, start_ns))));
        }
        let mut stale: Vec<&Life> = Vec::new();
        let is_given = own == 2 && contested.is_empty();
        if !(device.is_empty() || is_named || is_given) {
            let others = lives.iter().filter(now).filter(|life| life.holds(flow.ip, start_ns));
            stale.extend(others.filter(|life| life.mac().is_some_and(|mac| mac != flow.mac)));
        }
        let is_own = is_named || (own > 0 && contested.is_empty() && stale.is_empty());
        let nobody_named = address.is_empty() && device.iter().all(|life| life.is_elsewhere(flow.ip, start_ns));
        let is_anybodys = !device.is_empty() && !is_named && is_shared && nobody_named && contested.is_empty();
        let is_by_name = is_anybodys && stale.is_empty() && !by_name.is_empty();
        claimants.extend(stale);
        claimants.extend(device.iter().chain(&address).map(|life| **life));
        if is_by_name {
            let first_ns = by_name.iter().map(|life| life.from_ns).min();
            claimants = by_name.into_iter().filter(|life| Some(life.from_ns) == first_ns).copied().collect();
        }
        match (device.is_empty(), is_own) {
            _ if is_by_name => Attribution::BeforeLogin,
            _ if is_anybodys => Attribution::Ambiguous,
            (true, _) => Attribution::IpOnly,
            (false, true) => Attribution::Authenticated,
            (false, false) => Attribution::MacOnly,
        }
    };
    let mut users: Vec<Who> = claimants.iter().map(|life| life.who()).collect();
    let is_named = |who: &Who| who.0.is_some() || who.1.is_some();
    users.sort_by_key(|who| (is_named(who), who.0.clone(), who.1.is_none(), who.1.clone(), who.2));
    users.dedup_by(|next, first| may_be_one(next, first));
    let best = |who: &Who| -> &Life {
        let of_user = claimants.iter().filter(|life| life.who() == *who);
        let strength = |life: &Life| {
            let ground = if life.from_ns > start_ns || !life.covers(start_ns) {
                1
            } else if life.mac() == Some(flow.mac) {
                3
            } else if life.mac().is_none() {
                1 + u8::from(life.holds(flow.ip, start_ns))
            } else {
                0
            };
            (ground, life.from_ns, std::cmp::Reverse((life.id.2.clone(), life.id.0, life.nas())))
        };
        of_user.max_by_key(|life| strength(life)).unwrap()
    };
    let listed: Vec<&Life> = users.iter().map(best).collect();
    let names: Vec<String> = listed.iter().filter_map(|life| life.shown_name()).collect();
    let ids: Vec<String> = listed.iter().map(|life| life.id.2.clone()).collect();
    let is_known = |mac: &MacAddr| lives.iter().filter(now).any(|life| life.mac() == Some(*mac));
    let sure = if !contested.is_empty() && (listed.len() > 1 || !contested.iter().all(is_known)) {
        Attribution::Conflict
    } else if listed.len() > 1 {
        Attribution::Ambiguous
    } else {
        sure
    };
    let ap = (listed.len() == 1).then(|| listed[0].ap_at(start_ns)).flatten();
    Some((sure, (!names.is_empty()).then(|| names.join(", ")), Some(ids.join(", ")), ap.map(|ap| ap.to_string())))
}
