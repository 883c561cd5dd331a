//! The naive model: what the rules say, asked of every report anew for the one instant in question. Slow, and plain.
//!
//! How long a device held an address is taken from the table of devices, whose rules have tests of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hotspot_core::fact::{IdentitySource, SessionEvent, SessionFact};
use hotspot_core::sessions::SessionTimeouts;
use hotspot_core::{MacAddr, WallNs};

use crate::claimants::Who;
use crate::{SECOND, threads};

pub(crate) type Id = (IdentitySource, Option<String>, String);

/// One user on one device: its reports, by time, and when it was.
pub(crate) struct Life {
    pub(crate) id: Id,
    reports: Vec<SessionFact>,
    pub(crate) from_ns: WallNs,
    /// It began no sooner.
    floor_ns: WallNs,
    /// The last moment; `None` while it lasts.
    until_ns: Option<WallNs>,
    /// The last moment at which nobody else had its device.
    pub(crate) alone_until_ns: WallNs,
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
    pub(crate) fn last<T>(&self, of: impl Fn(&SessionFact) -> Option<T>) -> Option<T> {
        self.reports.iter().rev().find_map(of)
    }

    pub(crate) fn user(&self) -> Option<String> {
        self.last(|report| report.user.clone())
    }

    pub(crate) fn chargeable(&self) -> Option<String> {
        self.last(|report| report.details.as_ref()?.chargeable_user.clone())
    }

    pub(crate) fn nas(&self) -> Option<String> {
        self.last(|report| report.nas.clone())
    }

    pub(crate) fn mac(&self) -> Option<MacAddr> {
        self.last(|report| report.client_mac)
    }

    pub(crate) fn heard_ns(&self) -> WallNs {
        self.reports.iter().map(|report| report.at_ns).max().unwrap()
    }

    pub(crate) fn stop_ns(&self) -> Option<WallNs> {
        self.reports.iter().find(|report| report.event == SessionEvent::Stop).map(|report| report.at_ns)
    }

    pub(crate) fn covers(&self, at_ns: WallNs) -> bool {
        self.from_ns <= at_ns && self.until_ns.is_none_or(|until| at_ns <= until)
    }

    /// The last report that names any address of the family by then says it; before all of them, the first.
    pub(crate) fn holds(&self, ip: IpAddr, at_ns: WallNs) -> bool {
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

    pub(crate) fn ap_at(&self, at_ns: WallNs) -> Option<MacAddr> {
        let naming: Vec<&SessionFact> = self.reports.iter().filter(|report| report.ap_mac.is_some()).collect();
        let by_then = naming.iter().filter(|report| report.at_ns <= at_ns).count().max(1);
        naming.iter().take(by_then).next_back().and_then(|report| report.ap_mac)
    }

    /// All it ever named, and whether that is of a family.
    pub(crate) fn names_family(&self, ip: IpAddr) -> bool {
        self.named().into_iter().any(|(named, _)| named.is_ipv4() == ip.is_ipv4())
    }

    pub(crate) fn named(&self) -> BTreeSet<(IpAddr, u8)> {
        let hosts = |report: &SessionFact| -> Vec<(IpAddr, u8)> {
            let len = |ip: &IpAddr| if ip.is_ipv4() { 32 } else { 128 };
            report.client_ips.iter().map(|ip| (*ip, len(ip))).collect()
        };
        self.reports.iter().flat_map(|report| [hosts(report), report.client_prefixes.clone()].concat()).collect()
    }

    /// By then it had named addresses of this one's family, and it never names this one.
    pub(crate) fn is_elsewhere(&self, ip: IpAddr, at_ns: WallNs) -> bool {
        let alone = |report: &SessionFact| Self { reports: vec![report.clone()], id: self.id.clone(), ..*self };
        let ever = self.reports.iter().any(|report| alone(report).holds(ip, report.at_ns));
        let by_then = self.reports.iter().filter(|report| report.at_ns <= at_ns + 2 * SECOND);
        by_then.map(alone).any(|life| life.names_family(ip)) && !ever
    }

    /// Both name addresses of one family, and none that both name: behind one device they are two.
    pub(crate) fn is_apart(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.named(), other.named());
        let both = |is_v4: bool| [&mine, &theirs].iter().all(|named| named.iter().any(|(ip, _)| ip.is_ipv4() == is_v4));
        mine.is_disjoint(&theirs) && (both(true) || both(false))
    }

