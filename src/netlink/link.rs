// SPDX-License-Identifier: GPL-2.0-only
//! Network interfaces (rtnetlink(7), linux/if_link.h).

use std::collections::BTreeMap;

use super::attribute::{attributes, find, text, u16_at, u32_at, u64_at};
use super::message::Message;
use super::request::Request;
use super::rtnetlink::{AF_UNSPEC, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK};
use super::socket::{NETLINK_ROUTE, Socket};
use crate::error::Result;

/// struct ifinfomsg.
const HEADER: usize = 16;
const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 1 << 6;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_GROUP: u16 = 27;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_EGRESS_QOS: u16 = 3;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const IFLA_VXLAN_LINK: u16 = 3;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const ETH_P_8021Q: u16 = 0x8100;

/// As many devices may stand on top of one another (`MAX_NEST_DEV` of the kernel).
const DEEPEST: u32 = 8;

/// All links by interface index.
pub type Links = BTreeMap<u32, Link>;

/// A network interface, as far as forwarding depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// What rules may select it by besides (ip-link(8), `group`).
    pub group: u32,
    /// Set up by the administrator (IFF_UP).
    pub up: bool,
    /// Up and with a carrier (IFF_RUNNING, RFC 2863 operational state).
    pub running: bool,
    /// Hardware address; Ethernet only.
    pub mac: Option<[u8; 6]>,
    /// Frames begin with an Ethernet header (ARPHRD_ETHER).
    pub ethernet: bool,
    /// ARPHRD_* of linux/if_arp.h.
    pub hardware: u16,
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// Interface index of the bridge, bond or VRF that this is part of.
    pub master: Option<u32>,
    /// The master's kind, as its driver registers it: bridge, bond, team, openvswitch, vrf, ...
    pub master_kind: Option<String>,
    /// Interface index of the device that this one stands on, if that is in this network namespace.
    /// It is the parent of a VLAN or macvlan, or the underlay of a VXLAN.
    pub lower: Option<u32>,
    /// The tag, for a VLAN interface whose port is in this network namespace. A link of the kind
    /// `vlan` without it cannot be resolved.
    pub vlan: Option<Vlan>,
    /// The driver's rtnetlink name (veth, bridge, vlan, macvlan, ...); hardware has none.
    pub kind: Option<String>,
}

/// How many devices there are below this one, along the longest way. A device that stands on another
/// one always has more below it.
pub fn depth(links: &Links, index: u32) -> u32 {
    depth_within(links, index, DEEPEST)
}

fn depth_within(links: &Links, index: u32, limit: u32) -> u32 {
    if limit == 0 {
        return 0;
    }
    let below = neighbors(links, index, is_above);
    below.map(|link| 1 + depth_within(links, link.index, limit - 1)).max().unwrap_or(0)
}

/// The devices directly above this one or below it.
pub fn stacked_with(links: &Links, index: u32) -> impl Iterator<Item = &Link> {
    neighbors(links, index, |one, other| is_above(one, other) || is_above(other, one))
}

fn neighbors(
    links: &Links,
    index: u32,
    wanted: impl Fn(&Link, &Link) -> bool,
) -> impl Iterator<Item = &Link> {
    let own = links.get(&index);
    links.values().filter(move |other| own.is_some_and(|own| wanted(own, other)))
}

/// Bridges, bonds and VRFs stand above their ports.
fn is_above(upper: &Link, lower: &Link) -> bool {
    upper.lower == Some(lower.index) || lower.master == Some(upper.index)
}

impl Link {
    /// The VRF whose table routes this interface's packets.
    pub fn vrf(&self) -> Option<u32> {
        self.master.filter(|_| self.master_kind.as_deref() == Some("vrf"))
    }

    /// It has routes of its own: its packets are not those of a bridge or bond.
    pub fn is_routed(&self) -> bool {
        self.master.is_none() || self.vrf().is_some()
    }
}

/// Where a VLAN interface's frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Interface index of the port that carries the tagged frames.
    pub port: u32,
    /// VLAN identifier, 0..=4095, in the machine's byte order.
    pub id: u16,
    /// Tag protocol in the machine's byte order: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub protocol: u16,
    /// Priorities are mapped to the tag's PCP bits.
    pub has_egress_qos: bool,
}

/// What a link message did to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing that is kept.
    Unchanged,
    /// A new link: no packet goes another way.
    New,
    /// Packets may have to go another way.
    Forwarding,
    /// As `Forwarding`: this interface was set down or is gone, and its routes with it.
    Down(u32),
}

