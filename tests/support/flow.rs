// SPDX-License-Identifier: GPL-2.0-only
//! Connections as the tests of the datapath make them: how each direction comes in, goes out.

use super::lab;
use super::packet::{Mac, Packet};
use bpfw::clock::Jiffies;
use bpfw::datapath::conn_map::Connection;
use bpfw::flow::tuple::{Protocol, Tuple};
use nix::net::if_::if_nametoindex;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

pub const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// A host and the router's interface towards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    pub device: &'static str,
    pub router: Ipv4Addr,
    pub router_mac: Mac,
    pub host: Ipv4Addr,
    pub host_mac: Mac,
}

pub const LAN: Side = Side {
    device: "lan0",
    router: lab::ROUTER_LAN,
    router_mac: lab::ROUTER_LAN_MAC,
    host: lab::CLIENT,
    host_mac: lab::CLIENT_MAC,
};

/// Another host in the LAN.
pub const HOST2: Side = Side { host: lab::HOST2, host_mac: lab::HOST2_MAC, ..LAN };

pub const WAN: Side = Side {
    device: "wan0",
    router: lab::ROUTER_WAN,
    router_mac: lab::ROUTER_WAN_MAC,
    host: lab::SERVER,
    host_mac: lab::SERVER_MAC,
};

/// A third network.
pub const DMZ: Side = Side {
    device: "dmz0",
    router: Ipv4Addr::new(203, 0, 113, 1),
    router_mac: [2, 0, 0, 0, 3, 1],
    host: Ipv4Addr::new(203, 0, 113, 2),
    host_mac: [2, 0, 0, 0, 3, 2],
};

impl Side {
    /// The interface's number in the thread's namespace.
    pub fn ifindex(self) -> u32 {
        if_nametoindex(self.device).unwrap_or_else(|error| panic!("{}: {error}", self.device))
    }

    /// The host with this port.
    pub fn at(self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.host, port)
    }

    /// The router's own address on this side with this port.
    pub fn router_at(self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.router, port)
    }
}

/// A time at which the stack has seen a packet that is so late that no silence follows it.
pub const NEVER_IDLE: u64 = i64::MAX as u64;

/// Source and destination.
pub type Ends = (SocketAddrV4, SocketAddrV4);

/// The address that a host or a router has over IPv6: IPv4's is its end. The last addresses of IPv4 are
/// nobody's: these differ in all words.
pub fn ipv6_of(address: Ipv4Addr) -> Ipv6Addr {
    const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let [a, b, c, d] = address.octets().map(u16::from);
    if a >= 240 {
        let bits = u128::from(address.to_bits()).wrapping_mul(FACTOR);
        return Ipv6Addr::from_bits(bits >> 3 | 1 << 125);
    }
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0xfeed, 0xbeef, a << 8 | b, c << 8 | d)
}

/// A connection through the router.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Over IPv6, with the addresses that belong to those of the ends.
    pub ipv6: bool,
    pub protocol: Protocol,
    /// The first packet as it comes in.
    pub before: Ends,
    /// The first packet as it goes out.
    pub after: Ends,
    /// Where the first packet comes from.
    pub near: Side,
    /// Where the first packet goes to.
    pub far: Side,
    /// Conntrack's id.
    pub id: u32,
    /// jiffies64 from which packets go to the stack; 0: never.
    pub pass_from: u64,
    /// jiffies64 of the last packet that the stack saw.
    pub seen: u64,
    /// Jiffies of silence after which packets go to the stack.
    pub idle_limit: u32,
}

impl Flow {
    /// From the LAN to the WAN.
    pub fn new(protocol: Protocol, before: Ends, after: Ends) -> Self {
        Self {
            ipv6: false,
            protocol,
            before,
            after,
            near: LAN,
            far: WAN,
            id: 4711,
            pass_from: 0,
            seen: NEVER_IDLE,
            idle_limit: u32::MAX,
        }
    }

