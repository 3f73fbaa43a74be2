// SPDX-License-Identifier: GPL-2.0-only
//! The `mtu` metrics of IPv4 routes (RTAX_MTU, ip-route(8)), which a BPF route look-up does not
//! report unless they are locked.

use std::collections::{BTreeMap, HashMap};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteMessage;

use super::attribute::{attributes, find, u16_at, u32_at};
use super::rtnetlink::{AF_INET, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE};
use super::socket::{Message, Socket};
use crate::error::Result;

pub(super) const HEADER: usize = 12;
const NEXT_HOP_HEADER: usize = 8;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_METRICS: u16 = 8;
pub(super) const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;

/// What the kernel allows several routes to share, when they were appended or prepended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Key {
    table: u32,
    destination: [u8; 4],
    prefix_length: u8,
    tos: u8,
    priority: u32,
}

/// An egress interface (`None`: whatever a nexthop object leads to) and the raw gateway.
type Hop = (Option<u32>, Vec<u8>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Metric {
    mtu: u32,
    hops: Vec<Hop>,
}

/// The routes of one key that have a metric. Which one the kernel uses follows from the order, of
/// which only the first place is known for sure.
#[derive(Clone, Debug, Default)]
struct Routes {
    first: Option<Metric>,
    others: Vec<Metric>,
}

/// The smallest route MTU of each egress interface. Only routes with the metric take memory.
///
/// The kernel drops routes without a word when a preferred source or a nexthop object goes. Such
/// leftovers make an MTU smaller than it needs to be, never larger, until the route comes back or
/// everything is read anew.
#[derive(Clone, Debug, Default)]
pub struct RouteMtus {
    routes: HashMap<Key, Routes>,
    /// How many metrics ask for this MTU on this interface, so that the smallest is found at once.
    users: BTreeMap<(Option<u32>, u32), usize>,
}

impl RouteMtus {
    /// The routes of all tables of this network namespace, one message at a time.
    pub(super) fn dump(socket: &mut Socket) -> Result<Self> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        let doing = "reading the routes";
        let start = || (Self::default(), Key::default());
        socket
            .dump(doing, RTM_GETROUTE, &request, start, |(mtus, last), message| {
                let Some((key, metric)) = parse(message.payload) else { return };
                // Routes with one key come one after the other, in the order of their use.
                let flags = if key == *last { NLM_F_APPEND } else { NLM_F_EXCL };
                *last = key;
                mtus.add(key, metric, flags);
            })
            .map(|(mtus, _)| mtus)
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
        let Some((key, metric)) = parse(message.payload) else { return false };
        match message.kind {
            RTM_NEWROUTE => self.add(key, metric, message.flags),
            RTM_DELROUTE => metric.is_some_and(|metric| self.remove(key, &metric)),
            _ => false,
        }
    }

    /// Forgets routes that lead out of this interface only: the kernel drops them unannounced when
    /// it is set down or removed (fib_sync_down_dev in net/ipv4/fib_semantics.c).
    pub(super) fn interface_down(&mut self, ifindex: u32) -> bool {
        let only_there = |metric: &Metric| metric.hops.iter().all(|hop| hop.0 == Some(ifindex));
        let mut gone = Vec::new();
        self.routes.retain(|_, routes| {
            gone.extend(routes.first.take_if(|metric| only_there(metric)));
            let (down, others) = routes.others.drain(..).partition(only_there);
            routes.others = others;
            gone.extend::<Vec<_>>(down);
            routes.first.is_some() || !routes.others.is_empty()
        });
        gone.iter().fold(false, |changed, metric| self.count(metric, false) | changed)
    }

    /// The flags tell where the route stands among those of its key (fib_table_insert in
    /// net/ipv4/fib_trie.c): alone (EXCL), last (APPEND), instead of the first (REPLACE), or first.
    fn add(&mut self, key: Key, metric: Option<Metric>, flags: u16) -> bool {
        if metric.is_none() && !self.routes.contains_key(&key) {
            return false;
        }
        let routes = self.routes.entry(key).or_default();
        let mut gone = Vec::new();
        let new = metric.clone();
        if flags & NLM_F_APPEND != 0 {
            routes.others.extend(metric);
        } else {
            let first = std::mem::replace(&mut routes.first, metric);
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
        let came = new.is_some_and(|metric| self.count(&metric, true));
        gone.iter().fold(came, |changed, metric| self.count(metric, false) | changed)
    }

    fn remove(&mut self, key: Key, metric: &Metric) -> bool {
        let Some(routes) = self.routes.get_mut(&key) else { return false };
        if routes.first.take_if(|first| first == metric).is_none() {
            let Some(at) = routes.others.iter().position(|other| other == metric) else {
                return false;
            };
            routes.others.swap_remove(at);
        }
        self.drop_if_empty(key);
        self.count(metric, false)
    }

    fn drop_if_empty(&mut self, key: Key) {
        if self.routes.get(&key).is_some_and(|one| one.first.is_none() && one.others.is_empty()) {
            self.routes.remove(&key);
        }
    }

    /// Counts a metric in or out; true if an interface got or lost this MTU.
    fn count(&mut self, metric: &Metric, coming: bool) -> bool {
        let mut changed = false;
        for &(egress, _) in &metric.hops {
            let key = (egress, metric.mtu);
            let users = self.users.entry(key).or_default();
            *users = if coming { *users + 1 } else { users.saturating_sub(1) };
            changed |= *users == usize::from(coming);
            if *users == 0 {
                self.users.remove(&key);
            }
        }
        changed
    }
}

impl Key {
    /// The key of the route that a message is about.
    pub(super) fn of(payload: &[u8]) -> Option<Self> {
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

fn parse(payload: &[u8]) -> Option<(Key, Option<Metric>)> {
    let key = Key::of(payload)?;
    let (mut metrics, mut multipath, mut egress) = (None, None, None);
    let (mut gateway, mut nexthop) = (&[][..], &[][..]);
    for (kind, value) in attributes(payload.get(HEADER..)?) {
        match kind {
            RTA_METRICS => metrics = Some(value),
            RTA_MULTIPATH => multipath = Some(value),
            RTA_OIF => egress = u32_at(value, 0),
            RTA_GATEWAY | RTA_VIA => gateway = value,
            RTA_NH_ID => nexthop = value,
            _ => {}
        }
    }
    let mtu = metrics.and_then(|metrics| u32_at(find(metrics, RTAX_MTU)?, 0));
    let metric = mtu.filter(|&mtu| mtu != 0).map(|mtu| Metric {
        mtu,
        hops: match (multipath.map(next_hops), egress) {
            (Some(hops), _) if !hops.is_empty() => hops,
            (_, Some(egress)) => vec![(Some(egress), gateway.to_vec())],
            // Only a nexthop object is named: any interface may be meant.
            _ => vec![(None, nexthop.to_vec())],
        },
    });
    Some((key, metric))
}

/// The struct rtnexthop's of a multipath route (linux/rtnetlink.h), each with its attributes.
fn next_hops(mut bytes: &[u8]) -> Vec<Hop> {
    let mut hops = Vec::new();
    while let (Some(length), Some(ifindex)) = (u16_at(bytes, 0), u32_at(bytes, 4)) {
        let length = usize::from(length);
        let Some(nested) = bytes.get(NEXT_HOP_HEADER..length) else { break };
        let gateway = find(nested, RTA_GATEWAY).or_else(|| find(nested, RTA_VIA));
        hops.push((Some(ifindex), gateway.unwrap_or_default().to_vec()));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
