// SPDX-License-Identifier: GPL-2.0-only
//! What the registers of an nftables rule contain for every packet that the fast path forwards.
//! That is enough to tell whether a rule matches none of these packets, or all of them.

use std::collections::HashMap;

use crate::flow::family::Family;
use crate::netlink::expression::Field;

/// Keys of linux/netfilter/nf_tables.h.
const NFT_META_PROTOCOL: u32 = 1;
const NFT_META_NFPROTO: u32 = 15;
const NFT_META_L4PROTO: u32 = 16;
pub(super) const NFT_CT_STATE: u32 = 0;
const NFT_CT_DIRECTION: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// The bit of an established connection, in nftables and in xtables.
pub(super) const STATE_ESTABLISHED: u32 = 2;
/// FIN, SYN, RST and ACK: only the last is set.
const TCP_FLAGS: (u8, u8) = (0x10, 0x17);
/// No fragments of IPv4: neither the flag of more to come, nor an offset.
const FRAGMENT: ([u8; 2], [u8; 2]) = ([0; 2], [0x3f, 0xff]);
/// The first byte of an IPv4 header: version 4, and no options.
const VERSION: (u8, u8) = (0x45, 0xff);
/// The same of IPv6: version 6, and half of the traffic class.
const VERSION6: (u8, u8) = (0x60, 0xf0);

/// Whether all forwarded packets have a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    /// All of them.
    Always,
    /// Some, or it is not known.
    Maybe,
    /// None.
    Never,
}

/// A value of which some bits are known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bits {
    value: Vec<u8>,
    known: Vec<u8>,
}

impl Bits {
    fn exactly(value: &[u8]) -> Self {
        Self { value: value.to_vec(), known: vec![0xff; value.len()] }
    }

    fn equals(&self, other: &[u8]) -> Truth {
        let bytes = || self.value.iter().zip(&self.known).zip(other);
        if bytes().any(|((value, known), other)| (value ^ other) & known != 0) {
            Truth::Never
        } else if other.len() <= self.value.len() && bytes().all(|((_, known), _)| *known == 0xff) {
            Truth::Always
        } else {
            Truth::Maybe
        }
    }

    fn masked(&self, mask: &[u8], xor: &[u8]) -> Self {
        let bytes = self.value.iter().zip(&self.known).zip(mask.iter().zip(xor));
        let (value, known) = bytes
            .map(|((value, known), (mask, xor))| ((value & mask) ^ xor, known | !mask))
            .unzip();
        Self { value, known }
    }
}

/// The registers of a rule that is being read. What is in none of them is unknown.
pub(super) struct Registers {
    /// Of the packets.
    family: Family,
    registers: HashMap<u32, Register>,
}

struct Register {
    /// One of these.
    values: Vec<Bits>,
    is_state: bool,
}

