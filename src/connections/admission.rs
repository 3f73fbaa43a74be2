// SPDX-License-Identifier: GPL-2.0-only
//! Decides about a conntrack entry: offloads it, keeps it offloaded, or takes it off the fast path.

use std::time::{Duration, Instant};

use super::Offload;
use super::identity::identity;
use super::journal::News;
use super::source::Source;
use crate::abi::{bpfw_conn, bpfw_rest};
use crate::conntrack::entry::Entry;
use crate::datapath::conn_map::{Added, Connection};
use crate::error::Result;
use crate::flow::decision::{Decision, decide};
use crate::flow::expiry::Given;
use crate::flow::state::TcpState;
use crate::flow::tuple::{Protocol, Tuple};
use crate::reasons::connection::Refusal;

/// Conntrack calls UDP a stream when a packet comes later than this after the first one
/// (`stream_ts` in the kernel's nf_conntrack_proto_udp.c). It must see that packet.
const UDP_STREAM_AFTER: Duration = Duration::from_secs(2);

/// How long the datapath does not ask again.
const REFUSED_BRIEFLY: Duration = Duration::from_secs(1);
const REFUSED_LASTINGLY: Duration = Duration::from_secs(10);

/// Jiffies by which the daemon's clock may be ahead. Of the packets that it hands up, the datapath
/// signals only the first one of a jiffy (`hand_up` in bpf/handover.h). So an entry must begin with
/// an earlier time.
const CLOCK_ERROR: u64 = 4;

/// For this long after a refusal for want of room, the sweep removes idle connections without
/// proof.
const LACKS_ROOM: Duration = Duration::from_secs(30);

impl Offload {
    /// Offloads the connection if it may be; removes it if it may not, and says why.
    pub(super) fn consider(&mut self, entry: &Entry, source: Source) -> Result<Option<Refusal>> {
        let refusal = self.carry_out(entry, source)?;
        if let Some(refusal) = refusal {
            self.refusals.note(refusal);
        }
        Ok(refusal)
    }

    fn carry_out(&mut self, entry: &Entry, source: Source) -> Result<Option<Refusal>> {
        match self.decide(entry) {
            Decision::Offload { assured } => self.offload(entry, assured, source),
            Decision::Refuse(refusal) => self.reject(entry, refusal),
            Decision::Ask => match self.requests.get(&entry.original)? {
                Some(whole) => match self.decide(&whole) {
                    Decision::Offload { assured } => self.offload(&whole, assured, source),
                    Decision::Refuse(refusal) => self.reject(&whole, refusal),
                    // Conntrack itself makes no TCP entry without a state.
                    Decision::Ask => self.reject(&whole, Refusal::NotEstablished),
                },
                None => self.reject(entry, Refusal::NotTracked),
            },
        }
    }

    /// The decision on an entry as it stands.
    pub(super) fn decide(&self, entry: &Entry) -> Decision {
        if let Some(reason) = self.why_forbidden(&entry.original) {
            return Decision::Refuse(reason);
        }
        let Some(facts) = self.terms().facts(entry) else {
            return Decision::Ask;
        };
        decide(&facts, |address| self.local_addresses.contains(&address))
    }

    fn offload(&mut self, entry: &Entry, assured: bool, source: Source) -> Result<Option<Refusal>> {
        let given = self.given_timeout(entry, assured, source);
        if given == Given::Own {
            return self.reject(entry, Refusal::OwnTimeout);
        }
        if !self.has_usual_timeout(entry, assured)? {
            return self.reject(entry, Refusal::OddTimeout);
        }
        if source != Source::Signal && given == Given::Ordinary && !self.is_full() {
            let connection = self.connection(entry, assured);
            self.queue_add(entry, connection, source);
            return Ok(None);
        }
        self.offload_or_keep(entry, assured, source, given)
    }

