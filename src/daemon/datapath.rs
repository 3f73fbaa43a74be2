// SPDX-License-Identifier: GPL-2.0-only
//! The datapath as the daemon runs it: generation, heartbeat, next hops.

use std::time::{Duration, Instant};

use crate::clock::{Hz, Jiffies};
use crate::datapath::Hook;
use crate::datapath::counters::Counters;
use crate::datapath::hops::Hops;
use crate::datapath::object::LoadedObject;
use crate::datapath::priority::Priority;
use crate::datapath::state::State;
use crate::error::Result;

/// The loaded programs and what they share with the daemon, except interfaces and connections.
pub(super) struct Datapath<'obj> {
    pub(super) object: LoadedObject<'obj>,
    pub(super) state: State,
    pub(super) hops: Hops,
    pub(super) counters: Counters,
    pub(super) priority: Priority,
    pub(super) hz: Hz,
    /// The age at which the programs take a heartbeat for too old.
    heartbeat_limit: Duration,
    heartbeat_at: Instant,
}

impl<'obj> Datapath<'obj> {
    /// A pause, until the first generation begins.
    pub(super) fn new(
        object: LoadedObject<'obj>,
        hook: Hook,
        hz: Hz,
        heartbeat_limit: Duration,
    ) -> Result<Self> {
        Ok(Self {
            state: State::new(object.object())?,
            hops: Hops::new(object.object())?,
            counters: Counters::new(object.object())?,
            priority: Priority::new(object.object(), hook)?,
            object,
            hz,
            heartbeat_limit,
            heartbeat_at: Instant::now(),
        })
    }

    /// Sends a heartbeat; the jiffies at this time, or `None` if it comes too late.
    pub(super) fn heartbeat(&mut self) -> Result<Option<Jiffies>> {
        if !self.object.beat()? {
            return Ok(None);
        }
        self.heartbeat_at = Instant::now();
        self.state.last_beat().map(Some)
    }

    /// How long ago the last heartbeat was.
    pub(super) fn heartbeat_age(&self) -> Duration {
        self.heartbeat_at.elapsed()
    }

    /// The age at which the programs take a heartbeat for too old.
    pub(super) fn heartbeat_limit(&self) -> Duration {
        self.heartbeat_limit
    }

    /// Whether the programs have given the daemon up.
    pub(super) fn has_missed_heartbeat(&self) -> bool {
        self.heartbeat_age() > self.heartbeat_limit
    }
}
