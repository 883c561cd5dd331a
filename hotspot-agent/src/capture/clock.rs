//! The kernel's clocks and their distance from wall time.
//!
//! All times the agent writes are by one wall clock, the one in force. It follows the machine's, but not when that is set: then the
//! carrier ends the journal first and takes over the new clock between two journals, so that within one no time jumps.

use std::sync::atomic::{AtomicI64, Ordering};

use hotspot_core::WallNs;
use rustix::time::{ClockId, clock_getres};

/// A reading this close is good enough, and so many are tried.
const READING_ERROR_NS: i64 = 100_000;
const READINGS_MAX: u32 = 5;
/// Smaller changes are taken for what clocks do by themselves: slewing moves one by at most 0.5 ms a second (adjtimex(2)).
const CHANGE_NS: i64 = 10_000_000;

/// A wall clock that changes only when it is told to: its distance from `CLOCK_BOOTTIME`, which nobody sets.
struct WallClock(AtomicI64);

/// No distance is known yet.
const UNKNOWN: i64 = i64::MIN;

/// The wall clock in force.
static IN_FORCE: WallClock = WallClock(AtomicI64::new(UNKNOWN));

impl WallClock {
    /// A reading of the machine's clocks as this one says it.
    fn of(&self, mut reading: ClockReading) -> ClockReading {
        let measured_ns = reading.boot_to_wall_ns();
        let known = self.0.compare_exchange(UNKNOWN, measured_ns, Ordering::Relaxed, Ordering::Relaxed);
        reading.wall_offset_ns = known.err().unwrap_or(measured_ns) + reading.boot_offset_ns;
        reading
    }

    /// Follows the machine's clock where that was not set; where it was, says how far.
    fn follow(&self, reading: &ClockReading) -> Option<i64> {
        let step_ns = reading.boot_to_wall_ns() - self.of(*reading).boot_to_wall_ns();
        if step_ns.abs() >= CHANGE_NS {
            return Some(step_ns);
        }
        self.take(reading.boot_to_wall_ns());
        None
    }

    fn take(&self, boot_to_wall_ns: i64) {
        self.0.store(boot_to_wall_ns, Ordering::Relaxed);
    }
}

/// How far the machine's clock was set away from the one in force; the latter follows it where it was not set. For the carrier,
/// which looks often.
#[must_use]
pub fn set_by() -> Option<i64> {
    IN_FORCE.follow(&ClockReading::measured())
}

/// Puts the machine's clock in force, and says how far that is from the one before.
pub fn adopt() -> i64 {
    let measured = ClockReading::measured();
    let step_ns = IN_FORCE.follow(&measured).unwrap_or(0);
    IN_FORCE.take(measured.boot_to_wall_ns());
    step_ns
}

/// Keeps the clock of an earlier agent in force, in the same boot.
pub fn keep(boot_to_wall_ns: i64) {
    IN_FORCE.take(boot_to_wall_ns);
}

/// Where the clocks stood to each other at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    pub monotonic_ns: u64,
    /// Wall time − `CLOCK_MONOTONIC`.
    pub wall_offset_ns: i64,
    /// `CLOCK_BOOTTIME` − `CLOCK_MONOTONIC`: time spent suspended.
    pub boot_offset_ns: i64,
}

impl ClockReading {
    /// By the wall clock in force.
    #[must_use]
    pub fn now() -> Self {
        IN_FORCE.of(Self::measured())
    }

    /// By the machine's own.
    fn measured() -> Self {
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
        let before = read(libc::CLOCK_MONOTONIC);
        let wall = read(libc::CLOCK_REALTIME);
        let boot = read(libc::CLOCK_BOOTTIME);
        let after = read(libc::CLOCK_MONOTONIC);
        let monotonic = before + (after - before) / 2;
        let reading = Self {
            monotonic_ns: u64::try_from(after).unwrap_or(0),
            wall_offset_ns: wall - monotonic,
            boot_offset_ns: boot - monotonic,
        };
        (reading, after - before)
    }

    /// How long the machine was suspended since an earlier reading.
    #[must_use]
    pub fn slept_since(&self, earlier: &Self) -> i64 {
        let slept_ns = self.boot_offset_ns - earlier.boot_offset_ns;
        if slept_ns < CHANGE_NS { 0 } else { slept_ns }
    }

    /// Wall time − `CLOCK_BOOTTIME`: changes only when the wall clock does.
    #[must_use]
    pub fn boot_to_wall_ns(&self) -> i64 {
        self.wall_offset_ns - self.boot_offset_ns
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
    let length = clock_getres(ClockId::MonotonicCoarse);
    u64::try_from(length.tv_sec * 1_000_000_000 + length.tv_nsec).unwrap_or(1)
}

/// What a clock says, nanoseconds. By way of the C library, so that a test can put another clock before it.
fn read(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure outlives the call. It fails only for clocks that do not exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
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

    const HOUR: i64 = 3_600_000_000_000;

    fn at(wall_offset_ns: i64, boot_offset_ns: i64) -> ClockReading {
        ClockReading { monotonic_ns: 1_000, wall_offset_ns, boot_offset_ns }
    }

    #[test]
    fn a_clock_that_is_set_is_not_followed_until_it_is_taken_over() {
        let clock = WallClock(AtomicI64::new(UNKNOWN));
        assert_eq!(clock.follow(&at(5 * HOUR, 7)), None, "the first reading counts");
        assert_eq!(clock.follow(&at(5 * HOUR + 400_000, 7)), None, "slewing");
        assert_eq!(clock.of(at(9 * HOUR, 7)).wall_offset_ns, 5 * HOUR + 400_000);
        assert_eq!(clock.follow(&at(6 * HOUR + 400_000, 7)), Some(HOUR));
        assert_eq!(clock.follow(&at(4 * HOUR + 400_000, 7)), Some(-HOUR), "one step after the other is their sum");
        assert_eq!(clock.of(at(4 * HOUR, 7)).wall_offset_ns, 5 * HOUR + 400_000);
        clock.take(at(4 * HOUR, 7).boot_to_wall_ns());
        assert_eq!(clock.of(at(9 * HOUR, 7)).wall_offset_ns, 4 * HOUR);
    }

    #[test]
    fn sleep_is_no_step() {
        let (before, after) = (at(5 * HOUR, 7), at(6 * HOUR, HOUR + 7));
        let clock = WallClock(AtomicI64::new(UNKNOWN));
        assert_eq!((clock.follow(&before), clock.follow(&after)), (None, None));
        assert_eq!(after.slept_since(&before), HOUR);
        assert_eq!(at(4 * HOUR, 7).slept_since(&before), 0);
        assert_eq!(clock.follow(&at(4 * HOUR, HOUR + 7)), Some(-2 * HOUR));
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
        let wall = read(libc::CLOCK_REALTIME);
        assert!((wall - reading.wall_now()).abs() < 1_000_000_000);
    }
}
