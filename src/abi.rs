// SPDX-License-Identifier: GPL-2.0-only
//! The Rust twin of `include/bpfw_abi.h`, and the only place where its values become bytes.
#![allow(unsafe_code)]

use std::mem::size_of;
use std::net::Ipv4Addr;

use crate::clock::Jiffies;

#[allow(missing_docs, non_camel_case_types, clippy::undocumented_unsafe_blocks)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bpfw_abi.rs"));
}
pub use bindings::*;

/// Plain data: any bytes of the right length are a value, and every byte is initialised.
///
/// # Safety
/// Only for `repr(C)` structs of integers and arrays of these without implicit padding.
pub unsafe trait Pod: Copy + Default {
    /// The value as the kernel sees it.
    fn bytes(&self) -> &[u8] {
        // SAFETY: an implementor has no padding, so all its bytes are initialised; the slice
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
unsafe impl Pod for bpfw_tuple {}
// SAFETY: as above.
unsafe impl Pod for bpfw_rewrite {}
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
    /// The tuple as the two words that BPF takes it for.
    pub fn words(&self) -> [u64; 2] {
        words(self)
    }
}

impl bpfw_rewrite {
    /// The rewrite as the three words that BPF takes it for.
    pub fn words(&self) -> [u64; 3] {
        words(self)
    }
}

fn words<const N: usize>(value: &impl Pod) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(value.bytes().chunks_exact(8)) {
        let mut aligned = [0; 8];
        aligned.copy_from_slice(bytes);
        *word = u64::from_ne_bytes(aligned);
    }
    words
}

impl bpfw_conn {
    /// How packets of the connection's first sender come in.
    pub fn original(&self) -> bpfw_tuple {
        if self.is_reply() { self.reverse() } else { self.cell.tuple }
    }

    /// The next hop's slot that BPF chose for this direction, if it ever did and it goes on.
    pub fn hop_slot(&self) -> Option<u32> {
        // Generation 0 marks the number that the daemon inserted, or an end.
        let word = self.cell.hop_word;
        (word as u32 != 0).then_some((word >> 32) as u32)
    }

    /// Packets that were forwarded, and their bytes, IPv4 header included.
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
        u32::from(self.cell.rewrite.flags) & BPFW_CONN_REPLY != 0
    }

    /// Conntrack's ASSURED bit at the time of the insert.
    pub fn is_assured(&self) -> bool {
        u32::from(self.cell.rewrite.flags) & BPFW_CONN_ASSURED != 0
    }

    /// The tuple of this connection's other direction.
    pub fn reverse(&self) -> bpfw_tuple {
        let bpfw_cell { tuple, rewrite, .. } = &self.cell;
        bpfw_tuple {
            src_addr: rewrite.dst_addr,
            dst_addr: rewrite.src_addr,
            src_port: rewrite.dst_port,
            dst_port: rewrite.src_port,
            protocol: tuple.protocol,
            reserved: [0; 3],
        }
    }
}

impl bpfw_hop {
    /// The address of the router or host that takes the packets.
    pub fn neighbor(&self) -> Ipv4Addr {
        self.neighbor[0].into()
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
