// SPDX-License-Identifier: GPL-2.0-only
//! Rest: the datapath passes everything up, while the daemon finds out what is true.

use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::{Daemon, PATIENCE, SLICE};
use crate::connections::Resync;
use crate::datapath::state::Change;
use crate::error::{Error, Result};
use crate::reasons::pause::Pause;

/// How long the fast path rests before what programs rely on changes: none runs as long.
const GRACE: Duration = Duration::from_secs(1);
/// After a failure, before the next try.
const RETRY: Duration = Duration::from_secs(1);

/// Why the fast path rests, if it does.
pub(super) enum Rest {
    /// It does not.
    Awake,
    /// Events were lost, or are too old. What is still queued must not be believed, and the
    /// kernel says no word of further losses until the queue was empty (netlink(7), ENOBUFS):
    /// it is emptied first. Not before this time: until then nothing is done at all.
    Discard(Instant),
    /// The map is compared with conntrack's table.
    Resync(Resync),
    /// The map is right; the events since then are still to be read.
    CatchUp,
    /// The map was right, but so many events wait that a deletion among them would come late.
    Behind,
    /// Since this time. When no program runs any longer that began before, the next hops are
    /// emptied, and the period may change.
    Grace(Instant),
}

impl Rest {
    /// Whether the daemon, not only the fast path, rests: how long.
    pub(super) fn pause(&self) -> Option<Duration> {
        match self {
            Self::Discard(from) => Some(from.saturating_duration_since(Instant::now())),
            _ => None,
        }
        .filter(|pause| !pause.is_zero())
    }

    /// Whether there is something to do at once.
    pub(super) fn wants_time(&self) -> bool {
        match self {
            // Turns that begin with a tick have no news of conntrack's: another one must follow.
            Self::Grace(since) => since.elapsed() >= GRACE,
            Self::Discard(_) | Self::Resync(_) | Self::CatchUp | Self::Behind => true,
            Self::Awake => false,
        }
    }

    /// Whether events are to be thrown away.
    pub(super) fn must_discard(&self) -> bool {
        matches!(self, Self::Discard(_))
    }

    /// Whether everything is being compared, and events are read up to its end.
    fn compares(&self) -> bool {
        matches!(self, Self::Discard(_) | Self::Resync(_) | Self::CatchUp)
    }

    /// Whether nothing is doubted: heartbeats mean something.
    pub(super) fn is_sure(&self) -> bool {
        matches!(self, Self::Awake | Self::Grace(_))
    }
}

