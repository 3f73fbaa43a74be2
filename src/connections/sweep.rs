// SPDX-License-Identifier: GPL-2.0-only
//! The walk through all offloaded connections, again and again: refresh conntrack's timeouts,
//! remove what has finished, note which next hops are in use.
//!
//! Between two rounds, all about a connection is in the map, except the daemon's note of the packet
//! that conntrack was told of last (src/connections/refresh.rs).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Offload, events_are_sent, timeouts};
use crate::abi::bpfw_conn;
use crate::clock::{Hz, Jiffies};
use crate::conntrack::sysctl::Sysctls;
use crate::datapath::conn_map::Walk;
use crate::error::Result;
use crate::flow::tuple::{Protocol, Tuple};

const SHORTEST_ROUND: Duration = Duration::from_secs(1);
/// A round may be late by this, and by half of the one before. What expires because it is later, a
/// daemon that has so much else to do, is new to the stack with its next packet.
const LATE: Duration = Duration::from_secs(2);
/// So long a connection without proof keeps its room when others find none.
const WAITS_FOR_PROOF: Duration = Duration::from_secs(5);
/// After so many jiffies of silence, a time's lower half would soon stand for a later one: an entry must
/// be gone by then.
const FORGOTTEN: u64 = 1 << 30;
/// How often the sysctls are read; nobody says when they change.
const SYSCTLS: Duration = Duration::from_secs(10);

/// How far the walk is.
#[derive(Default)]
pub(super) struct Sweep {
    cursor: Walk,
    running: bool,
    started: Option<Instant>,
    /// From the start of the round before to the start of this one, at least as planned.
    length: Duration,
    /// Twice that in jiffies: packets that are no older have come since the round before.
    recent: u64,
    /// How long this round has taken so far.
    walked: Duration,
    /// TCP flags are due for all connections: in the next round, in this one.
    flags_wanted: bool,
    flags_now: bool,
    sysctls_read: Option<Instant>,
    /// Since the last start there was UDP that is not assured.
    unassured: bool,
    hops: BTreeSet<u32>,
}

impl Sweep {
    fn is_due(&self, planned: Duration, hurried: bool) -> bool {
        let planned = if self.flags_wanted || hurried { SHORTEST_ROUND } else { planned };
        self.started.is_none_or(|started| started.elapsed() >= planned)
    }

    fn start(&mut self, planned: Duration, hz: Hz) {
        let now = Instant::now();
        self.length = self.started.map_or(planned, |started| now - started).max(planned);
        self.recent = hz.count(self.length * 2);
        self.started = Some(now);
        self.flags_now = std::mem::take(&mut self.flags_wanted);
        self.unassured = false;
        self.running = true;
    }

    /// The longest time until the next look at a connection.
    pub(super) fn next_look(&self) -> Duration {
        self.length * 3 / 2 + LATE
    }

    /// The longest time since the look before.
    pub(super) fn since_last_look(&self) -> Duration {
        self.length + self.walked
    }
}

/// How far a round has come.
pub enum Round {
    /// None is due.
    Idle,
    /// There is more of it.
    Running,
    /// It has ended; these slots of next hops are used by connections with traffic.
    Ended(BTreeSet<u32>),
}

impl Offload {
    /// Starts or goes on with a round until time is up.
    pub fn sweep(&mut self, until: Instant) -> Result<Round> {
        if !self.sweep.running {
            self.read_sysctls()?;
            let planned = self.timeouts.round(self.sweep.unassured);
            if !self.sweep.is_due(planned, self.lacks_room()) {
                return Ok(Round::Idle);
            }
            self.sweep.start(planned, self.clock.hz());
        }
        while !self.sweep_batch()? {
            if Instant::now() >= until {
                self.flush()?;
                return Ok(Round::Running);
            }
        }
        self.flush()?;
        self.sweep.running = false;
        Ok(Round::Ended(std::mem::take(&mut self.sweep.hops)))
    }

