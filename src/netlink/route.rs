// SPDX-License-Identifier: GPL-2.0-only
//! What matters of routes (ip-route(8)) and is not in the answer of a BPF program's look-up. That
//! is the metric `mtu` (RTAX_MTU) unless it is locked, the type of service, and realms. It is also whether there are several next hops, and when the next route of IPv6 expires.
//! Learned path MTUs: `routing_sysctls.rs`.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::message::{Message, NLM_F_APPEND, NLM_F_EXCL, NLM_F_REPLACE};
use super::request::Request;
use super::route_message::{Described, HEADER, Key, Traits, decode};
use super::rtnetlink::{RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE};
use super::socket::Socket;
use crate::error::Result;
use crate::flow::family::{Family, PerFamily};

/// The kernel tells when a route expires in whole ticks of 10 ms, rounded down.
const ROUNDED: Duration = Duration::from_millis(20);

/// The routes of one key that matter. Which one the kernel uses follows from the order, of which
/// only the first place is known for sure.
#[derive(Clone, Debug, Default)]
struct Routes {
    first: Option<Traits>,
    others: Vec<Traits>,
}

/// What matters of all routes of one family. Others take no memory.
///
/// The kernel drops routes without an event when a preferred source or a nexthop object goes. Such
/// leftovers may keep packets with the stack that could be forwarded, never the other way round.
/// They stay until the route comes back or everything is read anew.
#[derive(Clone, Debug, Default)]
pub struct RouteFacts {
    routes: HashMap<Key, Routes>,
    /// How many metrics ask for this MTU on this interface, so that the smallest is found at once.
    users: BTreeMap<(Option<u32>, u32), usize>,
    by_tos: usize,
    with_realms: usize,
    multipath: usize,
    /// Whether an event does not tell what has become of a known route.
    unclear: bool,
    /// When the first of the routes expires. It is known too early if its time was extended or it has gone:
    /// no event tells the former.
    expires_at: Option<Instant>,
}

/// The routes of all tables of this network namespace, one message at a time: of the family with this
/// number, or of both by AF_UNSPEC.
pub(super) fn dump(socket: &mut Socket, family: u8) -> Result<PerFamily<RouteFacts>> {
    let mut header = [0; HEADER];
    header[0] = family;
    let request = Request::new(RTM_GETROUTE, &header);
    let start = || (PerFamily::<RouteFacts>::default(), None);
    let dumped = socket.dump("reading the routes", request, start, |(all, last), message| {
        let Some(route) = decode(message.payload) else { return };
        // Routes with one key come one after the other, in the order of their use.
        let flags = if *last == Some(route.key) { NLM_F_APPEND } else { NLM_F_EXCL };
        *last = Some(route.key);
        let facts = &mut all[route.key.family];
        facts.note_expiry(&route);
        facts.add(route.key, route.traits, flags);
    });
    dumped.map(|(all, _)| all)
}

/// Applies RTM_NEWROUTE or RTM_DELROUTE; true if an interface's MTUs changed.
pub(super) fn change(all: &mut PerFamily<RouteFacts>, message: &Message<'_>) -> bool {
    let Some(route) = decode(message.payload) else { return false };
    all[route.key.family].change(message, route)
}

impl RouteFacts {
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

    pub(super) fn has_mtus_of(&self, other: &Self) -> bool {
        self.users == other.users
    }

    /// The MTU of an interface has changed, and with it the metrics of routes, of which no event tells
    /// (`fib6_nh_mtu_change` in net/ipv6/route.c).
    pub(super) fn doubt_mtus(&mut self) {
        self.unclear |= !self.users.is_empty();
    }

    /// Whether the routes must be read again: one has expired, or events did not tell all.
    pub(super) fn must_be_read(&self, now: Instant) -> bool {
        self.until_reading(now).is_some_and(|wait| wait.is_zero())
    }

    /// How long it is until the routes must be read again, as far as that is known.
    pub(super) fn until_reading(&self, now: Instant) -> Option<Duration> {
        let until_expiry = self.expires_at.map(|at| at.saturating_duration_since(now));
        if self.unclear { Some(Duration::ZERO) } else { until_expiry }
    }

    /// Nothing asks for another reading any more.
    pub(super) fn was_read(&mut self) {
        (self.unclear, self.expires_at) = (false, None);
    }

    fn note_expiry(&mut self, route: &Described) {
        let at = route.expires_in.and_then(|time| Instant::now().checked_add(time + ROUNDED));
        self.expires_at = self.expires_at.into_iter().chain(at).min();
    }

    fn change(&mut self, message: &Message<'_>, route: Described) -> bool {
        // An event of IPv6 names all next hops of a route that gains one, but only the one that a route
        // loses (fib6_del_route in net/ipv6/ip6_fib.c).
        let key = route.key;
        self.unclear |= key.family == Family::Ipv6 && self.routes.contains_key(&key);
        match message.kind {
            RTM_NEWROUTE => {
                self.note_expiry(&route);
                self.add(key, route.traits, message.flags)
            }
            RTM_DELROUTE => route.traits.is_some_and(|traits| self.remove(key, &traits)),
            _ => false,
        }
    }

    /// Forgets routes that lead out of this interface only: the kernel drops them unannounced when
    /// it is set down or removed (fib_sync_down_dev in net/ipv4/fib_semantics.c). A route of IPv6 may live on
    /// with other next hops, and of these with one only.
    pub(super) fn interface_down(&mut self, ifindex: u32) -> bool {
        let is_there = |traits: &Traits| traits.hops.iter().any(|hop| hop.0 == Some(ifindex));
        self.unclear |= self.routes.iter().any(|(key, routes)| {
            key.family == Family::Ipv6 && routes.first.iter().chain(&routes.others).any(is_there)
        });
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
    /// net/ipv4/fib_trie.c). It is alone (EXCL), last (APPEND), in place of the first (REPLACE), or
    /// else the first.
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

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
