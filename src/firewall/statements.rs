// SPDX-License-Identifier: GPL-2.0-only
//! Which statements of a firewall look at each packet: nftables' own, and those of xtables that
//! iptables-nft puts into rules.

use std::fmt;

use crate::flow::family::Family;
use crate::netlink::expression::{Expression, Field};
use crate::netlink::ruleset::{Object, Table};

/// Keys and types of linux/netfilter/nf_tables.h.
const NFT_META_LEN: u32 = 0;
const NFT_META_PRIORITY: u32 = 2;
const NFT_META_MARK: u32 = 3;
const NFT_META_PRANDOM: u32 = 24;
const NFT_META_TIME_NS: u32 = 30;
const NFT_META_TIME_HOUR: u32 = 32;
const NFT_CT_MARK: u32 = 3;
const NFT_CT_PKTS: u32 = 14;
const NFT_CT_AVGPKT: u32 = 16;
const LINK_LAYER_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const TCPOPT_MAXSEG: u8 = 2;
const NFT_OBJECT_QUOTA: u32 = 2;
const NFT_OBJECT_LIMIT: u32 = 4;
const NFT_OBJECT_CONNLIMIT: u32 = 5;

/// What such a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Counts bytes against a quota.
    Quota,
    /// Limits a rate.
    Limit,
    /// Limits the number of connections.
    ConnectionLimit,
    /// Hands packets to a program.
    Queue,
    /// Asks for the time or the day.
    Time,
    /// Sets a packet's or a connection's mark.
    Mark,
    /// Sets a packet's class for queueing.
    Priority,
    /// Changes the packet: DSCP, TTL, options.
    Rewrite,
    /// Chooses at random, or in turn.
    Random,
    /// Notes packets in a set, or when the last one came.
    SetUpdate,
    /// Asks how much a connection has transferred.
    Volume,
    /// Sends a copy elsewhere.
    Copy,
    /// Takes packets away from conntrack.
    Untrack,
    /// Decides by what differs from packet to packet of a connection.
    Field,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quota => "quotas",
            Self::Limit => "rate limits",
            Self::ConnectionLimit => "connection limits",
            Self::Queue => "queues to programs",
            Self::Time => "time or day",
            Self::Mark => "set marks",
            Self::Priority => "set priorities",
            Self::Rewrite => "changed packets (DSCP, TTL, options)",
            Self::Random => "random choices",
            Self::SetUpdate => "sets updated by packets",
            Self::Volume => "a connection's packets or bytes",
            Self::Copy => "copied packets",
            Self::Untrack => "untracked packets",
            Self::Field => "verdicts by a packet's length, TTL, DSCP, flags, options or payload",
        })
    }
}

/// Whether the field may differ between two packets of this family that the fast path forwards in the
/// same direction of a connection.
pub(super) fn differs_by_packet(field: Field, family: Family) -> bool {
    match field {
        Field::Meta(key) => [NFT_META_LEN, NFT_META_PRIORITY].contains(&key),
        // Version, protocol, addresses.
        Field::Payload { base: NETWORK_HEADER, offset, length } => {
            let (known, addresses) = match family {
                Family::Ipv4 => (&[0, 9][..], 12),
                // The version shares its byte with half of the traffic class.
                Family::Ipv6 => (&[6][..], 8),
            };
            !(length == 1 && known.contains(&offset)) && offset < addresses
        }
        // Ports.
        Field::Payload { base: TRANSPORT_HEADER, offset, length } => offset + length > 4,
        // MAC addresses: only the receiver's is the same for all, the router's own.
        Field::Payload { base: LINK_LAYER_HEADER, offset, length } => {
            offset < 12 && offset + length > 6
        }
        Field::Payload { .. } | Field::Option(_) => true,
        Field::Ct(_) => false,
    }
}

/// The same for what a match of xtables looks at.
pub(super) fn matches_packet(name: &str) -> bool {
    let all = ["bpf", "dscp", "ecn", "length", "mac", "physdev", "string", "tcpmss", "tos", "u32"];
    let of_one_family = ["ttl", "hl", "eui64"];
    all.contains(&name) || of_one_family.contains(&name)
}

