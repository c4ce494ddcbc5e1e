//! From the clock of events to the one people read.

use rustix::time::{ClockId, clock_gettime};

/// A step of the wall clock that is followed. Smaller differences are the two readings' distance in time, and
/// following them would make timestamps jump back and forth.
const STEP: i128 = 1_000_000;

/// How far the wall clock is ahead of `CLOCK_BOOTTIME`.
#[derive(Debug)]
pub struct WallClock {
    /// In nanoseconds.
    offset: i128,
}

impl WallClock {
    /// As it is now.
    #[must_use]
    pub fn new() -> Self {
        Self { offset: Self::measure() }
    }

    /// Follows a wall clock that was set.
    pub fn adjust(&mut self) {
        let offset = Self::measure();
        if (offset - self.offset).abs() > STEP {
            self.offset = offset;
        }
    }

    /// Nanoseconds since 1970 at a time in nanoseconds of `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn from_boot(&self, nanoseconds: u64) -> i128 {
        i128::from(nanoseconds) + self.offset
    }

    /// Nanoseconds since 1970, now.
    #[must_use]
    pub fn now(&self) -> i128 {
        read(ClockId::Boottime) + self.offset
    }

    /// Nanoseconds of `CLOCK_BOOTTIME`, now.
    #[must_use]
    pub fn boot_now() -> u64 {
        u64::try_from(read(ClockId::Boottime)).unwrap_or(0)
    }

    fn measure() -> i128 {
        read(ClockId::Realtime) - read(ClockId::Boottime)
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}

fn read(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_difference_is_not_followed() {
        let mut clock = WallClock { offset: WallClock::measure() + STEP * 100 };
        clock.adjust();
        let adjusted = clock.offset;
        assert!((adjusted - WallClock::measure()).abs() < STEP * 10);
        clock.offset += STEP / 10;
        let nudged = clock.offset;
        clock.adjust();
        assert!((clock.offset - nudged).abs() < STEP * 10);
    }
}
