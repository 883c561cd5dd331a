//! What the times of a chain's lines must have to do with each other.
//!
//! Clocks are set, and a gateway may wake up in 1970; so no time is wrong by itself. But within a boot the boot clock only goes
//! forward, a wall clock that was set back is said so by the line that follows, and a segment is sealed when it is over.

use std::collections::HashSet;

use hotspot_core::WallNs;

use super::{Line, Record, Severity};
use crate::elapsed::ClockEvidence;
use crate::policy::DAY_NS;

const SECOND_NS: i64 = 1_000_000_000;
/// How far times may be apart that are measured one after the other.
pub(crate) const TOLERANCE_NS: i64 = SECOND_NS;
/// How far a synchronised clock may be off.
const SYNCHRONISED_WITHIN_NS: i64 = 60 * SECOND_NS;
/// From when on a segment was sealed late.
const LATE_NS: i64 = DAY_NS;

/// How far the wall clock must have been set back before an interval that begins `from_ns` and follows one that ended `before_ns`.
#[must_use]
pub(crate) fn needed_step_ns(before_ns: WallNs, from_ns: WallNs) -> i64 {
    let step_ns = from_ns.saturating_sub(before_ns);
    if step_ns < -TOLERANCE_NS { step_ns } else { 0 }
}

/// Until when sequences lasted with one more, by the clock of that one: the latest end counts, so that small steps back do not add up.
#[must_use]
pub(crate) fn lasted_until_ns(before_ns: Option<WallNs>, line: &Line) -> WallNs {
    let step_ns = line.clock_step_ns.unwrap_or(0).min(0);
    let by_its_clock_ns = before_ns.map_or(WallNs::MIN, |before_ns| before_ns.saturating_add(step_ns));
    line.to_ns.max(line.from_ns).max(by_its_clock_ns)
}

/// The times of the lines so far.
#[derive(Default)]
pub(crate) struct Times {
    last: Option<(WallNs, ClockEvidence)>,
    /// Boots that ended: another came after them.
    ended: HashSet<String>,
    /// Until when the sequences so far lasted.
    until_ns: Option<WallNs>,
    /// A line whose sealing only a step of the clock explains, which the next sequence has to state.
    unexplained: Option<Unexplained>,
}

struct Unexplained {
    line: u64,
    is_early_format: bool,
    /// How far the sealing is from the end of the interval; negative where it lies before.
    away_ns: i64,
}

impl Times {
    /// Takes the next line. `find` is told of the number of the line that something is wrong with.
    pub(crate) fn push(
        &mut self,
        number: u64,
        record: &Record,
        now_ns: Option<WallNs>,
        find: &mut impl FnMut(u64, Severity, String),
    ) {
        // Lines of early versions did not state each step.
        let weigh = |severity| if record.is_early() { Severity::Notice } else { severity };
        let written_ns = record.written_ns();
        if let Some(clock) = record.clock() {
            if let Some((last_ns, last)) = &self.last {
                if let Some((severity, what)) = compare(*last_ns, last, written_ns, clock) {
                    find(number, weigh(severity), what);
                }
                if last.boot != clock.boot {
                    self.ended.insert(last.boot.clone());
                }
            }
            if self.ended.contains(&clock.boot) {
                let what = "says that it was written in a boot that had ended: another came after it";
                find(number, weigh(Severity::Damage), what.to_owned());
            }
            if clock.boottime_ns < 0 {
                let what = "was written before its boot began, by the clock of that boot";
                find(number, weigh(Severity::Damage), what.to_owned());
            }
            self.last = Some((written_ns, clock.clone()));
        }
        let is_before_1970 = match record {
            Record::Segment(line) => line.from_ns < 0 || line.to_ns < 0 || line.sealed_ns < 0,
            Record::Event(line) => line.at_ns < 0,
        };
        if is_before_1970 {
            find(number, weigh(Severity::Damage), "says a time before 1970, which no clock shows".to_owned());
        }
        if now_ns.is_some_and(|now_ns| written_ns > now_ns.saturating_add(DAY_NS)) {
            let is_synchronised = record.clock().is_some_and(|clock| clock.synchronised);
            let severity = if is_synchronised { Severity::Doubt } else { Severity::Notice };
            find(number, weigh(severity), "was written at a time that has not come yet".to_owned());
        }
        if let Record::Segment(line) = record {
            self.push_segment(number, line, record.is_early(), find);
        }
    }

