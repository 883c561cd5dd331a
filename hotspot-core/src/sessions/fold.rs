//! Folding: from the reports of one session id to the lives they tell of.
//!
//! A *life* is one user on one device. A report begins a new life where the one before had ended, where it names another user or
//! device, or where it says that it began after its NAS was reset. What a report does not say is taken from the others of its life.
//! A life ends with its first stop; with a reset of its NAS after which nothing was heard of it; where the next life of its id, or
//! its successor on the device, began; or by silence.

use std::net::IpAddr;
use std::sync::Arc;

use super::resets::Resets;
use super::{Attachment, Holding, ROUNDED_NS, SECOND, Session, SessionTimeouts, host_len};
use crate::WallNs;
use crate::fact::{IdentitySource, SessionDetails, SessionEvent, SessionFact};
use crate::record::SessionStatus;

/// A report this long after a stop or a reset shows that the session goes on; sooner it may have been under way.
const STRAGGLER_NS: WallNs = 60 * SECOND;

/// Adds the lives of one thread, by time. Failed logins are lives of their own, which hold nothing.
pub(super) fn fold(
    reports: &[SessionFact],
    thread: u32,
    resets: &Resets,
    timeouts: &SessionTimeouts,
    now_ns: WallNs,
    lives: &mut Vec<Session>,
) {
    let first = lives.len();
    let mut current: Option<usize> = None;
    for (position, report) in reports.iter().enumerate() {
        if report.event == SessionEvent::Rejected {
            let mut rejected = begin(report, thread, position);
            learn(&mut rejected, report);
            (rejected.status, rejected.ended_ns) = (SessionStatus::Rejected, Some(report.at_ns));
            lives.push(rejected);
            continue;
        }
        let before = current.map(|index| &lives[index]);
        if before.is_none_or(|life| begins_anew(life, report, resets, timeouts)) {
            let mut life = begin(report, thread, position);
            if let Some(before) = current.map(|index| &mut lives[index]) {
                follow(before, &mut life, report, timeouts);
            }
            current = Some(lives.len());
            lives.push(life);
        }
        if let Some(life) = current.map(|index| &mut lives[index]) {
            learn(life, report);
        }
    }
    for life in &mut lives[first..] {
        if life.status != SessionStatus::Rejected {
            hold_from_the_beginning(life);
            end(life, resets, timeouts, now_ns);
        }
    }
}

fn begin(report: &SessionFact, thread: u32, position: usize) -> Session {
    let started_ns = began(report);
    Session {
        session_id: report.session_id.clone(),
        user: None,
        auth_method: None,
        source: report.source,
        client_mac: None,
        holdings: Vec::new(),
        attachments: vec![Attachment { from_ns: started_ns, ap_mac: None, ssid: None, nas_port: None }],
        nas: report.nas.clone(),
        started_ns,
        ended_ns: None,
        end_cause: None,
        counters: None,
        details: None,
        status: SessionStatus::Active,
        until_ns: None,
        alone_until_ns: WallNs::MAX,
        last_heard_ns: report.at_ns,
        last_received_ns: report.received_ns,
        interim_interval_s: None,
        thread,
        first_report: position,
        told_ns: None,
        floor_ns: WallNs::MIN,
        is_cut: false,
        is_reset: false,
    }
}

/// When the session of a report began, as far as it says.
fn began(report: &SessionFact) -> WallNs {
    report.started_ns.map_or(report.at_ns, |started| started.min(report.at_ns))
}

/// The same of a report that may be of a life that is known: what contradicts that one's beginning was counted by another clock.
fn began_in(life: &Session, report: &SessionFact) -> WallNs {
    if is_believed(life, report) { began(report) } else { report.at_ns }
}

fn is_believed(life: &Session, report: &SessionFact) -> bool {
    life.told_ns.is_none_or(|told| began(report) >= told.saturating_sub(ROUNDED_NS))
}

fn begins_anew(life: &Session, report: &SessionFact, resets: &Resets, timeouts: &SessionTimeouts) -> bool {
    let says_when = report.event == SessionEvent::Start || (report.started_ns.is_some() && is_believed(life, report));
    let after_reset = says_when && resets.first_of(life, outlived_ns(life), began_in(life, report)).is_some();
    names_another(life, report) || is_after_end(life, report) || after_reset || is_after_silence(life, report, timeouts)
}

