// SPDX-License-Identifier: GPL-2.0-only
//! The model: what conntrack knows of each connection, and what may be on the fast path.

use super::net::{Hop, Net, Toward};
use super::op::{CONNS, Conn, Size, Way};
use crate::support::flow::{Flow, LAN, Side, WAN};
use bpfw::flow::tuple::Protocol;

/// Connections with this bit in their mark are not to be offloaded: bpfw is told so.
pub const REFUSED_MARK: u32 = 0x10;

impl Conn {
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::TcpSnat | Self::TcpPlain | Self::TcpIpv6)
    }

    /// How its packets look.
    pub fn flow(self) -> Flow {
        let (udp, tcp) = (Protocol::Udp, Protocol::Tcp);
        let snat = |protocol, inner, outer| {
            let server = WAN.at(7);
            Flow::new(protocol, (LAN.at(inner), server), (WAN.router_at(outer), server))
        };
        let plain = |protocol, port| {
            let ends = (LAN.at(port), WAN.at(7));
            Flow::new(protocol, ends, ends)
        };
        match self {
            Self::UdpSnat => snat(udp, 40000, 21000),
            Self::TcpSnat => snat(tcp, 40001, 21001),
            Self::UdpDnat => {
                let ends = |to| (WAN.at(40002), to);
                let flow = Flow::new(udp, ends(WAN.router_at(8080)), ends(LAN.at(7)));
                Flow { near: WAN, far: LAN, ..flow }
            }
            Self::TcpPlain => plain(tcp, 40003),
            Self::UdpIpv6 => Flow { ipv6: true, ..plain(udp, 40004) },
            Self::TcpIpv6 => Flow { ipv6: true, ..plain(tcp, 40005) },
        }
    }

    /// To which side of the router the packets of one direction go.
    pub fn toward(self, way: Way) -> Toward {
        let from_lan = self.flow().near == LAN;
        if from_lan == (way == Way::Original) { Toward::Wan } else { Toward::Lan }
    }
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data(Size),
    Syn,
    Fin,
    Rst,
    /// TCP without data, as only a closing connection sends it here.
    Ack,
}

/// What conntrack knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    Unknown,
    /// No answer yet.
    Unanswered,
    /// TCP: answered, but not assured yet.
    Answered,
    /// May be offloaded.
    Established,
    /// TCP: the FIN of this direction was seen.
    HalfClosed(Way),
    /// TCP: both FINs, or a RST, were seen. Whether a SYN starts it anew.
    Closed { reopens: bool },
}

/// A connection's state.
#[derive(Clone, Copy, Debug)]
pub struct State {
    pub phase: Phase,
    pub mark: u32,
    pub has_helper: bool,
    /// A rule gives it a helper when it begins.
    pub helped: bool,
    /// A rule drops it when it begins.
    pub forbidden: bool,
    /// What drops its packets, as `How` numbers it: of the original direction, of the replies.
    pub banned: [[bool; 3]; 2],
    /// TCP: its ends are connected.
    pub open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    Awake,
    Paused,
    Dead,
}

/// All that the model knows.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    states: [State; CONNS.len()],
    pub net: Net,
    pub daemon: Daemon,
    pub ipsec: bool,
    pub mark_rule: bool,
}

impl Model {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        let state = State {
            phase: Phase::Unknown,
            mark: 0,
            has_helper: false,
            helped: false,
            forbidden: false,
            banned: [[false; 3]; 2],
            open: false,
        };
        Self {
            states: [state; CONNS.len()],
            net: Net::default(),
            daemon: Daemon::Dead,
            ipsec: false,
            mark_rule: false,
        }
    }

    pub fn state(&self, conn: Conn) -> &State {
        &self.states[conn as usize]
    }

    pub fn state_mut(&mut self, conn: Conn) -> &mut State {
        &mut self.states[conn as usize]
    }

    /// Where a packet leaves that came in here, if it is delivered at all.
    pub fn delivered(&self, conn: Conn, way: Way, from: Side, ip_length: usize) -> Option<Hop> {
        let state = self.state(conn);
        let toward = conn.toward(way);
        let known = state.phase != Phase::Unknown || (way == Way::Original && !state.forbidden);
        let fits = ip_length <= self.net.largest(toward);
        let banned = state.banned[way as usize].contains(&true);
        self.net.hop(toward).filter(|_| known && !banned && fits && self.net.is_up(from))
    }

    /// Both ways lead through the router, and no rule drops them.
    pub fn passes(&self, conn: Conn) -> bool {
        let is_banned = self.state(conn).banned.as_flattened().contains(&true);
        !is_banned
            && [Way::Original, Way::Reply].into_iter().all(|way| {
                let toward = conn.toward(way);
                self.net.hop(toward).is_some() && self.net.is_up(self.net.ingress(toward))
            })
    }

    /// Whether the connection may be in the map.
    pub fn eligible(&self, conn: Conn) -> bool {
        let state = self.state(conn);
        state.phase == Phase::Established
            && state.mark & REFUSED_MARK == 0
            && !state.has_helper
            && !(self.ipsec && conn == Conn::UdpSnat)
    }

    /// Whether the datapath may forward such a packet of this connection.
    pub fn may_be_fast(&self, conn: Conn, kind: Kind) -> bool {
        self.daemon == Daemon::Awake
            && matches!(kind, Kind::Data(_) | Kind::Ack)
            && self.eligible(conn)
    }

    /// Whether its packets must come to take the fast path.
    pub fn must_be_fast(&self, conn: Conn) -> bool {
        self.may_be_fast(conn, Kind::Data(Size::Small)) && self.passes(conn)
    }

    /// A packet has reached the router; conntrack takes note.
    pub fn arrived(&mut self, conn: Conn, way: Way, kind: Kind, delivered: bool) {
        let phase = self.state(conn).phase;
        let next = match (phase, kind) {
            (Phase::Unknown, _) if !delivered || way == Way::Reply => Phase::Unknown,
            (Phase::Unknown | Phase::Closed { .. }, Kind::Syn) => Phase::Unanswered,
            (Phase::Unknown, _) => Phase::Unanswered,
            (_, Kind::Fin) if matches!(phase, Phase::HalfClosed(first) if first != way) => {
                Phase::Closed { reopens: true }
            }
            (_, Kind::Fin) => Phase::HalfClosed(way),
            // Conntrack takes a SYN after the other side's RST for a duplicate.
            (_, Kind::Rst) => Phase::Closed { reopens: way == Way::Original },
            (Phase::Unanswered, _) if way == Way::Original => Phase::Unanswered,
            (Phase::Unanswered, _) if conn.is_tcp() => Phase::Answered,
            (Phase::Unanswered | Phase::Answered, _) => Phase::Established,
            _ => phase,
        };
        let began = phase != next && next == Phase::Unanswered;
        let state = self.state_mut(conn);
        state.phase = next;
        state.open &= !matches!(next, Phase::Closed { .. });
        if began {
            (state.mark, state.has_helper) = (0, state.helped);
        }
    }

    /// Its entry is deleted.
    pub fn forget(&mut self, conn: Conn) {
        let state = self.state_mut(conn);
        // What was closing would look established to conntrack again.
        state.open &= !matches!(state.phase, Phase::HalfClosed(_) | Phase::Closed { .. });
        (state.phase, state.mark, state.has_helper) = (Phase::Unknown, 0, false);
    }
}
