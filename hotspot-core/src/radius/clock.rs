//! When what a NAS reports happened, as far as it may be believed.
//!
//! When a report arrives is certain; Acct-Delay-Time and Event-Timestamp are claims of a clock that may be wrong. *Lag* is arrival −
//! Acct-Delay-Time − Event-Timestamp: how far the NAS's clock is behind, and how late the report is, in one. The clock is as wrong for
//! every report, and no report comes before it was made, so the smallest lag of late is the clock's part, and what is above it is
//! lateness or a step of the clock. It is a step where the report would be older than one that came punctually before it, where it
//! would have waited for long, where the next one lags as much, and where the NAS says that it began anew.

use super::packet::{AcctStatus, Request};
use crate::WallNs;

const SECOND: WallNs = 1_000_000_000;
/// How long a lag is remembered, at least; at most twice as long.
const REMEMBERED_NS: WallNs = 600 * SECOND;
/// Timestamps are whole seconds, and the way here takes time: less is no lateness.
const PRECISION_NS: WallNs = 2 * SECOND;
/// A report that waited for longer says so by Acct-Delay-Time; what only Event-Timestamp says is a clock that was set.
const LATE_MAX_NS: WallNs = 120 * SECOND;

/// What is known of one NAS's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct NasClock {
    /// Since when it is known.
    known_ns: Option<WallNs>,
    /// The last arrival of a report that did not wait.
    punctual_ns: Option<WallNs>,
    began_ns: WallNs,
    /// The smallest lag since then, and in the time before.
    smallest_ns: Option<WallNs>,
    before_ns: Option<WallNs>,
    /// Arrival and lag of the report before, where it was taken to be late.
    late: Option<(WallNs, WallNs)>,
}

impl NasClock {
    /// That of a NAS that was heard of before.
    #[must_use]
    pub fn known_since(known_ns: WallNs) -> Self {
        Self { known_ns: Some(known_ns), ..Self::default() }
    }

    /// When what a request reports happened, now that it arrives.
    pub fn happened_ns(&mut self, request: &Request, received_ns: WallNs) -> WallNs {
        let known_ns = self.known_ns.map_or(received_ns, |known| known.min(received_ns));
        self.known_ns = Some(known_ns);
        let claimed_ns = request.sent_ns(received_ns);
        // It cannot have tried for longer than it is there.
        let sent_ns = if claimed_ns < known_ns.saturating_sub(PRECISION_NS) { received_ns } else { claimed_ns };
        let lag_ns = request.lag_ns(sent_ns);
        let lateness_ns = match request.status {
            AcctStatus::On | AcctStatus::Off => {
                lag_ns.into_iter().for_each(|lag_ns| self.learn_anew(lag_ns, received_ns));
                0
            }
            AcctStatus::Start | AcctStatus::Stop | AcctStatus::Interim | AcctStatus::Failed => {
                lag_ns.map_or(0, |lag_ns| self.lateness_ns(lag_ns, sent_ns, received_ns))
            }
        };
        if lateness_ns == 0 && received_ns - sent_ns <= PRECISION_NS {
            self.punctual_ns = Some(received_ns);
        }
        sent_ns.saturating_sub(lateness_ns)
    }

    fn lateness_ns(&mut self, lag_ns: WallNs, sent_ns: WallNs, received_ns: WallNs) -> WallNs {
        if received_ns.saturating_sub(self.began_ns) > REMEMBERED_NS {
            let is_recent = received_ns.saturating_sub(self.began_ns) <= 2 * REMEMBERED_NS;
            self.before_ns = self.smallest_ns.filter(|_| is_recent);
            (self.began_ns, self.smallest_ns) = (received_ns, None);
        }
        self.smallest_ns = Some(self.smallest_ns.map_or(lag_ns, |smallest| smallest.min(lag_ns)));
        let known_ns = [self.smallest_ns, self.before_ns].into_iter().flatten().min().unwrap_or(lag_ns);
        let lateness_ns = lag_ns.saturating_sub(known_ns);
        if lateness_ns <= PRECISION_NS {
            self.late = None;
            return 0;
        }
        let made_ns = sent_ns.saturating_sub(lateness_ns);
        let is_overtaken = self.punctual_ns.is_some_and(|punctual| made_ns.saturating_add(PRECISION_NS) < punctual);
        let is_as_late = self.late.is_some_and(|(before_ns, lag_before_ns)| {
            received_ns - before_ns > PRECISION_NS && (lag_ns - lag_before_ns).abs() <= PRECISION_NS
        });
        if lateness_ns > LATE_MAX_NS || is_overtaken || is_as_late {
            self.learn_anew(lag_ns, received_ns);
            return 0;
        }
        self.late = Some((received_ns, lag_ns));
        lateness_ns
    }

