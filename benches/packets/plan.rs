// SPDX-License-Identifier: GPL-2.0-only
//! What the generator is told: which frames of which connections, and what becomes of them.

use super::support::checksum;
use super::support::lab::{
    CLIENT_MAC, ROUTER_LAN_MAC, ROUTER_WAN, ROUTER_WAN_MAC, SERVER, SERVER_MAC,
};
use bpfw::flow::tuple::{Protocol, Tuple};
use clap::ValueEnum;
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddrV4};

/// As in benches/bpf/plan.h.
const PORTS: u32 = 32_768;
const FIRST_PORT: u32 = 32_768;
const SERVICE: u16 = 9;
/// The EtherType, as it is sent.
const IPV4: [u8; 2] = [0x08, 0x00];

/// Hosts behind the client, and behind the server: a connection's own are those with its number.
pub const LAN_HOSTS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 0);
pub const WAN_HOSTS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// Where the generator writes its two times, at the plan's end.
pub const TIMES: usize = 16;

/// TCP flags.
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// The sequence numbers of both sides' SYN.
const CLIENT_SEQ: u32 = 1_000;
const SERVER_SEQ: u32 = 2_000_000;

/// Headers, and nothing else.
const UDP_HEADERS: usize = 14 + 20 + 8;
const TCP_HEADERS: usize = 14 + 20 + 20;

/// What is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Nat {
    /// Nothing.
    None,
    /// The source address: masquerading. The ports stay, as each pair of host and port is unique.
    Snat,
    /// The destination address.
    Dnat,
}

/// The transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP
    Udp,
    /// TCP
    Tcp,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp => Self::Tcp,
        }
    }
}

/// What becomes of the frames; numbered as in benches/bpf/plan.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The generator drops them.
    Drop,
    /// The stack gets them.
    Pass,
    /// The generator redirects them to wan0.
    Redirect,
    /// The program under test gets them.
    Call,
}

/// Which packet of a connection is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The client's first: a SYN, or any packet of UDP.
    Open,
    /// The server's answer.
    Answer,
    /// The client's later packets, all alike.
    Data,
    /// The server's, likewise.
    Reply,
}

impl Step {
    /// Whether the server sends it.
    pub fn is_reply(self) -> bool {
        matches!(self, Self::Answer | Self::Reply)
    }
}

/// The connections of a measurement: numbers below `number`.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    pub transport: Transport,
    pub nat: Nat,
    pub number: u32,
}

impl Connections {
    /// The client's packets of a connection, as they come in at the router.
    pub fn tuple(&self, number: u32) -> Tuple {
        let host = 1 + number / PORTS;
        let at = |base: Ipv4Addr, port| SocketAddrV4::new((u32::from(base) + host).into(), port);
        let port = FIRST_PORT + number % PORTS;
        let source = at(LAN_HOSTS, u16::try_from(port).expect("below 65,536"));
        Tuple::new(self.transport.into(), source, at(WAN_HOSTS, SERVICE))
    }

    /// Addresses of packets in this direction, each with whether the host's number is added.
    fn addresses(&self, reply: bool) -> [(Ipv4Addr, bool); 2] {
        let (client, server) = ((LAN_HOSTS, true), (WAN_HOSTS, true));
        match (reply, self.nat) {
            (false, _) => [client, server],
            (true, Nat::None) => [server, client],
            (true, Nat::Snat) => [server, (ROUTER_WAN, false)],
            (true, Nat::Dnat) => [(SERVER, false), client],
        }
    }
}

/// A run of the generator.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub connections: Connections,
    pub step: Step,
    pub action: Action,
    /// Bytes of each frame, from the Ethernet header to the payload's end.
    pub frame_len: usize,
    /// The first connection, and how far it is from one to the next.
    pub start: u32,
    pub stride: u32,
}

impl Plan {
    /// The frame that the generator writes the headers of, and the kernel lays out first.
    pub fn frame(&self) -> Vec<u8> {
        (0..self.length()).map(|at| at as u8).collect()
    }

    /// TCP's handshake has no payload.
    fn length(&self) -> usize {
        match (self.connections.transport, self.step) {
            (Transport::Tcp, Step::Open | Step::Answer) => TCP_HEADERS,
            _ => self.frame_len,
        }
    }

    /// `struct plan` of benches/bpf/plan.h; redirects go to `egress`.
    ///
    /// The time is taken between the frames `first` and `last`.
    pub fn bytes(&self, egress: u32, [first, last]: [u32; 2]) -> Vec<u8> {
        let Connections { transport, number, .. } = self.connections;
        let reply = self.step.is_reply();
        let [source, destination] = self.connections.addresses(reply);
        let headers = if transport == Transport::Tcp { TCP_HEADERS } else { UDP_HEADERS };
        let sum = checksum::sum(&self.frame()[headers..]);
        let [flags, seq, ack] = self.tcp();
        let words = [
            self.action as u32,
            egress,
            self.length() as u32,
            Protocol::from(transport).number().into(),
            number,
            self.stride,
            self.start,
            reply.into(),
            source.0.into(),
            source.1.into(),
            destination.0.into(),
            destination.1.into(),
            flags,
            seq,
            ack,
            sum.into(),
        ];
        let macs = match reply {
            false => [ROUTER_LAN_MAC, CLIENT_MAC],
            true => [ROUTER_WAN_MAC, SERVER_MAC],
        };
        let words = words.into_iter().flat_map(u32::to_ne_bytes);
        let mut bytes: Vec<u8> = words.chain([0; 2]).chain(macs.concat()).chain(IPV4).collect();
        bytes.extend([0, first, last, 0].into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend([0; TIMES]);
        bytes
    }

    /// Flags, sequence number, acknowledgement.
    fn tcp(&self) -> [u32; 3] {
        match self.step {
            Step::Open => [SYN, CLIENT_SEQ, 0],
            Step::Answer => [SYN | ACK, SERVER_SEQ, CLIENT_SEQ + 1],
            Step::Data => [ACK, CLIENT_SEQ + 1, SERVER_SEQ + 1],
            Step::Reply => [ACK, SERVER_SEQ + 1, CLIENT_SEQ + 1],
        }
    }
}
