// SPDX-License-Identifier: GPL-2.0-only
//! The network as the kernel described it last, and what each message changes in it. No I/O but
//! the first reading.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::BitOrAssign;

use super::address::Addresses;
use super::attribute::u32_at;
use super::link::{self, Links, Outcome};
use super::message::Message;
use super::neighbor::{self, Neighbors};
use super::nexthop::NexthopGroups;
use super::route::RouteFacts;
use super::rtnetlink::*;
use super::rule::RuleFacts;
use super::socket::Socket;
use crate::error::Result;

/// Links, addresses, neighbors and routes of this network namespace.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Interfaces by index.
    pub links: Links,
    /// The router's own addresses; IPv4 only so far, as is all that follows.
    pub local_addresses: HashSet<IpAddr>,
    /// Valid neighbors.
    pub neighbors: Neighbors,
    /// What matters of routes.
    pub routes: RouteFacts,
    /// Groups of nexthop objects, which routes may lead to.
    pub groups: NexthopGroups,
    /// What policy rules select by.
    pub rules: RuleFacts,
    addresses: Addresses,
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
    /// Reads everything.
    pub(super) fn read(socket: &mut Socket) -> Result<Self> {
        let addresses = Addresses::dump(socket)?;
        Ok(Self {
            links: link::dump(socket)?,
            local_addresses: addresses.local(),
            neighbors: neighbor::dump(socket)?,
            routes: RouteFacts::dump(socket)?,
            groups: NexthopGroups::dump(socket)?,
            rules: RuleFacts::dump(socket)?,
            addresses,
        })
    }

    /// Whether packets may have a choice among next hops.
    pub fn has_multipath(&self) -> bool {
        self.routes.any_multipath() || !self.groups.is_empty()
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
                    .filter(|event| event.key.1.is_ipv4())
                    .is_some_and(|event| neighbor::change(&mut self.neighbors, event));
                // The kernel passes over a next hop whose neighbor has failed (fib_good_nh in
                // net/ipv4/fib_semantics.c), until the entry goes.
                changes.forwarding |= message.kind == RTM_DELNEIGH && self.has_multipath();
            }
            RTM_NEWROUTE | RTM_DELROUTE => {
                changes.links = self.routes.change(message);
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
            self.routes.interface_down(index);
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
