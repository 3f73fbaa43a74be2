// SPDX-License-Identifier: GPL-2.0-only
//! The sweep through all offloaded connections, again and again: it refreshes conntrack's timeouts,
//! removes what has finished, and finds the next hops in use.
//!
//! Between two sweeps, the daemon remembers only one thing of a connection: the time of the last
//! packet that conntrack was told of (src/connections/refresh.rs). All else is in the map.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Offload, events_are_sent, timeouts};
use crate::abi::bpfw_conn;
use crate::clock::{Hz, Jiffies};
use crate::conntrack::sysctl::Sysctls;
use crate::datapath::conn_map::Walk;
use crate::error::Result;
use crate::flow::tuple::Protocol;

const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// A sweep may be late by this, and by half of the interval before. If it is later, entries may
/// expire. The stack then sees a new connection with the next packet.
const LATE: Duration = Duration::from_secs(2);
/// How long a connection without proof keeps its room when others find none.
const WAITS_FOR_PROOF: Duration = Duration::from_secs(5);
/// `last_seen` is the lower half of a time. After this many jiffies of silence it would soon mean a
/// later time, so the entry must be gone by then.
const FORGOTTEN: u64 = 1 << 30;
/// How often the sysctls are read. No event tells of their changes.
const SYSCTLS: Duration = Duration::from_secs(10);

/// How far the sweep is.
#[derive(Default)]
pub(super) struct Sweep {
    cursor: Walk,
    running: bool,
    started: Option<Instant>,
    /// From the start of the previous sweep to the start of this one, and at least the planned
    /// interval.
    interval: Duration,
    /// Twice that, in jiffies. Connections with a younger packet count as having traffic.
    recent: u64,
    /// How long this sweep has taken so far.
    taken: Duration,
    /// Whether all connections' TCP flags must be set again: in the next sweep, and in this one.
    flags_wanted: bool,
    flags_now: bool,
    sysctls_read: Option<Instant>,
    /// Since the last start there was UDP that is not assured.
    unassured: bool,
    hops: BTreeSet<u32>,
}

impl Sweep {
    fn is_due(&self, planned: Duration, hurried: bool) -> bool {
        let planned = if self.flags_wanted || hurried { SHORTEST_INTERVAL } else { planned };
        self.started.is_none_or(|started| started.elapsed() >= planned)
    }

    fn start(&mut self, planned: Duration, hz: Hz) {
        let now = Instant::now();
        self.interval = self.started.map_or(planned, |started| now - started).max(planned);
        self.recent = hz.count(self.interval * 2);
        self.started = Some(now);
        self.flags_now = std::mem::take(&mut self.flags_wanted);
        self.unassured = false;
        self.running = true;
    }

    /// The longest time until the next sweep comes to a connection.
    pub(super) fn until_next(&self) -> Duration {
        self.interval * 3 / 2 + LATE
    }

    /// The longest time since the sweep before came to a connection.
    pub(super) fn since_last(&self) -> Duration {
        self.interval + self.taken
    }
}

/// How far a sweep has come.
pub enum Progress {
    /// None is due.
    Idle,
    /// There is more of it.
    Running,
    /// It has ended; these slots of next hops are used by connections with traffic.
    Ended(BTreeSet<u32>),
}

impl Offload {
    /// Starts a sweep, or goes on with it, until time is up: `housekeeping.rs` of the daemon gives 2 ms.
    pub fn sweep(&mut self, until: Instant) -> Result<Progress> {
        if !self.sweep.running {
            self.read_sysctls()?;
            let planned = self.timeouts.sweep_interval(self.sweep.unassured);
            if !self.sweep.is_due(planned, self.lacks_room()) {
                return Ok(Progress::Idle);
            }
            self.sweep.start(planned, self.clock.hz());
        }
        while !self.sweep_slice()? {
            if Instant::now() >= until {
                self.flush()?;
                return Ok(Progress::Running);
            }
        }
        self.flush()?;
        self.sweep.running = false;
        Ok(Progress::Ended(std::mem::take(&mut self.sweep.hops)))
    }

    fn read_sysctls(&mut self) -> Result<()> {
        if self.sweep.sysctls_read.is_some_and(|read| read.elapsed() < SYSCTLS) {
            return Ok(());
        }
        self.sweep.sysctls_read = Some(Instant::now());
        let sysctls = Sysctls::read()?;
        let timeouts = timeouts(&sysctls);
        if std::mem::replace(&mut self.timeouts, timeouts) != timeouts {
            // With its next packet, the stack gives each connection the new timeout.
            self.must_prove = true;
        }
        self.events_sent = events_are_sent(&sysctls);
        Ok(())
    }

    /// There is unassured UDP now, which has the shorter timeout.
    pub(super) fn expect_unassured(&mut self) {
        self.sweep.unassured = true;
    }

    /// Call this after a pause: conntrack has seen TCP segments that nobody signaled.
    pub fn resend_flags(&mut self) {
        self.sweep.flags_wanted = true;
    }

    fn sweep_slice(&mut self) -> Result<bool> {
        let mut cursor = std::mem::take(&mut self.sweep.cursor);
        let mut batch = Vec::new();
        let complete = self.conn_map.walk_batch(&mut cursor, |conn| batch.push(conn))?;
        self.sweep.cursor = cursor;
        let now = self.clock.now();
        self.sweep.taken = self.sweep.started.map_or(Duration::ZERO, |started| started.elapsed());
        for conn in &batch {
            self.sweep_one(conn, now)?;
        }
        Ok(complete)
    }

    fn sweep_one(&mut self, conn: &bpfw_conn, now: Jiffies) -> Result<()> {
        let bpfw_conn { cell, rest } = conn;
        if rest.finished != 0 {
            return self.look_at(&conn.tuple(), conn.passed_up());
        }
        let Some(protocol) = Protocol::from_number(cell.head.protocol) else {
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
        // True if the timeouts were longer when it was offloaded.
        let is_outdated = rest.idle_limit > self.idle_limit(protocol, assured);
        if is_outdated || silence > FORGOTTEN || self.is_long_silent(conn, protocol, now)? {
            return self.remove_entry(conn);
        }
        if self.lacks_room() && self.is_in_the_way(conn, now)? {
            return self.remove_entry(conn);
        }
        self.sweep.unassured |= !assured && protocol == Protocol::Udp;
        self.refresh(conn, protocol, now)
    }

    /// Whether it takes room without use: neither direction is proven, nor had packets lately that
    /// might prove it.
    fn is_in_the_way(&self, conn: &bpfw_conn, now: Jiffies) -> Result<bool> {
        let hz = self.clock.hz();
        let is_idle = |conn: &bpfw_conn| {
            conn.rest.proof == 0 && conn.passed_up().age(now, hz) > WAITS_FOR_PROOF
        };
        Ok(is_idle(conn) && self.other(conn)?.is_none_or(|other| is_idle(&other)))
    }

    /// Whether both directions have been silent for so long that conntrack's entry must be gone, whether
    /// it says so or not.
    fn is_long_silent(&self, conn: &bpfw_conn, protocol: Protocol, now: Jiffies) -> Result<bool> {
        let longest = self.timeouts.of(protocol, conn.is_assured()).full + LATE;
        let hz = self.clock.hz();
        let silent = |conn: &bpfw_conn| conn.last_packet(now).age(now, hz) > longest;
        // Reading the other direction takes a system call.
        Ok(silent(conn) && self.other(conn)?.is_none_or(|other| silent(&other)))
    }
}
