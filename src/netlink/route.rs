// SPDX-License-Identifier: GPL-2.0-only
//! What matters of IPv4 routes (ip-route(8)) and is not in the answer of a BPF program's look-up:
//! the metric `mtu` (RTAX_MTU) unless it is locked, the type of service, realms, and whether there
//! are several next hops.

use std::collections::{BTreeMap, HashMap};

use super::attribute::{attributes, find, u16_at, u32_at};
use super::message::{Message, NLM_F_APPEND, NLM_F_EXCL, NLM_F_REPLACE};
use super::request::Request;
use super::rtnetlink::{AF_INET, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE};
use super::socket::Socket;
use crate::error::Result;

/// struct rtmsg, struct rtnexthop.
const HEADER: usize = 12;
const NEXT_HOP_HEADER: usize = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_FLOW: u16 = 11;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;

/// What the kernel allows several routes to share, when they were appended or prepended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Key {
    table: u32,
    destination: [u8; 4],
    prefix_length: u8,
    tos: u8,
    priority: u32,
}

/// An egress interface (`None`: whatever a nexthop object leads to) and the raw gateway.
type Hop = (Option<u32>, Vec<u8>);

/// What matters of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Traits {
    /// 0 for none.
    mtu: u32,
    tos: bool,
    realm: bool,
    multipath: bool,
    hops: Vec<Hop>,
}

impl Traits {
    fn matter(&self) -> bool {
        self.mtu != 0 || self.tos || self.realm || self.multipath
    }
}

/// The routes of one key that matter. Which one the kernel uses follows from the order, of which
/// only the first place is known for sure.
#[derive(Clone, Debug, Default)]
struct Routes {
    first: Option<Traits>,
    others: Vec<Traits>,
}

/// What matters of all routes. Others take no memory.
///
/// The kernel drops routes without an event when a preferred source or a nexthop object goes. Such
/// leftovers keep packets with the stack that could be forwarded, never the other way round, until
/// the route comes back or everything is read anew.
#[derive(Clone, Debug, Default)]
pub struct RouteFacts {
    routes: HashMap<Key, Routes>,
    /// How many metrics ask for this MTU on this interface, so that the smallest is found at once.
    users: BTreeMap<(Option<u32>, u32), usize>,
    by_tos: usize,
    with_realms: usize,
    multipath: usize,
}

impl RouteFacts {
    /// The routes of all tables of this network namespace, one message at a time.
    pub(super) fn dump(socket: &mut Socket) -> Result<Self> {
        let mut header = [0; HEADER];
        header[0] = AF_INET;
        let request = Request::new(RTM_GETROUTE, &header);
        let start = || (Self::default(), Key::default());
        socket
            .dump("reading the routes", request, start, |(facts, last), message| {
                let Some((key, traits)) = parse(message.payload) else { return };
                // Routes with one key come one after the other, in the order of their use.
                let flags = if key == *last { NLM_F_APPEND } else { NLM_F_EXCL };
                *last = key;
                facts.add(key, traits, flags);
            })
            .map(|(facts, _)| facts)
    }

    /// Whether the kernel chooses some route by a packet's type of service.
    pub fn any_by_tos(&self) -> bool {
        self.by_tos != 0
    }

    /// Whether some route has a realm (RTA_FLOW).
    pub fn any_with_realm(&self) -> bool {
        self.with_realms != 0
    }

    /// Whether some route has several next hops.
    pub fn any_multipath(&self) -> bool {
        self.multipath != 0
    }

    /// Bytes of the smallest `mtu` metric of routes out of this interface, if any has one.
    pub fn smallest_mtu(&self, ifindex: u32) -> Option<u32> {
        let smallest = |egress| {
            self.users.range((egress, 0)..=(egress, u32::MAX)).next().map(|(key, _)| key.1)
        };
        [smallest(None), smallest(Some(ifindex))].into_iter().flatten().min()
    }

    /// Applies RTM_NEWROUTE or RTM_DELROUTE; true if an interface's MTUs changed.
    pub(super) fn change(&mut self, message: &Message<'_>) -> bool {
        let Some((key, traits)) = parse(message.payload) else { return false };
        match message.kind {
            RTM_NEWROUTE => self.add(key, traits, message.flags),
            RTM_DELROUTE => traits.is_some_and(|traits| self.remove(key, &traits)),
            _ => false,
        }
    }

    /// Forgets routes that lead out of this interface only: the kernel drops them unannounced when
    /// it is set down or removed (fib_sync_down_dev in net/ipv4/fib_semantics.c).
    pub(super) fn interface_down(&mut self, ifindex: u32) -> bool {
        let only_there = |traits: &Traits| traits.hops.iter().all(|hop| hop.0 == Some(ifindex));
        let mut gone = Vec::new();
        self.routes.retain(|_, routes| {
            gone.extend(routes.first.take_if(|traits| only_there(traits)));
            let (down, others) = routes.others.drain(..).partition(only_there);
            routes.others = others;
            gone.extend::<Vec<_>>(down);
            routes.first.is_some() || !routes.others.is_empty()
        });
        gone.iter().fold(false, |changed, traits| self.count(traits, false) | changed)
    }

