// SPDX-License-Identifier: GPL-2.0-only
//! What a step of the walk compares entries with, in the datapath's own time: to convert each
//! entry's times would take longer than all the rest.

use std::time::Duration;

use super::Offload;
use crate::clock::Jiffies;
use crate::flow::tuple::Protocol;

/// Of all ages that the lower half of jiffies64 can tell, the quarter after which an entry must go.
const FORGOTTEN: u64 = 1 << 30;

/// What has a timeout of its own.
const KINDS: [(Protocol, bool); 3] =
    [(Protocol::Tcp, true), (Protocol::Udp, true), (Protocol::Udp, false)];

fn kind(protocol: Protocol, assured: bool) -> usize {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp if assured => 1,
        Protocol::Udp => 2,
    }
}

pub(super) struct Moment {
    jiffies: Jiffies,
    now: u64,
    /// How long ago the round before the last one began, at most.
    lately: u64,
    /// By [`kind`].
    idle_limits: [u32; 3],
}

impl Offload {
    /// Now; `lately` is what has happened within this time.
    pub(super) fn moment(&self, lately: Duration) -> Moment {
        let mut idle_limits = [0; 3];
        for (protocol, assured) in KINDS {
            idle_limits[kind(protocol, assured)] = self.idle_limit(protocol, assured);
        }
        Moment {
            jiffies: self.clock.jiffies,
            now: self.clock.now(),
            lately: self.clock.jiffies.in_duration(lately),
            idle_limits,
        }
    }
}

impl Moment {
    /// The time with this lower half that is nearest to now.
    pub(super) fn widen(&self, low: u32) -> u64 {
        let ahead = low.wrapping_sub(self.now as u32) as i32;
        self.now.wrapping_add_signed(ahead.into())
    }

    pub(super) fn was_lately(&self, then: u64) -> bool {
        self.now.saturating_sub(then) <= self.lately
    }

    /// After more silence, the lower half of this time would soon stand for a later one.
    pub(super) fn is_forgotten(&self, then: u64) -> bool {
        self.now.saturating_sub(then) > FORGOTTEN
    }

    pub(super) fn age(&self, then: u64) -> Duration {
        self.jiffies.to_duration(self.now.saturating_sub(then))
    }

    /// A silence in jiffies after which the stack should see such a connection's next packet.
    pub(super) fn idle_limit(&self, protocol: Protocol, assured: bool) -> u32 {
        self.idle_limits[kind(protocol, assured)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(now: u64) -> Moment {
        let jiffies = Jiffies::from_kernel().expect("a tick");
        Moment { jiffies, now, lately: 100, idle_limits: [1, 2, 3] }
    }

    #[test]
    fn the_nearest_time_is_meant() {
        for now in [5 << 32, (5 << 32) + 1000, (6 << 32) - 1] {
            for then in [now - FORGOTTEN - 1, now - 1000, now, now + 1] {
                assert_eq!(moment(now).widen(then as u32), then, "{then:#x} at {now:#x}");
            }
        }
    }

    #[test]
    fn silence_is_lately_old_or_too_old_to_tell() {
        let now = moment(1 << 40);
        let then = |ago: u64| (1 << 40) - ago;
        assert!(now.was_lately(then(100)) && !now.was_lately(then(101)));
        assert!(!now.is_forgotten(then(FORGOTTEN)) && now.is_forgotten(then(FORGOTTEN + 1)));
        assert!(now.was_lately(then(0) + 1), "another CPU's clock may be a bit ahead");
    }

    #[test]
    fn each_kind_has_a_place_of_its_own() {
        let mut places = KINDS.map(|(protocol, assured)| kind(protocol, assured));
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2]);
        assert_eq!(kind(Protocol::Tcp, false), kind(Protocol::Tcp, true));
    }
}
