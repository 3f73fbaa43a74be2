// SPDX-License-Identifier: GPL-2.0-only
//! What a forwarded packet looks like: exactly what the stack would have sent.

mod support;

use bpfw::abi::BPFW_FORWARDED;
use bpfw::datapath::typed_map::TypedMap;
use bpfw::datapath::{Hook, map_names};
use bpfw::flow::tuple::Protocol;
use std::net::{Ipv4Addr, SocketAddrV4};
use support::checksum;
use support::datapath::{Datapath, Input, on_both_hooks, on_hook};
use support::flow::{DMZ, Flow, HOST2, LAN, PROTOCOLS, WAN};
use support::packet::{Packet, tcp};

/// Every kind of translation, for one protocol.
fn flows(protocol: Protocol) -> Vec<(&'static str, Flow)> {
    let (client, server) = (LAN.at(40000), WAN.at(443));
    let new = |before, after| Flow::new(protocol, before, after);
    let outside = |port| SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 99), port);
    let hairpin = Flow {
        far: HOST2,
        ..new((client, WAN.router_at(8080)), (LAN.router_at(50000), HOST2.at(80)))
    };
    let from_wan =
        Flow { near: WAN, far: LAN, ..new((server, WAN.router_at(8080)), (server, LAN.at(80))) };
    let of_ipv4 = [
        ("no NAT", Flow::plain(protocol)),
        ("SNAT, same port", new((client, server), (WAN.router_at(40000), server))),
        ("SNAT, other port", Flow::snat(protocol)),
        ("DNAT, same port", new((client, outside(443)), (client, server))),
        ("DNAT, other port", new((client, outside(8443)), (client, server))),
        ("both", new((client, outside(8443)), (WAN.router_at(61000), server))),
        ("ports only", new((client, server), (LAN.at(1), WAN.at(65535)))),
        ("ports swapped", new((LAN.at(1000), WAN.at(2000)), (LAN.at(2000), WAN.at(1000)))),
        ("hairpin", hairpin),
        ("DNAT from the WAN", from_wan),
        (
            "to a third network",
            Flow { far: DMZ, ..new((client, DMZ.at(25)), (client, DMZ.at(25))) },
        ),
    ];
    // Of IPv6, what leaves where it came in stays with the stack.
    let over_ipv6 = of_ipv4.into_iter().filter(|(what, _)| *what != "hairpin");
    let over_ipv6 = over_ipv6.map(|(what, flow)| (what, Flow { ipv6: true, ..flow }));
    of_ipv4.into_iter().chain(over_ipv6).collect()
}

type Change<'a> = &'a dyn Fn(Packet) -> Packet;

/// Both directions of the flow with the same change on each packet.
#[track_caller]
fn expect(datapath: &Datapath<'_>, flow: &Flow, change: Change<'_>) {
    for reply in [false, true] {
        let before = change(flow.incoming(reply)).build();
        let after = change(flow.outgoing(reply)).pad_to(0).build();
        datapath.expect_forwarded(Input::new(flow.ingress(reply), &before), &after);
    }
}

/// All translations of both protocols with the same change on each packet.
fn expect_all(test: &str, change: impl Fn(Packet) -> Packet + Sync) {
    on_both_hooks(test, |datapath| {
        for (what, flow) in PROTOCOLS.into_iter().flat_map(flows) {
            eprintln!("{:?}, {what}", flow.protocol);
            datapath.add(&flow);
            expect(datapath, &flow, &change);
            datapath.remove(&flow);
        }
    });
}

#[test]
fn empty_payload() {
    expect_all("empty", |packet| packet);
}

#[test]
fn even_payload() {
    expect_all("even", |packet| packet.payload(b"0123456789"));
}

#[test]
fn odd_payload() {
    expect_all("odd", |packet| packet.payload(b"012345678"));
}

#[test]
fn full_frames() {
    expect_all("full", |packet| packet.payload(&[0xa5; 1440]));
}

