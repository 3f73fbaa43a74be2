// SPDX-License-Identifier: GPL-2.0-only
//! The two ends of the connections: what they send, and what it looks like at the other end.

use super::expect::Kind;
use super::net::{Hop, Net};
use super::op::{CONNS, Conn, Size, Way};
use crate::support::flow::Side;
use crate::support::packet::{Packet, tcp};

/// A packet in the making.
#[derive(Clone, Copy, Debug)]
pub struct Shot {
    pub conn: Conn,
    pub way: Way,
    pub kind: Kind,
    /// Tells frames apart at the other end.
    pub id: u16,
    /// TCP's numbers.
    seq: u32,
    ack: u32,
    /// TCP: a handshake's first packet acknowledges nothing.
    first: bool,
}

/// Where the ends are in their streams.
pub struct Endpoints {
    /// TCP: the next sequence number, by connection and direction.
    next: [[u32; 2]; CONNS.len()],
    last_id: u16,
}

impl Endpoints {
    pub fn new() -> Self {
        Self { next: [[1_000_000, 2_000_000]; CONNS.len()], last_id: 0 }
    }

    /// The next packet of a direction, with a number of its own.
    pub fn shot(&mut self, conn: Conn, way: Way, kind: Kind) -> Shot {
        self.last_id = self.last_id.wrapping_add(1);
        let next = self.next[conn as usize];
        let first = kind == Kind::Syn && way == Way::Original;
        let (seq, ack) = (next[way as usize], next[way.other() as usize]);
        Shot { conn, way, kind, id: self.last_id, seq, ack, first }
    }

    /// It has arrived: the stream goes on after it.
    pub fn arrived(&mut self, shot: &Shot) {
        let next = &mut self.next[shot.conn as usize][shot.way as usize];
        let length = match shot.kind {
            Kind::Syn | Kind::Fin => 1,
            _ => shot.payload().len() as u32,
        };
        *next = next.wrapping_add(length);
    }

    /// TCP begins anew, elsewhere in the space of sequence numbers.
    pub fn restart(&mut self, conn: Conn) {
        for next in &mut self.next[conn as usize] {
            *next = next.wrapping_add(1 << 24);
        }
    }
}

impl Shot {
    fn payload(&self) -> Vec<u8> {
        let length = match self.kind {
            Kind::Data(Size::Small) => 32,
            Kind::Data(Size::Large) => 1400,
            _ => 0,
        };
        // No helper must read anything into it.
        (0..length).map(|at| 0xf0 | (at as u8).wrapping_add(self.id as u8)).collect()
    }

    /// The packet's length with its IP header.
    pub fn ip_length(&self) -> usize {
        let header = if self.conn.flow().ipv6 { 40 } else { 20 };
        header + if self.conn.is_tcp() { 20 } else { 8 } + self.payload().len()
    }

    fn fill(&self, packet: Packet) -> Packet {
        let packet = packet.id(self.id).flow_label(self.id.into()).payload(&self.payload());
        if !self.conn.is_tcp() {
            return packet;
        }
        let flags = match self.kind {
            Kind::Syn if self.first => tcp::SYN,
            Kind::Syn => tcp::SYN | tcp::ACK,
            Kind::Fin => tcp::FIN | tcp::ACK,
            Kind::Rst => tcp::RST | tcp::ACK,
            Kind::Ack => tcp::ACK,
            // Pushed segments are not merged on their way.
            Kind::Data(_) => tcp::ACK | tcp::PSH,
        };
        packet.seq(self.seq).ack(if self.first { 0 } else { self.ack }).flags(flags)
    }

    /// As it comes in at this side of the router.
    pub fn sent(&self, net: &Net, ingress: Side) -> Vec<u8> {
        let packet = self.conn.flow().incoming(self.way == Way::Reply);
        self.fill(packet).mac(ingress.host_mac, net.router_mac(ingress)).build()
    }

    /// As it leaves the router.
    pub fn forwarded(&self, hop: &Hop) -> Vec<u8> {
        let packet = self.conn.flow().outgoing(self.way == Way::Reply);
        self.fill(packet).mac(hop.macs.0, hop.macs.1).build()
    }
}
