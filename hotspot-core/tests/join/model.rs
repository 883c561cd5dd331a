//! The naive model: what the rules say, asked of every report anew for the one instant in question. Slow, and plain.
//!
//! How long a device held an address is taken from the table of devices, whose rules have tests of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hotspot_core::attribute::LOGIN_WINDOW_NS;
use hotspot_core::device::{Device, Held, LEARNT_LATE_NS};
use hotspot_core::fact::{IdentitySource, SessionEvent, SessionFact};
use hotspot_core::record::Attribution;
use hotspot_core::sessions::SessionTimeouts;
use hotspot_core::{MacAddr, WallNs};

use crate::histories::{Flow, HALF};
use crate::{Answer, SECOND};

type Id = (IdentitySource, Option<String>, String);

/// One user on one device: its reports, by time, and when it was.
struct Life {
    id: Id,
    reports: Vec<SessionFact>,
    from_ns: WallNs,
    /// It began no sooner.
    floor_ns: WallNs,
    /// The last moment; `None` while it lasts.
    until_ns: Option<WallNs>,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    None,
    Reported,
    /// By a reset of its NAS, or by silence: it may have been over before.
    Reset,
    Silence,
}

fn rank(event: SessionEvent) -> u8 {
    match event {
        SessionEvent::NasReset => 0,
        SessionEvent::Start => 1,
        SessionEvent::Interim | SessionEvent::Rejected => 2,
        SessionEvent::Stop => 3,
    }
}

fn began(report: &SessionFact) -> WallNs {
    report.at_ns.min(report.started_ns.unwrap_or(report.at_ns))
}

fn whole_second(at_ns: WallNs) -> WallNs {
    if at_ns % SECOND == 0 { at_ns + SECOND - 1 } else { at_ns }
}

impl Life {
    fn last<T>(&self, of: impl Fn(&SessionFact) -> Option<T>) -> Option<T> {
        self.reports.iter().rev().find_map(of)
    }

    fn user(&self) -> Option<String> {
        self.last(|report| report.user.clone())
    }

    fn mac(&self) -> Option<MacAddr> {
        self.last(|report| report.client_mac)
    }

    fn heard_ns(&self) -> WallNs {
        self.reports.iter().map(|report| report.at_ns).max().unwrap()
    }

    fn stop_ns(&self) -> Option<WallNs> {
        self.reports.iter().find(|report| report.event == SessionEvent::Stop).map(|report| report.at_ns)
    }

    fn covers(&self, at_ns: WallNs) -> bool {
        self.from_ns <= at_ns && self.until_ns.is_none_or(|until| at_ns <= until)
    }

    /// The last report that names any address of the family by then says it; before all of them, the first.
    fn holds(&self, ip: IpAddr, at_ns: WallNs) -> bool {
        let names_family = |report: &&SessionFact| {
            report.client_ips.iter().any(|named| named.is_ipv4() == ip.is_ipv4())
                || report.client_prefixes.iter().any(|(named, _)| named.is_ipv4() == ip.is_ipv4())
        };
        let naming: Vec<&SessionFact> = self.reports.iter().filter(names_family).collect();
        let by_then = naming.iter().filter(|report| report.at_ns <= at_ns).count().max(1);
        let mut said = naming.iter().take(by_then);
        let names = |report: &&&SessionFact| {
            let in_prefix = |(prefix, len): &(IpAddr, u8)| match (prefix, ip) {
                (IpAddr::V6(prefix), IpAddr::V6(ip)) => {
                    assert_eq!(*len, 64);
                    prefix.segments()[..4] == ip.segments()[..4]
                }
                _ => false,
            };
            report.client_ips.contains(&ip) || report.client_prefixes.iter().any(in_prefix)
        };
        // IPv6 addresses of a client add up; a new IPv4 address takes the place of the old.
        if ip.is_ipv4() {
            said.next_back().is_some_and(|report| names(&report))
        } else {
            said.clone().any(|report| names(&report))
        }
    }

    fn ap_at(&self, at_ns: WallNs) -> Option<MacAddr> {
        let naming: Vec<&SessionFact> = self.reports.iter().filter(|report| report.ap_mac.is_some()).collect();
        let by_then = naming.iter().filter(|report| report.at_ns <= at_ns).count().max(1);
        naming.iter().take(by_then).next_back().and_then(|report| report.ap_mac)
    }

    fn is_person(&self) -> bool {
        self.user().is_some_and(|user| self.mac().is_none_or(|mac| user.parse() != Ok(mac)))
    }

    /// The person, or the device where none is named.
    fn who(&self) -> (Option<String>, Option<MacAddr>) {
        if self.is_person() { (self.user(), None) } else { (None, self.mac()) }
    }
}

/// Resets of a session's NAS, by time; those of another access point do not count.
fn resets<'a>(facts: &'a [SessionFact], life: &Life) -> Vec<&'a SessionFact> {
    let ap = life.last(|report| report.ap_mac);
    let mut found: Vec<&SessionFact> = facts
        .iter()
        .filter(|fact| fact.event == SessionEvent::NasReset && fact.source == life.id.0 && fact.nas == life.id.1)
        .filter(|fact| fact.ap_mac.is_none() || ap.is_none() || fact.ap_mac == ap)
        .collect();
    found.sort_by_key(|fact| fact.at_ns);
    found
}

