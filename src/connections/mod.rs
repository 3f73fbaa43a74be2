// SPDX-License-Identifier: GPL-2.0-only
//! The offloaded connections: which ones they are, from conntrack's word to the datapath's map.

mod admission;
mod audit;
mod event_batch;
mod identity;
mod ipsec;
pub mod journal;
mod refresh;
mod refusals;
mod resync;
mod signals;
mod source;
mod sweep;
pub mod terms;
pub mod topology;
mod waiting;

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Instant;

use libbpf_rs::Object;

use crate::abi::{bpfw_conn, bpfw_tuple};
use crate::clock::{Clock, Hz, Jiffies};
use crate::conntrack::entry::Entry;
use crate::conntrack::requests::{Requests, UpdateErrors};
use crate::conntrack::sysctl::Sysctls;
use crate::datapath::conn_map::ConnMap;
use crate::datapath::signals::Signals;
use crate::error::Result;
use crate::flow::expiry::Timeouts;
use crate::flow::family::{Family, PerFamily};
use crate::flow::mark::OffloadMark;
use crate::flow::selector::Selectors;
use crate::flow::tuple::Tuple;
use crate::reasons::connection::Refusal;

use identity::Identity;
use refusals::Refusals;
pub use resync::Resync;
use source::Source;
pub use sweep::Progress;
use terms::Terms;

/// What routing makes of conntrack's marks.
#[derive(Clone, Copy, Debug)]
struct RouteMark {
    /// The bits that packets are routed by, 0 if the look-ups heed none.
    mask: u32,
    /// Rules use these bits. Then a connection without any of them may be marked packet by packet.
    required: PerFamily<bool>,
}

/// The offloaded connections. The truth about them is in the datapath's maps. The daemon only keeps
/// a tag of each one in [`ConnMap`], and what it has told conntrack.
pub struct Offload {
    conn_map: ConnMap,
    signals: Signals,
    taken: signals::Taken,
    waiting: waiting::Waiting,
    batch: event_batch::EventBatch,
    requests: Requests,
    /// Its updates come back as events, unlike the others'.
    provocations: Requests,
    mark: Option<OffloadMark>,
    route_mark: RouteMark,
    /// Why no connection of a family may be offloaded for now.
    forbidden: PerFamily<Option<Refusal>>,
    /// What IPsec policies may cover.
    ipsec: Selectors,
    /// Conntrack sends events (`nf_conntrack_events` is not 0).
    events_sent: bool,
    timeouts: Timeouts,
    /// Some connections may have others.
    timeout_policies: bool,
    local_addresses: HashSet<IpAddr>,
    /// Set by each heartbeat.
    clock: Clock,
    sweep: sweep::Sweep,
    /// Conntrack's timeouts may differ from the known ones, so the stack must see each connection's
    /// next packets.
    must_prove: bool,
    audit: audit::Audit,
    /// While a resync goes on: the connections offloaded meanwhile.
    admitted: Option<HashSet<Identity>>,
    /// When the map had no room for a connection.
    full_since: Option<Instant>,
    /// When the last TCP connection came.
    last_tcp: Option<Instant>,
    refusals: Refusals,
    journal: journal::Journal,
}

impl Offload {
    /// Begins with no connection offloaded.
    pub fn new(
        object: &Object,
        mark: Option<OffloadMark>,
        route_mark_mask: u32,
        sysctls: &Sysctls,
        hz: Hz,
    ) -> Result<Self> {
        Ok(Self {
            conn_map: ConnMap::new(object)?,
            signals: Signals::new(object)?,
            taken: signals::Taken::default(),
            waiting: waiting::Waiting::default(),
            batch: event_batch::EventBatch::default(),
            requests: Requests::open()?,
            provocations: Requests::open()?,
            mark,
            route_mark: RouteMark { mask: route_mark_mask, required: PerFamily::default() },
            forbidden: PerFamily::default(),
            ipsec: Selectors::default(),
            events_sent: events_are_sent(sysctls),
            timeouts: timeouts(sysctls),
            timeout_policies: false,
            local_addresses: HashSet::new(),
            clock: Clock::new(hz),
            sweep: sweep::Sweep::default(),
            must_prove: false,
            audit: audit::Audit::default(),
            admitted: None,
            full_since: None,
            last_tcp: None,
            refusals: Refusals::default(),
            journal: journal::Journal::default(),
        })
    }

    /// Other connections are to be offloaded, which a resync must carry out.
    pub fn set_mark(&mut self, mark: Option<OffloadMark>) {
        self.mark = mark;
    }

