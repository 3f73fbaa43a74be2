// SPDX-License-Identifier: GPL-2.0-only
//! How often each direction of a connection proves itself anew: what changes without a word (ipset,
//! expired set elements, sysctls) counts within two such periods.

use std::time::Duration;

use super::Daemon;
use crate::clock::Hz;
use crate::datapath::state::NO_PERIODS;
use crate::error::Result;

/// Up to so many connections, the period is the shortest: each one more packet of each direction
/// for the network stack.
const FEW: usize = 100_000;
/// The shortest period, and how often it may be doubled. Periods are powers of two in jiffies, so
/// of 9 seconds some 8 are left on most kernels.
const SHORTEST: Duration = Duration::from_secs(9);
const DOUBLINGS: u32 = 3;

/// How far jiffies are shifted for periods of at most this length; zero is for no periods.
pub(super) fn shift(period: Duration, hz: Hz) -> u32 {
    if period.is_zero() { NO_PERIODS } else { hz.count(period).max(1).ilog2() }
}

/// The period for so many connections.
fn default_period(connections: usize) -> Duration {
    let times = connections.div_ceil(FEW).max(1).next_power_of_two();
    SHORTEST * 2_u32.pow(times.ilog2().min(DOUBLINGS))
}

/// The period by the command line, or for so many connections.
pub(super) fn period(asked: Option<Duration>, connections: usize) -> Duration {
    asked.unwrap_or_else(|| default_period(connections))
}

impl Daemon<'_> {
    /// Whether there are so many more or fewer connections that another period fits them. It changes
    /// while the fast path is paused.
    pub(super) fn watch_period(&mut self) -> Result<()> {
        let asked = self.settings.options.prove_every();
        let connections = self.connections.offload.connections();
        let [now, sooner] = [connections, connections * 2]
            .map(|number| shift(period(asked, number), self.datapath.hz));
        let current = self.datapath.state.period();
        // It is shortened only when half as many would do.
        let fits = if now > current { now } else { current.min(sooner) };
        if fits != current && self.fast_path.is_settled() {
            self.change_period(fits)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_connections_prove_themselves_less_often() {
        let seconds = |connections| default_period(connections).as_secs();
        let numbers = [0, 100_000, 100_001, 200_000, 400_000, 1_000_000, 16_000_000];
        assert_eq!(numbers.map(seconds), [9, 9, 18, 18, 36, 72, 72]);
    }

    #[test]
    fn a_period_is_no_longer_than_asked_for() {
        let hz = Hz::from_kernel().expect("a tick");
        for seconds in [1, 7, 9, 72, 3600] {
            let asked = Duration::from_secs(seconds);
            let period = hz.duration(1 << shift(asked, hz));
            assert!(
                period <= asked && period * 2 >= asked - Duration::from_millis(20),
                "{asked:?}"
            );
        }
        assert_eq!(shift(Duration::ZERO, hz), NO_PERIODS);
    }
}
