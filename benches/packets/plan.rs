// SPDX-License-Identifier: GPL-2.0-only
//! What the generator is told: which frames of which connections, and what becomes of them.

use super::support::checksum;
use super::support::flow::ipv6_of;
use super::support::lab::{
    CLIENT_MAC, ROUTER_LAN_MAC, ROUTER_WAN, ROUTER_WAN_MAC, SERVER, SERVER_MAC,
};
use super::way::Way;
use bpfw::flow::tuple::{Protocol, Tuple};
use clap::ValueEnum;
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr};

/// As in benches/bpf/plan.h.
const PORTS: u32 = 32_768;
const FIRST_PORT: u32 = 32_768;
const SERVICE: u16 = 9;

/// Hosts behind the client, and behind the server: a connection's own are those with its number.
/// Over IPv6 they have the addresses that belong to these.
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

/// The address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4
    #[value(name = "4")]
    Ipv4,
    /// IPv6, which is not translated
    #[value(name = "6")]
    Ipv6,
}

impl Family {
    /// As in benches/bpf/plan.h.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 6,
        }
    }

    /// The EtherType, as it is sent.
    fn ether_type(self) -> [u8; 2] {
        match self {
            Self::Ipv4 => [0x08, 0x00],
            Self::Ipv6 => [0x86, 0xdd],
        }
    }

    /// Bytes of the IP header.
    fn header(self) -> usize {
        match self {
            Self::Ipv4 => 20,
            Self::Ipv6 => 40,
        }
    }

    /// The family of nft's tables.
    pub fn table(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }
}

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
    pub family: Family,
    pub transport: Transport,
    pub nat: Nat,
    pub way: Way,
    pub number: u32,
}

impl Connections {
    /// The client's packets of a connection, as they come in at the router.
    pub fn tuple(&self, number: u32) -> Tuple {
        let host = 1 + number / PORTS;
        let at = |base: Ipv4Addr, port| -> SocketAddr {
            let address = (u32::from(base) + host).into();
            match self.family {
                Family::Ipv4 => (address, port).into(),
                Family::Ipv6 => (ipv6_of(address), port).into(),
            }
        };
        let port = FIRST_PORT + number % PORTS;
        let source = at(LAN_HOSTS, u16::try_from(port).expect("below 65,536"));
        Tuple::new(self.transport.into(), source, at(WAN_HOSTS, SERVICE))
    }

    /// Bytes of all headers of a packet.
    fn headers(&self) -> usize {
        let transport = match self.transport {
            Transport::Udp => 8,
            Transport::Tcp => 20,
        };
        14 + self.family.header() + transport
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
    /// Bytes of each frame, from the Ethernet header to the payload's end; no less than the headers.
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
            (Transport::Tcp, Step::Open | Step::Answer) => self.connections.headers(),
            _ => self.frame_len.max(self.connections.headers()),
        }
    }

    /// `struct plan` of benches/bpf/plan.h; redirects go to `egress`.
    ///
    /// The time is taken between the frames `first` and `last`.
    pub fn bytes(&self, egress: u32, [first, last]: [u32; 2]) -> Vec<u8> {
        let Connections { family, transport, number, .. } = self.connections;
        let reply = self.step.is_reply();
        let [source, destination] = self.connections.addresses(reply);
        let sum = checksum::sum(&self.frame()[self.connections.headers()..]);
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
            family.number(),
        ];
        let net = (ipv6_of(Ipv4Addr::UNSPECIFIED).to_bits() >> 32).to_be_bytes();
        let net = net[4..].chunks(4).map(|word| u32::from_be_bytes(word.try_into().expect("4")));
        let macs = match reply {
            false => [ROUTER_LAN_MAC, CLIENT_MAC],
            true => [ROUTER_WAN_MAC, SERVER_MAC],
        };
        let words = words.into_iter().chain(net).flat_map(u32::to_ne_bytes);
        let mut bytes: Vec<u8> = words.chain([0; 2]).chain(macs.concat()).collect();
        bytes.extend(family.ether_type());
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