fn lives_of(id: &Id, reports: &[SessionFact], facts: &[SessionFact], timeouts: &SessionTimeouts) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for report in reports {
        let is_new = lives.last().is_none_or(|life| {
            let says_when = report.event == SessionEvent::Start || report.started_ns.is_some();
            let other_user = report.user.is_some() && life.user().is_some() && report.user != life.user();
            let other_mac = report.client_mac.is_some() && life.mac().is_some() && report.client_mac != life.mac();
            let restarted = life.stop_ns().is_some_and(|stop| {
                let started = report.started_ns.is_some_and(|started| started > stop);
                report.event == SessionEvent::Start || started || report.at_ns > stop + 60 * SECOND
            });
            let reset = says_when
                && resets(facts, life).iter().any(|reset| reset.at_ns > life.from_ns && reset.at_ns <= began(report));
            other_user || other_mac || restarted || reset || was_silent(life, report, timeouts)
        });
        if !is_new {
            let floor_ns = lives.last().unwrap().floor_ns;
            let life = lives.last_mut().unwrap();
            life.reports.push(report.clone());
            life.from_ns = life.from_ns.min(began(report)).max(floor_ns);
            continue;
        }
        let (mut from_ns, mut floor_ns) = (began(report), WallNs::MIN);
        if let Some(before) = lives.last_mut().filter(|life| !was_silent(life, report, timeouts)) {
            if let Some(stop) = before.stop_ns() {
                (from_ns, floor_ns) = (from_ns.max(stop), stop);
            } else {
                if from_ns <= before.heard_ns() {
                    from_ns = report.at_ns;
                }
                (before.until_ns, before.end, floor_ns) = (Some(from_ns - 1), End::Reported, from_ns);
            }
        }
        let reports = vec![report.clone()];
        lives.push(Life { id: id.clone(), reports, from_ns, floor_ns, until_ns: None, end: End::None });
    }
    lives
}

/// A session that was over by silence, and is heard of again: unless that says it went on, and soon enough.
fn was_silent(life: &Life, report: &SessionFact, timeouts: &SessionTimeouts) -> bool {
    let over_ns = life.heard_ns() + silence_ns(life, timeouts);
    life.stop_ns().is_none() && (began(report) > over_ns || report.at_ns > over_ns + timeouts.keep_ns / 2)
}

fn silence_ns(life: &Life, timeouts: &SessionTimeouts) -> WallNs {
    let interval = life.last(|report| report.interim_interval_s);
    interval.map_or(timeouts.silence_max_ns, |seconds| 2 * WallNs::from(seconds) * SECOND + timeouts.grace_ns)
}

fn lives(facts: &[SessionFact], timeouts: &SessionTimeouts, now_ns: WallNs) -> Vec<Life> {
    let mut facts = facts.to_vec();
    facts.iter_mut().for_each(|fact| fact.at_ns = fact.at_ns.min(fact.received_ns));
    let mut by_id: BTreeMap<Id, Vec<SessionFact>> = BTreeMap::new();
    for fact in &facts {
        if !matches!(fact.event, SessionEvent::NasReset | SessionEvent::Rejected) {
            by_id.entry((fact.source, fact.nas.clone(), fact.session_id.clone())).or_default().push(fact.clone());
        }
    }
    let mut all = Vec::new();
    for (id, mut reports) in by_id {
        reports.sort_by(|left, right| {
            let key = |fact: &SessionFact| {
                let said = (fact.user.clone(), fact.client_mac, fact.client_ips.clone(), fact.client_prefixes.clone());
                (fact.at_ns, rank(fact.event), said, fact.ap_mac, fact.started_ns, fact.interim_interval_s)
            };
            key(left).cmp(&key(right))
        });
        for mut life in lives_of(&id, &reports, &facts, timeouts) {
            if let Some(stop) = life.stop_ns() {
                (life.until_ns, life.end) = (Some(whole_second(stop)), End::Reported);
            }
            end(&mut life, &facts, timeouts, now_ns);
            all.push(life);
        }
    }
    supersede(&mut all);
    // What was over before it began claims nothing.
    all.retain(|life| life.until_ns.is_none_or(|until| life.from_ns <= until));
    all
}

fn end(life: &mut Life, facts: &[SessionFact], timeouts: &SessionTimeouts, now_ns: WallNs) {
    let reset = resets(facts, life)
        .into_iter()
        .map(|reset| reset.at_ns)
        .find(|at| *at > life.from_ns && life.heard_ns() < at + 60 * SECOND)
        .filter(|at| *at <= life.heard_ns() + silence_ns(life, timeouts));
    let reported = life.stop_ns().or(life.until_ns.map(|until| until + 1));
    if let Some(reset) = reset.filter(|reset| reported.is_none_or(|end| end > *reset)) {
        (life.until_ns, life.end) = (Some(whole_second(reset)), End::Reset);
    }
    let silence = silence_ns(life, timeouts);
    if life.end == End::None && life.heard_ns() + silence < now_ns {
        (life.until_ns, life.end) = (Some(life.heard_ns() + silence), End::Silence);
    }
}

