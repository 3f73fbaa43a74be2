// SPDX-License-Identifier: GPL-2.0-only
//! What conntrack's two tuples say about one direction: how its packets change on their way.
//!
//! A direction's packets leave as the other direction's tuple, turned around: whatever differs
//! from how they came in is the translation. One rule for SNAT, DNAT, both, ports and hairpin.

use crate::abi::{self, bpfw_rewrite, bpfw_translation, bpfw_tuple};

use super::tuple::Tuple;

/// The TTL step as the kernel's `ip_decrease_ttl` does it: the header loses 0x0100 in the word
/// of TTL and protocol, in network byte order.
const TTL_STEP: [u8; 2] = [1, 0];

/// How the packets of one direction come in and go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Before.
    pub incoming: Tuple,
    /// After.
    pub outgoing: Tuple,
}

impl Translation {
    /// The translation of the direction that conntrack knows by `tuple`, given the other one's.
    pub fn new(tuple: Tuple, other: Tuple) -> Self {
        Self { incoming: tuple, outgoing: other.invert() }
    }

    /// Whether packets leave with another address or port than they came with.
    pub fn is_some(&self) -> bool {
        self.incoming != self.outgoing
    }

    /// The same as the datapath wants it, checksum differences included.
    pub fn encode(&self) -> bpfw_translation {
        let (before, after) = (bpfw_tuple::from(self.incoming), bpfw_tuple::from(self.outgoing));
        bpfw_translation { rewrite: self.rewrite(&before, &after), more: after.more }
    }

    fn rewrite(&self, before: &bpfw_tuple, after: &bpfw_tuple) -> bpfw_rewrite {
        let addresses = difference(&addresses(before), &addresses(after));
        let ports = difference(&ports(before), &ports(after));
        // Not 0: a sum is 0 only if both parts are. IPv6 has no header checksum.
        let ip_delta = add(addresses, !u16::from_ne_bytes(TTL_STEP));
        let mut flags = 0;
        if self.is_some() {
            flags |= abi::BPFW_CONN_NAT as u16;
        }
        if (before.head.src_port, before.head.dst_port)
            != (after.head.src_port, after.head.dst_port)
        {
            flags |= abi::BPFW_CONN_PORTS as u16;
        }
        bpfw_rewrite {
            src_addr: after.head.src_addr,
            dst_addr: after.head.dst_addr,
            src_port: after.head.src_port,
            dst_port: after.head.dst_port,
            ip_delta: if before.is_ipv6() { 0 } else { ip_delta },
            addr_delta: addresses,
            port_delta: ports,
            l4_delta: if flags == 0 { 0 } else { add(add(addresses, ports), 0xffff) },
            flags,
            idle: 0,
        }
    }
}

/// Both addresses; all but two of the words are 0 for IPv4.
fn addresses(tuple: &bpfw_tuple) -> [u8; 32] {
    let mut bytes = [0; 32];
    let words = [tuple.head.src_addr, tuple.head.dst_addr].into_iter().chain(tuple.more);
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.0.to_ne_bytes());
    }
    bytes
}

fn ports(tuple: &bpfw_tuple) -> [u8; 4] {
    let mut bytes = [0; 4];
    bytes[..2].copy_from_slice(&tuple.head.src_port.0.to_ne_bytes());
    bytes[2..].copy_from_slice(&tuple.head.dst_port.0.to_ne_bytes());
    bytes
}

/// Ones' complement sum of two words (RFC 1071), in whichever byte order they are.
fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(u16::from(carry))
}

