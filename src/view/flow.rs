// SPDX-License-Identifier: GPL-2.0-only
//! An offloaded connection, put together from its two entries.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::net::if_::if_nameindex;
use serde::Serialize;

use super::filter::Subject;
use super::no_json;
use crate::abi::{self, bpfw_conn, bpfw_hop, bpfw_link, bpfw_link_key, bpfw_tuple, bpfw_verdict};
use crate::datapath::reader::{Moment, Reader};
use crate::error::{Error, Result};
use crate::flow::tuple::Tuple;
use crate::reasons::Reason;
use crate::reasons::answer::Answer;
use crate::reasons::packet::VERDICTS;

/// What becomes of the next packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// The fast path forwards it.
    Forwarded,
    /// The full lane looks its next hop up, and forwards it if it has the proof for that.
    LooksUp,
    /// It goes to the stack, with this verdict.
    Passes(bpfw_verdict),
    /// It goes to the stack, which did not send the last one on.
    NotForwarded,
    /// Its other direction is missing. That should not be.
    Lonely,
    /// The fast path as a whole pauses.
    Paused,
}

/// A direction of a connection.
#[derive(Clone, Debug)]
pub(super) struct Direction {
    pub(super) tuple: Tuple,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Bytes a second, if that was measured.
    pub(super) rate: Option<u64>,
    /// By which interface packets come in, once that is known.
    pub(super) ingress: Option<u32>,
    /// By which interface they leave.
    pub(super) egress: Option<u32>,
    /// The VLAN that they come in with.
    pub(super) vlan: Option<u16>,
    /// Who takes them.
    pub(super) gateway: Option<IpAddr>,
    /// How long ago the last packet was, on either path.
    pub(super) idle_ms: u64,
    pub(super) fate: Fate,
}

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) id: u32,
    pub(super) mark: u32,
    pub(super) assured: bool,
    pub(super) original: Direction,
    pub(super) reply: Direction,
    pub(super) fate: Fate,
}

/// What flows are put together with.
pub(super) struct Surroundings {
    moment: Moment,
    hops: HashMap<u32, bpfw_hop>,
    /// L3 interfaces by port and VLAN.
    links: HashMap<(u32, u16), bpfw_link>,
    names: HashMap<u32, String>,
    paused: bool,
}

impl Surroundings {
    /// As they are now; a daemon that is late has `paused` the fast path.
    pub(super) fn read(reader: &Reader, late: bool) -> Result<Self> {
        let moment = reader.moment()?;
        let links = reader.links()?;
        let names =
            if_nameindex().map_err(|errno| Error::system("listing the interfaces", errno))?;
        let name = |each: &nix::net::if_::Interface| {
            (each.index(), each.name().to_string_lossy().into_owned())
        };
        Ok(Self {
            paused: late || moment.is_paused(),
            moment,
            hops: reader.hops()?,
            links: links
                .into_iter()
                .map(|(key, link)| ((key.ifindex, key.vlan_id), link))
                .collect(),
            names: names.into_iter().map(name).collect(),
        })
    }

    /// The datapath's time.
    pub(super) fn moment(&self) -> &Moment {
        &self.moment
    }

    /// Whether the fast path as a whole pauses.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// The name of an interface; its number if it has gone.
    pub(super) fn name(&self, ifindex: u32) -> String {
        self.names.get(&ifindex).cloned().unwrap_or_else(|| ifindex.to_string())
    }

    /// The connection with these entries; `reverse` is the tuple of the second one, also where it is
    /// missing.
    pub(super) fn flow(
        &self,
        original: &bpfw_conn,
        reverse: &bpfw_tuple,
        reply: Option<&bpfw_conn>,
    ) -> Option<Flow> {
        let first = self.direction(original)?;
        let (second, lonely) = match reply {
            Some(reply) => (self.direction(reply)?, false),
            None => (Direction::unknown(reverse.decode()?), true),
        };
        let fate = match first.fate.max(second.fate) {
            _ if self.paused => Fate::Paused,
            _ if lonely => Fate::Lonely,
            fate => fate,
        };
        Some(Flow {
            id: original.rest.id,
            mark: original.rest.mark,
            assured: original.is_assured(),
            original: first,
            reply: second,
            fate,
        })
    }

    fn direction(&self, conn: &bpfw_conn) -> Option<Direction> {
        let (packets, bytes) = conn.volume();
        let hop = conn.hop_slot().and_then(|slot| self.hops.get(&slot));
        let ingress = |hop: &bpfw_hop| {
            let from = hop.hot.from;
            self.link(from).map_or(from.ifindex, |link| link.ifindex)
        };
        Some(Direction {
            tuple: conn.tuple().decode()?,
            packets,
            bytes,
            rate: None,
            ingress: hop.map(ingress),
            egress: hop.map(|hop| hop.egress),
            vlan: hop.map(|hop| hop.hot.from.vlan_id).filter(|vlan| *vlan != 0),
            gateway: hop.map(bpfw_hop::neighbor).filter(|gateway| !gateway.is_unspecified()),
            idle_ms: milliseconds(self.moment.age(conn.last_packet(self.moment.now()))),
            fate: self.fate(conn),
        })
    }

    fn link(&self, from: bpfw_link_key) -> Option<&bpfw_link> {
        self.links.get(&(from.ifindex, from.vlan_id))
    }

    /// Whether bpfw takes packets from this L3 interface.
    pub(super) fn is_given(&self, ifindex: u32) -> bool {
        self.links.values().any(|link| link.ifindex == ifindex)
    }

