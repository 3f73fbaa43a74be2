// SPDX-License-Identifier: GPL-2.0-only
//! Checks a message before the library reads it.
//!
//! The library trusts the kernel. It ends the process if an attribute has another size than it
//! expects. It writes behind an array if the protocol information has a type that it does not know.
//! It reads strings up to their terminator.

use Shape::{Any, Bytes, Nested, Refused, Text};

use crate::netlink::attribute::{split_first, u32_at};
use crate::netlink::message::HEADER;

/// Bytes of `nlmsghdr` and `nfgenmsg`, which start every conntrack message.
pub(super) const HEADERS: usize = HEADER + 4;

/// What the library expects of an attribute's value.
enum Shape {
    /// Nothing.
    Any,
    /// Exactly so many bytes.
    Bytes(usize),
    /// A terminated string.
    Text,
    /// Attributes.
    Nested(Attributes),
    /// It has no room for this type.
    Refused,
}

/// The shapes of attributes, by their types. Further types may have any shape.
type Attributes = &'static [Shape];

const WORD: Shape = Bytes(4);

/// `CTA_*`.
const ENTRY: Attributes = &[
    Any,
    Nested(TUPLE),        // CTA_TUPLE_ORIG
    Nested(TUPLE),        // CTA_TUPLE_REPLY
    WORD,                 // CTA_STATUS
    Nested(PROTOINFO),    // CTA_PROTOINFO
    Nested(&[Any, Text]), // CTA_HELP
    Any,                  // CTA_NAT_SRC
    WORD,                 // CTA_TIMEOUT
    WORD,                 // CTA_MARK
    Nested(COUNTERS),     // CTA_COUNTERS_ORIG
    Nested(COUNTERS),     // CTA_COUNTERS_REPLY
    WORD,                 // CTA_USE
    WORD,                 // CTA_ID
    Any,                  // CTA_NAT_DST
    Nested(TUPLE),        // CTA_TUPLE_MASTER
    Nested(WORDS),        // CTA_SEQ_ADJ_ORIG
    Nested(WORDS),        // CTA_SEQ_ADJ_REPLY
    WORD,                 // CTA_SECMARK
    Bytes(2),             // CTA_ZONE
    Nested(&[Any, Text]), // CTA_SECCTX
    Nested(TIMESTAMP),    // CTA_TIMESTAMP
    WORD,                 // CTA_MARK_MASK
    Any,                  // CTA_LABELS
    Any,                  // CTA_LABELS_MASK
    Nested(WORDS),        // CTA_SYNPROXY
    Any,                  // CTA_FILTER
    WORD,                 // CTA_STATUS_MASK
    Bytes(8),             // CTA_TIMESTAMP_EVENT
];
/// `CTA_TUPLE_*`: addresses; protocol and ports; zone.
const TUPLE: Attributes = &[Any, Nested(IP), Nested(PROTO), Bytes(2)];
/// `CTA_IP_*`: those of IPv4, those of IPv6.
const IP: Attributes = &[Any, WORD, WORD, Bytes(16), Bytes(16)];
/// `CTA_PROTO_*`: protocol, ports; id, type and code of ICMP, of ICMPv6.
const PROTO: Attributes = &[
    Any,
    Bytes(1),
    Bytes(2),
    Bytes(2),
    Bytes(2),
    Bytes(1),
    Bytes(1),
    Bytes(2),
    Bytes(1),
    Bytes(1),
];
/// `CTA_PROTOINFO_*`: of TCP, of DCCP, of SCTP. The library refuses types above 5, and has room for
/// those up to 3.
const PROTOINFO: Attributes = &[
    Any,
    Nested(&[Any, Bytes(1), Bytes(1), Bytes(1), Bytes(2), Bytes(2)]),
    Nested(&[Any, Bytes(1), Bytes(1), Bytes(8)]),
    Nested(&[Any, Bytes(1), WORD, WORD]),
    Refused,
    Refused,
];
/// `CTA_COUNTERS_*`: packets and bytes, then the same as 32 bits.
const COUNTERS: Attributes = &[Any, Bytes(8), Bytes(8), WORD, WORD];
/// `CTA_TIMESTAMP_*`: start, stop.
const TIMESTAMP: Attributes = &[Any, Bytes(8), Bytes(8)];
/// `CTA_SEQADJ_*`, `CTA_SYNPROXY_*`.
const WORDS: Attributes = &[Any, WORD, WORD, WORD];

