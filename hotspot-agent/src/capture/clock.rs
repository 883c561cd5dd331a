//! The kernel's clocks and their distance from wall time.

use hotspot_core::WallNs;
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

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
        // The wall clock is read between two readings of the monotonic one, so that being interrupted shows as distance.
        let before = nanoseconds(clock_gettime(ClockId::Monotonic));
        let wall = nanoseconds(clock_gettime(ClockId::Realtime));
        let boot = nanoseconds(clock_gettime(ClockId::Boottime));
        let after = nanoseconds(clock_gettime(ClockId::Monotonic));
        let monotonic = before + (after - before) / 2;
        Self {
            monotonic_ns: u64::try_from(after).unwrap_or(0),
            wall_offset_ns: wall - monotonic,
            boot_offset_ns: boot - monotonic,
        }
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
    fn wall_time_of_a_reading_is_the_wall_clock() {
        let reading = ClockReading::now();
        let wall = nanoseconds(clock_gettime(ClockId::Realtime));
        assert!((wall - reading.wall_now()).abs() < 1_000_000_000);
    }
}