#[test]
fn padding_is_cut() {
    expect_all("padding", |packet| packet.payload(b"x").pad_to(60));
    expect_all("long-padding", |packet| packet.payload(b"odd").pad_to(1400));
}

#[test]
fn tos_id_and_fragment_flag_stay() {
    expect_all("ip-fields", |packet| packet.tos(0xb9).id(0xbeef).df(false));
}

#[test]
fn tcp_fields_stay() {
    on_both_hooks("tcp-fields", |datapath| {
        let flow = Flow::snat(Protocol::Tcp);
        datapath.add(&flow);
        expect(datapath, &flow, &|packet| {
            let packet = packet.flags(tcp::ACK | tcp::PSH | tcp::URG | tcp::ECE | tcp::CWR);
            let packet = packet.seq(0xffff_ffff).ack(0x8000_0000).window(0);
            packet.tcp_options(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]).payload(b"abc")
        });
    });
}

#[test]
fn ttl_goes_down_by_one() {
    on_both_hooks("ttl", |datapath| {
        for flow in PROTOCOLS.into_iter().flat_map(Flow::of_each_family) {
            datapath.add(&flow);
            // The hop limit of IPv6 is part of no checksum.
            for ttl in (2..=255).step_by(if flow.ipv6 { 23 } else { 1 }) {
                let before = flow.incoming(false).ttl(ttl).build();
                let after = flow.outgoing(false).ttl(ttl - 1).build();
                datapath.expect_forwarded(Input::new(LAN, &before), &after);
            }
            datapath.remove(&flow);
        }
    });
}

#[test]
fn hazard_12_udp_without_checksum_stays_without() {
    on_both_hooks("udp-zero", |datapath| {
        for (_, flow) in flows(Protocol::Udp) {
            datapath.add(&flow);
            expect(datapath, &flow, &|packet| packet.zero_l4_checksum().payload(b"odd"));
            datapath.remove(&flow);
        }
    });
}

/// A payload that makes the packet's checksum come to 0.
fn payload_for_zero(outgoing: &Packet, at: usize) -> [u8; 2] {
    // The checksum is what a word is missing to a sum of 0xffff.
    let frame = outgoing.clone().payload(&[0, 0]).build();
    [frame[at], frame[at + 1]]
}

#[test]
fn hazard_12_computed_zero() {
    on_both_hooks("computed-zero", |datapath| {
        // UDP sends 0xffff for 0, TCP sends 0.
        for (protocol, field) in [(Protocol::Udp, [0xff, 0xff]), (Protocol::Tcp, [0, 0])] {
            for (what, flow) in flows(protocol) {
                eprintln!("{protocol:?}, {what}");
                datapath.add(&flow);
                for reply in [false, true] {
                    let at = flow.checksum_at();
                    let payload = payload_for_zero(&flow.outgoing(reply), at);
                    let before = flow.incoming(reply).payload(&payload).build();
                    let after = flow.outgoing(reply).payload(&payload).build();
                    assert_eq!(after[at..at + 2], field, "the payload is the right one");
                    datapath.expect_forwarded(Input::new(flow.ingress(reply), &before), &after);
                }
                datapath.remove(&flow);
            }
        }
    });
}