/// Whether these bytes are one whole message about an entry, in which each attribute has its shape.
pub(super) fn is_readable(message: &[u8]) -> bool {
    let Some((headers, attributes)) = message.split_at_checked(HEADERS) else { return false };
    let is_whole = u32_at(headers, 0).is_some_and(|length| length as usize == message.len());
    is_whole && are_readable(attributes, ENTRY)
}

fn are_readable(mut attributes: &[u8], shapes: Attributes) -> bool {
    while let Some(((kind, value), rest)) = split_first(attributes) {
        if !shapes.get(usize::from(kind)).unwrap_or(&Any).fits(value) {
            return false;
        }
        attributes = rest;
    }
    attributes.is_empty()
}

impl Shape {
    fn fits(&self, value: &[u8]) -> bool {
        match self {
            Any => true,
            Bytes(size) => value.len() == *size,
            Text => value.last() == Some(&0),
            Nested(shapes) => are_readable(value, shapes),
            Refused => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attribute::append;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        append(&mut bytes, kind, value);
        bytes
    }

    fn is_readable_with(attributes: &[u8]) -> bool {
        let mut message = vec![0; HEADERS];
        message.extend(attributes);
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        is_readable(&message)
    }

    #[test]
    fn values_have_the_size_that_the_library_expects() {
        for size in 0..9 {
            assert_eq!(is_readable_with(&attribute(3, &vec![0; size])), size == 4, "{size}");
            let ports = attribute(2, &attribute(3, &vec![0; size]));
            assert_eq!(is_readable_with(&attribute(1, &ports)), size == 2, "{size}");
        }
        assert!(is_readable_with(&attribute(0x3fff, &[0; 3])));
    }

    #[test]
    fn hazard_42_addresses_have_the_size_of_their_family() {
        for (kind, right) in [(1, 4), (2, 4), (3, 16), (4, 16)] {
            for size in 0..=20 {
                let addresses = attribute(1, &attribute(kind, &vec![0; size]));
                let readable = is_readable_with(&attribute(1, &addresses));
                assert_eq!(readable, size == right, "{kind} {size}");
            }
        }
    }

    #[test]
    fn types_that_overflow_the_library_do_not_reach_it() {
        for kind in 0..8 {
            let inner = attribute(kind, &[]);
            let readable = is_readable_with(&attribute(4 | 0x8000, &inner));
            assert_eq!(readable, ![4, 5].contains(&kind), "{kind}");
        }
    }

    #[test]
    fn strings_are_terminated() {
        for (name, readable) in [(&b"ftp\0"[..], true), (b"ftp", false), (b"", false)] {
            assert_eq!(is_readable_with(&attribute(5, &attribute(1, name))), readable);
        }
    }

    #[test]
    fn a_message_is_as_long_as_it_says() {
        let mut message = vec![0; HEADERS];
        assert!(!is_readable(&message));
        message[..4].copy_from_slice(&20_u32.to_ne_bytes());
        assert!(is_readable(&message));
        message.push(0);
        assert!(!is_readable(&message));
        assert!(!is_readable(&[]));
    }

    #[test]
    fn attributes_end_where_their_parent_ends() {
        let of_length =
            |length: u16| [&length.to_ne_bytes()[..], &6_u16.to_ne_bytes(), &[0; 4]].concat();
        for (length, readable) in [(3, false), (4, false), (7, true), (8, true), (9, false)] {
            assert_eq!(is_readable_with(&of_length(length)), readable, "{length}");
        }
        assert!(is_readable_with(&[]) && !is_readable_with(&[4, 0]));
    }
}
