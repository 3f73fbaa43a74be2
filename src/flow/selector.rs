// SPDX-License-Identifier: GPL-2.0-only
//! What IPsec policies select, and whether that may be a connection's packets.
//!
//! The kernel asks about a forwarded packet more than once, before and after each translation. See
//! `ip_forward`, `ip6_forward`, `__xfrm_policy_check` with `__nf_nat_decode_session`, and
//! `nf_nat_ipv4_out` with `nf_xfrm_me_harder`. Here every mixture of addresses and ports counts,
//! both ways, so that no answer depends on where the kernel asks.

use std::net::{IpAddr, SocketAddr};

use super::family::Family;
use super::tuple::Tuple;

/// The most selectors that connections are compared with, one by one.
pub const LIMIT: usize = 1024;

/// One end of the packets that a policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// The family of the addresses; `None` for any address of either.
    family: Option<Family>,
    /// The bits of `address` that count.
    netmask: u128,
    /// As [`bits`] has it.
    address: u128,
    /// The bits of `port` that count.
    port_mask: u16,
    port: u16,
}

impl End {
    /// Addresses of this network, and ports that agree with `port` in the bits of `port_mask`. A
    /// prefix longer than an address makes no sense, and so selects all addresses.
    pub fn new(network: IpAddr, prefix: u8, port: u16, port_mask: u16) -> Self {
        let longest = if network.is_ipv4() { 32 } else { u128::BITS };
        let netmask = match u32::from(prefix) {
            prefix if (1..=longest).contains(&prefix) => u128::MAX << (u128::BITS - prefix),
            _ => 0,
        };
        Self {
            family: Some(Family::of(network)),
            netmask,
            address: bits(network) & netmask,
            port_mask,
            port: port & port_mask,
        }
    }

    fn matches_any(&self, ends: [SocketAddr; 2]) -> bool {
        let is_in_network = |end: &SocketAddr| {
            self.family.is_none_or(|family| family == Family::of(end.ip()))
                && bits(end.ip()) & self.netmask == self.address
        };
        ends.iter().any(is_in_network)
            && ends.iter().any(|end| end.port() & self.port_mask == self.port)
    }
}

/// An address whose first bit is the number's first, so that prefixes of both families are masked alike.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << (u128::BITS - u32::BITS),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The packets that a policy selects. Interface, mark and interface id only narrow that down,
/// and are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// Of the packets' source.
    pub source: End,
    /// Of the packets' destination.
    pub destination: End,
    /// As in the IP header; 0 for any.
    pub protocol: u8,
}

impl Selector {
    /// Selects every packet.
    pub const ANYTHING: Self = Self { source: ANYWHERE, destination: ANYWHERE, protocol: 0 };

    /// Whether it may select a packet of the connection with these two tuples, of whichever
    /// direction and at whichever place in the stack.
    pub fn may_select(&self, original: Tuple, reply: Tuple) -> bool {
        // What one tuple has as its source, the other has as its destination, translated.
        let near = [original.source, reply.destination];
        let far = [original.destination, reply.source];
        let connects = |source, destination| {
            self.source.matches_any(source) && self.destination.matches_any(destination)
        };
        [0, original.protocol.number()].contains(&self.protocol)
            && (connects(near, far) || connects(far, near))
    }
}

const ANYWHERE: End = End { family: None, netmask: 0, address: 0, port_mask: 0, port: 0 };

/// The selectors of all policies that forwarded packets may match, in an order of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    sorted: Vec<Selector>,
}

impl Selectors {
    /// These; if there are more than [`LIMIT`], at least so many that this still shows.
    pub fn new(selectors: impl IntoIterator<Item = Selector>) -> Self {
        let mut sorted: Vec<_> = selectors.into_iter().take(LIMIT + 1).collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Whether there are more than connections are compared with.
    pub fn are_too_many(&self) -> bool {
        self.sorted.len() > LIMIT
    }

    /// Whether any of them may select a packet of this connection.
    pub fn may_select(&self, original: Tuple, reply: Tuple) -> bool {
        self.sorted.iter().any(|selector| selector.may_select(original, reply))
    }

    /// Whether each of them is among `others`.
    pub fn are_among(&self, others: &Self) -> bool {
        self.sorted.iter().all(|selector| others.sorted.binary_search(selector).is_ok())
    }
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;
