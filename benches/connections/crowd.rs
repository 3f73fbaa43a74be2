// SPDX-License-Identifier: GPL-2.0-only
//! Millions of connections by number: their tuples, IPv4's behind SNAT, and their packets.

use crate::packets::plan::{Connections, Family, Nat, Transport};
use crate::packets::way::Way;
use crate::support::lab::{CLIENT_MAC, ROUTER_LAN_MAC, ROUTER_WAN, ROUTER_WAN_MAC, SERVER_MAC};
use crate::support::packet::{Packet, tcp};
use bpfw::flow::tuple::Tuple;
use std::net::SocketAddrV4;

const CLIENT_ISN: u32 = 1000;
const SERVER_ISN: u32 = 5000;

/// The first so many connections of a protocol.
pub fn crowd(family: Family, transport: Transport, number: u32) -> Connections {
    Connections { family, transport, nat: nat(family), way: Way::Port, number }
}

/// What a router usually translates.
fn nat(family: Family) -> Nat {
    match family {
        Family::Ipv4 => Nat::Snat,
        Family::Ipv6 => Nat::None,
    }
}

/// One of the crowd.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub family: Family,
    pub transport: Transport,
    pub number: u32,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Lan,
    Wan,
}

impl Member {
    /// Conntrack's tuple of the original direction.
    pub fn original(self) -> Tuple {
        crowd(self.family, self.transport, self.number + 1).tuple(self.number)
    }

    /// Conntrack's tuple of the reply direction: SNAT keeps the port, which is unique.
    pub fn reply(self) -> Tuple {
        if self.family == Family::Ipv6 {
            return self.original().invert();
        }
        let Tuple { protocol, source, destination } = self.original();
        let router = SocketAddrV4::new(ROUTER_WAN, source.port());
        Tuple::new(protocol, destination, router)
    }

    /// What makes the router's conntrack call it established, with who sends it; the last frame
    /// is the one that does.
    pub fn opening(self) -> Vec<(Side, Vec<u8>)> {
        let sides = match self.transport {
            Transport::Udp => &[Side::Lan, Side::Wan][..],
            Transport::Tcp => &[Side::Lan, Side::Wan, Side::Lan],
        };
        let frame = |(step, side): (usize, &Side)| (*side, self.opening_frame(step, *side).build());
        sides.iter().enumerate().map(frame).collect()
    }

    fn opening_frame(self, step: usize, side: Side) -> Packet {
        let packet = self.packet(side);
        match (self.transport, step) {
            (Transport::Tcp, 0) => packet.flags(tcp::SYN).seq(CLIENT_ISN).ack(0),
            (Transport::Tcp, 1) => packet.flags(tcp::SYN | tcp::ACK).seq(SERVER_ISN),
            _ => packet,
        }
    }

    /// A packet of the established connection.
    pub fn frame(self, side: Side) -> Vec<u8> {
        self.packet(side).build()
    }

    fn tuple(self, side: Side) -> Tuple {
        if side == Side::Lan { self.original() } else { self.reply() }
    }

    fn packet(self, side: Side) -> Packet {
        let packet = match self.family {
            Family::Ipv4 => Packet::of(self.tuple(side)),
            // The builder's IPv6 has the addresses that belong to IPv4's.
            Family::Ipv6 => {
                let over_ipv4 = Self { family: Family::Ipv4, ..self }.original();
                let turned = if side == Side::Lan { over_ipv4 } else { over_ipv4.invert() };
                Packet::of(turned).over_ipv6()
            }
        };
        let (macs, numbers) = match side {
            Side::Lan => ((CLIENT_MAC, ROUTER_LAN_MAC), (CLIENT_ISN + 1, SERVER_ISN + 1)),
            Side::Wan => ((SERVER_MAC, ROUTER_WAN_MAC), (SERVER_ISN + 1, CLIENT_ISN + 1)),
        };
        let packet = packet.mac(macs.0, macs.1);
        if packet.is_tcp() { packet.seq(numbers.0).ack(numbers.1) } else { packet }
    }
}
