//! Of the model: whose the reports of one id are, and when what contradicts others was made. Asked of every pair of reports anew.

use std::collections::BTreeSet;

use hotspot_core::fact::{IdentitySource, SessionEvent, SessionFact};
use hotspot_core::sessions::SessionTimeouts;
use hotspot_core::{MacAddr, WallNs};

use crate::SECOND;
use crate::model::in_order;

/// The reports of one id, apart by device where several share it, each with the time it is taken for.
pub(crate) fn of(reports: &[SessionFact], facts: &[SessionFact], timeouts: &SessionTimeouts) -> Vec<Vec<SessionFact>> {
    let of_radius = reports.iter().filter(|report| report.source == IdentitySource::Radius);
    let devices: BTreeSet<MacAddr> = of_radius.filter_map(|report| report.client_mac).collect();
    let mut threads: Vec<Vec<SessionFact>> = Vec::new();
    if devices.is_empty() {
        threads.push(reports.to_vec());
    } else {
        let mut whose_are: Vec<Option<MacAddr>> = Vec::new();
        for position in 0..reports.len() {
            let mac = whose(reports, &whose_are, timeouts);
            assert_eq!(whose_are.len(), position);
            whose_are.push(mac);
        }
        for device in devices.into_iter().map(Some).chain([None]) {
            let its = (0..reports.len()).filter(|position| whose_are[*position] == device);
            threads.push(its.map(|at| reports[at].clone()).collect());
        }
    }
    for thread in &mut threads {
        let times: Vec<WallNs> = (0..thread.len()).map(|position| when(thread, position, facts, timeouts)).collect();
        for (report, at_ns) in thread.iter_mut().zip(times) {
            report.started_ns = report.started_ns.map(|started| started + at_ns - report.at_ns);
            report.at_ns = at_ns;
        }
        in_order(thread);
    }
    threads
}

/// The device the next report names; else of those that may be there that whose last report is most like it; else the next one named;
/// else the last of which no stop came.
fn whose(reports: &[SessionFact], before: &[Option<MacAddr>], timeouts: &SessionTimeouts) -> Option<MacAddr> {
    let position = before.len();
    let report = &reports[position];
    if report.client_mac.is_some() {
        return report.client_mac;
    }
    // What arrived late counts where nothing else does; what arrived long after it says nothing of it.
    let last_of = |mac: MacAddr| {
        let is_late = |at: &usize| reports[*at].received_ns > reports[*at].at_ns + timeouts.keep_ns / 2;
        let (late, soon): (Vec<usize>, Vec<usize>) =
            (0..before.len()).filter(|at| before[*at] == Some(mac)).partition(is_late);
        let by_then = |at: &&usize| reports[**at].received_ns <= report.received_ns + timeouts.keep_ns / 2;
        let is_kept = |at: &&usize| {
            let over_ns = reports[**at].at_ns + silence_ns(&reports[**at], timeouts);
            report.at_ns <= over_ns + timeouts.keep_ns / 2
        };
        soon.last().filter(is_kept).or_else(|| late.last().filter(by_then)).copied()
    };
    let may_be_there = |at: &usize| report.at_ns <= reports[*at].at_ns + timeouts.keep_ns / 2;
    let last: BTreeSet<usize> = before.iter().flatten().filter_map(|mac| last_of(*mac)).collect();
    let best = last.iter().copied().filter(may_be_there).max_by_key(|at| {
        let other = &reports[*at];
        let is_user = report.user.is_some() && report.user == other.user;
        let is_address = report.client_ips.iter().any(|ip| other.client_ips.contains(ip));
        let is_place = report.ap_mac.is_some() && report.ap_mac == other.ap_mac;
        (is_user, is_address, is_place, *at)
    });
    let next = || reports[position..].iter().find_map(|other| other.client_mac);
    // Nobody else: it is as if those that were over had been forgotten.
    let stale = || last.iter().max_by_key(|at| (reports[**at].event != SessionEvent::Stop, **at)).copied();
    best.and_then(|at| before[at]).or_else(next).or_else(|| stale().and_then(|at| before[at]))
}

fn silence_ns(report: &SessionFact, timeouts: &SessionTimeouts) -> WallNs {
    match report.interim_interval_s {
        Some(seconds) => 2 * WallNs::from(seconds) * SECOND + timeouts.grace_ns,
        None => timeouts.silence_max_ns,
    }
}

fn when(reports: &[SessionFact], position: usize, facts: &[SessionFact], timeouts: &SessionTimeouts) -> WallNs {
    let report = &reports[position];
    let agrees = |other: &SessionFact| {
        let user = other.user.is_none() || report.user.is_none() || other.user == report.user;
        user && (other.client_mac.is_none() || report.client_mac.is_none() || other.client_mac == report.client_mac)
    };
    let is_stop = report.event == SessionEvent::Stop;
    let others = |range: std::ops::Range<usize>| range.map(|at| &reports[at]).filter(|other| agrees(other));
    let last_before = others(0..position).rfind(|other| other.event != SessionEvent::Rejected);
    let is_open = last_before.is_some_and(|before| {
        before.event != SessionEvent::Stop && report.received_ns <= before.at_ns + timeouts.keep_ns
    });
    let may_be_wrong = is_stop || (report.event == SessionEvent::Interim && !is_open);
    if !may_be_wrong {
        return report.at_ns;
    }
    let mut seen: Option<&SessionFact> = None;
    let silence = |other: &SessionFact| silence_ns(other, timeouts);
    let is_known = |other: &&SessionFact| report.received_ns <= other.at_ns + silence(other) + timeouts.keep_ns / 2;
    let before = others(position + 1..reports.len()).filter(|other| other.received_ns < report.received_ns);
    for other in before.filter(is_known) {
        match other.event {
            SessionEvent::Start if is_open => {
                let began_anew = facts.iter().any(|reset| {
                    let is_its = reset.source == report.source && reset.nas == report.nas;
                    let is_place = reset.ap_mac.is_none() || report.ap_mac.is_none() || reset.ap_mac == report.ap_mac;
                    let is_between = report.at_ns < reset.at_ns && reset.at_ns <= other.at_ns;
                    reset.event == SessionEvent::NasReset && is_its && is_place && is_between
                });
                if began_anew || other.at_ns > report.at_ns + 600 * SECOND {
                    break;
                }
                seen = Some(other);
            }
            SessionEvent::Start => seen = Some(other),
            SessionEvent::Interim if is_stop => seen = Some(other),
            SessionEvent::Interim | SessionEvent::Stop | SessionEvent::NasReset | SessionEvent::Rejected => {}
        }
    }
    let Some(seen) = seen else { return report.at_ns };
    let is_again = others(0..reports.len()).any(|other| {
        let is_near = (other.at_ns - report.at_ns).abs() <= 2 * SECOND;
        other.event == SessionEvent::Stop && other.received_ns < seen.received_ns && is_near
    });
    if is_stop && is_again {
        return report.at_ns;
    }
    report.received_ns.min(seen.at_ns + report.received_ns - seen.received_ns)
}