    /// What users and policies ask of connections.
    fn terms(&self) -> Terms<'_> {
        let RouteMark { mask, required } = self.route_mark;
        Terms { mark: self.mark, route_mark: (mask, required), ipsec: &self.ipsec }
    }

    /// How many connections are offloaded.
    pub fn connections(&self) -> usize {
        self.conn_map.len() / 2
    }

    /// How many can be offloaded.
    pub fn limit(&self) -> usize {
        self.conn_map.capacity() / 2
    }

    /// Why no connection at all of a family may be offloaded for now, if so.
    pub fn forbidden(&self, family: Family) -> Option<Refusal> {
        self.forbidden[family]
    }

    /// Whether routing rules use the marks of a family's connections.
    pub fn requires_route_mark(&self, family: Family) -> bool {
        self.route_mark.required[family]
    }

    /// The datapath's time now.
    pub fn jiffies(&self) -> Jiffies {
        self.clock.now()
    }

    /// Why connections stayed with the stack so far.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Whether all connections must prove themselves anew since the last call.
    pub fn take_must_prove(&mut self) -> bool {
        std::mem::take(&mut self.must_prove)
    }

    /// The port that events of our own updates carry, except those that shall come back.
    pub fn own_port(&self) -> u32 {
        self.requests.port()
    }

    /// The machine's own addresses: their connections are not ours.
    pub fn set_local_addresses(&mut self, addresses: &HashSet<IpAddr>) {
        self.local_addresses.clone_from(addresses);
    }

    /// Whether there are policies that give some connections timeouts of their own.
    pub fn set_timeout_policies(&mut self, exist: bool) {
        self.timeout_policies = exist;
    }

    /// Sets or lifts a reason to offload nothing of this family; `true` if that is a change, which a
    /// resync must carry out.
    pub fn forbid(&mut self, family: Family, reason: Option<Refusal>) -> bool {
        std::mem::replace(&mut self.forbidden[family], reason) != reason
    }

    /// Why nothing of this tuple's family may be offloaded, if so.
    fn why_forbidden(&self, tuple: &Tuple) -> Option<Refusal> {
        self.forbidden[tuple.family()]
    }

    /// Says whether routing rules of this family use the marks of connections; `true` if that is a
    /// change, which a resync must carry out.
    pub fn require_route_mark(&mut self, family: Family, required: bool) -> bool {
        std::mem::replace(&mut self.route_mark.required[family], required) != required
    }

    /// The datapath's time at a heartbeat just now.
    pub fn set_clock(&mut self, now: Jiffies) {
        self.clock.set(now);
    }

    fn on_update(&mut self, entry: &Entry, source: Source) -> Result<()> {
        let refusal = self.consider(entry, source)?;
        if let Some(refusal) = refusal {
            self.tell_if_lasting(entry, refusal);
        }
        Ok(())
    }

    fn tell_if_lasting(&self, entry: &Entry, refusal: Refusal) {
        if refusal.is_lasting() {
            self.refuse(entry, refusal);
        }
    }

    /// Does what has been gathered: in the map, and in conntrack.
    pub fn flush(&mut self) -> Result<()> {
        self.apply_batch()?;
        self.send_updates()
    }

    /// Sends conntrack what has been gathered for it.
    fn send_updates(&mut self) -> Result<()> {
        let errors = self.requests.flush()?;
        if errors.incomplete {
            // Nobody knows which updates failed.
            self.conn_map.forget_refreshes();
            self.must_prove = true;
        }
        self.heed_errors(errors)
    }

    fn heed_errors(&mut self, errors: UpdateErrors) -> Result<()> {
        for original in errors.gone {
            self.remove_gone(&original)?;
        }
        if let Some(reason) = errors.reason {
            tracing::debug!("conntrack refused {} updates: {reason}", errors.failed.len());
        }
        for original in errors.failed {
            self.take_as_untold(&original)?;
        }
        Ok(())
    }

    /// Conntrack missed an update. So the connection is left to the stack, whose next packet sets
    /// the timeout. Otherwise conntrack could call TCP segments invalid.
    fn take_as_untold(&mut self, original: &Tuple) -> Result<()> {
        let tuple = bpfw_tuple::from(*original);
        match self.conn_map.get(&tuple)? {
            Some(conn) => self.remove_entry(&conn),
            None => Ok(()),
        }
    }

    /// Conntrack does not know this connection. Its DESTROY event is on its way, or there is none,
    /// because `ct event set` can leave it out. The map must not keep a connection that is gone.
    fn remove_gone(&mut self, original: &Tuple) -> Result<()> {
        let tuple = bpfw_tuple::from(*original);
        match self.conn_map.get(&tuple)? {
            // By now it may be a new one with the same tuple.
            Some(conn)
                if self.requests.get(original)?.is_none_or(|entry| entry.id != conn.rest.id) =>
            {
                self.remove_entry(&conn)
            }
            _ => Ok(()),
        }
    }

    /// Removes both directions of the connection with this tuple if it has this id. `true` if it
    /// had.
    fn remove_if(&mut self, tuple: &bpfw_tuple, id: u32) -> Result<bool> {
        match self.conn_map.get(tuple)? {
            Some(conn) if conn.rest.id == id => self.remove_entry(&conn).map(|()| true),
            _ => Ok(false),
        }
    }

    /// The entry under the tuple of this one's other direction.
    fn other(&self, conn: &bpfw_conn) -> Result<Option<bpfw_conn>> {
        self.conn_map.get(&self.conn_map.reverse(conn)?)
    }

    /// Removes the connection that this is an entry of, in both directions.
    fn remove_entry(&mut self, conn: &bpfw_conn) -> Result<()> {
        let other = self.conn_map.reverse(conn)?;
        self.remove(&conn.tuple(), &other, conn.rest.id)
    }

    fn remove(&mut self, tuple: &bpfw_tuple, other: &bpfw_tuple, id: u32) -> Result<()> {
        self.audit.forget(id);
        let end = self.end_of(tuple, other)?;
        if self.conn_map.remove(tuple, other)? {
            tracing::debug!("{tuple}: back to the stack");
            self.journal.extend(end);
        }
        Ok(())
    }
}

fn timeouts(sysctls: &Sysctls) -> Timeouts {
    Timeouts {
        udp: sysctls.udp_timeout,
        udp_stream: sysctls.udp_timeout_stream,
        tcp_established: sysctls.tcp_timeout_established,
        tcp_waiting: [sysctls.tcp_timeout_unacknowledged, sysctls.tcp_timeout_max_retrans],
    }
}

/// The sysctl exists only in kernels that can send events.
fn events_are_sent(sysctls: &Sysctls) -> bool {
    sysctls.events.is_some_and(|value| value != 0)
}