/// Until when a life went on whatever was reset: what was heard of soon after a reset may have been under way.
fn outlived_ns(life: &Session) -> WallNs {
    life.started_ns.max(life.last_heard_ns.saturating_sub(STRAGGLER_NS))
}

fn names_another(life: &Session, report: &SessionFact) -> bool {
    fn differ<T: PartialEq>(known: Option<&T>, named: Option<&T>) -> bool {
        known.is_some() && named.is_some() && known != named
    }
    let chargeable = |details: &Option<Arc<SessionDetails>>| details.as_ref()?.chargeable_user.clone();
    differ(life.user.as_ref(), report.user.as_ref())
        || differ(life.client_mac.as_ref(), report.client_mac.as_ref())
        || (report.details.is_some()
            && differ(chargeable(&life.details).as_ref(), chargeable(&report.details).as_ref()))
}

/// After a stop a report begins another life, unless it may have been under way.
fn is_after_end(life: &Session, report: &SessionFact) -> bool {
    life.ended_ns.is_some_and(|end| {
        report.event == SessionEvent::Start
            || (report.started_ns.is_some() && began_in(life, report) > end && is_believed(life, report))
            || report.at_ns > end.saturating_add(STRAGGLER_NS)
    })
}

/// Whether a life was over by silence when it was heard of again; a report that says it lasted all the while bridges it, unless
/// the life may be forgotten by then.
fn is_after_silence(life: &Session, report: &SessionFact, timeouts: &SessionTimeouts) -> bool {
    let deadline = deadline_ns(life, timeouts);
    let is_forgotten = report.at_ns > deadline.saturating_add(timeouts.keep_ns / 2);
    life.ended_ns.is_none() && (began_in(life, report) > deadline || is_forgotten)
}

/// Lets a life begin no sooner than the one of its id before it was over, and ends that one.
fn follow(before: &mut Session, life: &mut Session, report: &SessionFact, timeouts: &SessionTimeouts) {
    if is_after_silence(before, report, timeouts) {
        return;
    }
    // Without resets, which are forgotten first, the same reports must tell of the same lives.
    life.is_cut = names_another(before, report) || is_after_end(before, report);
    // What may be forgotten by the time of a report says nothing of when its life began.
    let is_forgotten = report.received_ns > before.last_heard_ns.saturating_add(timeouts.keep_ns);
    life.floor_ns = if is_forgotten {
        WallNs::MIN
    } else if let Some(ended) = before.ended_ns {
        ended
    } else if life.started_ns > before.last_heard_ns {
        life.started_ns
    } else {
        // The life before was reported about since this one is told to have begun: it began with its own first report.
        report.at_ns
    };
    life.started_ns = life.started_ns.max(life.floor_ns);
    if before.ended_ns.is_none() {
        let ended_ns = if is_forgotten { life.started_ns.max(before.last_heard_ns + 1) } else { life.started_ns };
        before.ended_ns = Some(ended_ns);
        before.until_ns = Some(ended_ns - 1);
        before.end_cause = Some(SUPERSEDED.to_owned());
        before.status = SessionStatus::Ended;
    }
}

pub(super) const SUPERSEDED: &str = "Superseded";

fn learn(life: &mut Session, report: &SessionFact) {
    fn newer<T: Clone>(known: &mut Option<T>, reported: Option<&T>) {
        if let Some(reported) = reported {
            known.clone_from(&Some(reported.clone()));
        }
    }
    life.last_heard_ns = life.last_heard_ns.max(report.at_ns);
    life.last_received_ns = life.last_received_ns.max(report.received_ns);
    let says_when = report.event == SessionEvent::Start || report.started_ns.is_some();
    life.started_ns = life.started_ns.min(began_in(life, report)).max(life.floor_ns);
    if says_when && life.told_ns.is_none() {
        life.told_ns = Some(began(report));
    }
    newer(&mut life.user, report.user.as_ref());
    newer(&mut life.auth_method, report.auth_method.as_ref());
    newer(&mut life.client_mac, report.client_mac.as_ref());
    newer(&mut life.nas, report.nas.as_ref());
    newer(&mut life.counters, report.counters.as_ref());
    newer(&mut life.interim_interval_s, report.interim_interval_s.as_ref());
    SessionDetails::merge(&mut life.details, report.details.as_ref());
    attach(life, report);
    hold(life, report);
    // Of a stop that was sent again without saying so the first is nearest to the truth.
    if report.event == SessionEvent::Stop && life.ended_ns.is_none() {
        life.ended_ns = Some(report.at_ns);
        life.until_ns = Some(last_moment(report.at_ns));
        life.end_cause.clone_from(&report.end_cause);
        life.status = SessionStatus::Ended;
    }
}

