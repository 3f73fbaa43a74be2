// SPDX-License-Identifier: GPL-2.0-only
//! Keeps the picture of the network up to date.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::message::messages;
use super::neighbor::Keeper;
pub use super::network::{Changes, Network};
use super::rtnetlink::*;
use super::socket::{NETLINK_ROUTE, Received, Socket};
use crate::error::{Error, Result};
use crate::flow::family::{Families, Family};

/// Of links, neighbors, TC and groups of next hops there is one for all families.
const GROUPS: &[u32] = &[
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_TC,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_NEXTHOP,
];

const GROUPS_OF_IPV6: &[u32] =
    &[RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE, RTNLGRP_IPV6_NETCONF];

/// Bytes of events that may wait: some ten thousand, a burst of route or neighbor changes.
const EVENT_ROOM: usize = 8 << 20;
/// More than fit in there.
const EVENTS_DISCARDED: usize = 1 << 17;
const READING: &str = "reading network changes";

/// The network and the events that change it.
pub struct Monitor {
    families: Families,
    events: Socket,
    keeper: Keeper,
    network: Network,
    /// Events were lost, and the network was not read again yet.
    lost: bool,
    /// Policy rules changed, and were not read again yet.
    rules_changed: bool,
    /// What was applied and not reported yet, because something else failed.
    unreported: Changes,
}

impl Monitor {
    /// Subscribes to changes, and only then reads the network of the calling thread's namespace, so
    /// that nothing is missed in between. It reads what matters to these families.
    pub fn open(families: Families) -> Result<Self> {
        let groups_of_ipv6 =
            if families.contains(Family::Ipv6) { GROUPS_OF_IPV6 } else { Default::default() };
        let groups = [GROUPS, groups_of_ipv6].concat();
        let events = Socket::subscribe(NETLINK_ROUTE, &groups, EVENT_ROOM)?;
        let network = Network::read(&mut Socket::open(NETLINK_ROUTE)?, families)?;
        Ok(Self {
            families,
            events,
            keeper: Keeper::open()?,
            network,
            lost: false,
            rules_changed: false,
            unreported: Changes::default(),
        })
    }

    /// The network as of the last [`read`](Self::read).
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Has the routes of IPv6 read again if some name an MTU: an interface has another one.
    pub fn doubt_mtus(&mut self) {
        self.network.doubt_mtus();
    }

    /// How long it is until [`read`](Self::read) has something to report without an event.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.network.until_routes_expire(now)
    }

    /// Applies what is waiting, until nothing is or the time is over, and what has changed without an
    /// event: routes that expired. If the kernel had to drop
    /// events, everything is read again and counts as changed. After an error, what could not be
    /// read is tried again by the next call, and changes seen meanwhile are reported then.
    pub fn read(&mut self, until: Instant) -> Result<Changes> {
        let mut drained = false;
        while !drained {
            if self.lost {
                self.read_again()?;
            }
            drained = self.read_one()?;
            if Instant::now() >= until {
                break;
            }
        }
        if self.rules_changed {
            self.network.read_rules(&mut Socket::open(NETLINK_ROUTE)?)?;
            self.rules_changed = false;
        }
        if self.network.must_read_routes(Instant::now()) {
            self.unreported |= Changes { forwarding: true, routing: true, ..Changes::default() };
            self.unreported.links |= self.network.read_routes(&mut Socket::open(NETLINK_ROUTE)?)?;
        }
        Ok(Changes { drained, ..std::mem::take(&mut self.unreported) })
    }

    /// Makes the kernel check that a neighbor is still there, as sending to it would; its answer
    /// is not waited for. One that is not valid, or that the kernel does not
    /// resolve itself, is left alone.
    pub fn keep_in_use(&mut self, ifindex: u32, address: IpAddr) -> Result<()> {
        match self.network.neighbors.get(&(ifindex, address)) {
            Some(neighbor) if neighbor.resolved => self.keeper.keep_in_use(ifindex, address),
            _ => Ok(()),
        }
    }

    /// Applies one datagram; true if none is waiting.
    fn read_one(&mut self) -> Result<bool> {
        let Self { network, unreported, .. } = self;
        let received = self.events.receive(|datagram| {
            for message in messages(datagram) {
                let Some(message) = message else {
                    self.lost = true;
                    break;
                };
                *unreported |= network.apply(&message);
                self.rules_changed |= matches!(message.kind, RTM_NEWRULE | RTM_DELRULE);
            }
        });
        let received = received.map_err(|cause| Error::system(READING, cause))?;
        self.lost |= received == Received::Lost;
        Ok(received == Received::Empty)
    }

    /// Events were lost. Those still waiting are older than the lost ones and must not be applied
    /// to what is read now: nothing would correct them.
    fn read_again(&mut self) -> Result<()> {
        self.unreported |= Changes::ALL;
        let discarded = self.events.discard(EVENTS_DISCARDED);
        if !discarded.map_err(|cause| Error::system(READING, cause))? {
            return Err(Error::refused(format!("{READING}: they come faster than they are read")));
        }
        self.network = Network::read(&mut Socket::open(NETLINK_ROUTE)?, self.families)?;
        self.lost = false;
        self.rules_changed = false;
        Ok(())
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
