// SPDX-License-Identifier: GPL-2.0-only
//! Upkeep of conntrack's timeouts.
//!
//! Conntrack counts an entry's timeout from the last packet that the stack sees. Each direction
//! shows the stack a packet in each period, so a busy connection needs nothing else. The daemon
//! tells conntrack of a packet only before the entry could expire although the packet should keep
//! it. That happens if a connection falls silent after packets by the fast path, or if the period
//! is too long for the timeout. `Packets::need_refresh` is this rule.

use std::time::Duration;

use super::Offload;
use crate::abi::bpfw_conn;
use crate::clock::Jiffies;
use crate::conntrack::entry::Entry;
use crate::error::Result;
use crate::flow::expiry::Lifetime;
use crate::flow::tuple::Protocol;

/// Longer than a segment and its acknowledgement take. If one direction's last packet is so much older
/// than the other's, nobody answers.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);

/// When the packets of one direction came, or of both.
#[derive(Clone, Copy)]
struct Packets {
    /// The last one.
    last: Jiffies,
    /// The last one that went by the stack.
    by_stack: Jiffies,
    /// The last one of which the daemon has told conntrack.
    refreshed: Jiffies,
    /// The daemon remembers this; otherwise `refreshed` holds for this sweep only.
    is_remembered: bool,
}

impl Packets {
    /// The last one that conntrack knows.
    fn known(self) -> Jiffies {
        self.by_stack.max(self.refreshed)
    }

    /// The last one that has given the entry its full timeout. TCP may have got less by a packet through
    /// the stack: conntrack misses the acknowledgements that the fast path forwards.
    fn known_fully(self, protocol: Protocol) -> Jiffies {
        if protocol == Protocol::Tcp { self.refreshed } else { self.known() }
    }

    /// These and the other direction's.
    fn and(self, other: Self) -> Self {
        Self {
            last: self.last.max(other.last),
            by_stack: self.by_stack.max(other.by_stack),
            refreshed: self.refreshed.max(other.refreshed),
            is_remembered: self.is_remembered && other.is_remembered,
        }
    }

    /// Whether conntrack must be told of the last packet now. That is so if conntrack does not know
    /// it, and the entry may expire before the next sweep.
    fn need_refresh(self, protocol: Protocol, lasts: impl Fn(Jiffies) -> bool) -> bool {
        let is_known = self.known_fully(protocol) >= self.last;
        !(is_known || self.is_remembered && lasts(self.known()))
    }
}

impl Offload {
    /// Makes conntrack forget the last acknowledgement that it has seen of a TCP connection. It
    /// would judge a RST by that number, although the connection has moved on.
    pub(super) fn renew_flags(&mut self, conn: &bpfw_conn) -> Result<()> {
        match self.conn_map.original(conn)?.decode() {
            Some(tuple) if tuple.protocol == Protocol::Tcp => {
                self.requests.queue_update(&tuple, None, true)
            }
            _ => Ok(()),
        }
    }

