// SPDX-License-Identifier: GPL-2.0-only
//! Neighbors of next hops in use. The stack no longer sees these packets, so it would let their
//! neighbors go stale.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use crate::abi::bpfw_hop;
use crate::datapath::hops::Hops;
use crate::error::Result;
use crate::netlink::monitor::Monitor;

/// How often they are kept in use.
const INTERVAL: Duration = Duration::from_secs(10);
/// How many next hops have their neighbors kept in use in one turn.
const A_TURN: usize = 64;

/// The next hops in use, and which of them have their turn.
pub(super) struct Neighbors {
    /// Slots of next hops of connections with traffic, as the last sweep found them.
    slots: BTreeSet<u32>,
    due: Vec<bpfw_hop>,
    asked_at: Instant,
}

impl Neighbors {
    pub(super) fn new(now: Instant) -> Self {
        Self { slots: BTreeSet::new(), due: Vec::new(), asked_at: now }
    }

    /// A sweep has found these next hops in use.
    pub(super) fn found(&mut self, slots: BTreeSet<u32>, hops: &Hops) -> Result<()> {
        self.slots = slots;
        self.due = hops.in_slots(&self.slots)?;
        Ok(())
    }

    /// Keeps some of them in use; `true` if others are left for the next turn.
    pub(super) fn keep(&mut self, hops: &Hops, monitor: &mut Monitor) -> Result<bool> {
        if self.asked_at.elapsed() >= INTERVAL {
            self.asked_at = Instant::now();
            self.due = hops.in_slots(&self.slots)?;
        }
        let mut done = HashSet::new();
        let left = self.due.len().saturating_sub(A_TURN);
        for hop in self.due.split_off(left) {
            let has_neighbor = !hop.neighbor().is_unspecified();
            if has_neighbor && done.insert((hop.egress, hop.neighbor())) {
                monitor.keep_in_use(hop.egress, hop.neighbor())?;
            }
        }
        Ok(!self.due.is_empty())
    }
}
