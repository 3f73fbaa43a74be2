// SPDX-License-Identifier: GPL-2.0-only
//! A tuple: the addresses, ports and protocol by which conntrack knows one direction.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::abi::{__be16, __be32, bpfw_tuple};

/// The transport protocols that can be offloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Transmission Control Protocol, number 6.
    Tcp,
    /// User Datagram Protocol, number 17.
    Udp,
}

impl Protocol {
    /// The protocol with this number in the IPv4 header, if it is one of ours.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// The number in the IPv4 header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One direction of a connection, as its packets look when they come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
}

impl Tuple {
    /// A tuple of these ends, which must be of one address family.
    pub fn new(
        protocol: Protocol,
        source: impl Into<SocketAddr>,
        destination: impl Into<SocketAddr>,
    ) -> Self {
        Self { protocol, source: source.into(), destination: destination.into() }
    }

    /// The same tuple with source and destination swapped.
    #[must_use]
    pub fn invert(self) -> Self {
        Self { protocol: self.protocol, source: self.destination, destination: self.source }
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.source, self.destination)
    }
}

impl From<Tuple> for bpfw_tuple {
    fn from(tuple: Tuple) -> Self {
        Self {
            src_addr: address(tuple.source),
            dst_addr: address(tuple.destination),
            src_port: tuple.source.port().into(),
            dst_port: tuple.destination.port().into(),
            protocol: tuple.protocol.number(),
            reserved: [0; 3],
        }
    }
}

/// The datapath has no entries of IPv6, and none with the unspecified address: `flow::decision`
/// refuses both. So such a tuple is found nowhere.
fn address(end: SocketAddr) -> __be32 {
    match end {
        SocketAddr::V4(end) => (*end.ip()).into(),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED.into(),
    }
}

impl bpfw_tuple {
    /// The tuple in Rust's types; `None` if the protocol is not one of ours.
    pub fn decode(&self) -> Option<Tuple> {
        let end = |address: __be32, port: __be16| SocketAddrV4::new(address.into(), port.into());
        Some(Tuple::new(
            Protocol::from_number(self.protocol)?,
            end(self.src_addr, self.src_port),
            end(self.dst_addr, self.dst_port),
        ))
    }
}

impl fmt::Display for bpfw_tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decode() {
            Some(tuple) => tuple.fmt(f),
            None => write!(f, "protocol {}", self.protocol),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_datapath_and_the_daemon_mean_the_same_tuple() {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let tuple = Tuple::new(Protocol::Udp, end("192.0.2.1:1024"), end("198.51.100.2:53"));
        let key = bpfw_tuple::from(tuple);
        assert_eq!(key.decode(), Some(tuple));
        assert_eq!(key.src_addr.0.to_ne_bytes(), [192, 0, 2, 1]);
        assert_eq!(key.dst_port.0.to_ne_bytes(), [0, 53]);
        assert_eq!(key.to_string(), "udp 192.0.2.1:1024 -> 198.51.100.2:53");
        assert_eq!(bpfw_tuple { protocol: 132, ..key }.to_string(), "protocol 132");
    }

    #[test]
    fn a_tuple_of_ipv6_is_nobodys() {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let tuple = Tuple::new(Protocol::Tcp, end("[2001:db8::1]:1024"), end("[2001:db8::2]:53"));
        let key = bpfw_tuple::from(tuple);
        assert_eq!((key.src_addr.0, key.dst_addr.0), (0, 0));
        assert_eq!(tuple.to_string(), "tcp [2001:db8::1]:1024 -> [2001:db8::2]:53");
    }
}
