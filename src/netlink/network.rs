// SPDX-License-Identifier: GPL-2.0-only
//! The network as the kernel described it last, and what each message changes in it. No I/O but
//! the first reading.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::BitOrAssign;
use std::time::{Duration, Instant};

use super::address::Addresses;
use super::attribute::u32_at;
use super::link::{self, Links, Outcome};
use super::message::Message;
use super::neighbor::{self, Neighbors};
use super::nexthop::NexthopGroups;
use super::route::{self, RouteFacts};
use super::rtnetlink::*;
use super::rule::{self, RuleFacts};
use super::socket::Socket;
use crate::error::Result;
use crate::flow::family::{Families, Family, PerFamily};

/// Links, addresses, neighbors and routes of this network namespace.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Interfaces by index.
    pub links: Links,
    /// The router's own addresses.
    pub local_addresses: HashSet<IpAddr>,
    /// Valid neighbors.
    pub neighbors: Neighbors,
    /// What matters of routes.
    pub routes: PerFamily<RouteFacts>,
    /// Groups of nexthop objects, which routes may lead to.
    pub groups: NexthopGroups,
    /// What policy rules select by.
    pub rules: PerFamily<RuleFacts>,
    addresses: Addresses,
    /// What is not about links and groups is of these.
    families: Families,
}

/// What happened to the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Packets may have to be forwarded elsewhere or otherwise: look up every next hop again.
    pub forwarding: bool,
    /// More than neighbors: packets may have to leave by another interface.
    pub routing: bool,
    /// What decides whether packets are forwarded at all.
    pub policy: bool,
    /// The links or the route MTUs changed: what was derived from them must be derived anew.
    pub links: bool,
    /// The router's own addresses changed.
    pub addresses: bool,
    /// Qdiscs or TC filters changed.
    pub tc: bool,
    /// Nothing more was waiting.
    pub drained: bool,
}

impl Network {
    /// The router's own addresses alone.
    pub fn read_local_addresses(socket: &mut Socket) -> Result<HashSet<IpAddr>> {
        Ok(Addresses::dump(socket, Families::Both)?.local())
    }
}

impl Changes {
    /// Everything may have changed.
    pub(super) const ALL: Self = Self {
        forwarding: true,
        routing: true,
        policy: true,
        links: true,
        addresses: true,
        tc: true,
        drained: false,
    };
}

impl BitOrAssign for Changes {
    fn bitor_assign(&mut self, other: Self) {
        self.forwarding |= other.forwarding;
        self.routing |= other.routing;
        self.policy |= other.policy;
        self.links |= other.links;
        self.addresses |= other.addresses;
        self.tc |= other.tc;
        self.drained |= other.drained;
    }
}

impl Network {
    /// Nothing is known yet.
    pub(super) fn new(families: Families) -> Self {
        Self { families, ..Self::default() }
    }

    /// Reads everything.
    pub(super) fn read(socket: &mut Socket, families: Families) -> Result<Self> {
        let addresses = Addresses::dump(socket, families)?;
        Ok(Self {
            links: link::dump(socket)?,
            local_addresses: addresses.local(),
            neighbors: neighbor::dump(socket, families)?,
            routes: route::dump(socket, families.number())?,
            groups: NexthopGroups::dump(socket)?,
            rules: rule::dump(socket, families)?,
            addresses,
            families,
        })
    }

    /// Reads the rules again.
    pub(super) fn read_rules(&mut self, socket: &mut Socket) -> Result<()> {
        self.rules = rule::dump(socket, self.families)?;
        Ok(())
    }

    /// Whether routes of IPv6 expired, or events about them did not tell all.
    pub(super) fn must_read_routes(&self, now: Instant) -> bool {
        self.routes.ipv6.must_be_read(now)
    }

    /// How long it is until that holds without an event.
    pub(super) fn until_routes_expire(&self, now: Instant) -> Option<Duration> {
        self.routes.ipv6.until_reading(now)
    }

    /// The MTU of an interface has changed.
    pub(super) fn doubt_mtus(&mut self) {
        self.routes.ipv6.doubt_mtus();
    }

    /// Reads the routes of IPv6 again; `true` if an interface's MTUs changed.
    pub(super) fn read_routes(&mut self, socket: &mut Socket) -> Result<bool> {
        let routes = route::dump(socket, Family::Ipv6.number())?.ipv6;
        let before = std::mem::replace(&mut self.routes.ipv6, routes);
        Ok(!before.has_mtus_of(&self.routes.ipv6))
    }

    /// Whether packets of this family may have a choice among next hops.
    pub fn has_multipath(&self, family: Family) -> bool {
        self.routes[family].any_multipath() || !self.groups.is_empty()
    }

    /// Applies an event. Rules are not kept one by one: whoever calls this reads them again after
    /// RTM_NEWRULE and RTM_DELRULE.
    pub(super) fn apply(&mut self, message: &Message<'_>) -> Changes {
        let mut changes = Changes::default();
        match message.kind {
            RTM_NEWLINK | RTM_DELLINK => return self.apply_link(message),
            RTM_NEWADDR | RTM_DELADDR if self.addresses.change(message) => {
                self.local_addresses = self.addresses.local();
                changes.addresses = true;
                changes.routing = true;
            }
            RTM_NEWNEIGH | RTM_DELNEIGH => {
                // These events come for all families.
                changes.forwarding = neighbor::event(message)
                    .filter(|event| self.families.contains(Family::of(event.key.1)))
                    .is_some_and(|event| neighbor::change(&mut self.neighbors, event));
                // The kernel passes over a next hop whose neighbor has failed (fib_good_nh in
                // net/ipv4/fib_semantics.c), until the entry goes.
                let has_choice = Family::ALL.into_iter().any(|family| self.has_multipath(family));
                changes.forwarding |= message.kind == RTM_DELNEIGH && has_choice;
            }
            RTM_NEWROUTE | RTM_DELROUTE => {
                changes.links = route::change(&mut self.routes, message);
                changes.routing = true;
            }
            // Sysctls: rp_filter, forwarding.
            RTM_NEWRULE | RTM_DELRULE | RTM_NEWNETCONF | RTM_DELNETCONF => {
                changes.routing = true;
                changes.policy = true;
            }
            RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
                self.groups.change(message);
                changes.routing = true;
            }
            RTM_NEWNEXTHOPBUCKET | RTM_DELNEXTHOPBUCKET => changes.routing = true,
            RTM_NEWQDISC | RTM_DELQDISC | RTM_NEWTFILTER | RTM_DELTFILTER => changes.tc = true,
            _ => {}
        }
        changes.forwarding |= changes.routing;
        changes
    }

    fn apply_link(&mut self, message: &Message<'_>) -> Changes {
        let index = u32_at(message.payload, 4);
        let selected_by = |links: &Links| {
            index.and_then(|index| links.get(&index)).map(|link| (link.name.clone(), link.group))
        };
        let before = selected_by(&self.links);
        let outcome = link::change(&mut self.links, message);
        if let Outcome::Down(index) = outcome {
            self.neighbors.retain(|&(ifindex, _), _| ifindex != index);
            self.routes.ipv4.interface_down(index);
            self.routes.ipv6.interface_down(index);
        }
        let routing = matches!(outcome, Outcome::Forwarding | Outcome::Down(_));
        Changes {
            links: outcome != Outcome::Unchanged,
            forwarding: routing,
            routing,
            // Rules may go by names and groups.
            policy: before.is_some() && selected_by(&self.links) != before,
            ..Changes::default()
        }
    }
}