    /// The flags tell where the route stands among those of its key (fib_table_insert in
    /// net/ipv4/fib_trie.c): alone (EXCL), last (APPEND), instead of the first (REPLACE), or first.
    fn add(&mut self, key: Key, traits: Option<Traits>, flags: u16) -> bool {
        if traits.is_none() && !self.routes.contains_key(&key) {
            return false;
        }
        let routes = self.routes.entry(key).or_default();
        let mut gone = Vec::new();
        let new = traits.clone();
        if flags & NLM_F_APPEND != 0 {
            routes.others.extend(traits);
        } else {
            let first = std::mem::replace(&mut routes.first, traits);
            if flags & (NLM_F_REPLACE | NLM_F_EXCL) != 0 {
                gone.extend(first);
            } else {
                routes.others.extend(first);
            }
            if flags & NLM_F_EXCL != 0 {
                gone.append(&mut routes.others);
            }
        }
        self.drop_if_empty(key);
        let came = new.is_some_and(|traits| self.count(&traits, true));
        gone.iter().fold(came, |changed, traits| self.count(traits, false) | changed)
    }

    fn remove(&mut self, key: Key, traits: &Traits) -> bool {
        let Some(routes) = self.routes.get_mut(&key) else { return false };
        if routes.first.take_if(|first| first == traits).is_none() {
            let Some(at) = routes.others.iter().position(|other| other == traits) else {
                return false;
            };
            routes.others.swap_remove(at);
        }
        self.drop_if_empty(key);
        self.count(traits, false)
    }

    fn drop_if_empty(&mut self, key: Key) {
        if self.routes.get(&key).is_some_and(|one| one.first.is_none() && one.others.is_empty()) {
            self.routes.remove(&key);
        }
    }

    /// Counts a route in or out; true if an interface got or lost this MTU.
    fn count(&mut self, traits: &Traits, coming: bool) -> bool {
        for (number, counts) in [
            (&mut self.by_tos, traits.tos),
            (&mut self.with_realms, traits.realm),
            (&mut self.multipath, traits.multipath),
        ] {
            step(number, counts, coming);
        }
        let mut changed = false;
        for &(egress, _) in traits.hops.iter().filter(|_| traits.mtu != 0) {
            let key = (egress, traits.mtu);
            let users = self.users.entry(key).or_default();
            step(users, true, coming);
            changed |= *users == usize::from(coming);
            if *users == 0 {
                self.users.remove(&key);
            }
        }
        changed
    }
}

/// One more or one less, if this counts.
fn step(number: &mut usize, counts: bool, coming: bool) {
    let step = usize::from(counts);
    *number = if coming { *number + step } else { number.saturating_sub(step) };
}

impl Key {
    /// The key of the route that a message is about.
    fn of(payload: &[u8]) -> Option<Self> {
        let &[AF_INET, prefix_length, _, tos, table, ..] = payload else { return None };
        let mut key = Self { table: table.into(), prefix_length, tos, ..Self::default() };
        for (kind, value) in attributes(payload.get(HEADER..)?) {
            match kind {
                RTA_DST => key.destination = value.try_into().ok()?,
                RTA_TABLE => key.table = u32_at(value, 0)?,
                RTA_PRIORITY => key.priority = u32_at(value, 0)?,
                _ => {}
            }
        }
        Some(key)
    }
}

fn parse(payload: &[u8]) -> Option<(Key, Option<Traits>)> {
    let key = Key::of(payload)?;
    let (mut metrics, mut multipath, mut egress, mut realm) = (None, None, None, false);
    let (mut gateway, mut nexthop) = (&[][..], &[][..]);
    for (kind, value) in attributes(payload.get(HEADER..)?) {
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
    let mtu = metrics.and_then(|metrics| u32_at(find(metrics, RTAX_MTU)?, 0)).unwrap_or(0);
    let traits = Traits {
        mtu,
        tos: key.tos != 0,
        realm: realm || multipath.is_some_and(has_realm),
        multipath: multipath.is_some(),
        hops: match (multipath.map(next_hops), egress) {
            (Some(hops), _) if !hops.is_empty() => hops,
            (_, Some(egress)) => vec![(Some(egress), gateway.to_vec())],
            // Only a nexthop object is named: any interface may be meant.
            _ => vec![(None, nexthop.to_vec())],
        },
    };
    Some((key, Some(traits).filter(Traits::matter)))
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
fn next_hops(multipath: &[u8]) -> Vec<Hop> {
    let hop = |(ifindex, nested)| {
        let gateway = find(nested, RTA_GATEWAY).or_else(|| find(nested, RTA_VIA));
        (Some(ifindex), gateway.unwrap_or_default().to_vec())
    };
    next_hop_parts(multipath).map(hop).collect()
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
