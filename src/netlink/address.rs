// SPDX-License-Identifier: GPL-2.0-only
//! The router's own addresses (linux/if_addr.h).

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use super::attribute::{address, attributes, u32_at};
use super::message::Message;
use super::request::Request;
use super::rtnetlink::{AF_INET, AF_INET6, RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR};
use super::socket::Socket;
use crate::error::Result;
use crate::flow::family::Families;

/// struct ifaddrmsg.
const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// One address as the kernel tells it apart from others: the same one may be on two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    local: IpAddr,
    peer: Option<IpAddr>,
    prefix_length: u8,
    ifindex: u32,
}

/// All addresses of all interfaces.
#[derive(Clone, Debug, Default)]
pub struct Addresses(BTreeSet<Entry>);

impl Addresses {
    /// The addresses of this network namespace.
    pub fn dump(socket: &mut Socket, families: Families) -> Result<Self> {
        let request = Request::new(RTM_GETADDR, &[families.number(), 0, 0, 0, 0, 0, 0, 0]);
        socket.dump("reading the addresses", request, Self::default, |addresses, message| {
            addresses.change(message);
        })
    }

    /// Applies RTM_NEWADDR or RTM_DELADDR; true if an address came or went.
    pub fn change(&mut self, message: &Message<'_>) -> bool {
        let Some(entry) = parse(message.payload) else { return false };
        match message.kind {
            RTM_NEWADDR => self.0.insert(entry),
            RTM_DELADDR => self.0.remove(&entry),
            _ => false,
        }
    }

    /// Each address once.
    pub fn local(&self) -> HashSet<IpAddr> {
        self.0.iter().map(|entry| entry.local).collect()
    }
}

fn parse(payload: &[u8]) -> Option<Entry> {
    let &[AF_INET | AF_INET6, prefix_length, ..] = payload else { return None };
    let (mut local, mut peer) = (None, None);
    for (kind, value) in attributes(payload.get(HEADER..)?) {
        match kind {
            IFA_LOCAL => local = address(value),
            IFA_ADDRESS => peer = address(value),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL is always ours. IPv6 has it there
    // only.
    Some(Entry { local: local.or(peer)?, peer, prefix_length, ifindex: u32_at(payload, 4)? })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::address::{AddressAttribute, AddressMessage};

    use super::*;

    fn apply(addresses: &mut Addresses, kind: u16, ifindex: u32, local: IpAddr) -> bool {
        let mut message = AddressMessage::default();
        message.header.index = ifindex;
        (message.header.family, message.attributes) = match local {
            IpAddr::V4(_) => {
                let peer = AddressAttribute::Address([10, 0, 0, 99].into());
                (AddressFamily::Inet, vec![peer, AddressAttribute::Local(local)])
            }
            IpAddr::V6(_) => (AddressFamily::Inet6, vec![AddressAttribute::Address(local)]),
        };
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        addresses.change(&Message { kind, payload: &payload, ..Message::default() })
    }

    #[test]
    fn an_address_on_two_interfaces_goes_with_the_last() {
        for local in ["10.0.0.1", "2001:db8::1"].map(|local| local.parse().unwrap()) {
            let mut addresses = Addresses::default();
            assert!(apply(&mut addresses, RTM_NEWADDR, 1, local));
            assert!(!apply(&mut addresses, RTM_NEWADDR, 1, local));
            assert!(apply(&mut addresses, RTM_NEWADDR, 2, local));
            assert!(apply(&mut addresses, RTM_DELADDR, 1, local));
            assert_eq!(addresses.local(), HashSet::from([local]));
            assert!(apply(&mut addresses, RTM_DELADDR, 2, local));
            assert!(!apply(&mut addresses, RTM_DELADDR, 2, local));
            assert!(addresses.local().is_empty());
        }
    }
}
