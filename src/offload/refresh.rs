// SPDX-License-Identifier: GPL-2.0-only
//! What conntrack is told of connections whose packets only the fast path sees: that they live.
//!
//! Of each TCP connection and each stream of UDP the daemon keeps two notes: with the original direction's
//! cell the packet that conntrack was told of last, so that it knows how long the entry lasts, and tells it
//! nothing before it must; with the reply direction's the last packet that the walk has found there, on
//! either path, so that it need not ask for this direction where nothing has happened. Entries of `conn_map` have no notes.

use std::time::Duration;

use super::Offload;
use super::moment::Moment;
use crate::abi::{bpfw_conn, bpfw_tuple};
use crate::conntrack::entry::Entry;
use crate::error::Result;
use crate::flow::expiry::{JUST_GIVEN, Lifetime};
use crate::flow::tuple::{Protocol, Tuple};

/// Ages differ by this at least: a jiffy, or a part of one.
const TICK: Duration = Duration::from_millis(1);

/// Nothing is known, or may be relied on. All other notes are the lower half of jiffies64.
const UNKNOWN: u32 = 0;

/// Conntrack tells whole seconds, rounded down.
const SECOND: Duration = Duration::from_secs(1);

/// What a look at a connection has to find out.
struct Look {
    lifetime: Lifetime,
    /// Packets count that are younger.
    since: Duration,
    /// The next look comes with the first round that starts after so long.
    pause: Duration,
    /// If only one direction has been heard of for so long, TCP's data is not acknowledged.
    silence: Duration,
    /// One direction's young packet is enough.
    by_one: bool,
}

/// A packet that conntrack has not seen.
struct Last {
    /// jiffies64
    at: u64,
    /// What is left of the timeout that it would have given.
    timeout: Duration,
    /// It is what is left of the full one.
    acknowledged: bool,
}

impl Offload {
    /// Makes conntrack forget what it has seen acknowledged of a TCP connection: by such a number it would
    /// judge a RST, when the numbers have moved on.
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

    /// Tells conntrack of the connection's last packet, if it is due: `conn` is the entry of the original
    /// direction.
    pub(super) fn refresh(&mut self, conn: &bpfw_conn, tuple: Tuple, now: &Moment) -> Result<()> {
        let tcp = tuple.protocol == Protocol::Tcp;
        // A policy may have left TCP less than it is relied on to have.
        let noted = if tcp { !self.timeout_policies } else { conn.is_assured() };
        let note = if noted { self.conn_map.note(&conn.cell.tuple) } else { None };
        let told = note.and_then(|note| told(note, now));
        let lifetime = self.timeouts.of(tuple.protocol, conn.is_assured());
        let period = lifetime.period(self.timeouts.round(false));
        let silence = self.sweep.since_last_look(period);
        // What the stack saw later may have left TCP less than what was told: that is put right soon.
        let relied_on = |age| !tcp || now.age(conn.rest.passed_up) >= age;
        let (since, pause) = match told {
            Some(age) if relied_on(age) && self.lasts(age, lifetime) => return Ok(()),
            Some(age) if relied_on(age) && age <= lifetime.least => {
                let is_last = age + self.sweep.next() > lifetime.least;
                (age.saturating_sub(TICK), if is_last { period } else { Duration::ZERO })
            }
            _ if !self.sweep.looks_at(conn.rest.id, period) => return Ok(()),
            Some(age) if age <= lifetime.full => (age.saturating_sub(TICK), period),
            // What was not told because there was time is younger than this.
            _ if note.is_some() || self.sweep.looks_at_all() => (lifetime.least, period),
            _ => (silence, period),
        };
        let look = Look { lifetime, since, pause, silence, by_one: noted && !tcp };
        let Some(last) = self.last_packet(conn, &look, now)? else {
            return Ok(());
        };
        if noted {
            let note = if last.acknowledged { last.at as u32 } else { UNKNOWN };
            self.conn_map.set_note(&conn.cell.tuple, note);
        }
        let seconds = u32::try_from(last.timeout.as_secs()).unwrap_or(u32::MAX);
        self.requests.queue_update(&tuple, Some(seconds), false)
    }

    /// Whether the entry lasts until after the next round, when conntrack was told of a packet so long ago.
    /// Of TCP it may have seen another one since, which leaves the shortest timeout.
    fn lasts(&self, told: Duration, lifetime: Lifetime) -> bool {
        self.sweep.can_wait(told, lifetime.least)
    }

    /// Notes the last packet of a reply direction, at this round's look at it.
    pub(super) fn note_replied(&mut self, conn: &bpfw_conn, now: &Moment) {
        let last = now.widen(conn.cell.last_seen).max(conn.rest.passed_up);
        self.conn_map.set_note(&conn.cell.tuple, last as u32);
    }

    /// Forgets what conntrack was told of a connection, because it was not.
    pub(super) fn forget_told(&mut self, original: &bpfw_tuple) {
        self.conn_map.set_note(original, UNKNOWN);
    }

