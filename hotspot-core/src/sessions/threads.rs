//! Threads: the reports of one session id, told apart by device, and each at a time that what was seen allows.
//!
//! Several access points may share a name and count their sessions alike. Then one id stands for several sessions at once, and only
//! the device tells them apart. When a report arrived is certain; the time it gives for itself is a claim. A claim that contradicts
//! reports that had arrived before is corrected here, before anything is folded.

use std::collections::BTreeSet;

use super::{SECOND, SessionTimeouts, order};
use crate::fact::{IdentitySource, SessionEvent, SessionFact};
use crate::sessions::resets::Resets;
use crate::{MacAddr, WallNs};

/// A stop that is told to be this much earlier than a login that arrived before it may belong to the login before that one.
const EARLIER_LOGIN_NS: WallNs = 600 * SECOND;
/// Two stops this close to each other are one that was sent again: their times are whole seconds.
const SAME_MOMENT_NS: WallNs = 2 * SECOND;

/// The threads of one id.
pub(super) enum Threads<'a> {
    /// The usual case: one, of the reports as they are.
    One(&'a [SessionFact]),
    Several(Vec<Vec<SessionFact>>),
}

impl Threads<'_> {
    pub(super) fn each(&self) -> impl Iterator<Item = &[SessionFact]> {
        let (one, several) = match self {
            Self::One(reports) => (Some(*reports), [].as_slice()),
            Self::Several(threads) => (None, threads.as_slice()),
        };
        one.into_iter().chain(several.iter().map(Vec::as_slice))
    }
}

/// Tells reports of one id apart, and corrects what they claim of their times.
pub(super) fn threads<'a>(reports: &'a [SessionFact], resets: &Resets, timeouts: &SessionTimeouts) -> Threads<'a> {
    let devices = devices(reports);
    let is_its = |report: &SessionFact| report.client_mac.is_some() || report.event == SessionEvent::Rejected;
    let is_one = devices.is_empty() || (devices.len() == 1 && reports.iter().all(is_its));
    if is_one && !is_out_of_order(reports) {
        return Threads::One(reports);
    }
    let mut threads = split(reports, &devices, timeouts);
    for thread in &mut threads {
        if is_out_of_order(thread) {
            date(thread, resets, timeouts);
        }
    }
    Threads::Several(threads)
}

/// Devices that share the id. A portal's ids are its own, so another device is another life of the same session.
fn devices(reports: &[SessionFact]) -> BTreeSet<MacAddr> {
    let counts =
        |report: &&SessionFact| report.source == IdentitySource::Radius && report.event != SessionEvent::Rejected;
    reports.iter().filter(counts).filter_map(|report| report.client_mac).collect()
}

/// The last report of a device, and until when it counts: no longer than it is kept in any case.
#[derive(Clone, Copy)]
struct Heard {
    position: usize,
    until_ns: WallNs,
    /// How much longer the device may be there without being heard of.
    silence_ns: WallNs,
}

/// Of a device: the last report that arrived soon, and the last that arrived late.
#[derive(Clone, Copy, Default)]
struct LastHeard {
    soon: Option<Heard>,
    late: Option<Heard>,
}

/// One thread per device, and a last one for reports that are no device's. Whose a report is that names none does not depend on what
/// arrives long after it.
fn split(reports: &[SessionFact], devices: &BTreeSet<MacAddr>, timeouts: &SessionTimeouts) -> Vec<Vec<SessionFact>> {
    if devices.is_empty() {
        return vec![reports.to_vec()];
    }
    let devices: Vec<MacAddr> = devices.iter().copied().collect();
    let number = |mac: MacAddr| devices.binary_search(&mac).ok();
    let memory_ns = timeouts.keep_ns / 2;
    let mut heard: Vec<LastHeard> = vec![LastHeard::default(); devices.len()];
    let mut threads = vec![Vec::new(); devices.len() + 1];
    for (position, report) in reports.iter().enumerate() {
        let is_session = report.event != SessionEvent::Rejected;
        let arrived_by = |heard: &Heard| reports[heard.position].received_ns <= report.received_ns + memory_ns;
        let named = report.client_mac.or_else(|| {
            let is_kept = |heard: &Heard| report.at_ns <= heard.until_ns.saturating_add(heard.silence_ns);
            let known = heard.iter().map(|last| last.soon.filter(is_kept).or_else(|| last.late.filter(arrived_by)));
            let known: Vec<Option<Heard>> = known.collect();
            let mut later = reports[position..].iter().filter(|other| other.event != SessionEvent::Rejected);
            let there = likeliest(reports, report, &known).map(|at| devices[at]);
            let next = || later.find_map(|other| other.client_mac);
            there.or_else(next).or_else(|| last_open(reports, &known).map(|at| devices[at]))
        });
        let Some(device) = named.and_then(number).filter(|_| is_session) else {
            threads[devices.len()].push(report.clone());
            continue;
        };
        let until_ns = report.at_ns.saturating_add(memory_ns);
        let last = Some(Heard { position, until_ns, silence_ns: timeouts.silence_ns(report.interim_interval_s) });
        if report.received_ns <= report.at_ns.saturating_add(memory_ns) {
            heard[device].soon = last;
        } else {
            heard[device].late = last;
        }
        threads[device].push(report.clone());
    }
    threads
}