    /// Refreshes the connection's timeout if need be. `conn` is the entry of either direction; the
    /// other direction's is read only if needed, because that takes a system call.
    pub(super) fn refresh(
        &mut self,
        conn: &bpfw_conn,
        protocol: Protocol,
        now: Jiffies,
    ) -> Result<()> {
        let lifetime = self.timeouts.of(protocol, conn.is_assured());
        let lasts = |offload: &Self, known| offload.lasts(known, lifetime, protocol, now);
        let this = self.packets(conn, now);
        if !this.need_refresh(protocol, |known| lasts(self, known)) {
            return Ok(());
        }
        let other = match self.other(conn)? {
            Some(other) if other.rest.id == conn.rest.id => other,
            _ => return Ok(()),
        };
        let that = self.packets(&other, now);
        let both = this.and(that);
        let is_due = both.need_refresh(protocol, |known| lasts(self, known));
        // If conntrack knows a later packet of the other direction, this one does not matter.
        if is_due || both.known_fully(protocol) >= this.last {
            self.remember_refresh(conn, this.last);
        }
        if !is_due {
            return Ok(());
        }
        self.remember_refresh(&other, that.last);
        let timeout =
            lifetime.left(self.is_acknowledged(this, that, now), self.age(both.last, now));
        // Conntrack takes whole seconds. One too many is better than an early end.
        let seconds = u32::try_from(timeout.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        match self.conn_map.original(conn)?.decode() {
            Some(original) => self.requests.queue_update(&original, Some(seconds), false),
            None => Ok(()),
        }
    }

    /// Whether the entry's last packets explain this timeout. Then no refresh is due yet, or there
    /// is nothing to tell.
    pub(super) fn explains(&self, entry: &Entry, assured: bool, left: Duration) -> Result<bool> {
        let lifetime = self.timeouts.of(entry.original.protocol, assured);
        let now = self.clock.now();
        let mut known = Jiffies::NEVER;
        for tuple in [entry.original.into(), entry.reply.into()] {
            match self.conn_map.get(&tuple)? {
                Some(conn) if conn.rest.id == entry.id => {
                    known = self.packets(&conn, now).known().max(known);
                }
                _ => return Ok(false),
            }
        }
        Ok(lifetime.explains(left, self.age(known, now)))
    }

    fn packets(&self, conn: &bpfw_conn, now: Jiffies) -> Packets {
        let (last, by_stack) = (conn.last_packet(now), conn.passed_up());
        let remembered = self.conn_map.refreshed(&conn.tuple());
        let refreshed = match remembered {
            Some(0) => Jiffies::NEVER,
            Some(low) => now.widen(low),
            // Not remembered for entries in conn_map. Each sweep tells conntrack of their packets
            // since the sweep before.
            None if self.age(last, now) > self.sweep.since_last() => last,
            None => Jiffies::NEVER,
        };
        Packets { last, by_stack, refreshed, is_remembered: remembered.is_some() }
    }

    /// Whether an entry lasts until the next sweep has seen it, if conntrack knows a packet of this time.
    fn lasts(&self, known: Jiffies, lifetime: Lifetime, protocol: Protocol, now: Jiffies) -> bool {
        // A policy may give TCP less for unacknowledged data than the sysctl that is known.
        let is_sure = protocol != Protocol::Tcp || !self.timeout_policies;
        is_sure && lifetime.lasts(self.age(known, now), self.sweep.until_next())
    }

    /// Whether the data of either direction was acknowledged.
    fn is_acknowledged(&self, this: Packets, that: Packets, now: Jiffies) -> bool {
        let [this, that] = [this, that].map(|packets| self.age(packets.last, now));
        this.abs_diff(that) <= ACKNOWLEDGED_WITHIN
    }

    fn age(&self, then: Jiffies, now: Jiffies) -> Duration {
        then.age(now, self.clock.hz())
    }

    fn remember_refresh(&mut self, conn: &bpfw_conn, last: Jiffies) {
        // 0 stands for never. A jiffy more does not matter.
        self.conn_map.set_refreshed(&conn.tuple(), last.low().max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(last: u64, by_stack: u64, refreshed: u64) -> Packets {
        let [last, by_stack, refreshed] = [last, by_stack, refreshed].map(Jiffies);
        Packets { last, by_stack, refreshed, is_remembered: true }
    }

    #[test]
    fn conntrack_is_told_only_what_it_must_know_now() {
        let lasts = |known: Jiffies| known >= Jiffies(50);
        let due = |protocol, packets: Packets| packets.need_refresh(protocol, lasts);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert!(due(protocol, packets(90, 10, 20)));
            assert!(!due(protocol, packets(90, 10, 90)), "it was told");
            assert!(!due(protocol, packets(90, 60, 20)), "the entry lasts");
            let forgotten = Packets { is_remembered: false, ..packets(90, 60, 20) };
            assert!(due(protocol, forgotten), "the next sweep would take it for told");
        }
        assert!(!due(Protocol::Udp, packets(40, 40, 20)), "the stack has seen the last one");
        assert!(due(Protocol::Tcp, packets(40, 40, 20)), "it may have given less");
    }

    #[test]
    fn a_connection_is_known_by_either_direction() {
        let both = packets(90, 10, 20).and(packets(80, 85, 90));
        assert_eq!((both.last, both.known()), (Jiffies(90), Jiffies(90)));
        assert!(!both.need_refresh(Protocol::Tcp, |_| false));
    }
}
