// SPDX-License-Identifier: GPL-2.0-only
//! The Rust twin of `include/bpfw_abi.h`, and the only place where its values become bytes.
#![allow(unsafe_code)]

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::clock::Jiffies;

/// As it stands in headers.
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

#[allow(missing_docs, non_camel_case_types, clippy::undocumented_unsafe_blocks)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bpfw_abi.rs"));
}
pub use bindings::*;

/// Plain data: any bytes of the right length are a value, and every byte is initialized.
///
/// # Safety
/// Only for `repr(C)` structs of integers and arrays of these without implicit padding.
pub unsafe trait Pod: Copy + Default {
    /// The value as the kernel sees it.
    fn bytes(&self) -> &[u8] {
        // SAFETY: an implementor has no padding, so all its bytes are initialized; the slice
        // borrows self and so cannot outlive it.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// The value that these bytes are; `None` if their number is wrong.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length was checked, any bytes are a value of an implementor, and the
        // read does not need alignment.
        Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
}

// SAFETY: each is made of integers and arrays of these, and bpfw_abi.h asserts its size to be the
// sum of its fields: no padding.
unsafe impl Pod for bpfw_head {}
// SAFETY: as above.
unsafe impl Pod for bpfw_tuple {}
// SAFETY: as above.
unsafe impl Pod for bpfw_rewrite {}
// SAFETY: as above.
unsafe impl Pod for bpfw_translation {}
// SAFETY: as above.
unsafe impl Pod for bpfw_cell {}
// SAFETY: as above.
unsafe impl Pod for bpfw_rest {}
// SAFETY: as above.
unsafe impl Pod for bpfw_conn {}
// SAFETY: as above.
unsafe impl Pod for bpfw_signal {}
// SAFETY: as above.
unsafe impl Pod for bpfw_hop {}
// SAFETY: as above.
unsafe impl Pod for bpfw_link_key {}
// SAFETY: as above.
unsafe impl Pod for bpfw_link {}
// SAFETY: as above.
unsafe impl Pod for bpfw_egress {}
// SAFETY: as above.
unsafe impl Pod for bpfw_generation {}
// SAFETY: as above.
unsafe impl Pod for bpfw_refused {}
// SAFETY: as above.
unsafe impl Pod for bpfw_settings {}
// SAFETY: an integer.
unsafe impl Pod for u32 {}
// SAFETY: an integer.
unsafe impl Pod for u64 {}

impl bpfw_tuple {
    /// The tuple as the five words that BPF takes it for; IPv4 has two.
    pub fn words(&self) -> [u64; 5] {
        words(self)
    }

    /// Whether it is IPv6's.
    pub fn is_ipv6(&self) -> bool {
        self.head.is_ipv6()
    }
}

impl bpfw_head {
    /// Whether it is of a tuple of IPv6.
    pub fn is_ipv6(&self) -> bool {
        u32::from(self.family) == BPFW_FAMILY_IPV6
    }
}

impl bpfw_cell {
    /// How packets of this direction come in.
    pub fn tuple(&self) -> bpfw_tuple {
        let head = bpfw_head { idle: 0, ..self.head };
        let mut more = <[__be32; 6]>::default();
        if head.is_ipv6() {
            for (word, bytes) in more.iter_mut().zip(self.rewrite.bytes().chunks_exact(4)) {
                *word = __be32(u32::from_ne_bytes(array(bytes)));
            }
        }
        bpfw_tuple { head, more }
    }

    /// The cell's tuple, and what the datapath adds to it: IPv6 has its tuple's other words in place of
    /// a rewrite.
    pub fn of(tuple: &bpfw_tuple, rewrite: bpfw_rewrite, idle: u16) -> Self {
        if !tuple.is_ipv6() {
            let rewrite = bpfw_rewrite { idle, ..rewrite };
            return Self { head: tuple.head, rewrite, ..Self::default() };
        }
        let head = bpfw_head { idle, ..tuple.head };
        let more = &tuple.bytes()[size_of::<bpfw_head>()..];
        Self {
            head,
            rewrite: bpfw_rewrite::from_bytes(more).unwrap_or_default(),
            ..Self::default()
        }
    }
}

impl bpfw_rewrite {
    /// The rewrite as the three words that BPF takes it for.
    pub fn words(&self) -> [u64; 3] {
        words(self)
    }
}

impl bpfw_translation {
    /// The translation as the six words that BPF takes it for.
    pub fn words(&self) -> [u64; 6] {
        words(self)
    }

