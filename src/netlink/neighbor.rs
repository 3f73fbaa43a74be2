// SPDX-License-Identifier: GPL-2.0-only
//! IPv4 neighbours (linux/neighbour.h, net/core/neighbour.c).

use std::collections::HashMap;
use std::net::Ipv4Addr;

use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};

use super::rtnetlink::{AF_INET, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH};
use super::socket::{Message, Socket};
use crate::error::Result;

/// Interface index and address.
pub type Key = (u32, Ipv4Addr);

/// Neighbours that frames can be sent to.
pub type Neighbors = HashMap<Key, Neighbor>;

/// A valid neighbour: NUD_REACHABLE, STALE, DELAY, PROBE, PERMANENT or NOARP, with an Ethernet
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The kernel's ARP keeps it fresh, when it is used. Not so permanent ones, and not those that
    /// a routing daemon or the kernel itself looks after (NTF_EXT_LEARNED, NTF_EXT_MANAGED).
    pub resolved: bool,
}

/// What a message says about one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which one.
    pub key: Key,
    /// What it is now; `None`: deleted or not valid.
    pub now: Option<Neighbor>,
}

/// The valid neighbours of this network namespace.
pub(super) fn dump(socket: &mut Socket) -> Result<Neighbors> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Inet;
    let doing = "reading the neighbours";
    socket.dump(doing, RTM_GETNEIGH, &request, Neighbors::new, |table, message| {
        if let Some(event) = event(message) {
            change(table, event);
        }
    })
}

/// Applies an event. True only if a formerly valid neighbour has another MAC now or is not valid
/// any more: nothing was forwarded to one that is new, and a fresh or stale one is the same.
pub fn change(table: &mut Neighbors, event: Event) -> bool {
    let before = match event.now {
        Some(now) => table.insert(event.key, now),
        None => table.remove(&event.key),
    };
    before.is_some_and(|before| event.now.is_none_or(|now| now.mac != before.mac))
}

/// Reads RTM_NEWNEIGH or RTM_DELNEIGH of an IPv4 neighbour.
pub(super) fn event(message: &Message<'_>) -> Option<Event> {
    // Bridges report their forwarding table with the same messages, as AF_BRIDGE.
    if message.payload.first() != Some(&AF_INET) {
        return None;
    }
    let deleted = match message.kind {
        RTM_NEWNEIGH => false,
        RTM_DELNEIGH => true,
        _ => return None,
    };
    let neighbor = NeighbourMessage::parse(message.payload).ok()?;
    if neighbor.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    let mut resolved = !neighbor.header.flags.contains(NeighbourFlags::ExtLearned)
        && !matches!(neighbor.header.state, NeighbourState::Permanent | NeighbourState::Noarp);
    for attribute in &neighbor.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(value)) => {
                address = Some(*value);
            }
            NeighbourAttribute::LinkLayerAddress(value) => mac = value.as_slice().try_into().ok(),
            NeighbourAttribute::ExtFlags(flags) => {
                resolved &= !flags.contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    let valid = !deleted && is_valid(neighbor.header.state);
    let now = mac.filter(|_| valid).map(|mac| Neighbor { mac, resolved });
    Some(Event { key: (neighbor.header.ifindex, address?), now })
}

/// NUD_VALID of include/net/neighbour.h.
fn is_valid(state: NeighbourState) -> bool {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    matches!(state, Reachable | Stale | Delay | Probe | Permanent | Noarp)
}

/// Tells the kernel that neighbours are in use, as sending to them would.
pub struct Keeper(Socket);

impl Keeper {
    /// Opens a socket for it.
    pub fn open() -> Result<Self> {
        Socket::open().map(Self)
    }

    /// Makes the kernel probe a stale neighbour; a fresh one stays as it is (NTF_USE). No answer is
    /// waited for. Without NLM_F_CREATE, a neighbour that is gone stays gone.
    ///
    /// Only for neighbours that are [`Neighbor::resolved`]: since Linux 5.16 this request takes
    /// NUD_PERMANENT away, and it clears NTF_EXT_LEARNED and NTF_EXT_MANAGED (neigh_update_flags
    /// in net/core/neighbour.c).
    pub fn keep_in_use(&mut self, ifindex: u32, address: Ipv4Addr) -> Result<()> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Inet;
        request.header.ifindex = ifindex;
        request.header.flags = NeighbourFlags::Use;
        request.attributes.push(NeighbourAttribute::Destination(address.into()));
        self.0.send_only("keeping a neighbour in use", RTM_NEWNEIGH, &request)
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    const KEY: Key = (3, Ipv4Addr::new(10, 0, 0, 2));
    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn message(state: NeighbourState, mac: [u8; 6]) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = KEY.0;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(KEY.1.into()),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        message
    }

    fn read(kind: u16, message: &NeighbourMessage) -> Option<Event> {
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        event(&Message { kind, flags: 0, sequence: 0, payload: &payload })
    }

    fn apply(table: &mut Neighbors, kind: u16, state: NeighbourState, mac: [u8; 6]) -> bool {
        change(table, read(kind, &message(state, mac)).unwrap())
    }

    #[test]
    fn new_and_refreshed_neighbours_are_no_change() {
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
    fn a_moved_lost_or_deleted_neighbour_is_a_change_once() {
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
    fn a_valid_neighbour_without_an_ethernet_address_is_none() {
        let mut tunnel = message(NeighbourState::Noarp, A);
        tunnel.attributes.pop();
        assert_eq!(read(RTM_NEWNEIGH, &tunnel), Some(Event { key: KEY, now: None }));
    }
}