impl Registers {
    /// Nothing is known yet.
    pub(super) fn new(family: Family) -> Self {
        Self { family, registers: HashMap::new() }
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    pub(super) fn load(&mut self, register: u32, field: Field) {
        let values = values(self.family, field);
        if values.is_empty() {
            self.registers.remove(&register);
        } else {
            let is_state = field == Field::Ct(NFT_CT_STATE);
            self.registers.insert(register, Register { values, is_state });
        }
    }

    pub(super) fn mask(&mut self, from: u32, to: u32, mask: &[u8], xor: &[u8]) {
        let masked = self.registers.get(&from).map(|register| Register {
            values: register.values.iter().map(|bits| bits.masked(mask, xor)).collect(),
            is_state: false,
        });
        match masked {
            Some(masked) => self.registers.insert(to, masked),
            None => self.registers.remove(&to),
        };
    }

    pub(super) fn compare(&self, register: u32, equal: bool, value: &[u8]) -> Truth {
        let Some(known) = self.registers.get(&register) else {
            return Truth::Maybe;
        };
        let mut truths = known.values.iter().map(|bits| bits.equals(value));
        let first = truths.next().unwrap_or(Truth::Maybe);
        match if truths.all(|truth| truth == first) { first } else { Truth::Maybe } {
            Truth::Always if !equal => Truth::Never,
            Truth::Never if !equal => Truth::Always,
            truth => truth,
        }
    }

    /// Whether the connection's state is in the register, as it is.
    pub(super) fn is_state(&self, register: u32) -> bool {
        self.registers.get(&register).is_some_and(|register| register.is_state)
    }

    pub(super) fn forget(&mut self, register: u32) {
        self.registers.remove(&register);
    }

    /// After an expression that may have written any register.
    pub(super) fn forget_all(&mut self) {
        self.registers.clear();
    }
}

fn values(family: Family, field: Field) -> Vec<Bits> {
    match field {
        Field::Ct(NFT_CT_STATE) => vec![Bits::exactly(&STATE_ESTABLISHED.to_ne_bytes())],
        Field::Ct(NFT_CT_DIRECTION) => vec![Bits::exactly(&[0]), Bits::exactly(&[1])],
        Field::Meta(NFT_META_NFPROTO) => vec![Bits::exactly(&[family.number()])],
        Field::Meta(NFT_META_PROTOCOL) => {
            let protocol = if family == Family::Ipv4 { ETH_P_IP } else { ETH_P_IPV6 };
            vec![Bits::exactly(&protocol.to_be_bytes())]
        }
        Field::Meta(NFT_META_L4PROTO) => transport_protocols(),
        Field::Payload { base: NETWORK_HEADER, offset, length } => {
            network_header(family, offset, length)
        }
        Field::Payload { base: TRANSPORT_HEADER, offset: 13, length: 1 } => {
            let (value, known) = TCP_FLAGS;
            vec![Bits { value: vec![value], known: vec![known] }]
        }
        _ => Vec::new(),
    }
}

/// What is known of these bytes of an IP header.
fn network_header(family: Family, offset: u32, length: u32) -> Vec<Bits> {
    let of_one = |(value, known): (u8, u8)| vec![Bits { value: vec![value], known: vec![known] }];
    match (family, offset, length) {
        (Family::Ipv4, 0, 1) => of_one(VERSION),
        (Family::Ipv6, 0, 1) => of_one(VERSION6),
        (Family::Ipv4, 6, 2) => {
            let (value, known) = FRAGMENT;
            vec![Bits { value: value.to_vec(), known: known.to_vec() }]
        }
        // No extension header is in front of those that the fast path forwards.
        (Family::Ipv4, 9, 1) | (Family::Ipv6, 6, 1) => transport_protocols(),
        _ => Vec::new(),
    }
}

fn transport_protocols() -> Vec<Bits> {
    [nix::libc::IPPROTO_TCP, nix::libc::IPPROTO_UDP]
        .map(|protocol| Bits::exactly(&[protocol as u8]))
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::statements::differs_by_packet;

    fn truth(field: Field, mask: Option<&[u8]>, equal: bool, value: &[u8]) -> Truth {
        truth_of(Family::Ipv4, field, mask, equal, value)
    }

    fn truth_of(
        family: Family,
        field: Field,
        mask: Option<&[u8]>,
        equal: bool,
        value: &[u8],
    ) -> Truth {
        let mut registers = Registers::new(family);
        registers.load(1, field);
        if let Some(mask) = mask {
            registers.mask(1, 1, mask, &vec![0; mask.len()]);
        }
        registers.compare(1, equal, value)
    }

    #[test]
    fn the_state_is_established() {
        let state = |bits: u32, equal, value: u32| {
            let mask = bits.to_ne_bytes();
            truth(Field::Ct(NFT_CT_STATE), Some(&mask), equal, &value.to_ne_bytes())
        };
        assert_eq!(state(6, false, 0), Truth::Always, "established, related");
        assert_eq!(state(9, false, 0), Truth::Never, "new, invalid");
        assert_eq!(state(2, true, 0), Truth::Never, "not established");
    }

    #[test]
    fn flags_that_pass_up_are_not_seen() {
        let flags = Field::Payload { base: TRANSPORT_HEADER, offset: 13, length: 1 };
        assert_eq!(truth(flags, Some(&[2]), false, &[0]), Truth::Never, "SYN");
        assert_eq!(truth(flags, Some(&[0x16]), true, &[2]), Truth::Never, "SYN of SYN, RST, ACK");
        assert_eq!(truth(flags, Some(&[0x10]), false, &[0]), Truth::Always, "ACK");
        assert_eq!(truth(flags, Some(&[0x08]), false, &[0]), Truth::Maybe, "PSH");
        assert_eq!(truth(flags, None, true, &[0x12]), Truth::Never, "SYN and ACK");
    }

    #[test]
    fn only_tcp_and_udp_over_ipv4_is_forwarded() {
        let protocol = Field::Meta(NFT_META_L4PROTO);
        assert_eq!(truth(protocol, None, true, &[6]), Truth::Maybe);
        assert_eq!(truth(protocol, None, true, &[1]), Truth::Never);
        assert_eq!(truth(protocol, None, false, &[1]), Truth::Always);
        assert_eq!(truth(Field::Meta(NFT_META_NFPROTO), None, true, &[10]), Truth::Never);
    }

    #[test]
    fn each_family_has_its_header() {
        let byte = |offset, length| Field::Payload { base: NETWORK_HEADER, offset, length };
        let meta = Field::Meta(NFT_META_NFPROTO);
        let is = |family, field, value: &[u8]| truth_of(family, field, None, true, value);
        for (family, other, ethertype, protocol_at) in [
            (Family::Ipv4, Family::Ipv6, [0x08, 0x00], 9),
            (Family::Ipv6, Family::Ipv4, [0x86, 0xdd], 6),
        ] {
            assert_eq!(is(family, meta, &[family.number()]), Truth::Always);
            assert_eq!(is(family, meta, &[other.number()]), Truth::Never);
            assert_eq!(is(family, Field::Meta(NFT_META_PROTOCOL), &ethertype), Truth::Always);
            let protocol = byte(protocol_at, 1);
            assert_eq!(is(family, protocol, &[17]), Truth::Maybe);
            assert_eq!(is(family, protocol, &[44]), Truth::Never);
            assert!(!differs_by_packet(protocol, family));
        }
        let version = |value| truth_of(Family::Ipv6, byte(0, 1), Some(&[0xf0]), true, &[value]);
        assert_eq!((version(0x60), version(0x40)), (Truth::Always, Truth::Never));
        let class = truth_of(Family::Ipv6, byte(0, 1), Some(&[0x0f]), true, &[0]);
        assert_eq!(class, Truth::Maybe);
        let differing: Vec<_> =
            (0..40).filter(|&at| differs_by_packet(byte(at, 1), Family::Ipv6)).collect();
        assert_eq!(differing, [0, 1, 2, 3, 4, 5, 7], "class, label, length, hop limit");
    }

    #[test]
    fn what_is_unknown_may_be() {
        let mut registers = Registers::new(Family::Ipv4);
        assert_eq!(registers.compare(1, true, &[0]), Truth::Maybe);
        registers.load(1, Field::Ct(NFT_CT_STATE));
        assert!(registers.is_state(1));
        assert_eq!(registers.compare(1, true, &[0; 9]), Truth::Never);
        registers.load(1, Field::Meta(3));
        assert!(!registers.is_state(1));
        assert_eq!(registers.compare(1, true, &[2]), Truth::Maybe);
    }
}
