// SPDX-License-Identifier: GPL-2.0-only
//! Netlink attributes read one by one.
//!
//! The typed parsers of netlink-packet-route refuse a whole message for one attribute that they do
//! not understand. Where a missed message would be unsafe (a rule, a route with an MTU) or would
//! hide an interface, only the attributes that matter are read, and the others are not looked at.

use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};

/// Kind and value of each attribute; a malformed one ends the walk.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let length = usize::from(attribute.length());
        Some((attribute.kind(), attribute.into_inner().get(NLA_HEADER_SIZE..length)?))
    })
}

/// The value of the first attribute of a kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A number in the machine's byte order at a place in a header or value.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// As [`u32_at`], two bytes wide.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
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
    fn numbers_and_texts_stop_at_the_end() {
        assert_eq!(u32_at(&[1, 2, 3], 0), None);
        assert_eq!(u16_at(&[0, 0, 7], 2), None);
        assert_eq!(u32_at(&[0; 4], usize::MAX), None);
        assert_eq!(text(b"eth0\0rest"), "eth0");
        assert_eq!(text(b"eth0"), "eth0");
    }
}