/// A session whose end was not reported is over when another took its device (or its address, where neither names a device): one
/// on its own access point at once, any other where silence showed that it was, or where it announces nothing and the other is over;
/// else, where the other was somebody else's, once that is over.
fn supersede(lives: &mut [Life]) {
    let ends: Vec<Option<WallNs>> = lives
        .iter()
        .map(|life| {
            let takes = |other: &&Life| match (life.mac(), other.mac()) {
                (Some(mac), Some(other)) => mac == other,
                (None, None) => {
                    let named = |life: &Life| -> BTreeSet<IpAddr> {
                        life.reports.iter().flat_map(|report| report.client_ips.clone()).collect()
                    };
                    !named(life).is_disjoint(&named(other))
                }
                _ => false,
            };
            let successors = lives
                .iter()
                .filter(takes)
                .filter(|other| other.from_ns > life.heard_ns() && other.from_ns > life.from_ns)
                .filter_map(|other| {
                    let ap = life.last(|report| report.ap_mac);
                    let other_ap = other.reports.iter().find_map(|report| report.ap_mac);
                    let same_ap =
                        (other.id.0, &other.id.1) == (life.id.0, &life.id.1) && ap.is_some() && ap == other_ap;
                    let outlived = life.last(|report| report.interim_interval_s).is_none() && other.end != End::None;
                    let somebody_else = life.is_person() && other.is_person() && life.user() != other.user();
                    if same_ap || life.end == End::Silence || outlived {
                        Some(other.from_ns)
                    } else {
                        other.until_ns.filter(|_| somebody_else).map(|until| until + 1)
                    }
                });
            successors.min().filter(|_| life.end != End::Reported)
        })
        .collect();
    for (life, at) in lives.iter_mut().zip(ends) {
        if let Some(at) = at.filter(|at| life.until_ns.is_none_or(|until| *at <= until)) {
            life.until_ns = Some(at - 1);
        }
    }
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

fn among(lives: &[&Life], devices: &[Device], flow: &Flow) -> Option<Answer> {
    let start_ns = flow.start_ns;
    let now = |life: &&&Life| life.covers(start_ns);
    let soon = |life: &&&Life| life.from_ns > start_ns && life.from_ns <= flow.end_ns;
    let of_device = |life: &&&Life| life.mac() == Some(flow.mac);
    let device: Vec<&&Life> = lives.iter().filter(of_device).filter(now).collect();
    let holds_when = |life: &Life, at_ns| life.mac().is_none() && life.holds(flow.ip, at_ns);
    let address: Vec<&&Life> = lives.iter().filter(now).filter(|life| holds_when(life, start_ns)).collect();
    let is_named = device.iter().any(|life| life.holds(flow.ip, start_ns));
    let (mut claimants, mut contested): (Vec<&Life>, Vec<MacAddr>) = (Vec::new(), Vec::new());
    let sure = if device.is_empty() && address.is_empty() {
        let until_ns = flow.end_ns.max(start_ns + LOGIN_WINDOW_NS);
        let later = lives.iter().filter(of_device).filter(|life| life.from_ns > start_ns && life.from_ns <= until_ns);
        let first_ns = later.clone().map(|life| life.from_ns).min()?;
        claimants.extend(later.filter(|life| life.from_ns == first_ns));
        Attribution::BeforeLogin
    } else {
        claimants.extend(lives.iter().filter(of_device).filter(soon));
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
        claimants.extend(lives.iter().filter(now).filter(|life| contested.iter().any(|mac| life.mac() == Some(*mac))));
        let mut stale: Vec<&Life> = Vec::new();
        let is_given = own == 2 && contested.is_empty();
        if !(device.is_empty() || is_named || is_given) {
            let others = lives.iter().filter(now).filter(|life| life.holds(flow.ip, start_ns));
            stale.extend(others.filter(|life| life.mac().is_some_and(|mac| mac != flow.mac)));
        }
        let is_own = is_named || (own > 0 && contested.is_empty() && stale.is_empty());
        claimants.extend(stale);
        claimants.extend(device.iter().chain(&address).map(|life| **life));
        match (device.is_empty(), is_own) {
            (true, _) => Attribution::IpOnly,
            (false, true) => Attribution::Authenticated,
            (false, false) => Attribution::MacOnly,
        }
    };
    let users: BTreeSet<_> = claimants.iter().map(|life| life.who()).collect();
    let best = |who: &(Option<String>, Option<MacAddr>)| -> &Life {
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
            (ground, life.from_ns, std::cmp::Reverse((life.id.2.clone(), life.id.0, life.id.1.clone())))
        };
        of_user.max_by_key(|life| strength(life)).unwrap()
    };
    let listed: Vec<&Life> = users.iter().map(best).collect();
    let names: Vec<String> = listed.iter().filter_map(|life| life.user()).collect();
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