impl Kind {
    /// Whether it changes what is offloaded; of the others bpfw only warns.
    pub(super) fn decides(self) -> bool {
        [Self::Copy, Self::Mark].contains(&self)
    }
}

/// What an expression does, if it looks at each packet. A verdict is no such thing by itself.
pub(super) fn kinds(expression: &Expression, table: &Table, objects: &[Object]) -> Vec<Kind> {
    let of_table = objects.iter().filter(|object| object.table == *table);
    match expression {
        Expression::Load { field, .. } => by_field(*field).into_iter().collect(),
        Expression::Store(field) => by_store(*field).into_iter().collect(),
        Expression::Object(Some(kind)) => by_object(*kind).into_iter().collect(),
        // Whichever the map may choose.
        Expression::Object(None) => of_table.filter_map(|object| by_object(object.kind)).collect(),
        Expression::Other(name) => by_name(name).into_iter().collect(),
        Expression::XtMatch(name) => by_match(name).into_iter().collect(),
        Expression::XtTarget(name) => by_target(name).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn by_field(field: Field) -> Option<Kind> {
    match field {
        Field::Meta(NFT_META_TIME_NS..=NFT_META_TIME_HOUR) => Some(Kind::Time),
        Field::Meta(NFT_META_PRANDOM) => Some(Kind::Random),
        Field::Ct(NFT_CT_PKTS..=NFT_CT_AVGPKT) => Some(Kind::Volume),
        _ => None,
    }
}

fn by_store(field: Field) -> Option<Kind> {
    match field {
        Field::Meta(NFT_META_MARK) | Field::Ct(NFT_CT_MARK) => Some(Kind::Mark),
        Field::Meta(NFT_META_PRIORITY) => Some(Kind::Priority),
        // Only packets with SYN have it.
        Field::Option(TCPOPT_MAXSEG) => None,
        Field::Payload { .. } | Field::Option(_) => Some(Kind::Rewrite),
        Field::Meta(_) | Field::Ct(_) => None,
    }
}

fn by_object(kind: u32) -> Option<Kind> {
    match kind {
        NFT_OBJECT_QUOTA => Some(Kind::Quota),
        NFT_OBJECT_LIMIT => Some(Kind::Limit),
        NFT_OBJECT_CONNLIMIT => Some(Kind::ConnectionLimit),
        _ => None,
    }
}

fn by_name(name: &str) -> Option<Kind> {
    match name {
        "quota" => Some(Kind::Quota),
        "limit" => Some(Kind::Limit),
        "connlimit" => Some(Kind::ConnectionLimit),
        "queue" => Some(Kind::Queue),
        "numgen" => Some(Kind::Random),
        "dynset" | "last" => Some(Kind::SetUpdate),
        "dup" => Some(Kind::Copy),
        "notrack" => Some(Kind::Untrack),
        _ => None,
    }
}

fn by_match(name: &str) -> Option<Kind> {
    match name {
        "quota" => Some(Kind::Quota),
        "limit" | "hashlimit" | "rateest" => Some(Kind::Limit),
        "connlimit" => Some(Kind::ConnectionLimit),
        "time" => Some(Kind::Time),
        "statistic" => Some(Kind::Random),
        "recent" => Some(Kind::SetUpdate),
        "connbytes" => Some(Kind::Volume),
        _ => None,
    }
}

fn by_target(name: &str) -> Option<Kind> {
    match name {
        "MARK" | "CONNMARK" => Some(Kind::Mark),
        "CLASSIFY" => Some(Kind::Priority),
        "DSCP" | "TOS" | "TTL" | "HL" | "ECN" | "TCPOPTSTRIP" => Some(Kind::Rewrite),
        // Translation that conntrack does not know of (ip6tables).
        "SNPT" | "DNPT" => Some(Kind::Rewrite),
        "NFQUEUE" => Some(Kind::Queue),
        "SET" | "IDLETIMER" | "RATEEST" => Some(Kind::SetUpdate),
        "TEE" => Some(Kind::Copy),
        "NOTRACK" => Some(Kind::Untrack),
        _ => None,
    }
}
