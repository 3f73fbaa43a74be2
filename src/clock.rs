// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's clock of the datapath: jiffies.

use std::time::Duration;

use nix::time::{ClockId, clock_getres};

use crate::error::{Error, Result};

/// How many jiffies the kernel counts in a second (its `CONFIG_HZ`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jiffies {
    per_second: u64,
}

impl Jiffies {
    /// Asks the kernel: a coarse clock's resolution is one jiffy
    /// (`KTIME_LOW_RES` in the kernel's include/linux/ktime.h).
    pub fn from_kernel() -> Result<Self> {
        let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
            .map_err(|errno| Error::system("reading the kernel's tick length", errno))?;
        let tick = Duration::from(tick).as_nanos().max(1);
        let per_second = (1_000_000_000 + tick / 2) / tick;
        Ok(Self { per_second: u64::try_from(per_second).unwrap_or(1).max(1) })
    }

    /// A length of time in jiffies, rounded up.
    pub fn in_duration(self, duration: Duration) -> u64 {
        let jiffies = (duration.as_nanos() * u128::from(self.per_second)).div_ceil(1_000_000_000);
        u64::try_from(jiffies).unwrap_or(u64::MAX)
    }

    /// How long `jiffies` of them take.
    pub fn to_duration(self, jiffies: u64) -> Duration {
        Duration::from_millis(jiffies.saturating_mul(1000) / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_up_to_jiffies() {
        let hz250 = Jiffies { per_second: 250 };
        assert_eq!(hz250.in_duration(Duration::from_secs(2)), 500);
        assert_eq!(hz250.in_duration(Duration::from_micros(1)), 1);
        assert_eq!(hz250.to_duration(500), Duration::from_secs(2));
    }

    #[test]
    fn the_kernel_tells_its_tick() {
        let per_second = Jiffies::from_kernel().unwrap().per_second;
        assert!((24..=1200).contains(&per_second), "CONFIG_HZ {per_second}");
    }
}
