// SPDX-License-Identifier: GPL-2.0-only
//! Conntrack's events, and the offloaded connections that follow them.

use std::time::Instant;

use super::backlog::{Backlog, Backlogs, PATIENCE};
use super::neighbors::Neighbors;
use super::{CHORE, Daemon, SLICE};
use crate::connections::Offload;
use crate::conntrack::events::{Drained, Events};
use crate::datapath::state::Change;
use crate::error::Result;
use crate::reasons::pause::Pause;

/// The connections, and what the daemon reads of them.
pub(super) struct Connections {
    pub(super) offload: Offload,
    pub(super) events: Events,
    pub(super) backlogs: Backlogs,
    pub(super) neighbors: Neighbors,
}

impl Connections {
    /// Nothing was read yet.
    pub(super) fn new(offload: Offload, events: Events) -> Self {
        let neighbors = Neighbors::new(Instant::now());
        Self { offload, events, backlogs: Backlogs::empty(), neighbors }
    }

    /// Reads and handles a slice of events.
    fn read_events(&mut self) -> Result<Drained> {
        let before = self.events.bytes_read();
        let mut failed = None;
        let offload = &mut self.offload;
        let drained = self.events.read(Instant::now() + SLICE, &mut |event| {
            if let Err(error) = offload.on_event(event) {
                failed.get_or_insert(error);
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        self.offload.flush()?;
        self.backlogs.handled(self.events.bytes_read().wrapping_sub(before));
        if drained == Drained::Empty {
            self.backlogs.emptied();
        }
        Ok(drained)
    }

    /// From here on, [`Backlogs::pending`] is what waits now.
    pub(super) fn mark_pending(&mut self) -> Result<()> {
        self.backlogs.pending = Backlog::of(self.events.waiting()?);
        Ok(())
    }

    /// Whether no event has been waiting for long. If so, [`Backlogs::pending`] is what waits now.
    pub(super) fn check_caught_up(&mut self) -> Result<bool> {
        if !self.backlogs.pending.is_handled() {
            return Ok(false);
        }
        let soon = self.backlogs.pending.age() < PATIENCE;
        self.mark_pending()?;
        Ok(soon)
    }
}

impl Daemon<'_> {
    pub(super) fn read_conntrack(&mut self) -> Result<()> {
        if self.fast_path.must_discard() {
            return self.discard_events();
        }
        match self.connections.read_events()? {
            Drained::Empty => Ok(()),
            Drained::More => self.notice_backlog(),
            Drained::Overrun => {
                // Rules and routes are not in doubt: their changes come by other sockets.
                self.distrust(Pause::EventsLost, None, Change::Topology)
            }
        }
    }

    /// New connections can wait until conntrack's events are read. `true` if there is more to do at once.
    pub(super) fn admit(&mut self) -> Result<bool> {
        let Connections { offload, backlogs, .. } = &mut self.connections;
        if self.fast_path.must_discard() || backlogs.is_pressed() {
            return Ok(false);
        }
        let time = if backlogs.is_behind() { CHORE } else { SLICE };
        offload.admit(Instant::now() + time)
    }
}
