//! How much time has passed, as far as it is certain whatever clocks were set to.

use hotspot_core::WallNs;
use serde::{Deserialize, Serialize};

/// What a gateway knew of time when it wrote a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockEvidence {
    /// Names the boot: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// `CLOCK_BOOTTIME`: cannot be set, and counts while the machine sleeps.
    pub boottime_ns: i64,
    /// Whether the kernel's clock was synchronised then (`adjtimex`).
    pub synchronised: bool,
}

/// A moment, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    pub wall_ns: WallNs,
    /// `None` away from the gateway.
    pub clock: Option<ClockEvidence>,
}

/// How much time a chain proves to have passed up to its last line.
///
/// Within one boot the boot clock tells. Across a reboot the new boot's own age counts, and the time between only where the wall
/// clock was synchronised on both sides, because a clock that came up wrong proves nothing; and never more than the wall clock went on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elapsed {
    total_ns: i64,
    last: Option<(WallNs, ClockEvidence)>,
}

impl Elapsed {
    /// Takes a line's moment.
    pub(crate) fn advance(&mut self, wall_ns: WallNs, clock: Option<&ClockEvidence>) {
        let Some(clock) = clock else { return };
        self.total_ns = self.total_at(wall_ns, clock);
        self.last = Some((wall_ns, clock.clone()));
    }

    /// Up to the last line.
    pub(crate) fn total_ns(&self) -> i64 {
        self.total_ns
    }

    /// Up to a moment after the last line; up to that line where nothing is known of the moment but the wall clock.
    pub(crate) fn total_until(&self, now: &Moment) -> i64 {
        now.clock.as_ref().map_or(self.total_ns, |clock| self.total_at(now.wall_ns, clock))
    }

    fn total_at(&self, wall_ns: WallNs, clock: &ClockEvidence) -> i64 {
        let Some((last_ns, last)) = &self.last else { return self.total_ns };
        let passed_ns = if last.boot == clock.boot {
            clock.boottime_ns.saturating_sub(last.boottime_ns)
        } else {
            let booted_ns = wall_ns.saturating_sub(clock.boottime_ns);
            let off_ns = if last.synchronised && clock.synchronised { booted_ns.saturating_sub(*last_ns) } else { 0 };
            // What the wall clock does not say has not certainly passed either.
            clock.boottime_ns.saturating_add(off_ns.max(0)).min(wall_ns.saturating_sub(*last_ns))
        };
        self.total_ns.saturating_add(passed_ns.max(0))
    }
}
