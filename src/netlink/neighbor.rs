// SPDX-License-Identifier: GPL-2.0-only
//! Neighbors (linux/neighbour.h, net/core/neighbour.c).

use std::collections::HashMap;
use std::net::IpAddr;

use super::attribute::{address, attributes, u16_at, u32_at};
use super::message::Message;
use super::request::Request;
use super::rtnetlink::{AF_INET, AF_INET6, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH};
use super::socket::{NETLINK_ROUTE, Socket};
use crate::error::Result;
use crate::flow::family::Families;

/// struct ndmsg, with the state at 8 and the flags at 10.
const HEADER: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_FLAGS_EXT: u16 = 15;
const NUD_PERMANENT: u16 = 0x80;
const NUD_NOARP: u16 = 0x40;
/// NUD_VALID of include/net/neighbour.h: REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT.
const NUD_VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | NUD_NOARP | NUD_PERMANENT;
const NTF_USE: u8 = 1 << 0;
const NTF_PROXY: u8 = 1 << 3;
const NTF_EXT_LEARNED: u8 = 1 << 4;
const NTF_EXT_MANAGED: u32 = 1 << 0;

/// Interface index and address.
pub type Key = (u32, IpAddr);

/// Neighbors that frames can be sent to.
pub type Neighbors = HashMap<Key, Neighbor>;

/// A valid neighbor: NUD_REACHABLE, STALE, DELAY, PROBE, PERMANENT or NOARP, with an Ethernet
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The kernel's ARP or neighbor discovery keeps it fresh, when it is used. Not so permanent ones, and not those that
    /// a routing daemon or the kernel itself looks after (NTF_EXT_LEARNED, NTF_EXT_MANAGED).
    pub resolved: bool,
}

/// What a message says about one neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which one.
    pub key: Key,
    /// What it is now; `None`: deleted or not valid.
    pub now: Option<Neighbor>,
}

/// The valid neighbors of this network namespace.
pub(super) fn dump(socket: &mut Socket, families: Families) -> Result<Neighbors> {
    let request = request(RTM_GETNEIGH, families.number(), 0, 0);
    socket.dump("reading the neighbors", request, Neighbors::new, |table, message| {
        if let Some(event) = event(message) {
            change(table, event);
        }
    })
}

fn request(kind: u16, family: u8, ifindex: u32, flags: u8) -> Request {
    let mut header = [0; HEADER];
    header[0] = family;
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[10] = flags;
    Request::new(kind, &header)
}

/// Applies an event. True only if a formerly valid neighbor has another MAC now or is not valid any
/// more. Nothing was forwarded to a new one, and a stale one is as valid as a fresh one.
pub fn change(table: &mut Neighbors, event: Event) -> bool {
    let before = match event.now {
        Some(now) => table.insert(event.key, now),
        None => table.remove(&event.key),
    };
    before.is_some_and(|before| event.now.is_none_or(|now| now.mac != before.mac))
}

/// Reads RTM_NEWNEIGH or RTM_DELNEIGH.
pub(super) fn event(message: &Message<'_>) -> Option<Event> {
    // Bridges report their forwarding table with the same messages, as AF_BRIDGE.
    if !matches!(message.payload.first(), Some(&(AF_INET | AF_INET6))) {
        return None;
    }
    let deleted = match message.kind {
        RTM_NEWNEIGH => false,
        RTM_DELNEIGH => true,
        _ => return None,
    };
    let (state, flags) = (u16_at(message.payload, 8)?, *message.payload.get(10)?);
    if flags & NTF_PROXY != 0 {
        return None;
    }
    let (mut destination, mut mac) = (None, None);
    let mut resolved = flags & NTF_EXT_LEARNED == 0 && state & (NUD_PERMANENT | NUD_NOARP) == 0;
    for (kind, value) in attributes(message.payload.get(HEADER..)?) {
        match kind {
            NDA_DST => destination = address(value),
            NDA_LLADDR => mac = value.try_into().ok(),
            NDA_FLAGS_EXT => resolved &= u32_at(value, 0)? & NTF_EXT_MANAGED == 0,
            _ => {}
        }
    }
    let valid = !deleted && state & NUD_VALID != 0;
    let now = mac.filter(|_| valid).map(|mac| Neighbor { mac, resolved });
    Some(Event { key: (u32_at(message.payload, 4)?, destination?), now })
}

/// Tells the kernel that neighbors are in use, as sending to them would.
pub struct Keeper(Socket);

impl Keeper {
    /// Opens a socket for it.
    pub fn open() -> Result<Self> {
        Socket::open(NETLINK_ROUTE).map(Self)
    }