    fn read_sysctls(&mut self) -> Result<()> {
        if self.sweep.sysctls_read.is_some_and(|read| read.elapsed() < SYSCTLS) {
            return Ok(());
        }
        self.sweep.sysctls_read = Some(Instant::now());
        let sysctls = Sysctls::read()?;
        let timeouts = timeouts(&sysctls);
        if std::mem::replace(&mut self.timeouts, timeouts) != timeouts {
            // By its next packet, the stack gives each connection the new one.
            self.must_prove = true;
        }
        self.events_sent = events_are_sent(&sysctls);
        Ok(())
    }

    /// There is UDP now that has the shorter timeout.
    pub(super) fn note_unassured(&mut self) {
        self.sweep.unassured = true;
    }

    /// All packets went to the stack for a while: conntrack has seen segments of TCP that nobody
    /// signaled.
    pub fn resend_flags(&mut self) {
        self.sweep.flags_wanted = true;
    }

    fn sweep_batch(&mut self) -> Result<bool> {
        let mut cursor = std::mem::take(&mut self.sweep.cursor);
        let mut batch = Vec::new();
        let complete = self.conn_map.walk_batch(&mut cursor, |conn| batch.push(conn))?;
        self.sweep.cursor = cursor;
        let now = self.clock.now();
        self.sweep.walked = self.sweep.started.map_or(Duration::ZERO, |started| started.elapsed());
        for conn in &batch {
            self.sweep_one(conn, now)?;
        }
        Ok(complete)
    }

    fn sweep_one(&mut self, conn: &bpfw_conn, now: Jiffies) -> Result<()> {
        let bpfw_conn { cell, rest } = conn;
        if rest.finished != 0 {
            return self.look_at(&cell.tuple, conn.passed_up());
        }
        let Some(tuple) = cell.tuple.decode() else {
            return Ok(());
        };
        let reply = conn.is_reply();
        let silence = now.since(conn.last_seen(now));
        if silence <= self.sweep.recent {
            self.sweep.hops.extend(conn.hop_slot());
        }
        if self.sweep.flags_now && !reply {
            self.renew_flags(conn)?;
        }
        let assured = conn.is_assured();
        // The timeouts were longer when it was offloaded.
        let is_outdated = rest.idle_limit > self.idle_limit(tuple.protocol, assured);
        if is_outdated || silence > FORGOTTEN || self.is_long_silent(conn, tuple, now)? {
            return self.remove(&cell.tuple, &conn.reverse(), rest.id);
        }
        if self.lacks_room() && self.is_in_the_way(conn, now)? {
            return self.remove(&cell.tuple, &conn.reverse(), rest.id);
        }
        self.sweep.unassured |= !assured && tuple.protocol == Protocol::Udp;
        self.refresh(conn, tuple, now)
    }

    /// Whether it takes room for nothing: neither direction is proven, nor has packets that might prove it.
    fn is_in_the_way(&self, conn: &bpfw_conn, now: Jiffies) -> Result<bool> {
        let hz = self.clock.hz();
        let is_idle = |conn: &bpfw_conn| {
            conn.rest.proof == 0 && conn.passed_up().age(now, hz) > WAITS_FOR_PROOF
        };
        Ok(is_idle(conn) && self.conn_map.get(&conn.reverse())?.is_none_or(|other| is_idle(&other)))
    }

    /// Whether both directions have been silent for so long that conntrack's entry must be gone, whether
    /// it says so or not.
    fn is_long_silent(&self, conn: &bpfw_conn, tuple: Tuple, now: Jiffies) -> Result<bool> {
        let longest = self.timeouts.of(tuple.protocol, conn.is_assured()).full + LATE;
        let hz = self.clock.hz();
        let silent = |conn: &bpfw_conn| conn.last_packet(now).age(now, hz) > longest;
        // The other direction takes a call of the kernel.
        Ok(silent(conn) && self.conn_map.get(&conn.reverse())?.is_none_or(|other| silent(&other)))
    }
}
