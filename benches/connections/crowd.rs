// SPDX-License-Identifier: GPL-2.0-only
//! Millions of connections by number: their tuples behind SNAT, and their packets.

use crate::packets::plan::{Connections, Nat, Transport};
use crate::support::lab::{CLIENT_MAC, ROUTER_LAN_MAC, ROUTER_WAN, ROUTER_WAN_MAC, SERVER_MAC};
use crate::support::packet::{Packet, tcp};
use bpfw::flow::tuple::Tuple;
use std::net::SocketAddrV4;

const CLIENT_ISN: u32 = 1000;
const SERVER_ISN: u32 = 5000;

/// The first so many connections of a protocol.
pub fn crowd(transport: Transport, number: u32) -> Connections {
    Connections { transport, nat: Nat::Snat, number }
}

/// One of the crowd.
#[derive(Clone, Copy, Debug)]
pub struct Member {
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
        crowd(self.transport, self.number + 1).tuple(self.number)
    }

    /// Conntrack's tuple of the reply direction: SNAT keeps the port, which is unique.
    pub fn reply(self) -> Tuple {
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

    fn packet(self, side: Side) -> Packet {
        let tuple = if side == Side::Lan { self.original() } else { self.reply() };
        let packet = Packet::of(tuple);
        let (macs, numbers) = match side {
            Side::Lan => ((CLIENT_MAC, ROUTER_LAN_MAC), (CLIENT_ISN + 1, SERVER_ISN + 1)),
            Side::Wan => ((SERVER_MAC, ROUTER_WAN_MAC), (SERVER_ISN + 1, CLIENT_ISN + 1)),
        };
        let packet = packet.mac(macs.0, macs.1);
        if packet.is_tcp() { packet.seq(numbers.0).ack(numbers.1) } else { packet }
    }
}