    fn push_segment(
        &mut self,
        number: u64,
        line: &Line,
        is_early_format: bool,
        find: &mut impl FnMut(u64, Severity, String),
    ) {
        let weigh = |severity| if is_early_format { Severity::Notice } else { severity };
        let step_ns = line.clock_step_ns.unwrap_or(0);
        self.explain(step_ns, find);
        if let Some(until_ns) = self.until_ns {
            let back_ns = line.from_ns.saturating_sub(until_ns);
            if back_ns < step_ns.min(0).saturating_sub(TOLERANCE_NS) {
                let s = seconds(back_ns);
                let what = format!(
                    "begins {s} s before the sequence before it ended, and no signed step of the clock says why"
                );
                find(number, weigh(Severity::Damage), what);
            } else if step_ns < -TOLERANCE_NS {
                let s = seconds(step_ns);
                find(
                    number,
                    Severity::Notice,
                    format!("follows a clock that was set back by {s} s, as it says itself"),
                );
            }
        }
        if line.to_ns < line.from_ns {
            let s = seconds(line.to_ns.saturating_sub(line.from_ns));
            find(number, weigh(Severity::Damage), format!("ended {s} s before it began, by its own clock"));
        }
        // Lines of early versions did not state each step: only the last end is known.
        self.until_ns = Some(if is_early_format { line.to_ns } else { lasted_until_ns(self.until_ns, line) });
        let away_ns = line.sealed_ns.saturating_sub(line.to_ns);
        let is_of_an_earlier_boot = line.clock.as_ref().is_some_and(|clock| {
            line.to_ns <= line.sealed_ns.saturating_sub(clock.boottime_ns).saturating_add(SYNCHRONISED_WITHIN_NS)
        });
        let is_late = away_ns > LATE_NS && !is_of_an_earlier_boot;
        if away_ns < -TOLERANCE_NS || is_late {
            self.unexplained = Some(Unexplained { line: number, is_early_format, away_ns });
        }
    }

    /// The sequence after one that was sealed at an odd time states the step that explains it, or does not.
    fn explain(&mut self, step_ns: i64, find: &mut impl FnMut(u64, Severity, String)) {
        let Some(Unexplained { line, is_early_format, away_ns }) = self.unexplained.take() else { return };
        let is_explained = if away_ns < 0 {
            step_ns <= away_ns.saturating_add(TOLERANCE_NS)
        } else {
            step_ns >= away_ns.saturating_sub(LATE_NS)
        };
        if is_explained {
            return;
        }
        let severity = match (is_early_format, away_ns < 0) {
            (true, _) => Severity::Notice,
            (false, true) => Severity::Damage,
            (false, false) => Severity::Doubt,
        };
        find(line, severity, describe(away_ns));
    }

    /// What only a line to come can explain.
    pub(crate) fn finish(&self, find: &mut impl FnMut(u64, Severity, String)) {
        if let Some(Unexplained { line, away_ns, .. }) = &self.unexplained {
            find(*line, Severity::Notice, format!("{}; the next sequence has to say why", describe(*away_ns)));
        }
    }
}

fn describe(away_ns: i64) -> String {
    let s = seconds(away_ns);
    if away_ns < 0 {
        format!("was sealed {s} s before its interval ended")
    } else {
        format!(
            "was sealed {s} s after its interval ended, in the same boot: the agent stood still, or it was made later"
        )
    }
}

/// What is wrong with a line's moment after the one before it.
fn compare(last_ns: WallNs, last: &ClockEvidence, at_ns: WallNs, clock: &ClockEvidence) -> Option<(Severity, String)> {
    if last.boot == clock.boot {
        let passed_ns = clock.boottime_ns.saturating_sub(last.boottime_ns);
        let s = seconds(passed_ns);
        let what = || format!("was written {s} s before the line before it, by the clock of their boot");
        return (passed_ns < 0).then(|| (Severity::Damage, what()));
    }
    let booted_ns = at_ns.saturating_sub(clock.boottime_ns);
    let is_known = last.synchronised && clock.synchronised;
    let is_before = is_known && booted_ns.saturating_add(SYNCHRONISED_WITHIN_NS) < last_ns;
    let what = || "says that its boot began before the line before it, of another boot, was written".to_owned();
    is_before.then(|| (Severity::Doubt, what()))
}

/// Without a sign.
fn seconds(ns: i64) -> u64 {
    ns.unsigned_abs() / SECOND_NS.unsigned_abs()
}
