// SPDX-License-Identifier: GPL-2.0-only
//! A tuple: the addresses, ports and protocol by which conntrack knows one direction.

use std::fmt;
use std::net::SocketAddrV4;

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
    pub source: SocketAddrV4,
    /// Destination address and port.
    pub destination: SocketAddrV4,
}

impl Tuple {
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
