// SPDX-License-Identifier: GPL-2.0-only
//! Connections that all send at the same rate, evenly over time, and the share of packets that takes the
//! fast path, slot by slot.

use super::stage::Stage;
use crate::packets::plan::Connections;
use std::time::{Duration, Instant};

/// Slots a second. The kernel takes some 10 ms for each call of the generator.
const SLOTS: u32 = 10;
/// A slot is fast if one packet in so many is slow, and one more. At XDP, one in 65,536 has a checksum that may
/// be half done, and always goes up.
const SLOW: u64 = 1_000;
const PAUSE: Duration = Duration::from_millis(1);

/// Each connection sends a packet in both directions, so many times a second.
pub struct Traffic {
    connections: Connections,
    per_second: u32,
    started: Instant,
    /// Packets of one direction.
    sent: u64,
    slots: Vec<Slot>,
}

/// Some packets sent at once, and how many of them were fast.
struct Slot {
    end: Instant,
    sent: u64,
    fast: u64,
}

impl Slot {
    fn is_fast(&self) -> bool {
        self.sent - self.fast <= 1 + self.sent / SLOW
    }
}

/// What a while of traffic has shown.
pub struct Share {
    /// Packets a second in both directions, all connections together.
    pub rate: f64,
    /// The share of them that took the fast path.
    pub fast: f64,
}

impl Traffic {
    /// Starts the clock; packets are sent by [`Self::go_on`].
    pub fn new(connections: Connections, per_second: u32) -> Self {
        Self { connections, per_second, started: Instant::now(), sent: 0, slots: Vec::new() }
    }

    /// Sends the next slot if it is due. Says whether it was.
    pub fn go_on(&mut self, stage: &Stage) -> Result<bool, String> {
        let number = self.connections.number;
        let rate = f64::from(number) * f64::from(self.per_second);
        let step = (rate / f64::from(SLOTS)).ceil() as u32;
        if (self.sent + u64::from(step)) as f64 > self.started.elapsed().as_secs_f64() * rate {
            return Ok(false);
        }
        let first = (self.sent % u64::from(number)) as u32;
        let which = first..number.min(first + step);
        let sent = which.len() as u64;
        let fast = stage.speak(self.connections, which)?.fast;
        self.sent += sent;
        self.slots.push(Slot { end: Instant::now(), sent: 2 * sent, fast });
        Ok(true)
    }

    /// Sends for this time.
    pub fn go_on_for(&mut self, stage: &Stage, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.go_on_or_wait(stage)?;
        }
        Ok(())
    }

    /// Sends the next slot, or waits a little.
    pub fn go_on_or_wait(&mut self, stage: &Stage) -> Result<(), String> {
        stage.check()?;
        if !self.go_on(stage)? {
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Sends until each connection has sent a packet in both directions, and none of them was slow. Says how
    /// long after `since` the last slow slot ended; `None` if that was later than `limit`.
    pub fn until_fast(
        &mut self,
        stage: &Stage,
        since: Instant,
        limit: Duration,
    ) -> Result<Option<Duration>, String> {
        loop {
            self.go_on_or_wait(stage)?;
            let (fast, last_slow) = self.fast_since(since);
            if last_slow > limit {
                return Ok(None);
            }
            if fast >= 2 * u64::from(self.connections.number) {
                return Ok(Some(last_slow));
            }
        }
    }

    /// How many packets were sent in fast slots after the last slow one, and how long after `since` that
    /// ended.
    fn fast_since(&self, since: Instant) -> (u64, Duration) {
        let mut fast = 0;
        for slot in self.slots.iter().rev().take_while(|slot| slot.end > since) {
            if !slot.is_fast() {
                return (fast, slot.end - since);
            }
            fast += slot.sent;
        }
        (fast, Duration::ZERO)
    }

    /// What was sent so far.
    pub fn share(&self) -> Share {
        let sum = |part: fn(&Slot) -> u64| self.slots.iter().map(part).sum::<u64>() as f64;
        let (sent, fast) = (sum(|slot| slot.sent), sum(|slot| slot.fast));
        Share { rate: sent / self.started.elapsed().as_secs_f64(), fast: fast / sent }
    }
}