    /// Client to server, addresses and ports as they are.
    pub fn plain(protocol: Protocol) -> Self {
        let ends = (LAN.at(40000), WAN.at(443));
        Self::new(protocol, ends, ends)
    }

    /// Client to server, behind the router's address and another port.
    pub fn snat(protocol: Protocol) -> Self {
        Self::new(protocol, (LAN.at(40000), WAN.at(443)), (WAN.router_at(61000), WAN.at(443)))
    }

    /// As `plain`, over IPv6.
    pub fn ipv6(protocol: Protocol) -> Self {
        Self { ipv6: true, ..Self::plain(protocol) }
    }

    /// As `snat`, over IPv6, and with ports of its own: `ipv6` may be there beside it.
    pub fn nat66(protocol: Protocol) -> Self {
        let (before, after) = (LAN.at(40001), WAN.router_at(61001));
        let to = WAN.at(443);
        Self { ipv6: true, ..Self::new(protocol, (before, to), (after, to)) }
    }

    /// One of each family, where each family's is most work on either path.
    pub fn of_each_family(protocol: Protocol) -> [Self; 3] {
        [Self::snat(protocol), Self::ipv6(protocol), Self::nat66(protocol)]
    }

    /// Whether packets leave with another address or port than they came with.
    pub fn is_translated(&self) -> bool {
        self.before != self.after
    }

    /// Where the TCP or UDP header is in a frame without a tag.
    pub fn l4(&self) -> usize {
        if self.ipv6 { 54 } else { 34 }
    }

    /// Where its checksum is.
    pub fn checksum_at(&self) -> usize {
        self.l4() + if self.protocol == Protocol::Tcp { 16 } else { 6 }
    }

    /// As the daemon hands it to the datapath.
    pub fn connection(&self) -> Connection {
        Connection {
            original: self.tuple(false),
            reply: self.tuple(true),
            id: self.id,
            assured: true,
            pass_from: (self.pass_from != 0).then_some(Jiffies(self.pass_from)),
            seen: Jiffies(self.seen),
            idle_limit: self.idle_limit,
            mark: 0,
        }
    }

    /// Conntrack's tuple of one direction.
    pub fn tuple(&self, reply: bool) -> Tuple {
        let (source, destination) = self.ends_in(reply);
        let end = |end: SocketAddrV4| -> SocketAddr {
            if self.ipv6 { (ipv6_of(*end.ip()), end.port()).into() } else { end.into() }
        };
        Tuple::new(self.protocol, end(source), end(destination))
    }

    fn ends_in(&self, reply: bool) -> Ends {
        if reply { (self.after.1, self.after.0) } else { self.before }
    }

    fn ends_out(&self, reply: bool) -> Ends {
        if reply { (self.before.1, self.before.0) } else { self.after }
    }

    /// Where packets of a direction come in.
    pub fn ingress(&self, reply: bool) -> Side {
        if reply { self.far } else { self.near }
    }

    /// Where packets of a direction go out.
    pub fn egress(&self, reply: bool) -> Side {
        if reply { self.near } else { self.far }
    }

    /// A packet of a direction as it comes in.
    pub fn incoming(&self, reply: bool) -> Packet {
        let side = self.ingress(reply);
        self.packet(self.ends_in(reply)).mac(side.host_mac, side.router_mac)
    }

    /// The same packet as it goes out.
    pub fn outgoing(&self, reply: bool) -> Packet {
        let side = self.egress(reply);
        self.packet(self.ends_out(reply)).mac(side.router_mac, side.host_mac).ttl(63)
    }

    fn packet(&self, (src, dst): Ends) -> Packet {
        let packet = match self.protocol {
            Protocol::Tcp => Packet::tcp(src, dst),
            Protocol::Udp => Packet::udp(src, dst),
        };
        if self.ipv6 { packet.over_ipv6() } else { packet }
    }
}
