// SPDX-License-Identifier: GPL-2.0-only
//! Upkeep of conntrack's timeouts.
//!
//! Conntrack counts an entry's timeout from the last packet that the stack sees. Each direction shows
//! the stack a packet in each period, so a busy connection needs nothing else. The daemon tells
//! conntrack of a packet only before an entry could expire that the packet should keep: where a
//! connection falls silent after packets by the fast path, or where the period is too long for the
//! timeout.

use std::time::Duration;

use super::Offload;
use crate::abi::bpfw_conn;
use crate::clock::Jiffies;
use crate::conntrack::entry::Entry;
use crate::error::Result;
use crate::flow::expiry::Lifetime;
use crate::flow::tuple::{Protocol, Tuple};

/// Longer than a segment and its acknowledgement take. If one direction's last packet is so much older
/// than the other's, nobody answers.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);

/// When one direction's packets came.
#[derive(Clone, Copy)]
struct Heard {
    /// The last one.
    last: Jiffies,
    /// The last one that went through the stack.
    by_stack: Jiffies,
    /// The last one that conntrack was told of.
    told: Jiffies,
    /// It is noted what conntrack was told.
    is_noted: bool,
}

impl Heard {
    /// The last packet that conntrack knows.
    fn known(&self) -> Jiffies {
        self.by_stack.max(self.told)
    }
}

impl Offload {
    /// Makes conntrack forget what it has seen acknowledged of a TCP connection: by such a number it would
    /// judge a RST, when the numbers have moved on.
    pub(super) fn renew_flags(&mut self, conn: &bpfw_conn) -> Result<()> {
        match conn.original().decode() {
            Some(tuple) if tuple.protocol == Protocol::Tcp => {
                self.requests.queue_update(&tuple, None, true)
            }
            _ => Ok(()),
        }
    }

    /// Tells conntrack of the connection's last packet, if its entry could expire before the next
    /// look. `conn` is the entry of either direction; the other direction's is read only if needed,
    /// because that takes a system call.
    pub(super) fn refresh(&mut self, conn: &bpfw_conn, tuple: Tuple, now: Jiffies) -> Result<()> {
        let is_tcp = tuple.protocol == Protocol::Tcp;
        let lifetime = self.timeouts.of(tuple.protocol, conn.is_assured());
        let this = self.heard(conn, now);
        let lasts = |known| this.is_noted && self.lasts(known, lifetime, is_tcp, now);
        // By its last packet TCP may have got only the timeout of unacknowledged data.
        let knows_last = if is_tcp { this.told } else { this.known() };
        if knows_last >= this.last || lasts(this.known()) {
            return Ok(());
        }
        let other = match self.conn_map.get(&conn.reverse())? {
            Some(other) if other.rest.id == conn.rest.id => other,
            _ => return Ok(()),
        };
        let that = self.heard(&other, now);
        let (last, known) = (this.last.max(that.last), this.known().max(that.known()));
        let is_told = known >= last && (!is_tcp || lasts(known));
        self.note_told(conn, this.last);
        if is_told {
            return Ok(());
        }
        self.note_told(&other, that.last);
        let acknowledged = is_acknowledged(self.age(this.last, now), self.age(that.last, now));
        let timeout = lifetime.left(acknowledged, self.age(last, now));
        let original = conn.original();
        // Conntrack takes whole seconds: rather one too many than an early end.
        let seconds = u32::try_from(timeout.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        match original.decode() {
            Some(original) => self.requests.queue_update(&original, Some(seconds), false),
            None => Ok(()),
        }
    }

    /// Whether an entry has this timeout because its last packets left it so much: it is due no
    /// refresh yet, or there is nothing to tell.
    pub(super) fn explains(&self, entry: &Entry, assured: bool, left: Duration) -> Result<bool> {
        let lifetime = self.timeouts.of(entry.original.protocol, assured);
        let now = self.clock.now();
        let mut known = Jiffies::NEVER;
        for tuple in [entry.original.into(), entry.reply.into()] {
            match self.conn_map.get(&tuple)? {
                Some(conn) if conn.rest.id == entry.id => {
                    known = self.heard(&conn, now).known().max(known);
                }
                _ => return Ok(false),
            }
        }
        Ok(lifetime.explains(left, self.age(known, now)))
    }

    fn heard(&self, conn: &bpfw_conn, now: Jiffies) -> Heard {
        let (last, by_stack) = (conn.last_packet(now), conn.passed_up());
        let note = self.conn_map.note(&conn.cell.tuple);
        let told = match note {
            Some(0) => Jiffies::NEVER,
            Some(note) => now.widen(note),
            // Of entries in conn_map nothing is noted: each look tells of what came since the one before.
            None if self.age(last, now) > self.sweep.since_last_look() => last,
            None => Jiffies::NEVER,
        };
        Heard { last, by_stack, told, is_noted: note.is_some() }
    }

    /// Whether an entry lasts until after the next look, if conntrack knows a packet of this time.
    fn lasts(&self, known: Jiffies, lifetime: Lifetime, is_tcp: bool, now: Jiffies) -> bool {
        // A policy may give TCP less for unacknowledged data than the sysctl that is known.
        let is_sure = !is_tcp || !self.timeout_policies;
        is_sure && lifetime.lasts(self.age(known, now), self.sweep.next_look())
    }

    fn age(&self, then: Jiffies, now: Jiffies) -> Duration {
        then.age(now, self.clock.hz())
    }

    fn note_told(&mut self, conn: &bpfw_conn, last: Jiffies) {
        // 0 is no note. A jiffy more does not matter.
        self.conn_map.set_note(&conn.cell.tuple, last.low().max(1));
    }
}

/// Whether the data of either direction was acknowledged, by the ages of both directions' last packets.
fn is_acknowledged(one: Duration, other: Duration) -> bool {
    one.abs_diff(other) <= ACKNOWLEDGED_WITHIN
}
