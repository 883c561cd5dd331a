//! The kernel's clocks and their distance from wall time.

use hotspot_core::WallNs;
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

/// A reading this close is good enough, and so many are tried.
const READING_ERROR_NS: i64 = 100_000;
const READINGS_MAX: u32 = 5;
/// Smaller changes are taken for what clocks do by themselves: slewing moves one by at most 0.5 ms a second (adjtimex(2)).
const CHANGE_NS: i64 = 10_000_000;

/// What was done to the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockChanges {
    /// The machine was suspended for so long.
    pub slept_ns: i64,
    /// The wall clock was set forward by so much, or back if negative.
    pub step_ns: i64,
}

/// Where the clocks stood to each other at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    pub monotonic_ns: u64,
    /// `CLOCK_REALTIME` − `CLOCK_MONOTONIC`.
    pub wall_offset_ns: i64,
    /// `CLOCK_BOOTTIME` − `CLOCK_MONOTONIC`: time spent suspended.
    pub boot_offset_ns: i64,
}

impl ClockReading {
    #[must_use]
    pub fn now() -> Self {
        // Being interrupted between the clocks makes their distance wrong: the closest of some readings counts.
        let (mut reading, mut error) = Self::once();
        for _ in 1..READINGS_MAX {
            if error <= READING_ERROR_NS {
                break;
            }
            let (next, next_error) = Self::once();
            if next_error < error {
                (reading, error) = (next, next_error);
            }
        }
        reading
    }

    /// A reading, and how wrong its distances may be.
    fn once() -> (Self, i64) {
        let before = nanoseconds(clock_gettime(ClockId::Monotonic));
        let wall = nanoseconds(clock_gettime(ClockId::Realtime));
        let boot = nanoseconds(clock_gettime(ClockId::Boottime));
        let after = nanoseconds(clock_gettime(ClockId::Monotonic));
        let monotonic = before + (after - before) / 2;
        let reading = Self {
            monotonic_ns: u64::try_from(after).unwrap_or(0),
            wall_offset_ns: wall - monotonic,
            boot_offset_ns: boot - monotonic,
        };
        (reading, after - before)
    }

    /// What was done to the clocks since an earlier reading.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self) -> ClockChanges {
        let slept_ns = self.boot_offset_ns - earlier.boot_offset_ns;
        let step_ns = self.wall_offset_ns - earlier.wall_offset_ns - slept_ns;
        let noticed = |change_ns: i64| if change_ns.abs() < CHANGE_NS { 0 } else { change_ns };
        ClockChanges { slept_ns: noticed(slept_ns), step_ns: noticed(step_ns) }
    }

    /// The monotonic stamp of a wall time; 0 for times before the machine started.
    #[must_use]
    pub fn monotonic(&self, wall_ns: WallNs) -> u64 {
        u64::try_from(wall_ns.saturating_sub(self.wall_offset_ns)).unwrap_or(0)
    }

    /// Wall time of a monotonic stamp.
    #[must_use]
    pub fn wall(&self, monotonic_ns: u64) -> WallNs {
        i64::try_from(monotonic_ns).unwrap_or(i64::MAX).saturating_add(self.wall_offset_ns)
    }

    #[must_use]
    pub fn wall_now(&self) -> WallNs {
        self.wall(self.monotonic_ns)
    }
}

/// Length of a jiffy: the resolution of the coarse clocks is exactly one (kernel/time/posix-timers.c, `KTIME_LOW_RES`).
#[must_use]
pub fn tick_ns() -> u64 {
    u64::try_from(nanoseconds(clock_getres(ClockId::MonotonicCoarse))).unwrap_or(1)
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_is_one_that_kernels_are_built_with() {
        let hz = (1_000_000_000 + tick_ns() / 2) / tick_ns();
        assert!([100, 250, 300, 1000].contains(&hz), "{hz}");
    }

    #[test]
    fn steps_and_sleep_are_told_apart() {
        const HOUR: i64 = 3_600_000_000_000;
        let before = ClockReading { monotonic_ns: 1_000, wall_offset_ns: 5 * HOUR, boot_offset_ns: 7 };
        let at = |wall_offset_ns, boot_offset_ns| ClockReading { monotonic_ns: 2_000, wall_offset_ns, boot_offset_ns };
        let changes = |now: ClockReading| (now.changes_since(&before).step_ns, now.changes_since(&before).slept_ns);
        assert_eq!(changes(at(5 * HOUR + 400_000, 7)), (0, 0), "slewing");
        assert_eq!(changes(at(6 * HOUR, 7)), (HOUR, 0));
        assert_eq!(changes(at(4 * HOUR, 7)), (-HOUR, 0));
        assert_eq!(changes(at(6 * HOUR, HOUR + 7)), (0, HOUR));
        assert_eq!(changes(at(4 * HOUR, HOUR + 7)), (-2 * HOUR, HOUR));
    }

    #[test]
    fn a_stamp_is_found_again_by_its_wall_time() {
        let reading = ClockReading::now();
        assert_eq!(reading.monotonic(reading.wall(12_345)), 12_345);
        assert_eq!(reading.monotonic(i64::MIN), 0);
    }

    #[test]
    fn wall_time_of_a_reading_is_the_wall_clock() {
        let reading = ClockReading::now();
        let wall = nanoseconds(clock_gettime(ClockId::Realtime));
        assert!((wall - reading.wall_now()).abs() < 1_000_000_000);
    }
}
