// SPDX-License-Identifier: GPL-2.0-only
//! The internet checksum of RFC 1071 over whole byte ranges, the plain way.
//!
//! It shares nothing with the incremental arithmetic under test, so that it can judge it.

use std::net::IpAddr;

/// The ones' complement sum of big-endian 16-bit words, not yet complemented.
///
/// An odd last byte counts as the high half of a word.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut total: u64 = 0;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        total += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

/// The internet checksum of `bytes`, whose own checksum field must be zero.
pub fn internet(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The checksum that belongs into this IPv4 header, whatever its field holds now.
pub fn ipv4_header(header: &[u8]) -> u16 {
    let mut copy = header.to_vec();
    copy[10..12].fill(0);
    internet(&copy)
}

/// The pseudo header that TCP and UDP checksums cover besides the segment.
fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12);
    for address in [src, dst] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend([0, protocol]);
    bytes.extend((length as u16).to_be_bytes());
    bytes
}

/// The sum of the pseudo header: what a sender that leaves the rest to its NIC writes.
pub fn partial(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, protocol: u8, length: usize) -> u16 {
    sum(&pseudo_header(src.into(), dst.into(), protocol, length))
}

/// The checksum that belongs into this TCP (6) or UDP (17) segment, whatever its field holds now.
///
/// For UDP a computed 0 becomes 0xffff, because 0 on the wire means "no checksum".
pub fn transport(
    src: impl Into<IpAddr>,
    dst: impl Into<IpAddr>,
    protocol: u8,
    segment: &[u8],
) -> u16 {
    let field = if protocol == 6 { 16 } else { 6 };
    let mut bytes = pseudo_header(src.into(), dst.into(), protocol, segment.len());
    let start = bytes.len() + field;
    bytes.extend(segment);
    bytes[start..start + 2].fill(0);
    match internet(&bytes) {
        0 if protocol == 17 => 0xffff,
        value => value,
    }
}