/// What a checksum's sum grows by when `old` becomes `new` (RFC 1624), in the machine's order.
/// Equal bytes give 0, the one value that leaves every checksum's sum as it is.
fn difference<const N: usize>(old: &[u8; N], new: &[u8; N]) -> u16 {
    let words = |bytes: &[u8; N]| -> Vec<u16> {
        bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect()
    };
    words(old)
        .into_iter()
        .zip(words(new))
        .filter(|(old, new)| old != new)
        .fold(0, |sum, (old, new)| add(add(sum, !old), new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tuple::Protocol;

    fn tuple(source: &str, destination: &str) -> Tuple {
        Tuple {
            protocol: Protocol::Udp,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn no_nat_changes_only_the_ttl() {
        let original = tuple("192.0.2.2:1000", "198.51.100.2:53");
        let rewrite = Translation::new(original, original.invert()).encode().rewrite;
        assert_eq!(rewrite.flags, 0);
        assert_eq!((rewrite.addr_delta, rewrite.port_delta, rewrite.l4_delta), (0, 0, 0));
        assert_eq!(rewrite.ip_delta, !u16::from_ne_bytes([1, 0]));
    }

    #[test]
    fn snat_shows_in_the_reply_tuple() {
        let original = tuple("192.0.2.2:1000", "198.51.100.2:53");
        let reply = tuple("198.51.100.2:53", "198.51.100.1:4000");
        let out = Translation::new(original, reply);
        assert_eq!(out.outgoing, tuple("198.51.100.1:4000", "198.51.100.2:53"));
        let back = Translation::new(reply, original);
        assert_eq!(back.outgoing, tuple("198.51.100.2:53", "192.0.2.2:1000"));
        let both = abi::BPFW_CONN_NAT | abi::BPFW_CONN_PORTS;
        assert_eq!(u32::from(out.encode().rewrite.flags), both);
    }

    /// The datapath's arithmetic tells a change from none by this.
    #[test]
    fn a_change_that_comes_to_nothing_is_no_zero() {
        let original = tuple("10.0.255.255:1000", "198.51.100.2:53");
        let reply = tuple("198.51.100.2:53", "10.0.0.0:1000");
        let rewrite = Translation::new(original, reply).encode().rewrite;
        assert_eq!((rewrite.addr_delta, rewrite.port_delta), (0, 0), "of the two zeros this one");
        assert_eq!(rewrite.l4_delta, 0xffff, "and the other one where the program adds itself");
        assert_ne!(rewrite.ip_delta, 0);
    }

    #[test]
    fn ipv6_is_translated_in_all_words() {
        let original = tuple("[2001:db8:1::2]:1000", "[2001:db8:2::2]:53");
        let reply = tuple("[2001:db8:3::3]:5353", "[2001:db8:4::4]:4000");
        let there = Translation::new(original, reply).encode();
        assert_eq!(there.reverse(&original.into()).decode(), Some(reply));
        let sum = |bytes: &[u8]| {
            let words = bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]]));
            words.fold(0, add)
        };
        // What leaves is the reply's tuple. A sum does not depend on the order of its words.
        let [before, after] = [original, reply].map(|tuple| sum(&addresses(&tuple.into())));
        assert_eq!(add(before, there.rewrite.addr_delta), after);
        let [before, after] = [original, reply].map(|tuple| sum(&ports(&tuple.into())));
        assert_eq!(add(before, there.rewrite.port_delta), after);
        assert_eq!(there.rewrite.ip_delta, 0);
        let same = Translation::new(original, original.invert());
        assert!(!same.is_some());
        assert_eq!(same.encode().rewrite.flags, 0);
    }

    #[test]
    fn opposite_differences_cancel() {
        let original = tuple("192.0.2.2:1000", "198.51.100.2:53");
        let reply = tuple("198.51.100.2:53", "198.51.100.1:4000");
        let there = Translation::new(original, reply).encode().rewrite;
        let back = Translation::new(original.invert(), reply.invert()).encode().rewrite;
        // Ones' complement has two zeros: a difference and its opposite add up to the second.
        assert_eq!(there.addr_delta, back.addr_delta);
        assert_eq!(add(there.l4_delta, !there.l4_delta), 0xffff);
    }
}
