// SPDX-License-Identifier: GPL-2.0-only
//! The walk through all offloaded connections, again and again: refresh conntrack's timeouts,
//! remove what has finished, note which next hops are in use.
//!
//! What the walk must remember about a connection between two rounds is in the map, written by
//! the datapath, or follows from the connection's id; but for the packet of a stream of UDP that
//! conntrack was told of last, of which the daemon keeps a note.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::moment::Moment;
use super::{Offload, events_are_sent, timeouts};
use crate::abi::bpfw_conn;
use crate::conntrack::entry::Entry;
use crate::conntrack::sysctl::Sysctls;
use crate::datapath::conn_map::Walk;
use crate::error::Result;
use crate::flow::expiry::{JUST_GIVEN, Lifetime};
use crate::flow::tuple::{Protocol, Tuple};

const SHORTEST_ROUND: Duration = Duration::from_secs(1);
/// Ages differ by this at least: a jiffy, or a part of one.
const TICK: Duration = Duration::from_millis(1);
/// A round may be late by this, and by half of the one before. What expires because it is later, a
/// daemon that has so much else to do, is new to the stack with its next packet.
const LATE: Duration = Duration::from_secs(2);
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
    /// From one start to the next: as planned, or longer when there was much to do.
    length: Duration,
    /// TCP flags are due for all connections: in the next round, in this one.
    flags_wanted: bool,
    flags_now: bool,
    sysctls_read: Option<Instant>,
    /// All connections are to be looked at: in the next round, in this one.
    all_wanted: bool,
    all: bool,
    /// Since the last start there was UDP that is not assured.
    unassured: bool,
    hops: HashSet<u32>,
}

impl Sweep {
    fn is_due(&self, planned: Duration) -> bool {
        let planned = if self.flags_wanted || self.all_wanted { SHORTEST_ROUND } else { planned };
        self.started.is_none_or(|started| started.elapsed() >= planned)
    }

