// SPDX-License-Identifier: GPL-2.0-only
//! A conntrack entry as a plain value.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::ffi::{FAMILY, Object, Text, U8, U16, U32};
use crate::flow::state::{Status, TcpState};
use crate::flow::tuple::{Protocol, Tuple};

/// Conntrack's flag of a direction whose window is not checked.
pub(super) const BE_LIBERAL: u8 = 0x08;
/// Conntrack's flag of a direction whose last acknowledgement it knows.
pub(super) const MAXACK_SET: u8 = 0x20;

/// One connection as conntrack knows it.
///
/// A reply to a request and an entry of a dump tell everything. An update event tells what has
/// changed and some more: `tcp_state`, `tcp_flags`, `has_seqadj` and `has_synproxy` may be
/// missing from it; a destroy event has no timeout either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How packets of the connection's first sender look when they come in.
    pub original: Tuple,
    /// How the answers look when they come in.
    pub reply: Tuple,
    /// Conntrack's number of this entry.
    pub id: u32,
    /// The status bits.
    pub status: Option<Status>,
    /// The state of a TCP connection.
    pub tcp_state: Option<TcpState>,
    /// `IP_CT_TCP_FLAG_*` of the original and of the reply direction.
    pub tcp_flags: [u8; 2],
    /// The connection mark.
    pub mark: u32,
    /// The zone, of either direction.
    pub zone: u16,
    /// Whether a helper reads along.
    pub has_helper: bool,
    /// Whether TCP sequence numbers are adjusted.
    pub has_seqadj: bool,
    /// Whether a SYN proxy answered for the destination.
    pub has_synproxy: bool,
    /// How long the entry lives without further packets.
    pub timeout: Option<Duration>,
}

impl Entry {
    /// Whether both directions are known to accept any TCP window.
    pub fn is_liberal(&self) -> bool {
        self.tcp_flags.iter().all(|flags| flags & BE_LIBERAL != 0)
    }

    /// Whether conntrack knows an acknowledgement of either direction, by which it judges a RST of the
    /// other one.
    pub fn knows_acknowledgement(&self) -> bool {
        self.tcp_flags.iter().any(|flags| flags & MAXACK_SET != 0)
    }

    /// Decodes one conntrack message; `None` unless it is a whole one about IPv4 and TCP or UDP.
    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        let object = Object::parse(message)?;
        Some(Self {
            original: ORIGINAL.get(&object)?,
            reply: REPLY.get(&object)?,
            id: object.u32(U32::ID)?,
            status: object.u32(U32::STATUS).map(Status),
            tcp_state: object.u8(U8::TCP_STATE).map(TcpState::from_number),
            tcp_flags: [U8::TCP_FLAGS_ORIGINAL, U8::TCP_FLAGS_REPLY]
                .map(|flags| object.u8(flags).unwrap_or(0)),
            mark: object.u32(U32::MARK).unwrap_or(0),
            zone: [U16::ZONE, U16::ORIGINAL_ZONE, U16::REPLY_ZONE]
                .into_iter()
                .filter_map(|zone| object.u16(zone))
                .find(|zone| *zone != 0)
                .unwrap_or(0),
            has_helper: object.has(Text::HELPER_NAME),
            has_seqadj: [U32::ORIGINAL_SEQUENCE_OFFSET, U32::REPLY_SEQUENCE_OFFSET]
                .iter()
                .any(|offset| object.u32(*offset).is_some()),
            // Entries made through netlink carry the attribute whether they have a proxy or not.
            has_synproxy: [U32::SYN_PROXY_SEQUENCE, U32::SYN_PROXY_TIMESTAMP_OFFSET]
                .iter()
                .any(|value| object.u32(*value).unwrap_or(0) != 0),
            timeout: object.u32(U32::TIMEOUT).map(|seconds| Duration::from_secs(seconds.into())),
        })
    }
}

/// The attributes that make up one direction's tuple.
struct Direction {
    family: U8,
    protocol: U8,
    source: (U32, U16),
    destination: (U32, U16),
}

const ORIGINAL: Direction = Direction {
    family: U8::ORIGINAL_FAMILY,
    protocol: U8::ORIGINAL_PROTOCOL,
    source: (U32::ORIGINAL_SOURCE, U16::ORIGINAL_SOURCE_PORT),
    destination: (U32::ORIGINAL_DESTINATION, U16::ORIGINAL_DESTINATION_PORT),
};

const REPLY: Direction = Direction {
    family: U8::REPLY_FAMILY,
    protocol: U8::REPLY_PROTOCOL,
    source: (U32::REPLY_SOURCE, U16::REPLY_SOURCE_PORT),
    destination: (U32::REPLY_DESTINATION, U16::REPLY_DESTINATION_PORT),
};

