// SPDX-License-Identifier: GPL-2.0-only
//! The device maps, from what is known of the machine's interfaces.

use std::collections::{BTreeMap, HashSet};

use crate::abi::{self, bpfw_egress, bpfw_link, bpfw_link_key};
use crate::datapath::Hook;
use crate::flow::family::Family;
use crate::netlink::link::{Link, Vlan};
use crate::netlink::link_layer::LinkLayer;
use crate::reasons::interface::Problem;

/// What the device maps hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Entries of `link_map`.
    pub links: Vec<(bpfw_link_key, bpfw_link)>,
    /// Entries of `egress_map`.
    pub egresses: Vec<(u32, bpfw_egress)>,
    /// How many interfaces found no room: they are in neither map.
    pub without_room: usize,
}

impl Devices {
    /// What the user should know about interfaces that found no room in maps of this size.
    pub fn warning(&self, room: usize) -> Option<String> {
        (self.without_room != 0).then(|| {
            let line = Problem::NoRoom.reason().line_about(format!("{room} entries"));
            format!("packets of {} interfaces stay with the stack: {line}", self.without_room)
        })
    }
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
    pub can_transmit: &'a dyn Fn(u32) -> bool,
    /// The smallest MTU among the routes of a family through this interface that name one.
    pub route_mtu: &'a dyn Fn(Family, u32) -> Option<u32>,
    /// The interface's MTU for IPv6, where that is another one.
    pub mtu6: &'a dyn Fn(&Link) -> Option<u32>,
    /// Whether something at this interface must see all of its packets.
    pub left_out: &'a dyn Fn(u32) -> bool,
    /// How many entries either map can have.
    pub room: usize,
}

impl View<'_> {
    /// Works the device maps out.
    pub fn devices(&self) -> Devices {
        let mut devices = Devices::default();
        for link in self.links.values().filter(|link| !self.is_left_out(link)) {
            // A VLAN may be attached to as well as its port.
            let links: Vec<_> = self.ingress(link).into_iter().chain(self.by_tag(link)).collect();
            let egress = self.egress(link).map(|egress| (link.index, egress));
            // The way out looks the way in up: what comes in here may leave by another interface.
            let comes_in = !links.is_empty() || self.is_vrf_in_use(link);
            let egress =
                egress.or_else(|| comes_in.then_some((link.index, bpfw_egress::default())));
            let fits = devices.links.len() + links.len() <= self.room
                && devices.egresses.len() + usize::from(egress.is_some()) <= self.room;
            // In both maps or in none: half an interface would only send, or only receive.
            if fits {
                devices.links.extend(links);
                devices.egresses.extend(egress);
            } else {
                devices.without_room += 1;
            }
        }
        devices
    }

    /// At the way out, what came in at a VRF's port is the VRF's.
    fn is_vrf_in_use(&self, link: &Link) -> bool {
        let is_port = |port: &Link| port.vrf() == Some(link.index) && self.is_named(port);
        link.kind.as_deref() == Some("vrf") && self.links.values().any(is_port)
    }

    /// A VLAN's packets pass its port as well.
    fn is_left_out(&self, link: &Link) -> bool {
        (self.left_out)(link.index) || link.vlan.is_some_and(|vlan| (self.left_out)(vlan.port))
    }

    /// Frames without a tag belong to the attached interface itself.
    fn ingress(&self, link: &Link) -> Option<(bpfw_link_key, bpfw_link)> {
        if !(self.attached)(link.index) || !self.is_l3(link) {
            return None;
        }
        let key = bpfw_link_key { ifindex: link.index, vlan_id: 0, ..Default::default() };
        Some((key, self.l3_interface(link)?))
    }

    /// Frames with a tag belong to the VLAN interface on the attached port.
    fn by_tag(&self, link: &Link) -> Option<(bpfw_link_key, bpfw_link)> {
        let vlan =
            link.vlan.as_ref().filter(|vlan| (self.attached)(vlan.port) && self.is_l3(link))?;
        Some((tagged(vlan), self.l3_interface(link)?))
    }

    fn egress(&self, link: &Link) -> Option<bpfw_egress> {
        if !self.is_l3(link) || self.mac(link).is_none() || !link.up || !self.is_named(link) {
            return None;
        }
        let of_routes = |family| (self.route_mtu)(family, link.index).unwrap_or(u32::MAX);
        let mtu6 = (self.mtu6)(link).unwrap_or(u32::MAX);
        let untagged = bpfw_egress {
            port: link.index,
            mtu: link.mtu.min(of_routes(Family::Ipv4)),
            mtu6: link.mtu.min(mtu6).min(of_routes(Family::Ipv6)),
            flags: abi::BPFW_EGRESS_REDIRECT | self.header_flag(link),
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
                    vlan_proto: vlan.protocol.into(),
                    ..untagged
                };
                (up && self.takes_xdp(vlan.port)).then_some(tagged)
            }
        }
    }

    /// An interface below a bridge or a bond has no routes of its own.
    fn is_l3(&self, link: &Link) -> bool {
        (link.ethernet || self.is_headerless(link)) && link.is_routed()
    }

    /// Its packets begin with the IP header, which only TC can handle.
    fn is_headerless(&self, link: &Link) -> bool {
        self.hook == Hook::Tc && LinkLayer::of(link).is_headerless()
    }

    fn l3_interface(&self, link: &Link) -> Option<bpfw_link> {
        let ingress = link.vrf().unwrap_or(link.index);
        Some(bpfw_link { ifindex: link.index, ingress, mac: self.mac(link)?, ..Default::default() })
    }

    /// The MAC address that frames are sent to, all zeros where there are no frames.
    fn mac(&self, link: &Link) -> Option<[u8; 6]> {
        if self.is_headerless(link) { Some([0; 6]) } else { link.mac }
    }

    fn header_flag(&self, link: &Link) -> u32 {
        if self.is_headerless(link) { abi::BPFW_EGRESS_NO_HEADER } else { 0 }
    }

    fn is_named(&self, link: &Link) -> bool {
        is_named(link, self.attached)
    }

    fn takes_xdp(&self, ifindex: u32) -> bool {
        (self.attached)(ifindex) && (self.can_transmit)(ifindex)
    }
}

