// SPDX-License-Identifier: GPL-2.0-only
//! How a pause begins, and what the daemon does until the fast path forwards again.

use std::time::{Duration, Instant};

use super::events::Connections;
use super::pause::Step;
use super::{Daemon, SLICE};
use crate::datapath::state::Change;
use crate::error::{Error, Result};
use crate::reasons::pause::Pause;

/// After a failure, before the next try.
const RETRY: Duration = Duration::from_secs(1);

impl Daemon<'_> {
    /// After a missed heartbeat nothing is certain: what the queues hold may be incomplete.
    pub(super) fn notice_lateness(&mut self) -> Result<()> {
        if self.datapath.has_missed_heartbeat() && self.fast_path.is_sure() {
            self.on_late_heartbeat()?;
        }
        Ok(())
    }

    /// A heartbeat is late: begins a pause, or keeps one up.
    pub(super) fn on_late_heartbeat(&mut self) -> Result<()> {
        let late = self.datapath.heartbeat_age();
        if !self.fast_path.compares() {
            tracing::warn!("pausing: {}", Pause::Late.reason().line_about(format!("by {late:?}")));
            return self.distrust(Pause::Late, Change::Policy);
        }
        // Nothing is forwarded meanwhile, and the kernel reports a queue that has overflowed. A new
        // comparison each time would keep a daemon that gets little time from ever finishing.
        tracing::debug!("still pausing: {}: by {late:?}", Pause::Late);
        self.fast_path.doubt(Change::Policy);
        self.connections.mark_pending()?;
        self.datapath.state.begin_anew()
    }

    /// A slice was too short for all that waited. The fast path must not go on with what conntrack
    /// may long have taken back. The daemon does not wait for an empty queue: a storm of events never
    /// leaves one.
    pub(super) fn notice_backlog(&mut self) -> Result<()> {
        let Connections { backlogs, events, .. } = &mut self.connections;
        if backlogs.left_over(|| events.waiting())? && self.fast_path.is_settled() {
            tracing::debug!("pausing: {}", Pause::Behind);
            self.datapath.state.rest()?;
            self.connections.mark_pending()?;
            self.fast_path.pause(Pause::Behind, Step::Behind, Change::Topology, Instant::now());
        }
        Ok(())
    }

    /// Hands all packets to the stack while the interfaces change, until the next bump.
    pub(super) fn pause_for_devices(&mut self) -> Result<()> {
        tracing::debug!("pausing: {}", Pause::Interfaces);
        self.datapath.state.rest()?;
        self.fast_path.pause_for_devices(Instant::now());
        Ok(())
    }

    /// The connections may be wrong: the stack takes over until they have been compared.
    pub(super) fn distrust(&mut self, reason: Pause, doubted: Change) -> Result<()> {
        self.datapath.state.begin_anew()?;
        let now = Instant::now();
        self.fast_path.pause(reason, Step::Discard { from: now }, doubted, now);
        Ok(())
    }

    /// Something failed that should not: the stack takes over, and a second later the daemon compares
    /// everything.
    pub(super) fn recover(&mut self, error: &Error) -> Result<()> {
        let detail = format!("{error}; next try in {RETRY:?}");
        tracing::warn!("pausing: {}", Pause::Error.reason().line_about(detail));
        self.datapath.state.begin_anew()?;
        let now = Instant::now();
        let step = Step::Discard { from: now + RETRY };
        self.fast_path.pause(Pause::Error, step, Change::Policy, now);
        self.schedule.busy = false;
        Ok(())
    }

    /// Throws away what is queued, in slices; once there is nothing left, the resync begins.
    pub(super) fn discard_events(&mut self) -> Result<()> {
        if self.connections.events.discard(Instant::now() + SLICE)? {
            self.start_resync()?;
        }
        Ok(())
    }

    /// A failure may have hidden changes of the network: all that follows from it is done anew.
    fn start_resync(&mut self) -> Result<()> {
        tracing::info!("comparing with conntrack");
        let network = self.monitor.network();
        self.connections.offload.set_local_addresses(&network.local_addresses);
        self.forbid_by_policy()?;
        self.interfaces.distrust_maps();
        self.update_devices()?;
        self.fast_path.go_on(Step::Compare(self.connections.offload.start_resync()?));
        Ok(())
    }

    /// A slice of what has to be done before the pause may end.
    pub(super) fn work_towards_the_end(&mut self) -> Result<()> {
        if self.fast_path.is_settled() {
            return Ok(());
        }
        let caught_up = self.connections.check_caught_up()?;
        match self.fast_path.step() {
            Some(Step::Compare(resync)) => {
                if self.connections.offload.resync(resync, Instant::now() + SLICE)? {
                    self.connections.mark_pending()?;
                    self.fast_path.go_on(Step::CatchUp);
                }
                Ok(())
            }
            Some(Step::CatchUp | Step::Behind) if caught_up => self.resume(),
            Some(step @ Step::Drain { .. }) if caught_up && step.is_drained(Instant::now()) => {
                self.datapath.hops.clear()?;
                if let Step::Drain { period, .. } = step
                    && let Some(shift) = period.take()
                {
                    self.datapath.state.set_period(shift, self.connections.offload.jiffies64());
                }
                self.resume()
            }
            _ => Ok(()),
        }
    }

    fn resume(&mut self) -> Result<()> {
        self.connections.offload.resend_flags();
        self.connections.backlogs.forgive();
        // What was found before a late one counts no longer.
        if !self.heartbeat()? {
            return Ok(());
        }
        let Some(paused) = self.fast_path.forward() else {
            return Ok(());
        };
        if paused.is_announced() {
            tracing::info!("forwarding");
        }
        tracing::debug!("the pause took {:?}: {}", paused.since.elapsed(), paused.reason);
        // The next turn reads conntrack's events: they may tell of another loss.
        self.bump(paused.doubted())
    }

    /// When the slots for next hops run out, all of them are emptied.
    pub(super) fn watch_hops(&mut self) -> Result<()> {
        if self.fast_path.is_settled() && self.datapath.hops.nearly_full()? {
            tracing::info!("pausing: {}", Pause::HopsFull);
            self.drain(Pause::HopsFull, None)?;
        }
        Ok(())
    }

    /// Pauses until no program runs any longer that has begun before. Then this period begins, if one
    /// is due.
    pub(super) fn drain(&mut self, reason: Pause, period: Option<u32>) -> Result<()> {
        self.datapath.state.rest()?;
        let since = Instant::now();
        self.fast_path.pause(reason, Step::Drain { since, period }, Change::Topology, since);
        Ok(())
    }
}