    fn learn_anew(&mut self, lag_ns: WallNs, received_ns: WallNs) {
        (self.began_ns, self.smallest_ns, self.before_ns, self.late) = (received_ns, Some(lag_ns), None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::parsed;
    use super::*;

    const NOW_S: u32 = 1_795_392_000;
    const START: u8 = 1;
    const ON: u8 = 7;
    const OFF: u8 = 8;

    /// A report that arrives so many seconds after the first, with Acct-Status-Type, the time its NAS has, and Acct-Delay-Time.
    fn happened(clock: &mut NasClock, (after_s, status, stamp_s, delay_s): (u32, u8, Option<u32>, Option<u32>)) -> i64 {
        let mut given: Vec<(u8, Vec<u8>)> = vec![(40, vec![0, 0, 0, status]), (44, b"1".to_vec())];
        given.extend(stamp_s.map(|stamp| (55, stamp.to_be_bytes().to_vec())));
        given.extend(delay_s.map(|delay| (41, delay.to_be_bytes().to_vec())));
        let given: Vec<(u8, &[u8])> = given.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
        let received_ns = i64::from(NOW_S + after_s) * SECOND;
        (received_ns - clock.happened_ns(&parsed(&given), received_ns)) / SECOND
    }

    /// Lateness in seconds of Starts that come with these lags, each so long after the first.
    fn lateness(reports: &[(u32, u32)]) -> Vec<i64> {
        let mut clock = NasClock::default();
        let of = |(after_s, lag_s): &(u32, u32)| (*after_s, START, Some(NOW_S + 7200 + after_s - lag_s), None);
        reports.iter().map(|report| happened(&mut clock, of(report))).collect()
    }

    #[test]
    fn a_clock_that_is_wrong_all_the_time_makes_nothing_late() {
        assert_eq!(lateness(&[(0, 3600), (10, 3601), (700, 3600), (3000, 3600)]), [0; 4]);
        assert_eq!(lateness(&[(0, 9000), (10, 8999), (20, 9000)]), [0; 3]);
    }

    #[test]
    fn a_report_that_waited_is_late_by_that_whatever_the_clock_says() {
        assert_eq!(lateness(&[(0, 3600), (100, 3690), (101, 3680), (120, 3600)]), [0, 90, 80, 0]);
        assert_eq!(
            lateness(&[(0, 0), (700, 45)]),
            [0, 45],
            "what was learnt is still known after the first ten minutes"
        );
    }

    #[test]
    fn a_clock_that_is_set_forward_or_back_is_never_taken_for_lateness() {
        for step in [121, 300, 1200, 3600, 7200, 86_399, 86_400, 86_401, 3 * 365 * 86_400] {
            assert_eq!(lateness(&[(0, 0), (1000, step), (1001, step), (1700, step)]), [0; 4], "back by {step} s");
            assert_eq!(lateness(&[(0, step), (10, 0), (11, 0)]), [0; 3], "forward by {step} s");
        }
        for step in [5, 10, 30, 60, 119] {
            assert_eq!(
                lateness(&[(0, 0), (3, 0), (4, step), (5, step)]),
                [0; 4],
                "older than what came before: {step} s"
            );
            assert_eq!(lateness(&[(0, 0), (500, step), (510, step), (511, step)])[2..], [0; 2], "all lag so: {step} s");
        }
    }

    #[test]
    fn a_nas_that_begins_anew_has_a_clock_of_its_own() {
        for (event, step) in [(ON, 20), (OFF, 20), (ON, 1200), (ON, 3600), (OFF, 90_000)] {
            let mut clock = NasClock::default();
            let stamp = |after_s: u32, behind_s: u32| Some(NOW_S + after_s - behind_s);
            let all = [
                (0, START, stamp(0, 0), None),
                (500, event, stamp(500, step), None),
                (501, START, stamp(501, step), None),
            ];
            assert_eq!(all.map(|report| happened(&mut clock, report)), [0; 3], "{step} s behind");
        }
    }

    #[test]
    fn a_delay_is_believed_for_as_long_as_its_nas_is_known_and_for_a_day() {
        let delays = |known_s: u32, delay_s: u32| {
            let mut clock = NasClock::default();
            happened(&mut clock, (0, START, None, None));
            happened(&mut clock, (known_s, START, None, Some(delay_s)))
        };
        assert_eq!((delays(100, 30), delays(100, 100), delays(100, 102)), (30, 100, 102), "whole seconds are rounded");
        assert_eq!((delays(100, 103), delays(100, 3600)), (0, 0));
        assert_eq!((delays(90_000, 86_400), delays(90_000, 86_401), delays(90_000, u32::MAX)), (86_400, 0, 0));
        assert_eq!(happened(&mut NasClock::default(), (0, START, None, Some(60))), 0, "nobody knows it yet");
        let known = i64::from(NOW_S - 60) * SECOND;
        assert_eq!(happened(&mut NasClock::known_since(known), (0, START, None, Some(60))), 60);
    }

    #[test]
    fn a_clock_that_was_never_set_says_nothing() {
        let mut clock = NasClock::default();
        let all = [Some(0), Some(60), Some(NOW_S + 30), Some(90), None];
        let all = all.map(|stamp| happened(&mut clock, (30, START, stamp, None)));
        assert_eq!(all, [0; 5]);
    }
}