/// An interface that was named, or a VLAN on one: packets leave by no other.
fn is_named(link: &Link, attached: &dyn Fn(u32) -> bool) -> bool {
    attached(link.index) || link.vlan.is_some_and(|vlan| attached(vlan.port))
}

/// The names of the interfaces that packets leave by.
pub fn named<'a>(
    links: &'a BTreeMap<u32, Link>,
    attached: &dyn Fn(u32) -> bool,
) -> impl Iterator<Item = &'a str> {
    links.values().filter(|link| is_named(link, attached)).map(|link| link.name.as_str())
}

/// The ports at which tagged frames come in that belong to VLAN devices.
pub fn ports_of_vlans(links: &BTreeMap<u32, Link>) -> HashSet<u32> {
    links.values().filter_map(|link| link.vlan.map(|vlan| vlan.port)).collect()
}

fn tagged(vlan: &Vlan) -> bpfw_link_key {
    bpfw_link_key { ifindex: vlan.port, vlan_id: vlan.id, vlan_proto: vlan.protocol.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.into(),
            up: true,
            running: true,
            mac: Some(MAC),
            ethernet: true,
            hardware: 1,
            mtu: 1500,
            group: 0,
            master: None,
            master_kind: None,
            lower: None,
            vlan: None,
            kind: None,
        }
    }

    fn vlan(index: u32, port: u32, id: u16) -> Link {
        let vlan = Vlan { port, id, protocol: 0x8100, has_egress_qos: false };
        Link { vlan: Some(vlan), mtu: 1496, ..link(index, "vlan") }
    }

    /// The devices of these links; the program is at 1 and 2, whose drivers transmit.
    fn devices(hook: Hook, links: Vec<Link>) -> Devices {
        devices_within(100, hook, links)
    }

    fn devices_within(room: usize, hook: Hook, links: Vec<Link>) -> Devices {
        let links = links.into_iter().map(|link| (link.index, link)).collect();
        View {
            hook,
            links: &links,
            attached: &|index| index <= 2,
            can_transmit: &|index| index <= 2,
            route_mtu: &|family, index| match (family, index) {
                (Family::Ipv4, 2) => Some(1280),
                (Family::Ipv6, 1) => Some(1320),
                _ => None,
            },
            mtu6: &|link| (link.index == 2).then_some(1300),
            left_out: &|index| index == 4,
            room,
        }
        .devices()
    }

    fn key(ifindex: u32, vlan_id: u16) -> bpfw_link_key {
        let vlan_proto = if vlan_id == 0 { 0 } else { 0x8100_u16 }.into();
        bpfw_link_key { ifindex, vlan_id, vlan_proto }
    }

    fn egress(devices: &Devices, index: u32) -> Option<bpfw_egress> {
        devices.egresses.iter().find(|(key, _)| *key == index).map(|(_, egress)| *egress)
    }

    #[test]
    fn a_tag_leads_to_the_vlan_device_of_its_port() {
        let devices = devices(Hook::Xdp, vec![link(1, "a"), vlan(5, 1, 10), vlan(6, 3, 10)]);
        let found: Vec<_> = devices.links.iter().map(|(key, link)| (*key, link.ifindex)).collect();
        assert_eq!(found, [(key(1, 0), 1), (key(1, 10), 5)]);
    }

    #[test]
    fn hazard_23_only_ports_of_vlan_devices_need_tags() {
        let links = [link(1, "a"), link(2, "b"), vlan(5, 1, 10)];
        let links = links.into_iter().map(|link| (link.index, link)).collect();
        assert_eq!(ports_of_vlans(&links), HashSet::from([1]));
    }

    #[test]
    fn xdp_tags_by_itself_and_tc_leaves_it_to_the_device() {
        let links = || vec![link(1, "a"), vlan(5, 1, 10)];
        let xdp = egress(&devices(Hook::Xdp, links()), 5).unwrap();
        let tag = (xdp.port, xdp.vlan_id, xdp.vlan_proto, xdp.mtu);
        assert_eq!(tag, (1, 10, 0x8100.into(), 1496));
        let tc = egress(&devices(Hook::Tc, links()), 5).unwrap();
        assert_eq!((tc.port, tc.vlan_id, tc.vlan_proto, tc.mtu), (5, 0, 0.into(), 1496));
    }

    #[test]
    fn xdp_redirects_only_to_attached_ports_that_transmit() {
        let mut marked = vlan(6, 1, 20);
        marked.vlan = marked.vlan.map(|vlan| Vlan { has_egress_qos: true, ..vlan });
        let links = vec![link(1, "a"), link(3, "not attached"), vlan(5, 3, 10), marked];
        let egresses = |hook| {
            let found = devices(hook, links.clone());
            let sends = |egress: &bpfw_egress| egress.flags & abi::BPFW_EGRESS_REDIRECT != 0;
            let found = found.egresses.iter().map(|(index, egress)| (*index, sends(egress)));
            found.collect::<Vec<_>>()
        };
        assert_eq!(egresses(Hook::Xdp), [(1, true), (6, false)], "its packets may come in");
        assert_eq!(
            egresses(Hook::Tc),
            [(1, true), (6, true)],
            "TC leaves tag and priority to the device"
        );
    }

    #[test]
    fn ports_of_bridges_and_tunnels_are_left_out() {
        let port = Link { master: Some(9), ..link(1, "port") };
        let tunnel = Link { ethernet: false, hardware: 778, mac: None, ..link(2, "gre") };
        let down = Link { up: false, ..link(3, "down") };
        for hook in [Hook::Xdp, Hook::Tc] {
            let all = vec![port.clone(), tunnel.clone(), down.clone()];
            assert_eq!(devices(hook, all), Devices::default());
        }
    }

    #[test]
    fn hazard_49_what_comes_in_at_a_vrfs_port_is_the_vrfs_at_the_way_out() {
        let in_vrf = |link| Link { master: Some(9), master_kind: Some("vrf".into()), ..link };
        let vrf = |index| Link { kind: Some("vrf".into()), ..link(index, "vrf") };
        let links = vec![in_vrf(link(1, "a")), link(2, "b"), vrf(9), vrf(10)];
        for hook in [Hook::Xdp, Hook::Tc] {
            let devices = devices(hook, links.clone());
            let found = devices.links.iter().map(|(_, link)| (link.ifindex, link.ingress));
            assert_eq!(found.collect::<Vec<_>>(), [(1, 9), (2, 2)]);
            assert!(egress(&devices, 1).unwrap().flags & abi::BPFW_EGRESS_REDIRECT != 0);
            assert_eq!(egress(&devices, 9), Some(bpfw_egress::default()));
            assert_eq!(egress(&devices, 10), None, "none of its ports was named");
        }
    }

    #[test]
    fn hazard_38_without_an_ethernet_header_only_tc_takes_packets() {
        let kind = Some("tun".to_owned());
        let tun = Link { ethernet: false, hardware: 0xfffe, kind, mac: None, ..link(1, "tun") };
        let at_tc = devices(Hook::Tc, vec![tun.clone()]);
        let found = bpfw_link { ifindex: 1, ingress: 1, ..Default::default() };
        assert_eq!(at_tc.links, [(key(1, 0), found)]);
        let flags = abi::BPFW_EGRESS_REDIRECT | abi::BPFW_EGRESS_NO_HEADER;
        assert_eq!(egress(&at_tc, 1).unwrap().flags, flags);
        assert_eq!(devices(Hook::Xdp, vec![tun]), Devices::default());
    }

    #[test]
    fn hazard_31_interfaces_that_are_left_out_are_in_no_map() {
        for hook in [Hook::Xdp, Hook::Tc] {
            let all = vec![link(4, "left out"), vlan(5, 4, 10)];
            assert_eq!(devices(hook, all), Devices::default());
        }
        let all = vec![link(1, "a"), Link { index: 4, ..vlan(4, 1, 10) }];
        assert_eq!(devices(Hook::Xdp, all).links.len(), 1, "the port goes on without its VLAN");
    }

    #[test]
    fn hazard_61_interfaces_without_room_are_in_no_map_and_counted() {
        let links = || vec![link(1, "a"), vlan(5, 1, 10), vlan(6, 1, 20), link(7, "elsewhere")];
        for hook in [Hook::Xdp, Hook::Tc] {
            let all = devices_within(3, hook, links());
            assert_eq!((all.links.len(), all.egresses.len()), (3, 3));
            assert_eq!((all.without_room, all.warning(3)), (0, None));
            let some = devices_within(2, hook, links());
            let found: Vec<_> = some.links.iter().map(|(_, link)| link.ifindex).collect();
            let egresses: Vec<_> = some.egresses.iter().map(|(index, _)| *index).collect();
            assert_eq!((found, egresses), (vec![1, 5], vec![1, 5]));
            let warning = some.warning(2).unwrap();
            assert!(warning.contains("1 interfaces") && warning.contains("2 entries"), "{warning}");
        }
        // Attached to itself and to its port, a VLAN takes two entries of one map, or none of any.
        let both = || vec![link(1, "a"), vlan(2, 1, 10)];
        assert_eq!(devices_within(3, Hook::Tc, both()).without_room, 0);
        let one = devices_within(2, Hook::Tc, both());
        assert_eq!((one.links.len(), one.egresses.len(), one.without_room), (1, 1, 1));
    }

    #[test]
    fn the_smallest_route_mtu_counts() {
        let devices = devices(Hook::Tc, vec![link(1, "a"), link(2, "b")]);
        assert_eq!(egress(&devices, 1).unwrap().mtu, 1500);
        assert_eq!(egress(&devices, 2).unwrap().mtu, 1280);
        assert_eq!([1, 2].map(|index| egress(&devices, index).unwrap().mtu6), [1320, 1300]);
    }
}