impl Daemon<'_> {
    /// After a missed beat nothing is certain: what the queues hold may be incomplete.
    pub(super) fn notice_pause(&mut self) -> Result<()> {
        if self.last_beat.elapsed() > self.limit && self.rest.is_sure() {
            self.is_late()?;
        }
        Ok(())
    }

    pub(super) fn is_late(&mut self) -> Result<()> {
        let late = self.last_beat.elapsed();
        if !self.rest.compares() {
            tracing::warn!("pausing: {}", Pause::Late.reason().line_about(format!("by {late:?}")));
            return self.distrust(Change::Policy);
        }
        // Nothing is forwarded meanwhile, and a queue that has overflowed says so. To begin anew each time
        // would keep a daemon that gets little time from ever finishing.
        tracing::debug!("still pausing: {}: by {late:?}", Pause::Late);
        self.doubted = Change::Policy;
        self.pending = self.backlog()?;
        self.state.begin_anew()
    }

    /// There was more to read than fitted in a slice: the fast path does not go on with what
    /// conntrack may long have taken back. That all of it was read is nothing to wait for: in a storm of
    /// events there is always a new one.
    pub(super) fn notice_backlog(&mut self) -> Result<()> {
        let Some(behind) = self.behind.filter(|behind| !behind.is_handled()) else {
            self.behind = Some(self.backlog()?);
            return Ok(());
        };
        if matches!(self.rest, Rest::Awake) && behind.age() >= PATIENCE {
            self.pause(Pause::Behind)?;
            self.pending = self.backlog()?;
            self.rest = Rest::Behind;
        }
        Ok(())
    }

    /// Hands all packets to the stack, until the next bump.
    pub(super) fn pause(&self, reason: Pause) -> Result<()> {
        tracing::debug!("pausing: {reason}");
        self.state.rest()
    }

    /// Whether no event has been waiting for long.
    fn has_caught_up(&mut self) -> Result<bool> {
        if !self.pending.is_handled() {
            return Ok(false);
        }
        let soon = self.pending.age() < PATIENCE;
        self.pending = self.backlog()?;
        Ok(soon)
    }

    /// What the map holds may be wrong: the stack takes over until it has been compared.
    pub(super) fn distrust(&mut self, doubted: Change) -> Result<()> {
        self.doubted = self.doubted.max(doubted);
        self.state.begin_anew()?;
        self.rest = Rest::Discard(Instant::now());
        Ok(())
    }

    /// Something failed that should not: the stack takes over, and after a pause all is compared.
    pub(super) fn recover(&mut self, error: &Error) -> Result<()> {
        let detail = format!("{error}; next try in {RETRY:?}");
        tracing::warn!("pausing: {}", Pause::Error.reason().line_about(detail));
        self.doubted = Change::Policy;
        self.state.begin_anew()?;
        self.rest = Rest::Discard(Instant::now() + RETRY);
        self.busy = false;
        Ok(())
    }

    /// Throws away what is queued, in slices; once there is nothing left, the resync begins.
    pub(super) fn discard_events(&mut self) -> Result<()> {
        if self.events.discard(Instant::now() + SLICE)? {
            self.start_resync()?;
        }
        Ok(())
    }

    /// A failure may have hidden changes of the network: all that follows from it is done anew.
    fn start_resync(&mut self) -> Result<()> {
        tracing::info!("comparing with conntrack");
        let network = self.monitor.network();
        self.offload.set_local_addresses(&network.local_addresses);
        self.forbid_by_policy()?;
        self.devices = None;
        self.update_devices()?;
        self.rest = Rest::Resync(self.offload.start_resync()?);
        Ok(())
    }

    pub(super) fn go_on_resting(&mut self) -> Result<()> {
        let caught_up = !matches!(self.rest, Rest::Awake) && self.has_caught_up()?;
        match &mut self.rest {
            Rest::Resync(resync) => {
                if self.offload.resync(resync, Instant::now() + SLICE)? {
                    self.pending = Backlog::of(self.events.waiting()?);
                    self.rest = Rest::CatchUp;
                }
                Ok(())
            }
            Rest::CatchUp | Rest::Behind if caught_up => self.wake(),
            Rest::Grace(since) if since.elapsed() >= GRACE && caught_up => {
                self.hops.clear()?;
                if let Some(shift) = self.period_due.take() {
                    self.state.set_period(shift, self.offload.jiffies());
                }
                self.wake()
            }
            Rest::Awake | Rest::Discard(_) | Rest::CatchUp | Rest::Behind | Rest::Grace(_) => {
                Ok(())
            }
        }
    }

    fn wake(&mut self) -> Result<()> {
        let was_behind = matches!(self.rest, Rest::Behind);
        self.offload.resend_flags();
        self.behind = None;
        // What was found before a late one counts no longer.
        if !self.beat()? {
            return Ok(());
        }
        self.rest = Rest::Awake;
        if !was_behind {
            tracing::info!("forwarding");
        }
        // Which reads conntrack's events: they may tell of another loss.
        let change = std::mem::replace(&mut self.doubted, Change::Topology);
        self.bump(change)
    }

    /// When the slots for next hops run out, all of them are emptied.
    pub(super) fn watch_hops(&mut self) -> Result<()> {
        if matches!(self.rest, Rest::Awake) && self.hops.nearly_full()? {
            tracing::info!("pausing: {}", Pause::HopsFull);
            self.start_grace()?;
        }
        Ok(())
    }

    /// Pauses until no program runs any longer that has begun before.
    pub(super) fn start_grace(&mut self) -> Result<()> {
        self.state.rest()?;
        self.rest = Rest::Grace(Instant::now());
        Ok(())
    }
}