/// A time in whole seconds stands for that second.
const fn last_moment(at_ns: WallNs) -> WallNs {
    if at_ns % SECOND == 0 { at_ns + SECOND - 1 } else { at_ns }
}

fn attach(life: &mut Session, report: &SessionFact) {
    fn told<T: PartialEq + Clone>(known: &mut Option<T>, named: Option<&T>, moved: &mut bool) {
        if named.is_some() && named != known.as_ref() {
            *moved |= known.is_some();
            *known = named.cloned();
        }
    }
    let Some(now) = life.attachments.last_mut() else { return };
    let (mut next, mut moved) = (now.clone(), false);
    told(&mut next.ap_mac, report.ap_mac.as_ref(), &mut moved);
    told(&mut next.ssid, report.ssid.as_ref(), &mut moved);
    told(&mut next.nas_port, report.nas_port.as_ref(), &mut moved);
    if moved {
        life.attachments.push(Attachment { from_ns: report.at_ns, ..next });
    } else {
        // What was not said before was so all the while.
        *now = next;
    }
}

/// Notes the addresses a report names. An IPv4 address an earlier one named and this one, naming others, does not is given up.
fn hold(life: &mut Session, report: &SessionFact) {
    let hosts = report.client_ips.iter().map(|ip| (*ip, host_len(*ip)));
    let named: Vec<(IpAddr, u8)> = hosts.chain(report.client_prefixes.iter().copied()).collect();
    let names_v4 = named.iter().any(|(ip, _)| ip.is_ipv4());
    for holding in life.holdings.iter_mut().filter(|holding| holding.to_ns.is_none()) {
        if names_v4 && holding.ip.is_ipv4() && !named.contains(&(holding.ip, holding.prefix_len)) {
            holding.to_ns = Some(report.at_ns);
        }
    }
    let is_first = [false, true].map(|is_v4| !life.holdings.iter().any(|held| held.ip.is_ipv4() == is_v4));
    for (ip, prefix_len) in named {
        let is_held =
            life.holdings.iter().any(|held| held.to_ns.is_none() && (held.ip, held.prefix_len) == (ip, prefix_len));
        if !is_held {
            let from_ns = if is_first[usize::from(ip.is_ipv4())] { FROM_THE_BEGINNING } else { report.at_ns };
            // Most have one, and there may be very many sessions.
            life.holdings.reserve_exact(1);
            life.holdings.push(Holding { ip, prefix_len, from_ns, to_ns: None, named_ns: report.at_ns });
        }
    }
}

/// The addresses that were named first, of each family, were held from the beginning: the NAS learnt them a little later.
const FROM_THE_BEGINNING: WallNs = WallNs::MIN;

/// Once it is known when a life began.
fn hold_from_the_beginning(life: &mut Session) {
    for holding in life.holdings.iter_mut().filter(|held| held.from_ns == FROM_THE_BEGINNING) {
        holding.from_ns = life.started_ns;
    }
    life.attachments[0].from_ns = life.started_ns;
}

fn end(life: &mut Session, resets: &Resets, timeouts: &SessionTimeouts, now_ns: WallNs) {
    let deadline = deadline_ns(life, timeouts);
    let reset = resets.first_of(life, outlived_ns(life), deadline);
    if let Some(at_ns) = reset.filter(|at_ns| life.ended_ns.is_none_or(|end| end > *at_ns)) {
        life.ended_ns = Some(at_ns);
        life.until_ns = Some(last_moment(at_ns));
        life.end_cause = Some("NAS-Reboot".to_owned());
        life.status = SessionStatus::Ended;
        life.is_reset = true;
    }
    if life.ended_ns.is_none() && deadline < now_ns {
        (life.ended_ns, life.until_ns) = (Some(deadline), Some(deadline));
        life.status = SessionStatus::TimedOut;
    }
}

/// When a session is over of which nothing more is heard. What stands in a file needs no reports.
fn deadline_ns(life: &Session, timeouts: &SessionTimeouts) -> WallNs {
    if life.source == IdentitySource::File {
        return WallNs::MAX;
    }
    life.last_heard_ns.saturating_add(timeouts.silence_ns(life.interim_interval_s))
}
