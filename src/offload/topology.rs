// SPDX-License-Identifier: GPL-2.0-only
//! The device maps, from what is known of the machine's interfaces.

use std::collections::BTreeMap;

use crate::abi::{self, bpfw_egress, bpfw_link, bpfw_link_key};
use crate::datapath::Hook;
use crate::netlink::link::{Link, Vlan};

/// What the device maps hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Entries of `link_map`.
    pub links: Vec<(bpfw_link_key, bpfw_link)>,
    /// Entries of `egress_map`.
    pub egresses: Vec<(u32, bpfw_egress)>,
}

/// What the devices depend on.
pub struct View<'a> {
    /// The hook.
    pub hook: Hook,
    /// All interfaces of the machine by index.
    pub links: &'a BTreeMap<u32, Link>,
    /// Whether the program is attached to this interface.
    pub attached: &'a dyn Fn(u32) -> bool,
    /// Whether the driver of this interface sends redirected XDP frames.
    pub can_transmit: &'a dyn Fn(&Link) -> bool,
    /// The smallest MTU among the routes through this interface that name one.
    pub route_mtu: &'a dyn Fn(u32) -> Option<u32>,
}

impl View<'_> {
    /// Works the device maps out.
    pub fn devices(&self) -> Devices {
        let mut devices = Devices::default();
        for link in self.links.values() {
            if let Some(entry) = self.ingress(link, devices.links.len()) {
                devices.links.push(entry);
            }
            // Attached to itself as well as being a tag of an attached port.
            if let (Some(vlan), Some(mac)) = (&link.vlan, link.mac) {
                if (self.attached)(vlan.port) && is_l3(link) {
                    let slot = slot(devices.links.len());
                    let value = bpfw_link { ifindex: link.index, slot, mac };
                    devices.links.push((tagged(vlan), value));
                }
            }
            if let Some(egress) = self.egress(link) {
                devices.egresses.push((link.index, egress));
            }
        }
        devices.links.truncate(abi::BPFW_LINK_SLOTS as usize);
        devices.egresses.truncate(abi::BPFW_LINK_SLOTS as usize);
        devices
    }

    /// Frames without a tag belong to the attached interface itself.
    fn ingress(&self, link: &Link, place: usize) -> Option<(bpfw_link_key, bpfw_link)> {
        if !(self.attached)(link.index) || !is_l3(link) {
            return None;
        }
        let key = bpfw_link_key { ifindex: link.index, vlan_id: 0, vlan_proto: 0 };
        Some((key, bpfw_link { ifindex: link.index, slot: slot(place), mac: link.mac? }))
    }

    fn egress(&self, link: &Link) -> Option<bpfw_egress> {
        if !is_l3(link) || link.mac.is_none() || !link.up {
            return None;
        }
        let mtu = (self.route_mtu)(link.index).map_or(link.mtu, |mtu| mtu.min(link.mtu));
        let untagged = bpfw_egress {
            port: link.index,
            mtu,
            flags: abi::BPFW_EGRESS_REDIRECT,
            ..Default::default()
        };
        match (self.hook, &link.vlan) {
            // With an sk_buff, the egress device does all the rest itself: tag, priority, queue.
            (Hook::Tc, _) => Some(untagged),
            (Hook::Xdp, None) => self.takes_xdp(link.index).then_some(untagged),
            // The device would set the tag's priority from a packet's, which XDP cannot know.
            (Hook::Xdp, Some(vlan)) if vlan.has_egress_qos => None,
            (Hook::Xdp, Some(vlan)) => {
                let up = self.links.get(&vlan.port).is_some_and(|port| port.up);
                let tagged = bpfw_egress {
                    port: vlan.port,
                    vlan_id: vlan.id,
                    vlan_proto: vlan.protocol.to_be(),
                    ..untagged
                };
                (up && self.takes_xdp(vlan.port)).then_some(tagged)
            }
        }
    }

    fn takes_xdp(&self, ifindex: u32) -> bool {
        let link = self.links.get(&ifindex);
        (self.attached)(ifindex) && link.is_some_and(|link| (self.can_transmit)(link))
    }
}

/// An interface below a bridge or a bond has no routes of its own.
fn is_l3(link: &Link) -> bool {
    link.ethernet && link.master.is_none()
}

fn slot(place: usize) -> u16 {
    // 0 is no slot; the maps hold fewer than 65,535.
    u16::try_from(place + 1).unwrap_or(u16::MAX)
}

fn tagged(vlan: &Vlan) -> bpfw_link_key {
    bpfw_link_key { ifindex: vlan.port, vlan_id: vlan.id, vlan_proto: vlan.protocol.to_be() }
}