    /// As `check_connection` and `find_hop` in bpf/datapath.h and `check_proof` in bpf/next_hop.h decide, as far as one can tell without a
    /// packet.
    fn fate(&self, conn: &bpfw_conn) -> Fate {
        let (moment, rest) = (&self.moment, &conn.rest);
        let now = moment.now();
        let silence = now.since(conn.last_packet(now));
        let is_proven = match conn.hop_slot().and_then(|slot| self.hops.get(&slot)) {
            Some(hop) => self
                .link(hop.hot.from)
                .is_some_and(|link| moment.is_proven(conn, hop, link.ingress)),
            // Nobody has looked yet by which way it is.
            None => rest.proof != 0,
        };
        if rest.finished != 0 {
            Fate::Passes(abi::BPFW_PASS_FINISHED)
        } else if rest.pass_from != 0 && now >= now.widen(rest.pass_from) {
            Fate::Passes(abi::BPFW_PASS_UNASSURED)
        } else if silence > rest.idle_limit.into() {
            Fate::Passes(abi::BPFW_PASS_IDLE)
        } else if moment.is_current(conn) {
            Fate::Forwarded
        } else if is_proven {
            Fate::LooksUp
        } else if moment.has_asked(conn) {
            Fate::NotForwarded
        } else {
            Fate::Passes(abi::BPFW_PASS_UNPROVEN)
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Direction {
    /// One without an entry.
    fn unknown(tuple: Tuple) -> Self {
        Self {
            tuple,
            packets: 0,
            bytes: 0,
            rate: None,
            ingress: None,
            egress: None,
            vlan: None,
            gateway: None,
            idle_ms: 0,
            fate: Fate::Lonely,
        }
    }
}

impl Fate {
    /// Its short name.
    pub(super) fn name(self) -> &'static str {
        match self {
            // Of one direction, as the datapath counts it.
            Self::Forwarded => reason_of(abi::BPFW_FORWARDED).name,
            _ => self.reason().name,
        }
    }

    /// Its row of the tables of reasons.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Forwarded => Answer::Fast.reason(),
            Self::LooksUp => Answer::LooksUp.reason(),
            Self::NotForwarded => Answer::NotForwarded.reason(),
            Self::Passes(verdict) => reason_of(verdict),
            Self::Lonely => Answer::Lonely.reason(),
            Self::Paused => reason_of(abi::BPFW_PASS_PAUSED),
        }
    }
}

/// The row of a verdict, whose numbers begin with 1.
fn reason_of(verdict: bpfw_verdict) -> Reason {
    let place = (verdict.max(1) - 1) as usize;
    VERDICTS[place.min(VERDICTS.len() - 1)]
}

impl Flow {
    /// As filters see it.
    pub(super) fn subject(&self) -> Subject {
        Subject { original: self.original.tuple, reply: self.reply.tuple, mark: self.mark }
    }

    /// How it is translated, if it is.
    pub(super) fn translation(&self) -> Option<String> {
        let (original, reply) = (&self.original.tuple, &self.reply.tuple);
        let new = |name: &str, before: SocketAddr, after: SocketAddr| {
            (before != after).then(|| format!("{name} {after}"))
        };
        let source = new("snat", original.source, reply.destination);
        let destination = new("dnat", original.destination, reply.source);
        match (source, destination) {
            (Some(source), Some(destination)) => Some(format!("{source} {destination}")),
            (source, destination) => source.or(destination),
        }
    }

    /// By which interfaces its packets come and leave, as far as that is known.
    pub(super) fn way(&self, surroundings: &Surroundings) -> String {
        let name =
            |ifindex: Option<u32>| ifindex.map_or("?".to_owned(), |one| surroundings.name(one));
        // What comes in at the other end says it, too.
        let (from, to) = (
            self.original.ingress.or(self.reply.egress),
            self.original.egress.or(self.reply.ingress),
        );
        format!("{} > {}", name(from), name(to))
    }

    /// As one line of JSON.
    pub(super) fn json(&self, surroundings: &Surroundings) -> Result<String> {
        serde_json::to_string(&self.object(surroundings)).map_err(no_json)
    }

    /// As a part of some more JSON.
    pub(super) fn value(&self, surroundings: &Surroundings) -> Result<serde_json::Value> {
        serde_json::to_value(self.object(surroundings)).map_err(no_json)
    }

    fn object(&self, surroundings: &Surroundings) -> Object {
        let protocol = self.original.tuple.protocol;
        Object {
            protonum: protocol.number(),
            protoname: protocol.to_string(),
            id: self.id,
            assured: self.assured,
            mark: self.mark,
            state: self.fate.name(),
            original: self.original.object(surroundings),
            reply: self.reply.object(surroundings),
        }
    }
}

impl Direction {
    fn object(&self, surroundings: &Surroundings) -> DirectionObject {
        let name = |ifindex: u32| surroundings.name(ifindex);
        let Tuple { source, destination, .. } = self.tuple;
        DirectionObject {
            src: source.ip(),
            dst: destination.ip(),
            sport: source.port(),
            dport: destination.port(),
            packets: self.packets,
            bytes: self.bytes,
            rate: self.rate,
            iifname: self.ingress.map(name),
            oifname: self.egress.map(name),
            vlan: self.vlan,
            gateway: self.gateway,
            idle_ms: self.idle_ms,
            state: self.fate.name(),
        }
    }
}

/// The names of conntrack's XML and nft's JSON, where they have one.
#[derive(Serialize)]
struct Object {
    protonum: u8,
    protoname: String,
    id: u32,
    assured: bool,
    mark: u32,
    state: &'static str,
    original: DirectionObject,
    reply: DirectionObject,
}

#[derive(Serialize)]
struct DirectionObject {
    src: IpAddr,
    dst: IpAddr,
    sport: u16,
    dport: u16,
    packets: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
    iifname: Option<String>,
    oifname: Option<String>,
    vlan: Option<u16>,
    gateway: Option<IpAddr>,
    idle_ms: u64,
    state: &'static str,
}
