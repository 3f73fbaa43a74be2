// SPDX-License-Identifier: GPL-2.0-only
//! One message about a route (rtnetlink(7)), as far as it matters to forwarding.

use std::net::IpAddr;
use std::time::Duration;

use super::attribute::{address, attributes, find, u16_at, u32_at};
use crate::flow::family::Family;

/// struct rtmsg, with the flags at 8.
pub(super) const HEADER: usize = 12;
const FLAGS_IN_HEADER: usize = 8;
/// struct rtnexthop.
const NEXT_HOP_HEADER: usize = 8;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_FLOW: u16 = 11;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;
/// What the kernel has learned for one destination, and not a route of its own.
const RTM_F_CLONED: u32 = 0x200;
/// In struct rta_cacheinfo: `rta_expires`, behind two 32-bit numbers.
const EXPIRES: usize = 8;
/// The kernel tells times in ticks of USER_HZ, 100 a second on every machine.
const TICK: Duration = Duration::from_millis(10);

/// What the kernel allows several routes to share, when they were appended or prepended. Of IPv6, these
/// are also the routes that become one with several next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) family: Family,
    table: u32,
    destination: Option<IpAddr>,
    /// Only IPv6 has routes for some sources.
    source: Option<IpAddr>,
    prefix_lengths: [u8; 2],
    pub(super) tos: u8,
    priority: u32,
}

/// An egress interface (`None`: whatever a nexthop object leads to) and the raw gateway.
pub(super) type Hop = (Option<u32>, Vec<u8>);

/// What matters of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Traits {
    /// 0 for none. Always 0 of IPv6: there, look-ups and the kernel agree on a route's MTU
    /// (`ip6_mtu_from_fib6`, `ip6_dst_mtu_maybe_forward`).
    pub(super) mtu: u32,
    pub(super) tos: bool,
    pub(super) realm: bool,
    pub(super) multipath: bool,
    pub(super) hops: Vec<Hop>,
}

impl Traits {
    fn matter(&self) -> bool {
        self.mtu != 0 || self.tos || self.realm || self.multipath
    }
}

/// A route as one message describes it.
pub(super) struct Described {
    pub(super) key: Key,
    /// `None` if nothing of it matters.
    pub(super) traits: Option<Traits>,
    /// How long it is valid from now on, if that ends. Only routes of IPv6 end by themselves.
    pub(super) expires_in: Option<Duration>,
}

impl Key {
    /// The key of the route that a message is about.
    fn of(payload: &[u8]) -> Option<Self> {
        let &[family, to, from, tos, table, ..] = payload else { return None };
        let family = Family::from_number(family)?;
        let mut key = Self {
            family,
            table: table.into(),
            destination: None,
            source: None,
            prefix_lengths: [to, from],
            tos,
            priority: 0,
        };
        let address = |value| address(value).filter(|one| Family::of(*one) == family);
        for (kind, value) in attributes(payload.get(HEADER..)?) {
            match kind {
                RTA_DST => key.destination = Some(address(value)?),
                RTA_SRC => key.source = Some(address(value)?),
                RTA_TABLE => key.table = u32_at(value, 0)?,
                RTA_PRIORITY => key.priority = u32_at(value, 0)?,
                _ => {}
            }
        }
        Some(key)
    }
}

/// Reads the message; `None` if it is about no route of ours. A dump of IPv6 also has what the kernel
/// has learned for single destinations, which look-ups and the kernel take from the same place.
pub(super) fn decode(payload: &[u8]) -> Option<Described> {
    let key = Key::of(payload)?;
    let is_ipv6 = key.family == Family::Ipv6;
    if is_ipv6 && u32_at(payload, FLAGS_IN_HEADER)? & RTM_F_CLONED != 0 {
        return None;
    }
    let attributes_of = payload.get(HEADER..)?;
    let traits = Some(traits(&key, attributes_of)).filter(Traits::matter);
    let expires_in = find(attributes_of, RTA_CACHEINFO).filter(|_| is_ipv6).and_then(expires_in);
    Some(Described { key, traits, expires_in })
}

fn traits(key: &Key, bytes: &[u8]) -> Traits {
    let (mut metrics, mut multipath, mut egress, mut realm) = (None, None, None, false);
    let (mut gateway, mut nexthop) = (&[][..], &[][..]);
    for (kind, value) in attributes(bytes) {
        match kind {
            RTA_METRICS => metrics = Some(value),
            RTA_MULTIPATH => multipath = Some(value),
            RTA_OIF => egress = u32_at(value, 0),
            RTA_GATEWAY | RTA_VIA => gateway = value,
            RTA_NH_ID => nexthop = value,
            RTA_FLOW => realm = true,
            _ => {}
        }
    }
    Traits {
        mtu: metrics.and_then(|metrics| u32_at(find(metrics, RTAX_MTU)?, 0)).unwrap_or(0),
        tos: key.tos != 0,
        realm: realm || multipath.is_some_and(has_realm),
        multipath: multipath.is_some(),
        hops: match (multipath.map(next_hops), egress) {
            (Some(hops), _) if !hops.is_empty() => hops,
            (_, Some(egress)) => vec![(Some(egress), gateway.to_vec())],
            // Only a nexthop object is named: any interface may be meant.
            _ => vec![(None, nexthop.to_vec())],
        },
    }
}

/// How long a route is valid; `None` for ever, or if its time is over: look-ups do not find it.
fn expires_in(cacheinfo: &[u8]) -> Option<Duration> {
    let ticks = i32::from_ne_bytes(u32_at(cacheinfo, EXPIRES)?.to_ne_bytes());
    u32::try_from(ticks).ok().filter(|ticks| *ticks != 0).map(|ticks| TICK * ticks)
}

/// Each struct rtnexthop of a multipath route (linux/rtnetlink.h): its interface and attributes.
fn next_hop_parts(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let (length, ifindex) = (usize::from(u16_at(bytes, 0)?), u32_at(bytes, 4)?);
        let nested = bytes.get(NEXT_HOP_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((ifindex, nested))
    })
}

/// Whether one of the next hops has a realm of its own.
fn has_realm(multipath: &[u8]) -> bool {
    next_hop_parts(multipath).any(|(_, nested)| find(nested, RTA_FLOW).is_some())
}

/// The next hops of a multipath route.
pub(super) fn next_hops(multipath: &[u8]) -> Vec<Hop> {
    let hop = |(ifindex, nested)| {
        let gateway = find(nested, RTA_GATEWAY).or_else(|| find(nested, RTA_VIA));
        (Some(ifindex), gateway.unwrap_or_default().to_vec())
    };
    next_hop_parts(multipath).map(hop).collect()
}
