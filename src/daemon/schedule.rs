// SPDX-License-Identifier: GPL-2.0-only
//! When the daemon's regular work is due.

use std::time::{Duration, Instant};

/// How often the daemon asks for what no event tells: sysctls, counters.
const SECOND: Duration = Duration::from_secs(1);

/// The times of what is done again and again.
pub(super) struct Schedule {
    interval: Duration,
    tick_at: Instant,
    second_at: Instant,
    /// The last slice of housekeeping was too short for all work.
    pub(super) busy: bool,
}

impl Schedule {
    /// The first tick comes after an interval.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, tick_at: now, second_at: now, busy: false }
    }

    /// From here on, the next tick comes after this interval.
    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Whether an interval has passed since the last tick.
    pub(super) fn is_tick_due(&self, now: Instant) -> bool {
        self.until_tick(now).is_zero()
    }

    /// How long it is until then.
    pub(super) fn until_tick(&self, now: Instant) -> Duration {
        self.interval.saturating_sub(now.duration_since(self.tick_at))
    }

    /// A tick begins; `true` if what is done once a second is due as well.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        self.tick_at = now;
        let second = now.duration_since(self.second_at) >= SECOND;
        if second {
            self.second_at = now;
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_ticks_begin_a_second() {
        let (interval, mut now) = (Duration::from_millis(400), Instant::now());
        let mut schedule = Schedule::new(interval, now);
        let ticks = [(); 6].map(|()| {
            assert!(!schedule.is_tick_due(now));
            now += interval;
            assert!(schedule.is_tick_due(now));
            schedule.tick(now)
        });
        assert_eq!(ticks, [false, false, true, false, false, true]);
    }
}
