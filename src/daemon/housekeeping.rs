// SPDX-License-Identifier: GPL-2.0-only
//! Housekeeping: what is done again and again, in slices.

use std::time::Instant;

use super::{CHORE, Daemon, SLICE};
use crate::connections::Progress;
use crate::datapath::state::{Change, NO_PERIODS};
use crate::error::Result;

impl Daemon<'_> {
    /// Once an interval.
    pub(super) fn tick(&mut self) -> Result<()> {
        let is_second = self.schedule.tick(Instant::now());
        // The heartbeat comes first, so that all else has the time until the next one is due.
        self.heartbeat_if_caught_up()?;
        self.tell_manager();
        if is_second {
            self.check_routing_sysctls()?;
            self.policy.rules.report_legacy();
            self.datapath.priority.follow()?;
        }
        if self.interfaces.must_follow() {
            self.interfaces.follow_links(&self.monitor.network().links);
            self.update_devices()?;
        }
        self.start_due_scan()?;
        self.watch_interfaces(is_second)
    }

    /// Asks for what no event tells of interfaces, and acts on it.
    fn watch_interfaces(&mut self, is_second: bool) -> Result<()> {
        let links = &self.monitor.network().links;
        let interfaces = &mut self.interfaces;
        let mut news = interfaces.watch_drivers();
        if is_second {
            news |= interfaces.watch_stamps(links)?;
            let period = self.datapath.state.period();
            // Without periods, nothing takes a fast connection to the full lane.
            if period != NO_PERIODS {
                let window = self.datapath.hz.duration(2 << period);
                news |= interfaces.watch_unseen(links, window)?;
            }
        }
        if news { self.update_devices() } else { Ok(()) }
    }

    fn heartbeat_if_caught_up(&mut self) -> Result<()> {
        if !self.fast_path.is_sure() {
            self.heartbeat()?;
        } else if self.connections.backlogs.pending.is_handled() {
            self.connections.mark_pending()?;
            self.heartbeat()?;
        }
        Ok(())
    }

    /// Tells the datapath that everything is handled; in a pause, that the daemon runs. `false` if it comes
    /// too late.
    pub(super) fn heartbeat(&mut self) -> Result<bool> {
        let Some(jiffies) = self.datapath.heartbeat()? else {
            self.on_late_heartbeat()?;
            return Ok(false);
        };
        self.connections.offload.set_clock(jiffies);
        Ok(true)
    }

    pub(super) fn take_signals(&mut self) -> Result<()> {
        if !self.fast_path.is_settled() {
            return Ok(());
        }
        self.connections.offload.take_signals(SLICE)
    }

    /// A slice of what goes on over many turns; `true` if there is more to do at once.
    pub(super) fn keep_house(&mut self) -> Result<bool> {
        if !self.fast_path.is_settled() || self.connections.backlogs.is_pressed() {
            return Ok(false);
        }
        let connections = &mut self.connections;
        let looking = connections.offload.look_at_signals(Instant::now() + CHORE)?;
        let round = connections.offload.sweep(Instant::now() + CHORE)?;
        let sweeping = matches!(round, Progress::Running);
        if let Progress::Ended(hops) = round {
            connections.neighbors.found(hops, &self.datapath.hops)?;
            self.watch_hops()?;
            self.watch_period()?;
        }
        let connections = &mut self.connections;
        if connections.offload.take_must_prove() {
            self.generations.ask(Change::Policy);
        }
        let keeping = connections.neighbors.keep(&self.datapath.hops, &mut self.monitor)?;
        let auditing = connections.offload.audit(Instant::now() + CHORE)?;
        Ok(looking || sweeping || auditing || keeping)
    }
}