    /// Makes the kernel probe a stale neighbor; a fresh one stays as it is (NTF_USE). No answer is
    /// waited for. Without NLM_F_CREATE, a neighbor that is gone stays gone.
    ///
    /// Only for neighbors that are [`Neighbor::resolved`]: since Linux 5.16 this request takes
    /// NUD_PERMANENT away, and it clears NTF_EXT_LEARNED and NTF_EXT_MANAGED (neigh_update_flags
    /// in net/core/neighbour.c).
    pub fn keep_in_use(&mut self, ifindex: u32, address: IpAddr) -> Result<()> {
        let request = |family| request(RTM_NEWNEIGH, family, ifindex, NTF_USE);
        let request = match address {
            IpAddr::V4(address) => request(AF_INET).with(NDA_DST, &address.octets()),
            IpAddr::V6(address) => request(AF_INET6).with(NDA_DST, &address.octets()),
        };
        self.0.send_only("keeping a neighbor in use", request)
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    };

    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const KEY: Key = (3, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn message(state: NeighbourState, mac: [u8; 6]) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = KEY.0;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::from(KEY.1)),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        message
    }

    fn read(kind: u16, message: &NeighbourMessage) -> Option<Event> {
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        event(&Message { kind, payload: &payload, ..Message::default() })
    }

    fn apply(table: &mut Neighbors, kind: u16, state: NeighbourState, mac: [u8; 6]) -> bool {
        change(table, read(kind, &message(state, mac)).unwrap())
    }

    #[test]
    fn new_and_refreshed_neighbors_are_no_change() {
        use NeighbourState::{
            Delay, Failed, Incomplete, Noarp, Permanent, Probe, Reachable, Stale,
        };
        let mut table = Neighbors::new();
        assert!(!apply(&mut table, RTM_NEWNEIGH, Incomplete, A));
        assert!(!apply(&mut table, RTM_NEWNEIGH, Failed, A));
        assert!(table.is_empty());
        for state in [Reachable, Stale, Delay, Probe, Noarp, Permanent] {
            assert!(!apply(&mut table, RTM_NEWNEIGH, state, A));
            assert_eq!(table[&KEY].mac, A);
            assert_eq!(table[&KEY].resolved, !matches!(state, Noarp | Permanent));
        }
    }

    #[test]
    fn a_moved_lost_or_deleted_neighbor_is_a_change_once() {
        use NeighbourState::{Failed, Reachable, Stale};
        let mut table = Neighbors::new();
        assert!(!apply(&mut table, RTM_DELNEIGH, Stale, A));
        apply(&mut table, RTM_NEWNEIGH, Reachable, A);
        assert!(apply(&mut table, RTM_NEWNEIGH, Stale, B));
        assert!(!apply(&mut table, RTM_NEWNEIGH, Stale, B));
        assert!(apply(&mut table, RTM_NEWNEIGH, Failed, B));
        assert!(!apply(&mut table, RTM_NEWNEIGH, Failed, B));
        assert!(!apply(&mut table, RTM_NEWNEIGH, Reachable, A));
        assert!(apply(&mut table, RTM_DELNEIGH, Reachable, A));
        assert!(table.is_empty());
    }

    #[test]
    fn others_and_the_looked_after_are_told_apart() {
        let mut proxy = message(NeighbourState::Permanent, A);
        proxy.header.flags = NeighbourFlags::Proxy;
        assert_eq!(read(RTM_NEWNEIGH, &proxy), None);
        let mut bridge = message(NeighbourState::Reachable, A);
        bridge.header.family = AddressFamily::Bridge;
        assert_eq!(read(RTM_NEWNEIGH, &bridge), None);
        let mut learned = message(NeighbourState::Reachable, A);
        learned.header.flags = NeighbourFlags::ExtLearned;
        assert!(!read(RTM_NEWNEIGH, &learned).unwrap().now.unwrap().resolved);
        let mut managed = message(NeighbourState::Reachable, A);
        managed.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        assert!(!read(RTM_NEWNEIGH, &managed).unwrap().now.unwrap().resolved);
    }

    #[test]
    fn a_neighbor_of_ipv6_is_read_as_one_of_ipv4() {
        let mut ipv6 = message(NeighbourState::Reachable, A);
        ipv6.header.family = AddressFamily::Inet6;
        ipv6.attributes[0] = NeighbourAttribute::Destination(Ipv6Addr::LOCALHOST.into());
        let event = read(RTM_NEWNEIGH, &ipv6).unwrap();
        assert_eq!(event.key, (3, Ipv6Addr::LOCALHOST.into()));
        assert_eq!(event.now, Some(Neighbor { mac: A, resolved: true }));
    }

    #[test]
    fn a_valid_neighbor_without_an_ethernet_address_is_none() {
        let mut tunnel = message(NeighbourState::Noarp, A);
        tunnel.attributes.pop();
        assert_eq!(read(RTM_NEWNEIGH, &tunnel), Some(Event { key: KEY, now: None }));
    }
}