/// By how much a frame's L4 checksum is wrong; ones' complement's two zeros are one.
fn wrong_by(frame: &[u8], right: &[u8], at: usize) -> u16 {
    let right = !u16::from_be_bytes([right[at], right[at + 1]]);
    match checksum::sum(&[&frame[at..at + 2], &right.to_be_bytes()].concat()) {
        0xffff => 0,
        difference => difference,
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    on_both_hooks("wrong-sum", |datapath| {
        for (what, flow) in PROTOCOLS.into_iter().flat_map(flows) {
            datapath.add(&flow);
            let wrong = flow.incoming(false).payload(b"abc").bad_l4_checksum().build();
            let (right, at) = (flow.incoming(false).payload(b"abc").build(), flow.checksum_at());
            let difference = wrong_by(&wrong, &right, at);
            let outcome = datapath.run_frame(flow.ingress(false), &wrong);
            assert_eq!(outcome.verdict, BPFW_FORWARDED, "{what}");
            let right = flow.outgoing(false).payload(b"abc").build();
            assert_ne!(difference, 0);
            assert_eq!(wrong_by(&outcome.frame, &right, at), difference, "{what}");
            datapath.remove(&flow);
        }
    });
}

#[test]
fn without_nat_the_checksum_is_not_touched() {
    on_both_hooks("no-nat-sum", |datapath| {
        let kinds = |protocol| [Flow::plain(protocol), Flow::ipv6(protocol)];
        for flow in PROTOCOLS.into_iter().flat_map(kinds) {
            datapath.add(&flow);
            let at = flow.checksum_at();
            for sum in [0x0000_u16, 0xffff, 0x1234] {
                let [mut before, mut after] =
                    [flow.incoming(false).build(), flow.outgoing(false).build()];
                before[at..at + 2].copy_from_slice(&sum.to_be_bytes());
                after[at..at + 2].copy_from_slice(&sum.to_be_bytes());
                datapath.expect_forwarded(Input::new(LAN, &before), &after);
            }
        }
    });
}

#[test]
fn the_priority_is_that_of_the_tos() {
    on_hook("priority", Hook::Tc, |datapath| {
        let flow = Flow::snat(Protocol::Udp);
        datapath.add(&flow);
        // rt_tos2priority: best effort, bulk, interactive, interactive bulk.
        for (tos, priority) in [(0x00, 0), (0x08, 2), (0x10, 6), (0x18, 4), (0xe0, 0), (0xff, 4)] {
            let frame = flow.incoming(false).tos(tos).build();
            let outcome = datapath.run_frame(LAN, &frame);
            assert_eq!((outcome.verdict, outcome.priority), (BPFW_FORWARDED, priority), "{tos:x}");
        }
    });
}

/// As the stack with `ip_forward_update_priority=0`: what someone has set before stays.
#[test]
fn hazard_51_a_priority_that_is_not_to_be_updated_stays() {
    on_hook("kept-priority", Hook::Tc, |datapath| {
        let flow = Flow::snat(Protocol::Udp);
        datapath.add(&flow);
        let variable = TypedMap::<u32, u32>::new(datapath.object.object(), map_names::PRIORITY);
        let variable = variable.expect("the variable");
        for (updates, priority) in [(0, 3), (1, 6), (0, 3)] {
            variable.set(&0, &updates).expect("written");
            let frame = flow.incoming(false).tos(0x10).build();
            let outcome = datapath.run(Input { priority: 3, ..Input::new(LAN, &frame) });
            assert_eq!((outcome.verdict, outcome.priority), (BPFW_FORWARDED, priority));
        }
    });
}

#[test]
fn hazard_12_a_complete_checksum_follows() {
    on_hook("complete", Hook::Tc, |datapath| {
        for (what, flow) in PROTOCOLS.into_iter().flat_map(flows) {
            datapath.add(&flow);
            // A packet without a checksum is another sum, too: of IPv6, its addresses are not made up for.
            let may_lack_sum = flow.ipv6 && flow.protocol == Protocol::Udp;
            for (reply, length, has_sum) in [
                (false, 0, true),
                (true, 1, true),
                (false, 1000, true),
                (true, 64, true),
                (false, 3, !may_lack_sum),
            ] {
                let packet = flow.incoming(reply).payload(&vec![0x5a; length]);
                let packet = if has_sum { packet } else { packet.zero_l4_checksum() };
                let frame = packet.build();
                let plain = Input::new(flow.ingress(reply), &frame);
                // The kernel compares the sum that it kept with the packet after the run.
                match datapath.run_uncounted(Input { complete: true, ..plain }) {
                    Ok(outcome) => assert_eq!(outcome.action, datapath.redirect(), "{what}"),
                    Err(error) if error.kind() == libbpf_rs::ErrorKind::InvalidInput => {
                        return support::live::lacking("complete", "the kernel cannot check it");
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
            }
            datapath.remove(&flow);
        }
    });
}