    pub(crate) fn is_person(&self) -> bool {
        let is_mac = |user: &String| user.parse::<MacAddr>().is_ok();
        self.user().is_some_and(|user| !is_mac(&user)) || self.chargeable().is_some()
    }

    /// The person, or the device where none is named.
    pub(crate) fn who(&self) -> Who {
        if !self.is_person() {
            return (None, None, self.mac());
        }
        (self.user().filter(|user| user.parse::<MacAddr>().is_err()), self.chargeable(), None)
    }

    pub(crate) fn shown_name(&self) -> Option<String> {
        match self.who() {
            (Some(user), Some(chargeable), _) => Some(format!(r"{user} \({chargeable})")),
            (Some(name), None, _) | (None, Some(name), _) => Some(name),
            (None, None, _) => self.user(),
        }
    }
}

/// Resets of a session's NAS, by time; those of another access point do not count.
fn resets<'a>(facts: &'a [SessionFact], life: &Life) -> Vec<&'a SessionFact> {
    let ap = life.last(|report| report.ap_mac);
    let mut found: Vec<&SessionFact> = facts
        .iter()
        .filter(|fact| fact.event == SessionEvent::NasReset && fact.source == life.id.0 && fact.nas == life.nas())
        .filter(|fact| fact.ap_mac.is_none() || ap.is_none() || fact.ap_mac == ap)
        .collect();
    found.sort_by_key(|fact| fact.at_ns);
    found
}

/// When the session of a report began, as it says: unless that is before what the first report that said so gave (but for rounding).
fn began_in(life: &Life, report: &SessionFact) -> WallNs {
    let says_when = |report: &&SessionFact| report.event == SessionEvent::Start || report.started_ns.is_some();
    let told = life.reports.iter().find(says_when).map(began);
    if told.is_some_and(|told| began(report) < told - 2 * SECOND) { report.at_ns } else { began(report) }
}

fn lives_of(id: &Id, reports: &[SessionFact], facts: &[SessionFact], timeouts: &SessionTimeouts) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for report in reports {
        let is_new = lives.last().is_none_or(|life| {
            let began = began_in(life, report);
            let is_believed = report.started_ns.is_some_and(|started| began == started.min(report.at_ns));
            let says_when = report.event == SessionEvent::Start || is_believed;
            let other_user = report.user.is_some() && life.user().is_some() && report.user != life.user();
            let named = report.details.as_ref().and_then(|details| details.chargeable_user.clone());
            let other_user =
                other_user || (named.is_some() && life.chargeable().is_some() && named != life.chargeable());
            let other_mac = report.client_mac.is_some() && life.mac().is_some() && report.client_mac != life.mac();
            let restarted = life.stop_ns().is_some_and(|stop| {
                let started = is_believed && began > stop;
                report.event == SessionEvent::Start || started || report.at_ns > stop + 60 * SECOND
            });
            // What is heard of long enough after a reset outlived it.
            let reset = says_when
                && resets(facts, life).iter().any(|reset| {
                    reset.at_ns > life.from_ns && life.heard_ns() < reset.at_ns + 60 * SECOND && reset.at_ns <= began
                });
            other_user || other_mac || restarted || reset || was_silent(life, report, timeouts)
        });
        if !is_new {
            let floor_ns = lives.last().unwrap().floor_ns;
            let life = lives.last_mut().unwrap();
            life.from_ns = life.from_ns.min(began_in(life, report)).max(floor_ns);
            life.reports.push(report.clone());
            continue;
        }
        let (mut from_ns, mut floor_ns) = (began(report), WallNs::MIN);
        if let Some(before) = lives.last_mut().filter(|life| !was_silent(life, report, timeouts)) {
            let (heard_ns, may_be_forgotten) =
                (before.heard_ns(), report.received_ns > before.heard_ns() + timeouts.keep_ns);
            if may_be_forgotten {
                // It says nothing of this one.
                if before.stop_ns().is_none() {
                    (before.until_ns, before.end) = (Some(heard_ns.max(from_ns - 1)), End::Reported);
                }
            } else if let Some(stop) = before.stop_ns() {
                (from_ns, floor_ns) = (from_ns.max(stop), stop);
            } else {
                if from_ns <= heard_ns {
                    from_ns = report.at_ns;
                }
                (before.until_ns, before.end, floor_ns) = (Some(from_ns - 1), End::Reported, from_ns);
            }
        }
        let reports = vec![report.clone()];
        lives.push(Life {
            id: id.clone(),
            reports,
            from_ns,
            floor_ns,
            until_ns: None,
            alone_until_ns: WallNs::MAX,
            end: End::None,
        });
    }
    lives
}

