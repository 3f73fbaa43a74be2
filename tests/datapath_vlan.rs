// SPDX-License-Identifier: GPL-2.0-only
//! VLAN tags: XDP finds and writes them in the frame, TC has them beside it.

mod support;

use bpfw::abi::{BPFW_PASS_LINK, BPFW_PASS_TAGS, BPFW_PASS_UNKNOWN, bpfw_verdict};
use bpfw::datapath::Hook;
use bpfw::datapath::state::Change;
use bpfw::flow::tuple::Protocol;
use std::time::Duration;
use support::capture::Capture;
use support::datapath::{Datapath, HOOKS, Input, egress, link, links, on_hook};
use support::flow::{DMZ, Flow, LAN, PROTOCOLS, WAN};
use support::packet::Packet;

/// Number and protocol of a tag; protocol 0: none.
type Vlan = (u16, u16);

const NONE: Vlan = (0, 0);
const VLANS: [Vlan; 4] = [NONE, (100, 0x8100), (4094, 0x8100), (100, 0x88a8)];

fn tagged(packet: Packet, (id, proto): Vlan, pcp: u8) -> Packet {
    if proto == 0 { packet } else { packet.vlan(id, pcp, proto) }
}

/// The LAN is behind one tag, the WAN behind another. No other tag is known.
fn set_vlans(datapath: &mut Datapath<'_>, lan: Vlan, wan: Vlan) {
    let links = [link(LAN, LAN, lan.0, lan.1), link(WAN, WAN, wan.0, wan.1)];
    let egresses = [egress(LAN, lan.0, lan.1, 1500), egress(WAN, wan.0, wan.1, 1500)];
    datapath.devices.set(&links, &egresses).expect("devices");
    // Next hops found before have the old tags.
    datapath.state.bump(Change::Topology).expect("bump");
}

/// Both directions, with payloads of several lengths.
fn expect_both_ways(datapath: &Datapath<'_>, flow: &Flow, lan: Vlan, wan: Vlan, pcp: u8) {
    for (reply, from, to) in [(false, lan, wan), (true, wan, lan)] {
        for payload in [&b""[..], b"odd", &[3; 1400]] {
            let before = tagged(flow.incoming(reply), from, pcp).payload(payload).build();
            let after = tagged(flow.outgoing(reply), to, 0).payload(payload).build();
            datapath.expect_forwarded(Input::new(flow.ingress(reply), &before), &after);
        }
    }
}

#[test]
fn xdp_takes_off_and_puts_on() {
    on_hook("xdp-vlan", Hook::Xdp, |datapath| {
        for (lan, wan) in VLANS.into_iter().flat_map(|lan| VLANS.map(|wan| (lan, wan))) {
            set_vlans(datapath, lan, wan);
            for flow in PROTOCOLS.into_iter().flat_map(Flow::of_each_family) {
                datapath.add(&flow);
                expect_both_ways(datapath, &flow, lan, wan, 0);
                datapath.remove(&flow);
            }
        }
    });
}

#[test]
fn xdp_ignores_the_priority() {
    on_hook("xdp-pcp", Hook::Xdp, |datapath| {
        set_vlans(datapath, VLANS[1], VLANS[3]);
        let flow = Flow::snat(Protocol::Tcp);
        datapath.add(&flow);
        for pcp in 0..8 {
            expect_both_ways(datapath, &flow, VLANS[1], VLANS[3], pcp);
        }
        // The drop eligible bit, too.
        let mut before = tagged(flow.incoming(false), VLANS[1], 7).build();
        before[14] |= 0x10;
        let after = tagged(flow.outgoing(false), VLANS[3], 0).build();
        datapath.expect_forwarded(Input::new(LAN, &before), &after);
    });
}

#[test]
fn xdp_cuts_padding_behind_tags() {
    on_hook("xdp-vlan-padding", Hook::Xdp, |datapath| {
        for (lan, wan) in [(VLANS[1], NONE), (NONE, VLANS[1])] {
            set_vlans(datapath, lan, wan);
            let flow = Flow::snat(Protocol::Udp);
            datapath.add(&flow);
            let before = tagged(flow.incoming(false), lan, 0).payload(b"x").pad_to(64).build();
            let after = tagged(flow.outgoing(false), wan, 0).payload(b"x").build();
            datapath.expect_forwarded(Input::new(LAN, &before), &after);
            datapath.remove(&flow);
        }
    });
}

#[test]
fn other_tags_are_other_links() {
    for hook in HOOKS {
        on_hook("other-tags", hook, |datapath| {
            set_vlans(datapath, VLANS[1], NONE);
            let flow = Flow::snat(Protocol::Udp);
            datapath.add(&flow);
            // Untagged, priority tags, another number, the other protocol.
            for tag in [NONE, (0, 0x8100), (0, 0x88a8), (101, 0x8100), (100, 0x88a8)] {
                let frame = tagged(flow.incoming(false), tag, 5).build();
                datapath.expect_passed(Input::new(LAN, &frame), BPFW_PASS_LINK);
            }
            let double = flow.incoming(false).vlan(100, 0, 0x8100).vlan(100, 0, 0x8100).build();
            datapath.expect_passed(Input::new(LAN, &double), BPFW_PASS_TAGS);
        });
    }
}

