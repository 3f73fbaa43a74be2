// SPDX-License-Identifier: GPL-2.0-only
//! How a pause begins, and what the daemon does until the fast path forwards again.

use std::time::{Duration, Instant};

use super::events::Connections;
use super::pause::{Paused, Step};
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
            return self.distrust(Pause::Late, Some(format!("by {late:?}")), Change::Policy);
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
            self.pause(Pause::Behind, None, Step::Behind, Change::Topology)?;
            self.connections.mark_pending()?;
        }
        Ok(())
    }

    /// Hands all packets to the stack while the interfaces change, until the next bump.
    pub(super) fn pause_for_devices(&mut self) -> Result<()> {
        announce(Pause::Interfaces, None);
        self.datapath.state.pause()?;
        self.fast_path.pause_for_devices(Instant::now());
        Ok(())
    }

    /// The connections may be wrong: the stack takes over until they have been compared.
    pub(super) fn distrust(
        &mut self,
        reason: Pause,
        detail: Option<String>,
        doubted: Change,
    ) -> Result<()> {
        self.pause(reason, detail, Step::Discard { from: Instant::now() }, doubted)
    }

    /// Begins a pause, or gives the present one another reason and step.
    fn pause(
        &mut self,
        reason: Pause,
        detail: Option<String>,
        step: Step,
        doubted: Change,
    ) -> Result<()> {
        announce(reason, detail);
        if matches!(step, Step::Discard { .. }) {
            self.datapath.state.begin_anew()?;
        } else {
            self.datapath.state.pause()?;
        }
        self.fast_path.pause(reason, step, doubted, Instant::now());
        Ok(())
    }

    /// Something failed that should not: the stack takes over, and a second later the daemon compares
    /// everything.
    pub(super) fn recover(&mut self, error: &Error) -> Result<()> {
        let detail = format!("{error}; next try in {RETRY:?}");
        let step = Step::Discard { from: Instant::now() + RETRY };
        self.schedule.busy = false;
        self.pause(Pause::Error, Some(detail), step, Change::Policy)
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
        let is_drained = self.fast_path.is_drained(Instant::now());
        match self.fast_path.step() {
            Some(Step::Compare(resync)) => {
                if self.connections.offload.resync(resync, Instant::now() + SLICE)? {
                    self.connections.mark_pending()?;
                    self.fast_path.go_on(Step::CatchUp);
                }
                Ok(())
            }
            Some(Step::CatchUp | Step::Behind) if caught_up => self.resume(),
            Some(Step::Drain { period }) if caught_up && is_drained => {
                self.datapath.hops.clear()?;
                if let Some(shift) = period.take() {
                    self.datapath.state.set_period(shift, self.connections.offload.jiffies());
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
        let Some(paused) = self.end_pause() else {
            return Ok(());
        };
        if paused.is_announced() {
            tracing::info!("forwarding");
        }
        tracing::debug!("the pause took {:?}: {}", paused.since.elapsed(), paused.reason);
        // The next turn reads conntrack's events: they may tell of another loss.
        self.bump(paused.doubted())
    }

    /// Ends the pause, if there is one. The next generation makes packets fast.
    pub(super) fn end_pause(&mut self) -> Option<Paused> {
        let paused = self.fast_path.forward()?;
        self.clients.pauses.note(paused.reason, paused.since, Instant::now());
        Some(paused)
    }

    /// When the slots for next hops run out, all of them are emptied.
    pub(super) fn watch_hops(&mut self) -> Result<()> {
        if self.fast_path.is_settled() && self.datapath.hops.nearly_full()? {
            let step = Step::Drain { period: None };
            self.pause(Pause::HopsFull, None, step, Change::Topology)?;
        }
        Ok(())
    }

    /// Pauses until no program runs any longer that has begun before. Then the period changes to this
    /// one: how far jiffies are shifted for it.
    pub(super) fn change_period(&mut self, shift: u32) -> Result<()> {
        let period = self.datapath.hz.duration(1 << shift).as_secs_f64();
        let step = Step::Drain { period: Some(shift) };
        self.pause(Pause::Period, Some(format!("{period:.1} s")), step, Change::Topology)
    }
}

/// Tells users why the fast path pauses: loudly where something went wrong, not at all by default where it
/// takes only a moment.
fn announce(reason: Pause, detail: Option<String>) {
    let line = detail.map_or_else(|| reason.reason().line(), |it| reason.reason().line_about(it));
    match reason {
        Pause::EventsLost | Pause::Late | Pause::Error => tracing::warn!("pausing: {line}"),
        Pause::HopsFull | Pause::Period => tracing::info!("pausing: {line}"),
        Pause::Start | Pause::Behind | Pause::Policy | Pause::Interfaces => {
            tracing::debug!("pausing: {line}");
        }
    }
}
