// SPDX-License-Identifier: GPL-2.0-only
//! The walk through all offloaded connections, again and again: refresh conntrack's timeouts,
//! remove what has finished, note which next hops are in use.
//!
//! What the walk must remember about a connection between two rounds is in the map, written by
//! the datapath, or follows from the connection's id; but for the daemon's notes of what conntrack was
//! told, and of what was seen of the reply direction (src/offload/refresh.rs).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::moment::Moment;
use super::{Offload, events_are_sent, timeouts};
use crate::abi::bpfw_conn;
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
/// How often the sysctls are read; nobody says when they change.
const SYSCTLS: Duration = Duration::from_secs(10);

/// How far the walk is.
#[derive(Default)]
pub(super) struct Sweep {
    cursor: Walk,
    running: bool,
    started: Option<Instant>,
    /// When this round started, by the sum of all lengths.
    at: Duration,
    /// From one start to the next: as planned, or longer when there was much to do. A round that comes
    /// early counts as a planned one, and so looks at more than it would have to.
    length: Duration,
    /// So long ago it started, when the walk was there where it is.
    walked: Duration,
    /// The next one comes so long after it at the latest, as far as is planned: while there is UDP that is
    /// not assured, it comes early.
    next: Duration,
    /// TCP flags are due for all connections: in the next round, in this one.
    flags_wanted: bool,
    flags_now: bool,
    sysctls_read: Option<Instant>,
    /// All connections are to be looked at: in the next round, in this one.
    all_wanted: bool,
    all: bool,
    /// Since the last start there was UDP that is not assured.
    unassured: bool,
    hops: BTreeSet<u32>,
}

impl Sweep {
    fn is_due(&self, planned: Duration, hurried: bool) -> bool {
        let planned =
            if self.flags_wanted || self.all_wanted || hurried { SHORTEST_ROUND } else { planned };
        self.started.is_none_or(|started| started.elapsed() >= planned)
    }

    fn start(&mut self, planned: Duration) {
        let now = Instant::now();
        self.go_on(self.started.map_or(planned, |started| now - started).max(planned));
        self.started = Some(now);
        self.flags_now = std::mem::take(&mut self.flags_wanted);
        self.all = std::mem::take(&mut self.all_wanted);
        self.unassured = false;
        self.running = true;
    }

    /// So long after the start before comes this one.
    fn go_on(&mut self, length: Duration) {
        self.length = length;
        self.at += length;
    }

    /// Whether this round looks at the connection: the first one after each period, which begins at a
    /// time of the connection's own, so that there are as many in each round. However long rounds
    /// are, two looks are no further apart than a period and a round.
    pub(super) fn looks_at(&self, id: u32, period: Duration) -> bool {
        if self.all || period <= self.length {
            return true;
        }
        let period = period.as_millis() as u64;
        let now = self.at.as_millis() as u64 + ((u64::from(id) * period) >> 32);
        let before = now - self.length.as_millis() as u64;
        now / period != before / period
    }

    /// Whether this round looks at all connections.
    pub(super) fn looks_at_all(&self) -> bool {
        self.all
    }

    /// Whether an entry lasts until after the next round, when conntrack was told of a packet so long ago, and
    /// by any packet it `lasts` for so long.
    pub(super) fn can_wait(&self, told: Duration, lasts: Duration) -> bool {
        told + self.length.max(self.next) * 3 / 2 + LATE < lasts
    }

    /// From the start of this round to that of the next.
    pub(super) fn next(&self) -> Duration {
        self.next
    }