    fn start(&mut self, planned: Duration) {
        self.go_on(self.started.map_or(planned, |started| started.elapsed()).max(planned));
        self.started = Some(Instant::now());
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
    fn looks_at(&self, id: u32, period: Duration) -> bool {
        if self.all || period <= self.length {
            return true;
        }
        let period = period.as_millis() as u64;
        let now = self.at.as_millis() as u64 + ((u64::from(id) * period) >> 32);
        let before = now - self.length.as_millis() as u64;
        now / period != before / period
    }

    /// Whether a stream's entry lasts until after the next look, when conntrack was told of a packet
    /// so long ago. After a short round may come one of the longest.
    fn can_wait(&self, told: Duration, full: Duration, longest: Duration) -> bool {
        told + self.length.max(longest) * 3 / 2 + LATE < full
    }

    /// No more than so long ago was the look before the one of this round.
    fn since_last_look(&self, period: Duration) -> Duration {
        // A round does not come to each connection at the same time.
        period + self.length + self.length / 4
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
            let planned = self.timeouts.round(self.sweep.unassured);
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
        // Since the round before: with a bit more, so that nothing falls between two rounds.
        let now = self.moment(self.sweep.length * 2);
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
        if now.was_lately(rest.passed_up) || (self.sweep.flags_now && !reply) {
            self.renew_flags(conn)?;
        }
        let assured = conn.is_assured();
        // The timeouts were longer when it was offloaded.
        let is_outdated = rest.idle_limit > now.idle_limit(tuple.protocol, assured);
        if is_outdated || now.is_forgotten(last_seen) {
            return self.remove(&cell.tuple, &conn.reverse(), rest.id);
        }
        if reply {
            return Ok(());
        }
        self.sweep.unassured |= !assured && tuple.protocol == Protocol::Udp;
        self.refresh(conn, tuple, now)
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

    fn refresh(&mut self, conn: &bpfw_conn, tuple: Tuple, now: &Moment) -> Result<()> {
        let lifetime = self.timeouts.of(tuple.protocol, conn.is_assured());
        let is_stream = tuple.protocol == Protocol::Udp && conn.is_assured();
        let longest = self.timeouts.round(false);
        let period = lifetime.period(longest);
        let note = if is_stream { self.conn_map.note(&conn.cell.tuple) } else { None };
        let told = note.and_then(|note| told(note, now));
        let since = match told {
            Some(age) if self.sweep.can_wait(age, lifetime.full, longest) => return Ok(()),
            // By any younger packet it would expire later.
            Some(age) if age <= lifetime.full => age.saturating_sub(TICK),
            _ if !self.sweep.looks_at(conn.rest.id, period) => return Ok(()),
            // Nobody knows what conntrack was told of. This once, whatever has come counts.
            _ if note.is_some() => lifetime.full,
            _ => self.sweep.since_last_look(period),
        };
        let Some(last) = self.last_packet(conn, is_stream, lifetime, since, now)? else {
            if told.is_some_and(|age| age > lifetime.full) {
                // The note is of no use any more, and would be taken for a new one in some weeks.
                self.conn_map.set_note(&conn.cell.tuple, 0);
            }
            return Ok(());
        };
        if is_stream {
            self.conn_map.set_note(&conn.cell.tuple, last.at as u32);
        }
        let seconds = u32::try_from(last.timeout.as_secs()).unwrap_or(u32::MAX);
        self.requests.queue_update(&tuple, Some(seconds), false)
    }

    /// Notes what the entry's timeout tells about the last packet of a stream.
    pub(super) fn note_told(&mut self, entry: &Entry, assured: bool) {
        if entry.original.protocol != Protocol::Udp || !assured {
            return;
        }
        if let Some(left) = entry.timeout {
            let age = self.timeouts.of(Protocol::Udp, assured).full.saturating_sub(left);
            let told = self.clock.now().wrapping_sub(self.clock.jiffies.in_duration(age));
            self.conn_map.set_note(&entry.original.into(), told as u32);
        }
    }

    /// Whether a stream has this timeout left because no refresh was due.
    pub(super) fn awaits_refresh(&self, entry: &Entry, lifetime: Lifetime, left: Duration) -> bool {
        let now = self.moment(Duration::ZERO);
        let note = self.conn_map.note(&entry.original.into());
        let told = note.and_then(|note| told(note, &now));
        told.is_some_and(|age| {
            let given = left + age;
            lifetime.full <= given + JUST_GIVEN && given <= lifetime.full + JUST_GIVEN
        })
    }

    /// The last packet of either direction that conntrack must be told of: younger than `since`, and
    /// forwarded by the fast path.
    fn last_packet(
        &self,
        conn: &bpfw_conn,
        is_stream: bool,
        lifetime: Lifetime,
        since: Duration,
        now: &Moment,
    ) -> Result<Option<Last>> {
        // Finding the other direction takes a call of the kernel for each connection. TCP is due its
        // timeout by both, and UDP that is not assured may just become it by the other's packet.
        let forwarded = now.widen(conn.cell.last_seen);
        if is_stream && forwarded > conn.rest.passed_up {
            if let Some(timeout) = lifetime.refresh_by_one(since, now.age(forwarded)) {
                return Ok(Some(Last { at: forwarded, timeout }));
            }
        }
        let reply = match self.conn_map.get(&conn.reverse())? {
            Some(reply) if reply.rest.id == conn.rest.id => reply,
            _ => return Ok(None),
        };
        let replied = now.widen(reply.cell.last_seen);
        // What went up later than anything was forwarded has refreshed conntrack by itself.
        let at = forwarded.max(replied);
        if conn.rest.passed_up.max(reply.rest.passed_up) > at {
            return Ok(None);
        }
        let original_age = now.age(forwarded.max(conn.rest.passed_up));
        let reply_age = now.age(replied.max(reply.rest.passed_up));
        let timeout = lifetime.refresh(since, original_age, reply_age);
        Ok(timeout.map(|timeout| Last { at, timeout }))
    }
}

/// How long ago the last packet of a stream was that conntrack was told of, by a note. Its entry expires
/// a timeout after it, less a part of a second, unless conntrack has seen another one, or another program
/// has set its timeout.
fn told(note: u32, now: &Moment) -> Option<Duration> {
    (note != 0).then(|| now.age(now.widen(note)))
}

/// A packet that conntrack has not seen.
struct Last {
    /// jiffies64, noted of streams only.
    at: u64,
    /// What is left of the timeout that it would have given.
    timeout: Duration,
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

    /// Rounds as they come with and without UDP that is not assured, all of them late by a second, and a
    /// stream with a packet at each look.
    #[test]
    fn a_stream_is_refreshed_in_time_whatever_the_rounds() {
        let (full, longest) = (SECOND * 120, SECOND * 29);
        let mut state = 1_u64;
        let (mut sweep, mut told, mut refreshes) = (Sweep::default(), Duration::ZERO, 0);
        for _ in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let length = [1, 15, 29][(state >> 33) as usize % 3] + 1;
            sweep.go_on(SECOND * length);
            told += SECOND * length;
            assert!(told < full - SECOND, "expired after {told:?}");
            if !sweep.can_wait(told, full, longest) {
                told = Duration::ZERO;
                refreshes += 1;
            }
        }
        assert!(refreshes < 10_000 / 3, "{refreshes}");
    }

    #[test]
    fn rounds_that_are_alike_look_at_all_or_share_them() {
        assert_eq!(looks(SECOND * 21, |_| SECOND * 59), (SECOND * 59, 5_000));
        let (longest, number) = looks(SECOND * 60, |_| SECOND * 15);
        assert_eq!(longest, SECOND * 60);
        assert!((1_245..=1_251).contains(&number), "{number}");
    }
}