/// A session that was over by silence, and is heard of again: unless that says it went on, and soon enough.
fn was_silent(life: &Life, report: &SessionFact, timeouts: &SessionTimeouts) -> bool {
    let over_ns = life.heard_ns() + silence_ns(life, timeouts);
    life.stop_ns().is_none() && (began_in(life, report) > over_ns || report.at_ns > over_ns + timeouts.keep_ns / 2)
}

fn silence_ns(life: &Life, timeouts: &SessionTimeouts) -> WallNs {
    let interval = life.last(|report| report.interim_interval_s);
    interval.map_or(timeouts.silence_max_ns, |seconds| 2 * WallNs::from(seconds) * SECOND + timeouts.grace_ns)
}

pub(crate) fn lives(facts: &[SessionFact], timeouts: &SessionTimeouts, now_ns: WallNs) -> Vec<Life> {
    let mut facts = facts.to_vec();
    facts.iter_mut().for_each(|fact| fact.at_ns = fact.at_ns.min(fact.received_ns));
    let mut by_id: BTreeMap<Id, Vec<SessionFact>> = BTreeMap::new();
    for fact in &facts {
        if !matches!(fact.event, SessionEvent::NasReset | SessionEvent::Rejected) {
            let nas = fact.nas.clone().filter(|_| fact.source != IdentitySource::Portal);
            by_id.entry((fact.source, nas, fact.session_id.clone())).or_default().push(fact.clone());
        }
    }
    let mut all = Vec::new();
    for (id, mut reports) in by_id {
        in_order(&mut reports);
        for thread in threads::of(&reports, &facts, timeouts) {
            for mut life in lives_of(&id, &thread, &facts, timeouts) {
                if let Some(stop) = life.stop_ns() {
                    (life.until_ns, life.end) = (Some(whole_second(stop)), End::Reported);
                }
                end(&mut life, &facts, timeouts, now_ns);
                all.push(life);
            }
        }
    }
    supersede(&mut all);
    // What was over before it began claims nothing.
    all.retain(|life| life.until_ns.is_none_or(|until| life.from_ns <= until));
    all
}

pub(crate) fn in_order(reports: &mut [SessionFact]) {
    reports.sort_by(|left, right| {
        let key = |fact: &SessionFact| {
            let said = (fact.user.clone(), fact.client_mac, fact.client_ips.clone(), fact.client_prefixes.clone());
            let nas = (fact.nas.clone(), fact.details.clone());
            (fact.at_ns, rank(fact.event), nas.0, said, fact.ap_mac, fact.started_ns, fact.interim_interval_s, nas.1)
        };
        key(left).cmp(&key(right))
    });
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
    let (ends, shared) = (taken(lives, false), taken(lives, true));
    for (life, (at, shared)) in lives.iter_mut().zip(ends.into_iter().zip(shared)) {
        if let Some(at) = at.filter(|at| life.until_ns.is_none_or(|until| *at <= until)) {
            life.until_ns = Some(at - 1);
        }
        life.alone_until_ns = shared.map_or(WallNs::MAX, |at| at - 1);
    }
}

/// When another took what each life held; its device alone, with whatever address, or what it named of it.
fn taken(lives: &[Life], with_any_address: bool) -> Vec<Option<WallNs>> {
    lives
        .iter()
        .map(|life| {
            let takes = |other: &&Life| match (life.mac(), other.mac()) {
                (None, None) if with_any_address => false,
                (Some(mac), Some(device)) => mac == device && (with_any_address || !life.is_apart(other)),
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
                        (other.id.0, other.nas()) == (life.id.0, life.nas()) && ap.is_some() && ap == other_ap;
                    let outlived = life.last(|report| report.interim_interval_s).is_none() && other.end != End::None;
                    let somebody_else = life.is_person() && other.is_person() && life.who() != other.who();
                    if same_ap || life.end == End::Silence || outlived {
                        Some(other.from_ns)
                    } else {
                        other.until_ns.filter(|_| somebody_else).map(|until| until + 1)
                    }
                });
            successors.min().filter(|_| life.end != End::Reported)
        })
        .collect()
}
