// SPDX-License-Identifier: GPL-2.0-only
//! The walk through all offloaded connections, again and again: refresh conntrack's timeouts,
//! remove what has finished, note which next hops are in use.
//!
//! What the walk must remember about a connection between two rounds is in the map, written by
//! the datapath, or follows from the connection's id.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{Offload, events_are_sent, timeouts};
use crate::abi::bpfw_conn;
use crate::conntrack::sysctl::Sysctls;
use crate::datapath::conn_map::Walk;
use crate::error::Result;
use crate::flow::expiry::{Lifetime, Timeouts};
use crate::flow::tuple::{Protocol, Tuple};

const SHORTEST_ROUND: Duration = Duration::from_secs(1);
/// How often the sysctls are read; nobody says when they change.
const SYSCTLS: Duration = Duration::from_secs(10);
const LONGEST_ROUND: Duration = Duration::from_secs(40);

/// How far the walk is.
#[derive(Default)]
pub(super) struct Sweep {
    cursor: Walk,
    running: bool,
    started: Option<Instant>,
    number: u32,
    /// From one start to the next: as planned, or longer when there was much to do.
    length: Duration,
    /// TCP flags are due for all connections: in the next round, in this one.
    flags_wanted: bool,
    flags_now: bool,
    sysctls_read: Option<Instant>,
    /// The timeouts have changed: the next round, or this one, looks at all connections.
    all: bool,
    /// Since the last start there was UDP that is not assured.
    unassured: bool,
    hops: HashSet<u32>,
}

impl Sweep {
    /// As long as the shortest time between two looks at a connection: half of no timeout has gone
    /// by then. That of UDP that is not assured counts only while there is some.
    fn planned_length(&self, timeouts: &Timeouts) -> Duration {
        timeouts.shortest_period(self.unassured).clamp(SHORTEST_ROUND, LONGEST_ROUND)
    }

    fn is_due(&self, planned: Duration) -> bool {
        let planned = if self.flags_wanted || self.all { SHORTEST_ROUND } else { planned };
        self.started.is_none_or(|started| started.elapsed() >= planned)
    }

    fn start(&mut self, planned: Duration) {
        self.length = self.started.map_or(planned, |started| started.elapsed()).max(planned);
        self.started = Some(Instant::now());
        self.number = self.number.wrapping_add(1);
        self.flags_now = std::mem::take(&mut self.flags_wanted);
        self.unassured = false;
        self.running = true;
    }

    /// In how many rounds a connection with this period is looked at once.
    fn rounds(&self, period: Duration) -> u32 {
        u32::try_from(period.as_millis() / self.length.as_millis().max(1)).unwrap_or(1).max(1)
    }

    /// Whether this round looks at the connection; spread over the rounds by its id.
    fn looks_at(&self, id: u32, period: Duration) -> bool {
        self.all || self.number.wrapping_add(id) % self.rounds(period) == 0
    }
}

/// How far a round has come.
pub enum Round {
    /// None is due.
    Idle,
    /// There is more of it.
    Running,
    /// It has ended; these slots of next hops are used by connections with traffic.
    Ended(HashSet<u32>),
}

impl Offload {
    /// Starts or goes on with a round until time is up.
    pub fn sweep(&mut self, until: Instant) -> Result<Round> {
        if !self.sweep.running {
            self.read_sysctls()?;
            let planned = self.sweep.planned_length(&self.timeouts);
            if !self.sweep.is_due(planned) {
                return Ok(Round::Idle);
            }
            self.sweep.start(planned);
        }
        while !self.sweep_batch()? {
            if Instant::now() >= until {
                self.flush()?;
                return Ok(Round::Running);
            }
        }
        self.flush()?;
        self.sweep.running = false;
        self.sweep.all = false;
        Ok(Round::Ended(std::mem::take(&mut self.sweep.hops)))
    }

    fn read_sysctls(&mut self) -> Result<()> {
        if self.sweep.sysctls_read.is_some_and(|read| read.elapsed() < SYSCTLS) {
            return Ok(());
        }
        self.sweep.sysctls_read = Some(Instant::now());
        let sysctls = Sysctls::read()?;
        let timeouts = timeouts(&sysctls);
        self.sweep.all |= std::mem::replace(&mut self.timeouts, timeouts) != timeouts;
        self.events_sent = events_are_sent(&sysctls);
        Ok(())
    }

    /// There is UDP now that has the shorter timeout.
    pub(super) fn note_unassured(&mut self) {
        self.sweep.unassured = true;
    }

    /// All packets went to the stack for a while: conntrack has seen some of TCP's again, and
    /// must be told anew not to check windows.
    pub fn resend_flags(&mut self) {
        self.sweep.flags_wanted = true;
    }

