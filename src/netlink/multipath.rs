// SPDX-License-Identifier: GPL-2.0-only
//! IPv4 routes over several next hops, and by what the kernel spreads packets over them.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;

use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteMessage;

use super::attribute::find;
use super::route::{HEADER, Key, RTA_MULTIPATH};
use super::rtnetlink::{RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE};
use super::socket::{Message, Socket};
use crate::error::{Error, Result};

const POLICY: &str = "/proc/sys/net/ipv4/fib_multipath_hash_policy";

/// The routes with several next hops. The kernel drops some routes without a word (see
/// [`RouteMtus`](super::route::RouteMtus)): those stay until everything is read anew.
#[derive(Clone, Debug, Default)]
pub struct Multipath {
    routes: HashSet<Key>,
}

impl Multipath {
    /// The routes of all tables of this network namespace.
    pub(super) fn dump(socket: &mut Socket) -> Result<Self> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        socket.dump("reading the routes", RTM_GETROUTE, &request, Self::default, |all, message| {
            all.change(message);
        })
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Applies RTM_NEWROUTE or RTM_DELROUTE.
    pub(super) fn change(&mut self, message: &Message<'_>) {
        let Some(key) = Key::of(message.payload) else { return };
        let attributes = message.payload.get(HEADER..).unwrap_or_default();
        let several = find(attributes, RTA_MULTIPATH).is_some();
        match message.kind {
            RTM_NEWROUTE if several => drop(self.routes.insert(key)),
            // One that comes before or behind the others of its key leaves them.
            RTM_NEWROUTE if message.flags & NLM_F_REPLACE != 0 => drop(self.routes.remove(&key)),
            RTM_DELROUTE if several => drop(self.routes.remove(&key)),
            _ => {}
        }
    }
}

/// Whether the kernel chooses among next hops by a packet's addresses alone, as a BPF program's
/// look-up does. By any other policy it may use a hash that the sender's socket or the NIC has
/// left in the packet (`fib_multipath_hash` in net/ipv4/route.c), which look-ups know nothing of.
/// A kernel without the sysctl has no such routes.
pub fn spreads_by_address() -> Result<bool> {
    match fs::read_to_string(POLICY) {
        Ok(text) => Ok(text.trim() == "0"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::system(format!("reading {POLICY}"), error)),
    }
}