#[test]
fn a_vlan_has_a_mac_and_connections_of_its_own() {
    on_hook("vlan-mac", Hook::Xdp, |datapath| {
        // VLAN 100 of the LAN's port belongs to another interface.
        let mut known = links();
        known.push(link(LAN, DMZ, 100, 0x8100));
        datapath.devices.set(&known, &support::datapath::egresses()).expect("devices");
        let flow = Flow::snat(Protocol::Udp);
        datapath.add(&flow);
        datapath.expect_flow(&flow, false);
        let frame = tagged(flow.incoming(false), VLANS[1], 0).build();
        datapath.expect_passed(Input::new(LAN, &frame), bpfw::abi::BPFW_PASS_MAC);
        let frame = tagged(flow.incoming(false).mac(LAN.host_mac, DMZ.router_mac), VLANS[1], 0);
        datapath.expect_passed(Input::new(LAN, &frame.build()), bpfw::abi::BPFW_PASS_INGRESS);
    });
}

/// The kernel takes a tag out of the frame before TC; where it did not, nothing is forwarded.
#[test]
fn tc_leaves_tags_within_the_frame_alone() {
    on_hook("tc-inband", Hook::Tc, |datapath| {
        set_vlans(datapath, VLANS[1], NONE);
        let flow = Flow::snat(Protocol::Tcp);
        datapath.add(&flow);
        let frame = tagged(flow.incoming(false), VLANS[1], 0).build();
        datapath.expect_passed(Input::new(LAN, &frame), BPFW_PASS_TAGS);
    });
}

#[test]
fn tc_knows_tags_beside_the_frame() {
    on_hook("tc-vlan", Hook::Tc, |datapath| {
        datapath.prepare_tags();
        for vlan in [VLANS[1], VLANS[3]] {
            set_vlans(datapath, vlan, NONE);
            for flow in PROTOCOLS.into_iter().flat_map(Flow::of_each_family) {
                datapath.add(&flow);
                let [before, after] = [flow.incoming(false), flow.outgoing(false)]
                    .map(|packet| packet.payload(b"odd").build());
                let input = Input::new(LAN, &before);
                for priority in [0, 0xf000] {
                    let tags = [(vlan.1, vlan.0 | priority), (0, 0)];
                    datapath.expect_forwarded(Input { tags, ..input }, &after);
                }
                for tag in [(vlan.1, 0), (vlan.1, 101), (0x8100 ^ 0x88a8 ^ vlan.1, vlan.0)] {
                    datapath.expect_passed(Input { tags: [tag, (0, 0)], ..input }, BPFW_PASS_LINK);
                }
                datapath.expect_passed(input, BPFW_PASS_LINK);
                datapath.remove(&flow);
            }
        }
    });
}

/// A connection that is not offloaded is signaled where its tag is known, and nowhere else: neither
/// without its tag nor by another one.
#[test]
fn unknown_connections_are_those_of_their_tag() {
    for hook in HOOKS {
        on_hook("unknown-tag", hook, |datapath| {
            if hook == Hook::Tc {
                datapath.prepare_tags();
            }
            for (known, others) in [(VLANS[1], [NONE, VLANS[2]]), (NONE, [VLANS[1], VLANS[2]])] {
                set_vlans(datapath, known, NONE);
                let flow = Flow::snat(Protocol::Udp);
                for other in others {
                    expect_unknown(datapath, hook, &flow, other, BPFW_PASS_LINK);
                    assert!(datapath.take_signals().is_empty(), "{other:?}");
                }
                expect_unknown(datapath, hook, &flow, known, BPFW_PASS_UNKNOWN);
                assert_eq!(datapath.take_signals(), [flow.tuple(false).into()]);
            }
        });
    }
}

/// A frame of a connection that is not offloaded; its tag is where the hook finds it.
fn expect_unknown(
    datapath: &Datapath<'_>,
    hook: Hook,
    flow: &Flow,
    tag: Vlan,
    verdict: bpfw_verdict,
) {
    let in_frame = hook == Hook::Xdp;
    let frame = tagged(flow.incoming(false), if in_frame { tag } else { NONE }, 0).build();
    let input = Input::new(LAN, &frame);
    let tags = if in_frame { input.tags } else { [(tag.1, tag.0), (0, 0)] };
    datapath.expect_passed(Input { tags, ..input }, verdict);
}

#[test]
fn tc_passes_two_tags() {
    on_hook("tc-two-tags", Hook::Tc, |datapath| {
        datapath.prepare_tags();
        set_vlans(datapath, VLANS[1], NONE);
        let flow = Flow::snat(Protocol::Udp);
        datapath.add(&flow);
        let frame = flow.incoming(false).build();
        let tags = [(0x8100, 7), (0x8100, 100)];
        let outcome = datapath.run(Input { tags, ..Input::new(LAN, &frame) });
        assert_eq!((outcome.verdict, outcome.action), (BPFW_PASS_TAGS, datapath.pass()));
        // The test program pushed the inner tag into the frame.
        assert_eq!(outcome.frame, flow.incoming(false).vlan(7, 0, 0x8100).build());
    });
}

/// A test run does not show tags beside the frame, so this frame is really sent.
#[test]
fn tc_takes_the_tag_off() {
    on_hook("tc-untag", Hook::Tc, |datapath| {
        datapath.attach_tc(LAN);
        let [from, to] =
            ["lan0-peer", "wan0-peer"].map(|device| Capture::open(datapath.namespace, device));
        for vlan in [VLANS[1], VLANS[3]] {
            set_vlans(datapath, vlan, NONE);
            let flow = Flow::snat(Protocol::Udp);
            datapath.add(&flow);
            from.send_frame(&tagged(flow.incoming(false), vlan, 3).payload(b"tagged").build());
            let after = to.next(Duration::from_secs(5), |frame| frame.view().is_some());
            let expected = flow.outgoing(false).payload(b"tagged").build();
            assert_eq!(after.expect("a frame").bytes, expected);
            datapath.remove(&flow);
        }
    });
}
