//! Converts the clock of events (`CLOCK_BOOTTIME`) to wall-clock time.

use std::{fs, sync::OnceLock};

use rustix::time::{ClockId, clock_gettime};
use tracer_common::container::NANOSECONDS_PER_TICK;

/// Smallest step of the wall clock that is followed, in nanoseconds. Smaller differences come from the time between
/// the two readings; following them would make timestamps jump back and forth.
const STEP: i128 = 1_000_000;

/// Offset between the wall clock and `CLOCK_BOOTTIME`.
#[derive(Debug)]
pub(crate) struct WallClock {
    /// In nanoseconds.
    offset: i128,
}

impl WallClock {
    /// The current offset.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { offset: Self::measure() }
    }

    /// Follows the wall clock if it has been set.
    pub(crate) fn adjust(&mut self) {
        self.follow(Self::measure());
    }

    fn follow(&mut self, offset: i128) {
        if (offset - self.offset).abs() > STEP {
            self.offset = offset;
        }
    }

    /// Nanoseconds since 1970 at a time in nanoseconds of `CLOCK_BOOTTIME`.
    #[must_use]
    pub(crate) fn wall_time(&self, nanoseconds: u64) -> i128 {
        i128::from(nanoseconds) + self.offset
    }

    /// Nanoseconds since 1970, now.
    #[must_use]
    pub(crate) fn now(&self) -> i128 {
        boot() + self.offset
    }

    /// Nanoseconds of `CLOCK_BOOTTIME`, now.
    #[must_use]
    pub(crate) fn boot_now() -> u64 {
        u64::try_from(boot()).unwrap_or(0)
    }

    fn measure() -> i128 {
        read(ClockId::Realtime) - boot()
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Converts a start time in clock ticks from `/proc`, which is relative to this process's time namespace, to the boot
/// time that the programs read.
pub(crate) fn ticks(ticks: u64) -> u64 {
    let ahead = ahead() / i128::from(NANOSECONDS_PER_TICK);
    u64::try_from(i128::from(ticks) - ahead).unwrap_or(0)
}

/// `CLOCK_BOOTTIME` as the programs read it, in nanoseconds.
fn boot() -> i128 {
    read(ClockId::Boottime) - ahead()
}

/// Offset of `CLOCK_BOOTTIME` in this process's time namespace, in nanoseconds. The programs do not run in a time
/// namespace.
fn ahead() -> i128 {
    static AHEAD: OnceLock<i128> = OnceLock::new();
    *AHEAD.get_or_init(|| {
        let offsets = fs::read_to_string("/proc/self/timens_offsets");
        offsets.ok().and_then(|offsets| boot_offset(&offsets)).unwrap_or(0)
    })
}

/// Parses the line `boottime SECONDS NANOSECONDS` (time_namespaces(7)).
fn boot_offset(offsets: &str) -> Option<i128> {
    let line = offsets.lines().find_map(|line| line.strip_prefix("boottime"))?;
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<i128>);
    Some(numbers.next()?.ok()? * 1_000_000_000 + numbers.next()?.ok()?)
}

fn read(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i128 = 3_600_000_000_000;

    #[test]
    fn wall_clock_steps_in_both_directions_are_followed() {
        let mut clock = WallClock { offset: 50 * HOUR };
        for set in [51 * HOUR, 49 * HOUR, 49 * HOUR + 2 * STEP, 0, -HOUR] {
            let at_boot = clock.wall_time(0);
            clock.follow(set);
            assert_eq!(clock.wall_time(7), set + 7);
            // Timestamps that were printed before the step do not change.
            assert_ne!(at_boot, clock.wall_time(0));
        }
    }

    #[test]
    fn small_differences_are_not_followed() {
        let mut clock = WallClock { offset: HOUR };
        for near in [HOUR - STEP, HOUR - 1, HOUR + 1, HOUR + STEP] {
            clock.follow(near);
            assert_eq!(clock.offset, HOUR);
        }
    }

    #[test]
    fn wall_clock_agrees_with_realtime_clock() {
        let clock = WallClock::new();
        let now = clock.wall_time(WallClock::boot_now());
        assert!((read(ClockId::Realtime) - now).abs() < HOUR);
        assert!((clock.now() - now).abs() < HOUR);
    }

    #[test]
    fn boottime_offset_is_parsed() {
        let offset = |line: &str| boot_offset(&format!("monotonic           5         0\n{line}\n"));
        assert_eq!(offset("boottime            0         0"), Some(0));
        assert_eq!(offset("boottime        86400       500"), Some(86_400_000_000_500));
        assert_eq!(offset("boottime           -2         5"), Some(-1_999_999_995));
        assert_eq!(offset("boottime            x         5"), None);
        assert_eq!(boot_offset(""), None);
    }
}