    /// Notes what the entry's timeout tells about the last packet of which conntrack knows, or, where another
    /// program has set it, that it lasts as long as by a packet now.
    pub(super) fn note_told(&mut self, entry: &Entry, assured: bool) {
        let tcp = entry.original.protocol == Protocol::Tcp;
        let lifetime = self.timeouts.of(entry.original.protocol, assured);
        let Some(left) = entry.timeout.filter(|_| tcp || assured) else {
            return;
        };
        let still_holds = |age| {
            explains(age, left, lifetime, SECOND) || tcp && can_be_relied_on(age, left, lifetime)
        };
        if self.told(entry).is_some_and(still_holds) {
            return;
        }
        let age = match lifetime.full.saturating_sub(left) {
            age if age <= lifetime.least => Some(age),
            _ if left >= lifetime.least => Some(Duration::ZERO),
            _ => None,
        };
        let note = age.map_or(UNKNOWN, |age| {
            self.clock.now().wrapping_sub(self.clock.jiffies.in_duration(age)) as u32
        });
        self.conn_map.set_note(&entry.original.into(), note);
    }

    /// Whether the entry has so little left because no refresh was due.
    pub(super) fn awaits_refresh(&self, entry: &Entry, lifetime: Lifetime, left: Duration) -> bool {
        let tcp = entry.original.protocol == Protocol::Tcp;
        let fits = |age| {
            explains(age, left, lifetime, JUST_GIVEN)
                || tcp && left <= lifetime.full && can_be_relied_on(age, left, lifetime)
        };
        self.told(entry).is_some_and(fits)
    }

    fn told(&self, entry: &Entry) -> Option<Duration> {
        let note = self.conn_map.note(&entry.original.into())?;
        told(note, &self.moment(Duration::ZERO))
    }

    /// The last packet of either direction that conntrack must be told of: younger than asked for, and
    /// forwarded by the fast path.
    fn last_packet(&self, conn: &bpfw_conn, look: &Look, now: &Moment) -> Result<Option<Last>> {
        // Finding the other direction takes a call of the kernel for each connection. TCP is due its
        // timeout by both, and UDP that is not assured may just become it by the other's packet.
        let forwarded = now.widen(conn.cell.last_seen);
        if look.by_one && forwarded > conn.rest.passed_up {
            let timeout = look.lifetime.refresh_by_one(look.since, now.age(forwarded));
            if let Some(timeout) = timeout {
                return Ok(Some(Last { at: forwarded, timeout, acknowledged: true }));
            }
        }
        if now.age(forwarded) > look.since && self.reply_is_silent(conn, look, now) {
            return Ok(None);
        }
        let reply = match self.conn_map.get(&conn.reverse())? {
            Some(reply) if reply.rest.id == conn.rest.id => reply,
            _ => return Ok(None),
        };
        let replied = now.widen(reply.cell.last_seen);
        // What went up later than anything was forwarded has refreshed conntrack by itself.
        let at = forwarded.max(replied);
        if conn.rest.passed_up.max(reply.rest.passed_up) > at || now.age(at) > look.since {
            return Ok(None);
        }
        let original_age = now.age(forwarded.max(conn.rest.passed_up));
        let reply_age = now.age(replied.max(reply.rest.passed_up));
        let acknowledged = original_age.abs_diff(reply_age) <= look.silence;
        let timeout = look.lifetime.left(acknowledged, now.age(at));
        Ok(Some(Last { at, timeout, acknowledged }))
    }

    /// Whether nothing has come from the other direction that counts, as far as the walk has seen. Had there
    /// been a packet since it was there, that would have come after so long a silence that the stack has
    /// seen it, and the entry would last until after the next look.
    fn reply_is_silent(&self, conn: &bpfw_conn, look: &Look, now: &Moment) -> bool {
        let unseen = self.sweep.since_last_look(Duration::ZERO);
        let replied = self.conn_map.note(&conn.reverse()).filter(|note| *note != UNKNOWN);
        look.since > look.lifetime.idle_limit() + unseen
            && self.lasts(unseen + look.pause, look.lifetime)
            && replied.is_some_and(|note| now.age(now.widen(note)) > look.since)
    }
}

/// By a note, how long ago the last packet was that conntrack was told of. Its entry expires a timeout after
/// it, less a part of a second, unless conntrack has seen another one, or another program has set its timeout.
fn told(note: u32, now: &Moment) -> Option<Duration> {
    (note != UNKNOWN).then(|| now.age(now.widen(note)))
}

/// Whether an entry has so much left because conntrack was told of a packet so long ago, or by so much more or
/// less.
fn explains(told: Duration, left: Duration, lifetime: Lifetime, slack: Duration) -> bool {
    (left + told).abs_diff(lifetime.full) <= slack
}

/// Whether an entry of TCP lasts as long as is relied on when conntrack was told of a packet so long ago, also
/// where the stack has seen another one since.
fn can_be_relied_on(told: Duration, left: Duration, lifetime: Lifetime) -> bool {
    told <= lifetime.least && left + told + SECOND >= lifetime.least
}