impl Direction {
    fn get(&self, object: &Object) -> Option<Tuple> {
        if object.u8(self.family)? != FAMILY {
            return None;
        }
        let side = |(address, port): (U32, U16)| {
            let address = Ipv4Addr::from_bits(u32::from_be(object.u32(address)?));
            Some(SocketAddrV4::new(address, u16::from_be(object.u16(port)?)))
        };
        let protocol = Protocol::from_number(object.u8(self.protocol)?)?;
        Some(Tuple::new(protocol, side(self.source)?, side(self.destination)?))
    }

    fn set(&self, object: &mut Object, tuple: &Tuple) {
        object.set_u8(self.family, FAMILY).set_u8(self.protocol, tuple.protocol.number());
        for ((address, port), side) in
            [(self.source, tuple.source), (self.destination, tuple.destination)]
        {
            // No tuple has another family: see `get`.
            if let SocketAddr::V4(side) = side {
                object.set_u32(address, side.ip().to_bits().to_be());
            }
            object.set_u16(port, side.port().to_be());
        }
    }
}

/// An object that names a connection by its original tuple; `None` when there is no memory.
pub(super) fn named(original: &Tuple) -> Option<Object> {
    let mut object = Object::new()?;
    ORIGINAL.set(&mut object, original);
    Some(object)
}