    /// Offloads it unless the map's entry is right as it is.
    pub(super) fn offload_or_keep(
        &mut self,
        entry: &Entry,
        assured: bool,
        source: Source,
        given: Given,
    ) -> Result<Option<Refusal>> {
        let standing = self.conn_map.get(&entry.original.into())?;
        let known = match standing {
            Some(known) if self.is_of(&known, entry)? => Some(known),
            _ => None,
        };
        let connection = self.connection(entry, assured);
        if source == Source::Event {
            self.leave_audit(entry);
        }
        let ended = known.is_some_and(|known| known.rest.finished != 0);
        // If an ended connection sends another packet, that brings it back here.
        if known.is_some_and(|known| is_current(&known, &connection))
            || ended && source == Source::Table
        {
            return Ok(None);
        }
        let audited = !self.events_sent
            || source != Source::Event && known.is_none_or(|known| self.audit.holds(known.rest.id));
        if standing.is_some() {
            self.clear_way(entry.original, entry.reply)?;
        }
        if given == Given::Unclear {
            return self.leave_to_stack(entry, Refusal::TimeoutUnclear);
        }
        self.add(&connection, audited)
    }

    fn connection(&self, entry: &Entry, assured: bool) -> Connection {
        let unassured_udp = entry.original.protocol == Protocol::Udp && !assured;
        Connection {
            original: entry.original,
            reply: entry.reply,
            id: entry.id,
            assured,
            pass_from: unassured_udp.then(|| self.clock.after(UDP_STREAM_AFTER)),
            mark: entry.mark,
            seen: self.clock.now().before(CLOCK_ERROR),
            idle_limit: self.idle_limit(entry.original.protocol, assured),
        }
    }

    /// Does not offload it, but removes the former owners of its tuples.
    fn leave_to_stack(&mut self, entry: &Entry, refusal: Refusal) -> Result<Option<Refusal>> {
        self.clear_way(entry.original, entry.reply)?;
        Ok(Some(refusal))
    }

    fn add(&mut self, connection: &Connection, audited: bool) -> Result<Option<Refusal>> {
        // Not tried again soon: the update before the insert would be in vain.
        if self.is_full() {
            return Ok(Some(Refusal::Full));
        }
        self.prepare([connection])?;
        let mut added = self.conn_map.add(connection)?;
        // Few exist already. A look before each insert would cost all others more.
        if added == Added::Exists {
            self.clear_way(connection.original, connection.reply)?;
            added = self.conn_map.add(connection)?;
        }
        match added {
            Added::Added => self.offloaded(connection, audited).map(|()| None),
            Added::Exists => Ok(None),
            Added::Full => {
                self.full_since = Some(Instant::now());
                Ok(Some(Refusal::Full))
            }
        }
    }

    /// Connections were refused for want of room, not long ago.
    pub(super) fn lacks_room(&self) -> bool {
        self.full_since.is_some_and(|since| since.elapsed() < LACKS_ROOM)
    }

    fn is_full(&self) -> bool {
        self.full_since.is_some_and(|since| since.elapsed() < REFUSED_BRIEFLY)
    }

