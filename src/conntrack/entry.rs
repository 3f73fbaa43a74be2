// SPDX-License-Identifier: GPL-2.0-only
//! A conntrack entry as a plain value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::ffi::{Address, Object, Text, U8, U16, U32};
use crate::flow::family::Family;
use crate::flow::state::{Status, TcpState};
use crate::flow::tuple::{Protocol, Tuple};

/// Conntrack's flag of a direction whose window is not checked.
pub(super) const BE_LIBERAL: u8 = 0x08;
/// Conntrack's flag of a direction whose last acknowledgement it knows.
pub(super) const MAXACK_SET: u8 = 0x20;

/// One connection as conntrack knows it.
///
/// A reply to a request and an entry of a dump tell everything. An update event tells what has
/// changed and some more. `tcp_state`, `tcp_flags`, `has_seqadj` and `has_synproxy` may be missing
/// from it. A destroy event has no timeout either.
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

    /// Decodes one conntrack message; `None` unless it is a whole one about TCP or UDP.
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
    source: End,
    destination: End,
}

/// The attributes of one end: its address by family, of which one is set, and its port.
struct End {
    ipv4: U32,
    ipv6: Address,
    port: U16,
}

const ORIGINAL: Direction = Direction {
    family: U8::ORIGINAL_FAMILY,
    protocol: U8::ORIGINAL_PROTOCOL,
    source: End {
        ipv4: U32::ORIGINAL_SOURCE,
        ipv6: Address::ORIGINAL_SOURCE,
        port: U16::ORIGINAL_SOURCE_PORT,
    },
    destination: End {
        ipv4: U32::ORIGINAL_DESTINATION,
        ipv6: Address::ORIGINAL_DESTINATION,
        port: U16::ORIGINAL_DESTINATION_PORT,
    },
};

const REPLY: Direction = Direction {
    family: U8::REPLY_FAMILY,
    protocol: U8::REPLY_PROTOCOL,
    source: End {
        ipv4: U32::REPLY_SOURCE,
        ipv6: Address::REPLY_SOURCE,
        port: U16::REPLY_SOURCE_PORT,
    },
    destination: End {
        ipv4: U32::REPLY_DESTINATION,
        ipv6: Address::REPLY_DESTINATION,
        port: U16::REPLY_DESTINATION_PORT,
    },
};

impl Direction {
    fn get(&self, object: &Object) -> Option<Tuple> {
        let family = Family::from_number(object.u8(self.family)?)?;
        let protocol = Protocol::from_number(object.u8(self.protocol)?)?;
        let end = |end: &End| end.get(object, family);
        Some(Tuple::new(protocol, end(&self.source)?, end(&self.destination)?))
    }

    fn set(&self, object: &mut Object, tuple: &Tuple) {
        let family = tuple.family().number();
        object.set_u8(self.family, family).set_u8(self.protocol, tuple.protocol.number());
        self.source.set(object, tuple.source);
        self.destination.set(object, tuple.destination);
    }
}

impl End {
    fn get(&self, object: &Object, family: Family) -> Option<SocketAddr> {
        let address: IpAddr = match family {
            Family::Ipv4 => Ipv4Addr::from_bits(u32::from_be(object.u32(self.ipv4)?)).into(),
            Family::Ipv6 => Ipv6Addr::from(object.address(self.ipv6)?).into(),
        };
        Some(SocketAddr::new(address, u16::from_be(object.u16(self.port)?)))
    }

    fn set(&self, object: &mut Object, end: SocketAddr) {
        match end.ip() {
            IpAddr::V4(address) => object.set_u32(self.ipv4, address.to_bits().to_be()),
            IpAddr::V6(address) => object.set_address(self.ipv6, address.octets()),
        };
        object.set_u16(self.port, end.port().to_be());
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

    /// The same in IPv6.
    pub(in crate::conntrack) fn tuple6(protocol: Protocol) -> Tuple {
        let side = |address: &str| address.parse().unwrap();
        let (source, destination) = ("[2001:db8::1]:1024", "[2001:db8:2::2]:53");
        Tuple { protocol, source: side(source), destination: side(destination) }
    }

    /// The message that the kernel would send, with what `more` adds. The library does not write
    /// the number of an entry, so it is appended here.
    fn message(protocol: Protocol, more: impl FnOnce(&mut Object)) -> Vec<u8> {
        message_about(tuple(protocol), more)
    }

    fn message_about(tuple: Tuple, more: impl FnOnce(&mut Object)) -> Vec<u8> {
        let mut object = named(&tuple).unwrap();
        REPLY.set(&mut object, &tuple.invert());
        more(&mut object);
        let mut bytes = Vec::new();
        object.append_to(tuple.family(), HEADER, &mut bytes).unwrap();
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
    fn hazard_42_an_entry_of_ipv6_comes_back_as_it_was_built() {
        for tuple in [Protocol::Tcp, Protocol::Udp].map(tuple6) {
            let bytes = message_about(tuple, |object| {
                object.set_u32(U32::STATUS, 0x0e).set_u32(U32::TIMEOUT, 77);
            });
            let entry = Entry::decode(&bytes).unwrap();
            assert_eq!((entry.original, entry.reply), (tuple, tuple.invert()));
            assert_eq!((entry.id, entry.timeout), (0x1234_5678, Some(Duration::from_secs(77))));
            for length in 0..bytes.len() {
                let mut cut = bytes[..length].to_vec();
                if length >= 4 {
                    set_length(&mut cut);
                }
                assert_eq!(Entry::decode(&cut), None, "cut to {length}");
            }
        }
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
        for family in [0, 1, 7, 10] {
            bytes[16] = family;
            assert_eq!(Entry::decode(&bytes), None, "its addresses are of IPv4");
        }
        let mut bytes = message_about(tuple6(Protocol::Udp), |_| ());
        bytes[16] = 2;
        assert_eq!(Entry::decode(&bytes), None, "its addresses are of IPv6");
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
