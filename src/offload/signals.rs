// SPDX-License-Identifier: GPL-2.0-only
//! Connections that the datapath points at: it saw a packet of one that is not offloaded, or one
//! that it will not forward any longer.

use std::time::{Duration, Instant};

use super::Offload;
use super::admission::Source;
use crate::abi::bpfw_tuple;
use crate::error::Result;
use crate::flow::decision::Refusal;

/// A signal's time is exact to a jiffy, of 10 ms at most, and so is the clock that it is read by.
const SIGNAL_AGE_ERROR: Duration = Duration::from_millis(20);
/// With the second that conntrack rounds away, within [`crate::flow::expiry::JUST_GIVEN`].
const NEW_ENOUGH: Duration = Duration::from_secs(2);

impl Offload {
    /// Looks at what the datapath points at, until there is nothing left or time is up. What is
    /// not looked at is pointed at again by its next packet.
    pub fn drain_signals(&mut self, until: Instant) -> Result<()> {
        for (tuple, at) in self.signals.take(until)? {
            if Instant::now() >= until {
                break;
            }
            self.look_at(&tuple, at)?;
        }
        self.flush()
    }

    fn look_at(&mut self, tuple: &bpfw_tuple, at: u64) -> Result<()> {
        let Some(plain) = tuple.decode() else {
            return Ok(());
        };
        match self.conn_map.get(tuple)? {
            // Its event was faster than this signal.
            Some(known) if known.finished == 0 => return Ok(()),
            Some(known) => self.remove(tuple, &known.reverse(), known.id)?,
            None => {}
        }
        if let Some(reason) = self.forbidden {
            self.refuse_tuple(&plain, reason);
            return Ok(());
        }
        if self.is_outdated(at) {
            return Ok(());
        }
        let Some(entry) = self.requests.get(&plain)? else {
            self.refuse_tuple(&plain, Refusal::NotTracked);
            return Ok(());
        };
        if let Some(refusal) = self.consider(&entry, Source::Signal)? {
            self.refuse(&entry, refusal);
        }
        Ok(())
    }

    /// Whether the packet of this signal may have been routed otherwise than packets are now, or
    /// is too old to tell which timeout packets are given.
    fn is_outdated(&self, at: u64) -> bool {
        let routed_for = self.routing.since.elapsed();
        let limit = if self.timeout_policies { routed_for.min(NEW_ENOUGH) } else { routed_for };
        self.clock.age(at).is_none_or(|age| age + SIGNAL_AGE_ERROR >= limit)
    }
}
