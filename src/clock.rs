// SPDX-License-Identifier: GPL-2.0-only
//! The datapath's clock: jiffies, which the kernel counts `CONFIG_HZ` times a second.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getres};

use crate::error::{Error, Result};

/// How many jiffies make a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hz(u64);

impl Hz {
    /// Asks the kernel: a coarse clock's resolution is one jiffy
    /// (`KTIME_LOW_RES` in the kernel's include/linux/ktime.h).
    pub fn from_kernel() -> Result<Self> {
        let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
            .map_err(|errno| Error::system("reading the kernel's tick length", errno))?;
        let tick = Duration::from(tick).as_nanos().max(1);
        let per_second = (1_000_000_000 + tick / 2) / tick;
        Ok(Self(u64::try_from(per_second).unwrap_or(1).max(1)))
    }

    /// How many jiffies a length of time takes, rounded up.
    pub fn count(self, duration: Duration) -> u64 {
        let begun = (u64::from(duration.subsec_nanos()) * self.0).div_ceil(1_000_000_000);
        duration.as_secs().saturating_mul(self.0).saturating_add(begun)
    }

    /// The same for a field of the ABI; what is too long for it becomes the longest there is.
    pub fn count_u32(self, duration: Duration) -> u32 {
        u32::try_from(self.count(duration)).unwrap_or(u32::MAX)
    }

    /// How long so many jiffies take.
    pub fn duration(self, count: u64) -> Duration {
        Duration::from_millis(count.saturating_mul(1000) / self.0)
    }
}

/// A point in time: the kernel's jiffies64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Jiffies(pub u64);

impl Jiffies {
    /// Where a time is optional, the datapath means "never" by it.
    pub const NEVER: Self = Self(0);

    /// How many jiffies have passed since an earlier time. Another CPU's clock may be a bit ahead: 0.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// How old this time is.
    pub fn age(self, now: Self, hz: Hz) -> Duration {
        hz.duration(now.since(self))
    }

    /// The lower half, which is all that the datapath's shorter fields hold.
    pub fn low(self) -> u32 {
        self.0 as u32
    }

    /// The time with this lower half that is nearest to this one.
    #[must_use]
    pub fn widen(self, low: u32) -> Self {
        let ahead = low.wrapping_sub(self.low()) as i32;
        Self(self.0.wrapping_add_signed(ahead.into()))
    }

    /// The time so many jiffies later.
    #[must_use]
    pub fn after(self, count: u64) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// The time so many jiffies earlier.
    #[must_use]
    pub fn before(self, count: u64) -> Self {
        Self(self.0.wrapping_sub(count))
    }
}

/// The datapath's time, reckoned from when it was last read.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: Hz,
    read_at: Instant,
    value: Jiffies,
}

impl Clock {
    /// A clock that was never read.
    pub fn new(hz: Hz) -> Self {
        Self { hz, read_at: Instant::now(), value: Jiffies::NEVER }
    }

    /// The datapath's time is this just now.
    pub fn set(&mut self, value: Jiffies) {
        (self.read_at, self.value) = (Instant::now(), value);
    }

    /// How many jiffies make a second.
    pub fn hz(&self) -> Hz {
        self.hz
    }

    /// The time now.
    pub fn now(&self) -> Jiffies {
        self.value.after(self.hz.count(self.read_at.elapsed()))
    }

    /// The time after this duration.
    pub fn after(&self, duration: Duration) -> Jiffies {
        self.now().after(self.hz.count(duration))
    }

    /// How long ago this was; `None` for never.
    pub fn age(&self, then: Jiffies) -> Option<Duration> {
        (then != Jiffies::NEVER).then(|| then.age(self.now(), self.hz))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_up_to_jiffies() {
        let hz = Hz(250);
        assert_eq!(hz.count(Duration::from_secs(2)), 500);
        assert_eq!(hz.count(Duration::from_micros(1)), 1);
        assert_eq!(hz.count_u32(Duration::MAX), u32::MAX);
        assert_eq!(hz.duration(500), Duration::from_secs(2));
    }

    #[test]
    fn the_kernel_tells_its_tick() {
        let per_second = Hz::from_kernel().unwrap().0;
        assert!((24..=1200).contains(&per_second), "CONFIG_HZ {per_second}");
    }

    #[test]
    fn the_nearest_time_is_meant() {
        for now in [5 << 32, (5 << 32) + 1000, (6 << 32) - 1].map(Jiffies) {
            for then in [now.before(1 << 30), now.before(1000), now, now.after(1)] {
                assert_eq!(now.widen(then.low()), then, "{then:?} at {now:?}");
            }
        }
    }

    #[test]
    fn an_age_is_never_negative() {
        let now = Jiffies(1 << 40);
        assert_eq!((now.since(now.before(3)), now.since(now.after(1))), (3, 0));
        assert_eq!(now.before(500).age(now, Hz(250)), Duration::from_secs(2));
        let mut clock = Clock::new(Hz(250));
        clock.set(now);
        assert_eq!(clock.age(Jiffies::NEVER), None);
        assert!(clock.age(now).is_some_and(|age| age < Duration::from_secs(1)));
    }
}