    /// The tuple of the answers to packets that come in with this tuple.
    pub fn reverse(&self, tuple: &bpfw_tuple) -> bpfw_tuple {
        let bpfw_rewrite { src_addr, dst_addr, src_port, dst_port, .. } = self.rewrite;
        let head = bpfw_head { src_addr, dst_addr, src_port, dst_port, ..tuple.head };
        bpfw_tuple { head, more: self.more }.turned_around()
    }
}

fn words<const N: usize>(value: &impl Pod) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(value.bytes().chunks_exact(8)) {
        *word = u64::from_ne_bytes(array(bytes));
    }
    words
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

impl bpfw_conn {
    /// How packets of this direction come in.
    pub fn tuple(&self) -> bpfw_tuple {
        self.cell.tuple()
    }

    /// The next hop's slot that BPF chose for this direction, if it ever did and it goes on.
    pub fn hop_slot(&self) -> Option<u32> {
        // Generation 0 marks the number that the daemon inserted, or an end.
        let word = self.cell.hop_word;
        (word as u32 != 0).then_some((word >> 32) as u32)
    }

    /// Packets that were forwarded, and their bytes, IP header included.
    pub fn volume(&self) -> (u64, u64) {
        let volume = self.cell.volume;
        (self.rest.packets + (volume >> 32), self.rest.bytes + u64::from(volume as u32))
    }

    /// When a packet of this direction last went to the stack.
    pub fn passed_up(&self) -> Jiffies {
        Jiffies(self.rest.passed_up)
    }

    /// When a packet of this direction was last forwarded.
    pub fn last_seen(&self, now: Jiffies) -> Jiffies {
        now.widen(self.cell.last_seen)
    }

    /// When the last packet of this direction came, whichever way it went.
    pub fn last_packet(&self, now: Jiffies) -> Jiffies {
        self.last_seen(now).max(self.passed_up())
    }

    /// Whether this is the reply direction.
    pub fn is_reply(&self) -> bool {
        u32::from(self.rest.flags) & BPFW_REST_REPLY != 0
    }

    /// Conntrack's ASSURED bit at the time of the insert.
    pub fn is_assured(&self) -> bool {
        u32::from(self.rest.flags) & BPFW_REST_ASSURED != 0
    }

    /// The tuple of this connection's other direction; `None` if it is `translation_map` that tells.
    pub fn reverse(&self) -> Option<bpfw_tuple> {
        if u32::from(self.rest.flags) & BPFW_REST_NAT6 != 0 {
            return None;
        }
        let tuple = self.tuple();
        if tuple.is_ipv6() {
            return Some(tuple.turned_around());
        }
        let rewrite = self.cell.rewrite;
        Some(bpfw_translation { rewrite, ..Default::default() }.reverse(&tuple))
    }
}

impl bpfw_hop {
    /// The address of the router or host that takes the packets.
    pub fn neighbor(&self) -> IpAddr {
        if self.is_ipv6() {
            let words = self.neighbor.map(|word| u128::from(u32::from_be(word.0)));
            Ipv6Addr::from_bits(words.into_iter().fold(0, |bits, word| bits << 32 | word)).into()
        } else {
            Ipv4Addr::from(self.neighbor[0]).into()
        }
    }

    /// Whether it takes packets of IPv6: the EtherType ends the header.
    fn is_ipv6(&self) -> bool {
        let end = usize::from(self.hot.l2_len).min(self.hot.l2.len());
        self.hot.l2[..end].ends_with(&ETHERTYPE_IPV6)
    }
}

impl From<u16> for __be16 {
    fn from(value: u16) -> Self {
        Self(value.to_be())
    }
}

impl From<__be16> for u16 {
    fn from(value: __be16) -> Self {
        Self::from_be(value.0)
    }
}

impl From<Ipv4Addr> for __be32 {
    fn from(address: Ipv4Addr) -> Self {
        Self(address.to_bits().to_be())
    }
}

impl From<__be32> for Ipv4Addr {
    fn from(address: __be32) -> Self {
        Self::from_bits(u32::from_be(address.0))
    }
}