/// All links of this network namespace.
pub(super) fn dump(socket: &mut Socket) -> Result<Links> {
    let request = request(0).with(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    socket.dump("reading the links", request, Links::new, |links, message| {
        change(links, message);
    })
}

/// Asks for a link; for all of them, the index is 0.
fn request(ifindex: u32) -> Request {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    Request::new(RTM_GETLINK, &header)
}

/// Asks interfaces how many frames they have received.
pub struct Counters(Socket);

impl Counters {
    /// In the network namespace of the calling thread.
    pub fn open() -> Result<Self> {
        Socket::open(NETLINK_ROUTE).map(Self)
    }

    /// `rx_packets` of `struct rtnl_link_stats64`, the first field; 0 if the interface has none. What
    /// the driver counts includes frames that native XDP redirects or drops.
    pub fn frames_received(&mut self, ifindex: u32) -> Result<u64> {
        let mut frames = None;
        self.0.ask("reading an interface's counters", request(ifindex), |answer| {
            let attributes = answer.payload.get(HEADER..).unwrap_or_default();
            frames = find(attributes, IFLA_STATS64).and_then(|counters| u64_at(counters, 0));
        })?;
        Ok(frames.unwrap_or(0))
    }
}

/// Applies RTM_NEWLINK or RTM_DELLINK to the table.
pub(super) fn change(links: &mut Links, message: &Message<'_>) -> Outcome {
    // Bridges announce their ports as AF_BRIDGE: that "deletion" is only a port leaving.
    if message.payload.first() != Some(&AF_UNSPEC) {
        return Outcome::Unchanged;
    }
    match message.kind {
        RTM_NEWLINK => parse(message.payload).map_or(Outcome::Unchanged, |link| put(links, link)),
        RTM_DELLINK => match u32_at(message.payload, 4) {
            Some(index) if links.remove(&index).is_some() => Outcome::Down(index),
            _ => Outcome::Unchanged,
        },
        _ => Outcome::Unchanged,
    }
}

fn put(links: &mut Links, link: Link) -> Outcome {
    let Some(old) = links.get_mut(&link.index) else {
        links.insert(link.index, link);
        return Outcome::New;
    };
    let outcome = match () {
        () if *old == link => Outcome::Unchanged,
        () if old.up && !link.up => Outcome::Down(link.index),
        () => Outcome::Forwarding,
    };
    *old = link;
    outcome
}

fn parse(payload: &[u8]) -> Option<Link> {
    let flags = u32_at(payload, 8)?;
    let hardware = u16_at(payload, 2)?;
    let ethernet = hardware == ARPHRD_ETHER;
    let mut link = Link {
        index: u32_at(payload, 4)?,
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
        ethernet,
        hardware,
        ..Link::default()
    };
    let (mut port, mut elsewhere, mut info) = (None, false, None);
    for (kind, value) in attributes(payload.get(HEADER..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_GROUP => link.group = u32_at(value, 0)?,
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_ADDRESS if ethernet => link.mac = value.try_into().ok(),
            IFLA_MASTER => link.master = u32_at(value, 0).filter(|&index| index != 0),
            IFLA_LINK => port = u32_at(value, 0).filter(|&index| index != 0),
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_LINKINFO => info = Some(value),
            _ => {}
        }
    }
    link.master_kind = info.and_then(|info| find(info, IFLA_INFO_SLAVE_KIND)).map(text);
    let data = info.and_then(|info| find(info, IFLA_INFO_DATA));
    link.kind = info.and_then(|info| find(info, IFLA_INFO_KIND)).map(text);
    if elsewhere {
        return Some(link);
    }
    link.lower = match link.kind.as_deref() {
        // This is the other end of a pair.
        Some("veth" | "netkit") => None,
        Some("vxlan") => {
            let underlay = data.and_then(|data| find(data, IFLA_VXLAN_LINK));
            underlay.and_then(|value| u32_at(value, 0)).filter(|&index| index != 0)
        }
        _ => port,
    };
    if let (Some("vlan"), Some(port)) = (link.kind.as_deref(), port) {
        link.vlan = data.and_then(|data| parse_vlan(port, data));
    }
    Some(link)
}

fn parse_vlan(port: u32, data: &[u8]) -> Option<Vlan> {
    Some(Vlan {
        port,
        id: u16_at(find(data, IFLA_VLAN_ID)?, 0)?,
        protocol: match find(data, IFLA_VLAN_PROTOCOL) {
            Some(value) => u16::from_be(u16_at(value, 0)?),
            None => ETH_P_8021Q,
        },
        has_egress_qos: find(data, IFLA_VLAN_EGRESS_QOS).is_some_and(|map| !map.is_empty()),
    })
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