/// Whose a report is that names no device: of those that share its id and may be there the one with its user, its address, its access
/// point; of several the one that was heard of last.
fn likeliest(reports: &[SessionFact], report: &SessionFact, heard: &[Option<Heard>]) -> Option<usize> {
    let likeness = |heard: &Heard| {
        let other = &reports[heard.position];
        let is_user = report.user.is_some() && other.user == report.user;
        let is_address = other.client_ips.iter().any(|ip| report.client_ips.contains(ip));
        let is_there = report.ap_mac.is_some() && other.ap_mac == report.ap_mac;
        (is_user, is_address, is_there, heard.position)
    };
    let known = heard.iter().enumerate().filter_map(|(device, heard)| Some((device, (*heard)?)));
    let there = known.filter(|(_, heard)| report.at_ns <= heard.until_ns);
    there.max_by_key(|(_, heard)| likeness(heard)).map(|(device, _)| device)
}

/// Of devices that were heard of long ago that which may be there still, as if the others were forgotten: the last that did not stop.
fn last_open(reports: &[SessionFact], heard: &[Option<Heard>]) -> Option<usize> {
    let known = heard.iter().enumerate().filter_map(|(device, heard)| Some((device, (*heard)?.position)));
    let last = known.max_by_key(|(_, position)| (reports[*position].event != SessionEvent::Stop, *position));
    last.map(|(device, _)| device)
}

/// Whether some report arrived after one that is told to be later.
fn is_out_of_order(reports: &[SessionFact]) -> bool {
    let mut arrived_ns = WallNs::MAX;
    reports.iter().rev().any(|report| {
        let is_behind = report.received_ns > arrived_ns;
        arrived_ns = arrived_ns.min(report.received_ns);
        is_behind
    })
}

/// Corrects the times of reports that claim to be older than what had arrived before them; see [`corrected_ns`].
fn date(reports: &mut [SessionFact], resets: &Resets, timeouts: &SessionTimeouts) {
    let corrected: Vec<Option<WallNs>> =
        (0..reports.len()).map(|position| corrected_ns(reports, position, resets, timeouts)).collect();
    for (report, at_ns) in reports.iter_mut().zip(corrected) {
        if let Some(at_ns) = at_ns {
            let by_ns = at_ns - report.at_ns;
            report.started_ns = report.started_ns.map(|started| started.saturating_add(by_ns));
            report.at_ns = at_ns;
        }
    }
    reports.sort_by(order);
}

/// When a report was made whose claim cannot be: a logout that would end nothing, or end a session before something of it that
/// had been seen; an update that would precede its own login. It is taken to be as late as the report it belongs to was.
fn corrected_ns(
    reports: &[SessionFact],
    position: usize,
    resets: &Resets,
    timeouts: &SessionTimeouts,
) -> Option<WallNs> {
    let report = &reports[position];
    let is_stop = report.event == SessionEvent::Stop;
    if !is_stop && report.event != SessionEvent::Interim {
        return None;
    }
    let is_of = |other: &&SessionFact| may_be_one(report, other);
    // What was reported of long ago may be forgotten, and decides nothing.
    let is_remembered = |other: &SessionFact| report.received_ns <= other.at_ns.saturating_add(timeouts.keep_ns);
    let before = reports[..position].iter().rev().filter(|other| other.event != SessionEvent::Rejected).find(is_of);
    let is_open = before.is_some_and(|before| before.event != SessionEvent::Stop && is_remembered(before));
    if is_open && !is_stop {
        return None;
    }
    let is_known = |other: &&SessionFact| {
        let over_ns = other.at_ns.saturating_add(timeouts.silence_ns(other.interim_interval_s));
        other.received_ns < report.received_ns && report.received_ns <= over_ns.saturating_add(timeouts.keep_ns / 2)
    };
    let seen = reports[position + 1..].iter().filter(is_of).filter(is_known);
    let begins = |other: &SessionFact| other.event == SessionEvent::Start;
    let seen = seen.filter(|other| begins(other) || (is_stop && other.event == SessionEvent::Interim));
    let is_later_login = |other: &&SessionFact| {
        let is_long_after = other.at_ns.saturating_sub(report.at_ns) > EARLIER_LOGIN_NS;
        begins(other) && is_open && (is_long_after || resets.any_of(report, report.at_ns, other.at_ns))
    };
    let seen = seen.take_while(|other| !is_later_login(other)).last()?;
    let is_repeated = is_stop
        && reports.iter().filter(is_of).any(|other| {
            other.event == SessionEvent::Stop
                && other.received_ns < seen.received_ns
                && (other.at_ns - report.at_ns).abs() <= SAME_MOMENT_NS
        });
    let after_ns = report.received_ns - seen.received_ns;
    (!is_repeated).then(|| seen.at_ns.saturating_add(after_ns).min(report.received_ns))
}

/// Whether two reports of one id can be about one person on one device.
fn may_be_one(left: &SessionFact, right: &SessionFact) -> bool {
    let is_user = left.user.is_none() || right.user.is_none() || left.user == right.user;
    is_user && (left.client_mac.is_none() || right.client_mac.is_none() || left.client_mac == right.client_mac)
}
