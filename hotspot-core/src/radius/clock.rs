//! How late a report is by its NAS's own clock, which may be wrong.
//!
//! *Lag* is arrival − Acct-Delay-Time − Event-Timestamp: how far the NAS's clock is behind, and how late the report is, in one.
//! The clock is as wrong for every report, and no report comes before it was made, so the smallest lag of late is the clock's
//! part and what is above it is lateness: a clock that was never set puts no session at the wrong time, and a report that waited
//! in a queue still counts from when it was made.

use crate::WallNs;

const SECOND: WallNs = 1_000_000_000;
/// How long a lag is remembered, at least; at most twice as long. A clock that is set back is understood after that.
const REMEMBERED_NS: WallNs = 600 * SECOND;
/// Timestamps are whole seconds, and the way here takes time: less is no lateness.
const PRECISION_NS: WallNs = 2 * SECOND;
/// A report as late as this is not late: the clock was set.
const LATE_MAX_NS: WallNs = 24 * 3600 * SECOND;

/// What is known of one NAS's clock.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_field_names, reason = "units last")]
pub struct NasClock {
    began_ns: WallNs,
    /// The smallest lag since then, and in the time before.
    smallest_ns: Option<WallNs>,
    before_ns: Option<WallNs>,
}

impl NasClock {
    /// How late a report with this lag is, now that it arrives.
    pub fn lateness_ns(&mut self, lag_ns: WallNs, now_ns: WallNs) -> WallNs {
        if now_ns.saturating_sub(self.began_ns) > REMEMBERED_NS {
            let is_recent = now_ns.saturating_sub(self.began_ns) <= 2 * REMEMBERED_NS;
            self.before_ns = self.smallest_ns.filter(|_| is_recent);
            (self.began_ns, self.smallest_ns) = (now_ns, None);
        }
        self.smallest_ns = Some(self.smallest_ns.map_or(lag_ns, |smallest| smallest.min(lag_ns)));
        let known = [self.smallest_ns, self.before_ns].into_iter().flatten().min().unwrap_or(lag_ns);
        let lateness = lag_ns.saturating_sub(known);
        if lateness > LATE_MAX_NS {
            (self.smallest_ns, self.before_ns) = (Some(lag_ns), None);
            return 0;
        }
        if lateness > PRECISION_NS { lateness } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallNs = 1_795_392_000 * SECOND;

    /// Lateness in seconds of reports that come with these lags, each so long after the first.
    fn lateness(reports: &[(WallNs, WallNs)]) -> Vec<WallNs> {
        let mut clock = NasClock::default();
        reports.iter().map(|(after, lag)| clock.lateness_ns(lag * SECOND, NOW + after * SECOND) / SECOND).collect()
    }

    #[test]
    fn a_clock_that_is_wrong_all_the_time_makes_nothing_late() {
        assert_eq!(lateness(&[(0, 3600), (10, 3601), (700, 3600), (3000, 3600)]), [0; 4]);
        assert_eq!(lateness(&[(0, -300), (10, -301), (20, -300)]), [0; 3]);
    }

    #[test]
    fn a_report_that_waited_is_late_by_that_whatever_the_clock_says() {
        assert_eq!(lateness(&[(0, 3600), (10, 3690), (20, 3600)]), [0, 90, 0]);
        assert_eq!(
            lateness(&[(0, 0), (700, 45)]),
            [0, 45],
            "what was learnt is still known after the first ten minutes"
        );
    }

    #[test]
    fn a_clock_that_is_set_is_understood() {
        assert_eq!(lateness(&[(0, 3600), (10, 0), (20, 0)]), [0, 0, 0], "forward: at once");
        assert_eq!(lateness(&[(0, 0), (10, 3600), (1300, 3600), (1310, 3600)])[2..], [0, 0], "back: in a while");
        let years = 3 * 365 * 24 * 3600;
        assert_eq!(lateness(&[(0, 0), (10, years), (20, years)]), [0, 0, 0], "back by years: at once");
    }
}