    /// Tells conntrack not to check these connections' windows any longer. It must know that before
    /// the insert, because from then on it may miss segments. A short connection's FIN can come
    /// within the same millisecond.
    pub(super) fn prepare<'a>(
        &mut self,
        connections: impl IntoIterator<Item = &'a Connection>,
    ) -> Result<()> {
        let is_tcp = |connection: &&Connection| connection.original.protocol == Protocol::Tcp;
        for connection in connections.into_iter().filter(is_tcp) {
            self.requests.queue_update(&connection.original, None, true)?;
        }
        // During a resync nothing is forwarded, and the updates are sent by the batch.
        if self.admitted.is_some() { Ok(()) } else { self.send_updates() }
    }

    /// Whether this connection has the timeout that a refresh would set.
    fn given_timeout(&self, entry: &Entry, assured: bool, source: Source) -> Given {
        if !self.timeout_policies {
            return Given::Ordinary;
        }
        let left = match source {
            Source::Event | Source::Signal => entry.timeout,
            Source::Table => None,
        };
        self.timeouts.judge(entry.original.protocol, assured, left)
    }

    /// Whether packets and refreshes explain this timeout. If another program has set it, the
    /// kernel keeps it until the next packet. So does bpfw: it leaves that packet to the stack.
    pub(super) fn has_usual_timeout(&self, entry: &Entry, assured: bool) -> Result<bool> {
        let lifetime = self.timeouts.of(entry.original.protocol, assured);
        match entry.timeout {
            _ if !lifetime.can_be_kept() => Ok(false),
            Some(left) if !lifetime.is_usual(left) => self.explains(entry, assured, left),
            _ => Ok(true),
        }
    }

    /// The silence in jiffies after which such a connection's next packet goes to the stack.
    pub(super) fn idle_limit(&self, protocol: Protocol, assured: bool) -> u32 {
        self.clock.hz().count_u32(self.timeouts.of(protocol, assured).idle_limit())
    }

    /// Removes what stands in a connection's way: its own older entry, or one of its tuples'
    /// former owners.
    fn clear_way(&mut self, original: Tuple, reply: Tuple) -> Result<()> {
        for tuple in [original.into(), reply.into()] {
            if let Some(known) = self.conn_map.get(&tuple)? {
                self.remove_entry(&known)?;
            }
        }
        Ok(())
    }

    /// Whether the map's entry is of this very connection. Conntrack's ids repeat when an entry with
    /// the same tuple gets the same memory again.
    fn is_of(&self, known: &bpfw_conn, entry: &Entry) -> Result<bool> {
        Ok(known.rest.id == entry.id && self.conn_map.reverse(known)? == entry.reply.into())
    }

    pub(super) fn offloaded(&mut self, connection: &Connection, audited: bool) -> Result<()> {
        // Without room there, it is removed when it is finished or silent for long. If conntrack's
        // entry is gone, it gets no further proof.
        if audited && self.audit.has_room() {
            self.audit.add(connection);
        }
        match connection.original.protocol {
            Protocol::Udp if !connection.assured => self.expect_unassured(),
            Protocol::Udp => {}
            Protocol::Tcp => self.last_tcp = Some(Instant::now()),
        }
        if let Some(admitted) = &mut self.admitted {
            admitted.insert(identity(connection.id, connection.original.into()));
        }
        tracing::debug!("{}: offloaded", connection.original);
        self.journal.add(News::Begun(*connection));
        Ok(())
    }

    pub(super) fn reject(&mut self, entry: &Entry, refusal: Refusal) -> Result<Option<Refusal>> {
        let was_offloaded = self.remove_if(&entry.original.into(), entry.id)?;
        // The stack has it again. Conntrack missed the acknowledgements meanwhile, and would ignore
        // a RST with an unexpected sequence number.
        if was_offloaded && entry.tcp_state == Some(TcpState::Established) {
            self.requests.queue_update(&entry.original, None, true)?;
        }
        Ok(Some(refusal))
    }

    /// Tells the datapath not to ask for this connection for a while.
    pub(super) fn refuse(&self, entry: &Entry, refusal: Refusal) {
        self.refuse_tuple(&entry.original, refusal);
        self.refuse_tuple(&entry.reply, refusal);
    }

    pub(super) fn refuse_tuple(&self, tuple: &Tuple, refusal: Refusal) {
        let time = if refusal.is_lasting() { REFUSED_LASTINGLY } else { REFUSED_BRIEFLY };
        tracing::trace!("{tuple}: {refusal}");
        let until = self.clock.after(time);
        // A refusal only spares signals, so a failed write does no harm.
        if let Err(error) = self.signals.refuse(&(*tuple).into(), until, refusal as u32) {
            tracing::debug!("{error}");
        }
    }
}

/// Whether the map's entry says all that there is to say of its connection.
fn is_current(known: &bpfw_conn, connection: &Connection) -> bool {
    let assured = known.is_assured();
    let bpfw_rest { finished, mark, .. } = known.rest;
    finished == 0 && mark == connection.mark && (assured || !connection.assured)
}
