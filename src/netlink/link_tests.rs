// SPDX-License-Identifier: GPL-2.0-only
use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
    LinkMessage, VlanProtocol, VlanQosMapping,
};

use super::*;

fn message(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = 7;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.header.flags = LinkFlags::Up | LinkFlags::Running;
    message.attributes = vec![
        LinkAttribute::IfName("lan.5".into()),
        LinkAttribute::Mtu(1496),
        LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
    ];
    message.attributes.extend(attributes);
    message
}

fn apply(links: &mut Links, kind: u16, message: &LinkMessage) -> Outcome {
    let mut payload = vec![0; message.buffer_len()];
    message.emit(&mut payload);
    change(links, &Message { kind, payload: &payload, ..Message::default() })
}

fn vlan_info(data: Vec<InfoVlan>) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vlan),
        LinkInfo::Data(InfoData::Vlan(data)),
    ])
}

fn parsed(message: &LinkMessage) -> Link {
    let mut links = Links::new();
    assert_eq!(apply(&mut links, RTM_NEWLINK, message), Outcome::New);
    links.remove(&7).unwrap()
}

#[test]
fn a_vlan_interface_names_its_port_and_tag() {
    let data = vec![InfoVlan::Protocol(VlanProtocol::Ieee8021Ad), InfoVlan::Id(5)];
    let link = parsed(&message(vec![LinkAttribute::Link(3), vlan_info(data)]));
    let vlan = Vlan { port: 3, id: 5, protocol: 0x88a8, has_egress_qos: false };
    let expected = Link {
        index: 7,
        name: "lan.5".into(),
        up: true,
        running: true,
        mac: Some([2, 0, 0, 0, 0, 1]),
        ethernet: true,
        hardware: 1,
        mtu: 1496,
        group: 0,
        master: None,
        master_kind: None,
        lower: Some(3),
        vlan: Some(vlan),
        kind: Some("vlan".into()),
    };
    assert_eq!(link, expected);
}

#[test]
fn egress_qos_of_a_vlan_is_seen() {
    let qos = InfoVlan::EgressQos(vec![VlanQosMapping::Mapping(1, 3)]);
    let data = vec![InfoVlan::Id(5), qos];
    let vlan = parsed(&message(vec![LinkAttribute::Link(3), vlan_info(data)])).vlan.unwrap();
    assert_eq!((vlan.protocol, vlan.has_egress_qos), (0x8100, true));
}

#[test]
fn a_port_in_another_namespace_is_not_resolved() {
    let attributes = vec![
        LinkAttribute::Link(3),
        LinkAttribute::LinkNetNsId(0),
        vlan_info(vec![InfoVlan::Id(5)]),
    ];
    let link = parsed(&message(attributes));
    assert_eq!((link.vlan, link.kind.as_deref()), (None, Some("vlan")));
}

#[test]
fn only_what_is_kept_counts_as_change() {
    let mut links = Links::new();
    let mut link = message(vec![]);
    assert_eq!(apply(&mut links, RTM_NEWLINK, &link), Outcome::New);
    link.attributes.push(LinkAttribute::TxQueueLen(9));
    assert_eq!(apply(&mut links, RTM_NEWLINK, &link), Outcome::Unchanged);
    link.attributes.push(LinkAttribute::IfName("other".into()));
    assert_eq!(apply(&mut links, RTM_NEWLINK, &link), Outcome::Forwarding);
    link.attributes.push(LinkAttribute::Controller(4));
    assert_eq!(apply(&mut links, RTM_NEWLINK, &link), Outcome::Forwarding);
    link.header.flags = LinkFlags::Up;
    assert_eq!(apply(&mut links, RTM_NEWLINK, &link), Outcome::Forwarding);
    link.header.flags = LinkFlags::empty();
    assert_eq!(apply(&mut links, RTM_NEWLINK, &link), Outcome::Down(7));
    assert_eq!(apply(&mut links, RTM_DELLINK, &link), Outcome::Down(7));
    assert_eq!(apply(&mut links, RTM_DELLINK, &link), Outcome::Unchanged);
}

#[test]
fn a_port_leaving_its_bridge_is_no_deletion() {
    let mut links = Links::new();
    let mut link = message(vec![]);
    apply(&mut links, RTM_NEWLINK, &link);
    link.header.interface_family = AddressFamily::Bridge;
    assert_eq!(apply(&mut links, RTM_DELLINK, &link), Outcome::Unchanged);
    assert_eq!(links.len(), 1);
}

#[test]
fn cut_messages_are_skipped() {
    let mut links = Links::new();
    let message = message(vec![]);
    let mut payload = vec![0; message.buffer_len()];
    message.emit(&mut payload);
    for length in 0..HEADER {
        let payload = &payload[..length];
        let cut = Message { kind: RTM_NEWLINK, payload, ..Message::default() };
        assert_eq!(change(&mut links, &cut), Outcome::Unchanged);
    }
}

fn with_kind(kind: InfoKind, more: Vec<LinkAttribute>) -> Link {
    let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]);
    parsed(&message([more, vec![info]].concat()))
}

#[test]
fn hazard_24_what_an_interface_stands_on_is_known() {
    let on_three = || LinkAttribute::Link(3);
    assert_eq!(with_kind(InfoKind::MacVlan, vec![on_three()]).lower, Some(3));
    assert_eq!(with_kind(InfoKind::Veth, vec![on_three()]).lower, None, "that is the other end");
    let elsewhere = vec![on_three(), LinkAttribute::LinkNetNsId(0)];
    assert_eq!(with_kind(InfoKind::MacVlan, elsewhere).lower, None, "it has that index there");
    let vxlan = LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(vec![InfoVxlan::Id(5), InfoVxlan::Link(3)])),
    ]);
    assert_eq!(parsed(&message(vec![vxlan])).lower, Some(3));
}

#[test]
fn hazard_24_an_upper_interface_is_deeper_than_all_below() {
    let link = |index, lower, master| Link { index, lower, master, ..Link::default() };
    let stacks = [
        link(1, None, Some(9)),
        link(2, Some(1), None),
        link(3, Some(2), None),
        link(9, None, None),
        link(10, Some(9), None),
        // Tunnels may name one another.
        link(20, Some(21), None),
        link(21, Some(20), None),
    ];
    let links: Links = stacks.into_iter().map(|link| (link.index, link)).collect();
    let depths: Vec<u32> = [1, 2, 3, 9, 10].iter().map(|&index| depth(&links, index)).collect();
    assert_eq!(depths, [0, 1, 2, 1, 2]);
    assert_eq!(depth(&links, 20), DEEPEST);
    assert_eq!(depth(&links, 99), 0, "it is gone");
    let around = |index| stacked_with(&links, index).map(|link| link.index).collect::<Vec<_>>();
    assert_eq!(around(1), [2, 9]);
    assert_eq!(around(2), [1, 3]);
}