    /// No more than so long ago was the look before the one of this round.
    pub(super) fn since_last_look(&self, period: Duration) -> Duration {
        // The one before may have come at the very start of its round.
        period + self.length + self.walked
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
            self.doubt_refreshes();
        }
        self.events_sent = events_are_sent(&sysctls);
        Ok(())
    }

    /// What conntrack was told may not be what it holds, or not what it should: the next round looks at
    /// all connections.
    pub(super) fn doubt_refreshes(&mut self) {
        self.sweep.all_wanted = true;
        self.conn_map.forget_notes();
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
        // Since the round before: with a bit more, so that nothing falls between two rounds.
        let now = self.moment(self.sweep.length * 2);
        self.sweep.next = self.timeouts.round(self.sweep.unassured);
        self.sweep.walked = self.sweep.started.map_or(Duration::ZERO, |started| started.elapsed());
        for conn in &batch {
            self.sweep_one(conn, &now)?;
        }
        Ok(complete)
    }

    fn sweep_one(&mut self, conn: &bpfw_conn, now: &Moment) -> Result<()> {
        let bpfw_conn { cell, rest } = conn;
        if rest.finished != 0 {
            return self.look_at(&cell.tuple, rest.passed_up);
        }
        let Some(tuple) = cell.tuple.decode() else {
            return Ok(());
        };
        let reply = conn.is_reply();
        let last_seen = now.widen(cell.last_seen);
        if now.was_lately(last_seen) {
            self.sweep.hops.extend(conn.hop_slot());
        }
        if self.sweep.flags_now && !reply {
            self.renew_flags(conn)?;
        }
        let assured = conn.is_assured();
        // The timeouts were longer when it was offloaded.
        let is_outdated = rest.idle_limit > now.idle_limit(tuple.protocol, assured);
        if is_outdated || now.is_forgotten(last_seen) || self.is_long_silent(conn, tuple, now)? {
            return self.remove(&cell.tuple, &conn.reverse(), rest.id);
        }
        if self.lacks_room() && self.is_in_the_way(conn, now)? {
            return self.remove(&cell.tuple, &conn.reverse(), rest.id);
        }
        if reply {
            self.note_replied(conn, now);
            return Ok(());
        }
        self.sweep.unassured |= !assured && tuple.protocol == Protocol::Udp;
        self.refresh(conn, tuple, now)
    }

    /// Whether it takes room for nothing: neither direction is proven, nor has packets that might prove it.
    fn is_in_the_way(&self, conn: &bpfw_conn, now: &Moment) -> Result<bool> {
        let is_idle = |conn: &bpfw_conn| {
            conn.rest.proof == 0 && now.age(conn.rest.passed_up) > WAITS_FOR_PROOF
        };
        Ok(is_idle(conn) && self.conn_map.get(&conn.reverse())?.is_none_or(|other| is_idle(&other)))
    }

    /// Whether both directions have been silent for so long that conntrack's entry must be gone, whether
    /// it says so or not.
    fn is_long_silent(&self, conn: &bpfw_conn, tuple: Tuple, now: &Moment) -> Result<bool> {
        let longest = self.timeouts.of(tuple.protocol, conn.is_assured()).full + LATE;
        let silent = |conn: &bpfw_conn| {
            let last = now.widen(conn.cell.last_seen).max(conn.rest.passed_up);
            now.age(last) > longest
        };
        // The other direction takes a call of the kernel.
        Ok(silent(conn) && self.conn_map.get(&conn.reverse())?.is_none_or(|other| silent(&other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The longest time between two looks at some connections, and how many looks there were, if
    /// rounds are so long.
    fn looks(period: Duration, mut length: impl FnMut(u32) -> Duration) -> (Duration, usize) {
        let ids: Vec<u32> = (0..200).map(|n: u32| n.wrapping_mul(0x9e37_79b9)).collect();
        let (mut sweep, mut last) = (Sweep::default(), vec![Duration::ZERO; ids.len()]);
        let (mut longest, mut number) = (Duration::ZERO, 0);
        for round in 0..5_000 {
            sweep.go_on(length(round));
            for (id, last) in
                ids.iter().zip(&mut last).filter(|(id, _)| sweep.looks_at(**id, period))
            {
                let gap = sweep.at - std::mem::replace(last, sweep.at);
                longest = longest.max(gap);
                number += 1;
                assert!(gap <= sweep.since_last_look(period), "{id:#x}: {gap:?}");
            }
        }
        (longest, number / ids.len())
    }

    #[test]
    fn looks_are_no_further_apart_than_a_period_and_a_round() {
        // As they come with and without UDP that is not assured.
        let mut state = 1_u64;
        let mut random = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            SECOND * (15 + (state >> 33) as u32 % 45)
        };
        for period in [0, 16, 21, 60, 120] {
            let (longest, number) = looks(SECOND * period, &mut random);
            assert!(longest <= SECOND * (period + 59), "{longest:?} with {period} s");
            assert!(longest >= SECOND * (59 + period * 3 / 4), "{longest:?}: no such case came up");
            assert!(number > 1000);
        }
    }

    /// How often conntrack is told of a connection with a packet at each look, in 10,000 rounds as they
    /// come with and without UDP that is not assured, which is not always known in the round before. All
    /// of them are late by a second.
    fn refreshes(lasts: Duration) -> u32 {
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let (mut sweep, mut told, mut refreshes) = (Sweep::default(), Duration::ZERO, 0);
        for _ in 0..10_000 {
            let known = random(2);
            let planned = [29, 15][known];
            sweep.next = SECOND * planned;
            if !sweep.can_wait(told, lasts) {
                told = Duration::ZERO;
                refreshes += 1;
            }
            let length = SECOND * ([1, 15, 29][random(3 - known)] + 1);
            sweep.go_on(length);
            told += length;
            assert!(told < lasts - SECOND, "expired after {told:?}");
        }
        refreshes
    }

    #[test]
    fn conntrack_is_told_in_time_whatever_the_rounds() {
        let [stream, tcp] = [120, 300].map(|lasts| refreshes(SECOND * lasts));
        assert!((1_000..2_000).contains(&stream), "{stream}");
        assert!((400..600).contains(&tcp), "{tcp}");
    }

    #[test]
    fn rounds_that_are_alike_look_at_all_or_share_them() {
        assert_eq!(looks(SECOND * 21, |_| SECOND * 59), (SECOND * 59, 5_000));
        let (longest, number) = looks(SECOND * 60, |_| SECOND * 15);
        assert_eq!(longest, SECOND * 60);
        assert!((1_245..=1_251).contains(&number), "{number}");
    }
}