/// The original tuple in a message.
pub(super) fn original(message: &[u8]) -> Option<Tuple> {
    ORIGINAL.get(&Object::parse(message)?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::conntrack::ffi::api;
    use crate::netlink::attribute;
    use crate::netlink::message::Header;

    const HEADER: Header = Header { kind: 0x100, flags: 0, sequence: 7 };

    /// A connection of the tests here and beside.
    pub(in crate::conntrack) fn tuple(protocol: Protocol) -> Tuple {
        let side = |address: &str| address.parse().unwrap();
        Tuple { protocol, source: side("192.0.2.1:1024"), destination: side("198.51.100.2:53") }
    }

    /// The message that the kernel would send, with what `more` adds. The library does not write
    /// the number of an entry, so it is appended here.
    fn message(protocol: Protocol, more: impl FnOnce(&mut Object)) -> Vec<u8> {
        let mut object = named(&tuple(protocol)).unwrap();
        REPLY.set(&mut object, &tuple(protocol).invert());
        more(&mut object);
        let mut bytes = Vec::new();
        object.append_to(HEADER, &mut bytes).unwrap();
        append(&mut bytes, 12, &0x1234_5678_u32.to_be_bytes());
        bytes
    }

    fn append(message: &mut Vec<u8>, kind: u16, payload: &[u8]) {
        attribute::append(message, kind, payload);
        set_length(message);
    }

    fn set_length(message: &mut [u8]) {
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
    }

    #[test]
    fn a_tcp_entry_comes_back_as_it_was_built() {
        let bytes = message(Protocol::Tcp, |object| {
            object.set_u32(U32::STATUS, 0x0e).set_u32(U32::TIMEOUT, 77).set_u32(U32::MARK, 9);
            object.set_u8(U8::TCP_STATE, 3).set_u16(U16::ZONE, 5);
            object.set_u8(U8::TCP_FLAGS_ORIGINAL, 8).set_u8(U8::TCP_MASK_ORIGINAL, 8);
            object.set_u8(U8::TCP_FLAGS_REPLY, 8).set_u8(U8::TCP_MASK_REPLY, 8);
        });
        let entry = Entry::decode(&bytes).unwrap();
        assert_eq!(entry.original, tuple(Protocol::Tcp));
        assert_eq!(entry.reply, tuple(Protocol::Tcp).invert());
        assert_eq!(entry.id, 0x1234_5678);
        assert!(entry.status.unwrap().contains(Status::SEEN_REPLY | Status::ASSURED));
        assert_eq!(entry.tcp_state, Some(TcpState::Established));
        assert!(entry.is_liberal() && !entry.knows_acknowledgement());
        assert_eq!((entry.mark, entry.zone), (9, 5));
        assert_eq!(entry.timeout, Some(Duration::from_secs(77)));
        assert!(!entry.has_helper && !entry.has_seqadj && !entry.has_synproxy);
    }

    #[test]
    fn what_a_message_lacks_is_unknown() {
        let entry = Entry::decode(&message(Protocol::Udp, |_| ())).unwrap();
        assert_eq!((entry.tcp_state, entry.timeout), (None, None));
        assert_eq!((entry.mark, entry.zone, entry.tcp_flags), (0, 0, [0; 2]));
    }

    #[test]
    fn flags_and_zones_are_those_of_their_direction() {
        let bytes = message(Protocol::Tcp, |object| {
            object.set_u8(U8::TCP_FLAGS_ORIGINAL, 0x08).set_u8(U8::TCP_MASK_ORIGINAL, 0xff);
            object.set_u8(U8::TCP_FLAGS_REPLY, 0x21).set_u8(U8::TCP_MASK_REPLY, 0xff);
        });
        let entry = Entry::decode(&bytes).unwrap();
        assert_eq!(entry.tcp_flags, [0x08, 0x21]);
        assert!(!entry.is_liberal() && entry.knows_acknowledgement());
        for zone in [U16::ORIGINAL_ZONE, U16::REPLY_ZONE] {
            let bytes = message(Protocol::Udp, |object| {
                object.set_u16(zone, 6);
            });
            assert_eq!(Entry::decode(&bytes).unwrap().zone, 6);
        }
    }

    /// The first of these is a message's attribute, the second is in it.
    fn with(kinds: [u16; 2], value: &[u8; 4]) -> Entry {
        let mut bytes = message(Protocol::Tcp, |_| ());
        let inner = [8_u16.to_ne_bytes(), kinds[1].to_ne_bytes()].concat();
        append(&mut bytes, kinds[0], &[&inner, &value[..]].concat());
        Entry::decode(&bytes).unwrap()
    }

    #[test]
    fn helper_sequence_adjustment_and_syn_proxy_are_noticed() {
        assert!(with([5, 1], b"ftp\0").has_helper && !with([5, 2], &[0; 4]).has_helper);
        for direction in [15, 16] {
            assert!(with([direction, 3], &[0; 4]).has_seqadj);
            assert!(!with([direction, 2], &[1; 4]).has_seqadj);
        }
        for (kind, value, has) in [(1, 1, true), (3, 1, true), (2, 1, false), (1, 0, false)] {
            assert_eq!(with([24, kind], &[value; 4]).has_synproxy, has, "{kind} {value}");
        }
    }

    #[test]
    fn other_families_and_protocols_are_nothing() {
        let mut bytes = message(Protocol::Udp, |_| ());
        bytes[16] = 10;
        assert_eq!(Entry::decode(&bytes), None);
        let bytes = message(Protocol::Udp, |object| {
            object.set_u8(U8::ORIGINAL_PROTOCOL, 132).set_u8(U8::REPLY_PROTOCOL, 132);
        });
        assert_eq!(Entry::decode(&bytes), None);
    }

    #[test]
    fn truncated_messages_are_never_more_than_the_whole() {
        let bytes = message(Protocol::Tcp, |object| {
            object.set_u32(U32::STATUS, 0x0e).set_u8(U8::TCP_STATE, 3);
        });
        for length in 0..bytes.len() {
            let mut cut = bytes[..length].to_vec();
            assert_eq!(Entry::decode(&cut), None, "cut to {length}");
            if length >= 4 {
                set_length(&mut cut);
                assert_eq!(Entry::decode(&cut), None, "cut to {length} with that length");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_crashes(mut bytes: Vec<u8>, at: usize, value: u8) {
            Entry::decode(&bytes);
            if bytes.len() >= 4 {
                set_length(&mut bytes);
                Entry::decode(&bytes);
            }
            let mut bytes = message(Protocol::Tcp, |object| { object.set_u8(U8::TCP_STATE, 3); });
            let at = 4 + at % (bytes.len() - 4);
            bytes[at] = value;
            Entry::decode(&bytes);
        }
    }

    #[test]
    fn the_status_bits_are_the_kernels() {
        let pairs = [
            (Status::EXPECTED, api::IPS_EXPECTED),
            (Status::SEEN_REPLY, api::IPS_SEEN_REPLY),
            (Status::ASSURED, api::IPS_ASSURED),
            (Status::CONFIRMED, api::IPS_CONFIRMED),
            (Status::SRC_NAT, api::IPS_SRC_NAT),
            (Status::DST_NAT, api::IPS_DST_NAT),
            (Status::SEQ_ADJUST, api::IPS_SEQ_ADJUST),
            (Status::DYING, api::IPS_DYING),
            (Status::FIXED_TIMEOUT, api::IPS_FIXED_TIMEOUT),
            (Status::TEMPLATE, api::IPS_TEMPLATE),
            (Status::UNTRACKED, api::IPS_UNTRACKED),
            (Status::HELPER, api::IPS_HELPER),
            (Status::OFFLOAD, api::IPS_OFFLOAD),
            (Status::HW_OFFLOAD, api::IPS_HW_OFFLOAD),
        ];
        for (ours, theirs) in pairs {
            assert_eq!(ours.0, theirs);
        }
    }
}
