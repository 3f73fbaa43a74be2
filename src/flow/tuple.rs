// SPDX-License-Identifier: GPL-2.0-only
//! A tuple: the addresses, ports and protocol by which conntrack knows one direction.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::family::Family;
use crate::abi::{self, __be32, bpfw_head, bpfw_tuple};

/// The transport protocols that can be offloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Transmission Control Protocol, number 6.
    Tcp,
    /// User Datagram Protocol, number 17.
    Udp,
}

impl Protocol {
    /// The protocol with this number in the IP header, if it is one of ours.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// The number in the IP header.
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

    /// The address family of both ends.
    pub fn family(&self) -> Family {
        Family::of(self.source.ip())
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
        let mut head = bpfw_head {
            src_port: tuple.source.port().into(),
            dst_port: tuple.destination.port().into(),
            protocol: tuple.protocol.number(),
            ..Default::default()
        };
        let mut more = <[__be32; 6]>::default();
        match (tuple.source.ip(), tuple.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                (head.src_addr, head.dst_addr) = (source.into(), destination.into());
            }
            (source, destination) => {
                head.family = abi::BPFW_FAMILY_IPV6 as u8;
                let source = words(source);
                [head.src_addr, head.dst_addr, more[0], more[1]] = source;
                more[2..].copy_from_slice(&words(destination));
            }
        }
        Self { head, more }
    }
}

/// An address of IPv6 as its four words. Both ends of a tuple are of one family.
fn words(address: IpAddr) -> [__be32; 4] {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let bits = address.to_bits();
    [96, 64, 32, 0].map(|shift| __be32(((bits >> shift) as u32).to_be()))
}

fn address(words: [__be32; 4]) -> Ipv6Addr {
    let add = |bits: u128, word: __be32| bits << 32 | u128::from(u32::from_be(word.0));
    Ipv6Addr::from_bits(words.into_iter().fold(0, add))
}

impl bpfw_tuple {
    /// The tuple in Rust's types; `None` if the protocol is not one of ours.
    pub fn decode(&self) -> Option<Tuple> {
        let (protocol, source, destination) =
            (self.head.protocol, self.source(), self.destination());
        Some(Tuple {
            protocol: Protocol::from_number(protocol)?,
            source: SocketAddr::new(source, self.head.src_port.into()),
            destination: SocketAddr::new(destination, self.head.dst_port.into()),
        })
    }

    fn source(&self) -> IpAddr {
        let Self { head, more } = self;
        if self.is_ipv6() {
            address([head.src_addr, head.dst_addr, more[0], more[1]]).into()
        } else {
            Ipv4Addr::from(head.src_addr).into()
        }
    }

    fn destination(&self) -> IpAddr {
        let Self { head, more } = self;
        if self.is_ipv6() {
            address([more[2], more[3], more[4], more[5]]).into()
        } else {
            Ipv4Addr::from(head.dst_addr).into()
        }
    }

    /// The same tuple with source and destination in each other's place.
    #[must_use]
    pub fn turned_around(&self) -> Self {
        let Self { head, more } = self;
        let (src_port, dst_port) = (head.dst_port, head.src_port);
        if self.is_ipv6() {
            let head =
                bpfw_head { src_addr: more[2], dst_addr: more[3], src_port, dst_port, ..*head };
            let source = [self.head.src_addr, self.head.dst_addr, more[0], more[1]];
            let [first, second, third, fourth] = source;
            return Self { head, more: [more[4], more[5], first, second, third, fourth] };
        }
        let (src_addr, dst_addr) = (head.dst_addr, head.src_addr);
        Self { head: bpfw_head { src_addr, dst_addr, src_port, dst_port, ..*head }, more: *more }
    }
}

impl fmt::Display for bpfw_tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decode() {
            Some(tuple) => tuple.fmt(f),
            None => write!(f, "protocol {}", self.head.protocol),
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
        assert_eq!(key.head.src_addr.0.to_ne_bytes(), [192, 0, 2, 1]);
        assert_eq!(key.head.dst_port.0.to_ne_bytes(), [0, 53]);
        assert_eq!(key.to_string(), "udp 192.0.2.1:1024 -> 198.51.100.2:53");
        assert_eq!(key.turned_around().decode(), Some(tuple.invert()));
        let head = bpfw_head { protocol: 132, ..key.head };
        assert_eq!(bpfw_tuple { head, ..key }.to_string(), "protocol 132");
    }

    #[test]
    fn a_tuple_of_ipv6_is_in_the_same_words() {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let tuple = Tuple::new(
            Protocol::Tcp,
            end("[2001:db8:1:2:3:4:5:6]:1024"),
            end("[2001:db8:a:b:c:d:e:f]:53"),
        );
        let key = bpfw_tuple::from(tuple);
        assert_eq!(key.decode(), Some(tuple));
        assert_eq!(key.head.dst_addr.0.to_ne_bytes(), [0, 1, 0, 2]);
        assert_eq!(key.more[0].0.to_ne_bytes(), [0, 3, 0, 4]);
        assert_eq!(key.more[5].0.to_ne_bytes(), [0, 14, 0, 15]);
        assert_eq!(key.turned_around().decode(), Some(tuple.invert()));
        assert_eq!(key.to_string(), "tcp [2001:db8:1:2:3:4:5:6]:1024 -> [2001:db8:a:b:c:d:e:f]:53");
    }
}
