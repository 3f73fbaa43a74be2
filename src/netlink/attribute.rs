// SPDX-License-Identifier: GPL-2.0-only
//! Netlink attributes, read and written one by one (`struct nlattr` of linux/netlink.h).
//!
//! Readers look only at the attributes that matter to them. A parser could refuse a whole message
//! for one unknown attribute. That would be unsafe where a missed message is (a rule, a route with
//! an MTU), and would hide interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 4;
/// The value of an attribute with this flag consists of attributes.
pub const NLA_F_NESTED: u16 = 1 << 15;
/// What is left of a kind without its flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// The type of an attribute, without the flags, and its value.
type Attribute<'a> = (u16, &'a [u8]);

/// Kind and value of the first attribute, and what follows it; `None` if it is cut off or malformed.
/// The last attribute's padding may be missing.
pub fn split_first(bytes: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let [l0, l1, k0, k1] = *bytes.first_chunk()?;
    let length = usize::from(u16::from_ne_bytes([l0, l1]));
    let kind = u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK;
    let value = bytes.get(HEADER..length)?;
    Some(((kind, value), bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Kind and value of each attribute; a malformed one ends the walk.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (attribute, rest) = split_first(bytes)?;
        bytes = rest;
        Some(attribute)
    })
}

/// The value of the first attribute of a kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// Adds an attribute at the end.
pub fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(((HEADER + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A number in the machine's byte order at a place in a header or value.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// As [`u32_at`], two bytes wide.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// As [`u32_at`], eight bytes wide.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// An address of IPv4 or IPv6, which its length tells.
pub fn address(value: &[u8]) -> Option<IpAddr> {
    let ipv4 = <[u8; 4]>::try_from(value).map(|bytes| Ipv4Addr::from(bytes).into());
    ipv4.or_else(|_| <[u8; 16]>::try_from(value).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
}

/// A C string, up to its NUL or the end of the value.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_attribute_ends_the_walk() {
        let mut bytes = Vec::new();
        for half in [6u16, 1, 0xaaaa, 0, 200, 2] {
            bytes.extend(half.to_ne_bytes());
        }
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(1, &[0xaa, 0xaa][..])]);
        assert_eq!(attributes(&bytes[..5]).count(), 0);
        assert_eq!(attributes(&bytes[8..]).count(), 0);
        assert_eq!(find(&bytes, 2), None);
    }

    #[test]
    fn what_is_appended_is_found() {
        let (mut bytes, mut nested) = (Vec::new(), Vec::new());
        append(&mut nested, 3, &[7]);
        append(&mut bytes, 1 | NLA_F_NESTED, &nested);
        append(&mut bytes, 2, b"ab\0");
        assert_eq!(find(&bytes, 1).and_then(|nested| find(nested, 3)), Some(&[7][..]));
        assert_eq!(find(&bytes, 2), Some(&b"ab\0"[..]));
        assert_eq!(attributes(&bytes).count(), 2);
    }

    #[test]
    fn numbers_and_texts_stop_at_the_end() {
        assert_eq!(u32_at(&[1, 2, 3], 0), None);
        assert_eq!(u16_at(&[0, 0, 7], 2), None);
        assert_eq!(u64_at(&[0; 8], 1), None);
        assert_eq!(u32_at(&[0; 4], usize::MAX), None);
        assert_eq!(text(b"eth0\0rest"), "eth0");
        assert_eq!(text(b"eth0"), "eth0");
    }

    #[test]
    fn an_addresss_family_is_known_by_its_length() {
        assert_eq!(address(&[192, 0, 2, 1]), Some("192.0.2.1".parse().unwrap()));
        let mut ipv6 = [0; 16];
        ipv6[15] = 1;
        assert_eq!(address(&ipv6), Some("::1".parse().unwrap()));
        assert!(
            (0..20).all(|length| address(&vec![0; length]).is_some() == [4, 16].contains(&length))
        );
    }
}