    fn sweep_batch(&mut self) -> Result<bool> {
        let mut cursor = std::mem::take(&mut self.sweep.cursor);
        let mut batch = Vec::new();
        let complete = self.conn_map.walk_batch(&mut cursor, |conn| batch.push(conn))?;
        self.sweep.cursor = cursor;
        for conn in &batch {
            self.sweep_one(conn)?;
        }
        Ok(complete)
    }

    fn sweep_one(&mut self, conn: &bpfw_conn) -> Result<()> {
        let bpfw_conn { cell, rest } = conn;
        if rest.finished != 0 {
            return self.look_at(&cell.tuple, rest.passed_up);
        }
        let Some(tuple) = cell.tuple.decode() else {
            return Ok(());
        };
        let reply = conn.is_reply();
        let last_seen = self.clock.widen(cell.last_seen);
        if self.was_lately(last_seen) {
            self.sweep.hops.extend(conn.hop_slot());
        }
        if self.was_lately(rest.passed_up) || (self.sweep.flags_now && !reply) {
            self.renew_flags(conn)?;
        }
        let assured = conn.is_assured();
        // The timeouts were longer when it was offloaded; or `last_seen` will soon mean the future.
        if rest.idle_limit > self.idle_limit(tuple.protocol, assured)
            || self.is_forgotten(last_seen)
        {
            return self.remove(&cell.tuple, &conn.reverse(), rest.id);
        }
        if reply {
            return Ok(());
        }
        self.sweep.unassured |= !assured && tuple.protocol == Protocol::Udp;
        self.refresh(conn, tuple, self.timeouts.of(tuple.protocol, assured))
    }

    /// After a quarter of all times that `last_seen` can tell.
    fn is_forgotten(&self, last_seen: u64) -> bool {
        self.clock.now().saturating_sub(last_seen) > 1 << 30
    }

    /// Tells conntrack anew not to check a TCP connection's window, and to forget what it has seen
    /// acknowledged: by such a number it would judge a RST, when the numbers have moved on.
    pub(super) fn renew_flags(&mut self, conn: &bpfw_conn) -> Result<()> {
        let reply = conn.is_reply();
        let original = if reply { conn.reverse() } else { conn.cell.tuple };
        match original.decode() {
            Some(tuple) if tuple.protocol == Protocol::Tcp => {
                self.requests.queue_update(&tuple, None, true)
            }
            _ => Ok(()),
        }
    }

    /// Since the round before: with a bit more, so that nothing falls between two rounds.
    fn was_lately(&self, then: u64) -> bool {
        self.clock.age(then).is_some_and(|age| age <= self.sweep.length * 2)
    }

    fn refresh(&mut self, conn: &bpfw_conn, tuple: Tuple, lifetime: Lifetime) -> Result<()> {
        let period = lifetime.period();
        if !self.sweep.looks_at(conn.rest.id, period) {
            return Ok(());
        }
        let since = self.sweep.length * (self.sweep.rounds(period) + 1);
        // Finding the other direction takes a call of the kernel for each connection. TCP is due its
        // timeout by both, and UDP that is not assured may just become it by the other's packet.
        let is_stream = tuple.protocol == Protocol::Udp && conn.is_assured();
        let forwarded = self.clock.widen(conn.cell.last_seen);
        if is_stream && forwarded > conn.rest.passed_up {
            let age = self.clock.age(forwarded);
            if let Some(timeout) = age.and_then(|age| lifetime.refresh_by_one(since, age)) {
                return self.queue_refresh(&tuple, timeout);
            }
        }
        let reply = match self.conn_map.get(&conn.reverse())? {
            Some(reply) if reply.rest.id == conn.rest.id => reply,
            _ => return Ok(()),
        };
        let forwarded = forwarded.max(self.clock.widen(reply.cell.last_seen));
        // What went up later than anything was forwarded has refreshed conntrack by itself.
        if conn.rest.passed_up.max(reply.rest.passed_up) > forwarded {
            return Ok(());
        }
        let seen = |conn: &bpfw_conn| {
            let forwarded = self.clock.widen(conn.cell.last_seen);
            self.clock.age(forwarded.max(conn.rest.passed_up))
        };
        match lifetime.refresh(since, seen(conn), seen(&reply)) {
            Some(timeout) => self.queue_refresh(&tuple, timeout),
            None => Ok(()),
        }
    }

    fn queue_refresh(&mut self, original: &Tuple, timeout: Duration) -> Result<()> {
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        self.requests.queue_update(original, Some(seconds), false)
    }
}
