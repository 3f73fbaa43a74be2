// SPDX-License-Identifier: GPL-2.0-only
//! Housekeeping: what is done again and again, in slices.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::rest::Rest;
use super::{CHORE, Daemon};
use crate::connections::Progress;
use crate::datapath::state::Change;
use crate::error::Result;

/// How often sysctls are read whose changes send no event.
const SYSCTLS: Duration = Duration::from_secs(1);
/// How often the neighbors of next hops in use are kept in use.
const NEIGHBORS: Duration = Duration::from_secs(10);
/// How many next hops have their neighbors kept in use in one turn.
const NEIGHBORS_A_TURN: usize = 64;

impl Daemon<'_> {
    /// Once an interval.
    pub(super) fn tick(&mut self) -> Result<()> {
        // First of all: what follows has all of the time until the next heartbeat is due.
        self.beat_if_caught_up()?;
        if self.last_sysctls.elapsed() >= SYSCTLS {
            self.last_sysctls = Instant::now();
            self.check_routing_sysctls()?;
            self.watch_stamps()?;
            self.rules.report_legacy();
            self.priority.follow()?;
            self.watch_unseen()?;
        }
        self.start_due_look()?;
        self.watch_drivers()
    }

    fn beat_if_caught_up(&mut self) -> Result<()> {
        if !self.rest.is_sure() {
            self.beat()?;
        } else if self.pending.is_handled() {
            self.pending = self.backlog()?;
            self.beat()?;
        }
        Ok(())
    }

    /// A slice of what goes on over many turns; `true` if there is more to do at once.
    pub(super) fn keep_house(&mut self) -> Result<bool> {
        if !matches!(self.rest, Rest::Awake) || self.is_pressed() {
            return Ok(false);
        }
        let looking = self.offload.look_at_signals(Instant::now() + CHORE)?;
        let sweeping = match self.offload.sweep(Instant::now() + CHORE)? {
            Progress::Idle => false,
            Progress::Running => true,
            Progress::Ended(hops) => {
                self.hops_in_use = hops;
                self.neighbors_due = self.hops.in_slots(&self.hops_in_use)?;
                self.watch_hops()?;
                self.watch_period()?;
                false
            }
        };
        if self.offload.take_must_prove() {
            self.bump_due = Some(Change::Policy);
        }
        self.keep_neighbors()?;
        let auditing = self.offload.audit(Instant::now() + CHORE)?;
        Ok(looking || sweeping || auditing || !self.neighbors_due.is_empty())
    }

    /// Says that everything is handled; at rest, that the daemon runs. `false` if it comes too late.
    pub(super) fn beat(&mut self) -> Result<bool> {
        if !self.object.beat()? {
            self.is_late()?;
            return Ok(false);
        }
        self.offload.set_clock(self.state.last_beat()?);
        self.last_beat = Instant::now();
        Ok(true)
    }

    /// The stack no longer sees these packets, so it would let their neighbors go stale.
    fn keep_neighbors(&mut self) -> Result<()> {
        if self.last_neighbors.elapsed() >= NEIGHBORS {
            self.last_neighbors = Instant::now();
            self.neighbors_due = self.hops.in_slots(&self.hops_in_use)?;
        }
        let mut done = HashSet::new();
        let left = self.neighbors_due.len().saturating_sub(NEIGHBORS_A_TURN);
        for hop in self.neighbors_due.split_off(left) {
            if done.insert((hop.egress, hop.neighbor())) {
                self.monitor.keep_in_use(hop.egress, hop.neighbor())?;
            }
        }
        Ok(())
    }
}
