// SPDX-License-Identifier: GPL-2.0-only
//! What only IPv6 has. The other datapath tests take connections of both families.

mod support;

use bpfw::abi::{self, bpfw_verdict};
use bpfw::datapath::Hook;
use bpfw::datapath::hops::Hops;
use bpfw::datapath::state::Change;
use bpfw::flow::tuple::Protocol;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddrV4};
use support::datapath::{
    Datapath, HOOKS, Input, egress, egresses, links, name, on_both_hooks, on_hook, on_hook_from,
};
use support::flow::{Flow, LAN, PROTOCOLS, WAN, ipv6_of};
use support::live::root_or_skip;
use support::packet::Packet;
use support::patched::Patched;

const DIRECTIONS: [bool; 2] = [false, true];

/// A connection's first packet takes the full lane, the next ones the express lane.
const FIRST_AND_LATER: [&str; 2] = ["full lane", "express lane"];

/// Each packet as `change` makes it passes for this reason, before and after one that is forwarded.
#[track_caller]
fn expect_up(
    datapath: &Datapath<'_>,
    protocol: Protocol,
    verdict: bpfw_verdict,
    change: impl Fn(Packet) -> Packet,
) {
    let flow = Flow::ipv6(protocol);
    datapath.add(&flow);
    for lane in FIRST_AND_LATER {
        println!("{protocol:?}, {lane}");
        let frame = change(flow.incoming(false).payload(&[7; 64])).build();
        datapath.expect_passed(Input::new(LAN, &frame), verdict);
        datapath.expect_flow(&flow, false);
    }
    datapath.remove(&flow);
}

/// In an object whose full lane does not count what it forwards, the express lane's packets are those that
/// are counted. Short datagrams are among them, because no padding follows.
#[test]
fn later_packets_take_the_express_lane() {
    if !root_or_skip("later_packets_take_the_express_lane") {
        return;
    }
    for hook in HOOKS {
        let test = format!("express-{}", hook.name());
        let counts = "\tnote_forwarded(pkt, conn->cell, now);\n";
        let only_time = "\tconn->cell->last_seen = now;\n";
        let object = Patched::new(&test, "datapath.h", counts, only_time);
        on_hook_from(&test, hook, &object.compile(hook), |datapath| {
            for flow in PROTOCOLS.map(Flow::ipv6) {
                datapath.add(&flow);
                for forwarded in 0..3 {
                    datapath.expect_flow(&flow, false);
                    assert_eq!(datapath.entry(&flow, false).volume().0, forwarded);
                }
                datapath.remove(&flow);
            }
        });
    }
}

#[test]
fn hazard_42_hop_limits() {
    on_both_hooks("hop-limit", |datapath| {
        for protocol in PROTOCOLS {
            for hop_limit in [0, 1] {
                expect_up(datapath, protocol, abi::BPFW_PASS_TTL, |packet| packet.ttl(hop_limit));
            }
        }
    });
}

#[test]
fn hazard_42_extension_headers_pass_up() {
    on_both_hooks("extensions", |datapath| {
        for protocol in PROTOCOLS {
            let number = if protocol == Protocol::Tcp { 6 } else { 17 };
            let header = [number, 0, 1, 4, 0, 0, 0, 0];
            // Hop by hop, routing, authentication, destination, mobility.
            for extension in [0, 43, 51, 60, 135] {
                expect_up(datapath, protocol, abi::BPFW_PASS_IP_OPTIONS, |packet| {
                    packet.extension(extension, &header)
                });
            }
            // Atomic fragments, first and later ones.
            for offset in [[0, 0], [0, 1], [5, 0]] {
                let header = [number, 0, offset[0], offset[1], 0, 0, 0, 1];
                expect_up(datapath, protocol, abi::BPFW_PASS_FRAGMENT, |packet| {
                    packet.extension(44, &header)
                });
            }
        }
    });
}

#[test]
fn hazard_42_other_next_headers_pass_up() {
    on_both_hooks("next-header", |datapath| {
        // ESP, ICMPv6, nothing, HIP, UDP-Lite, SCTP, IPv4 and IPv6 within it, ICMP.
        for next in [50, 58, 59, 139, 136, 132, 4, 41, 1] {
            expect_up(datapath, Protocol::Udp, abi::BPFW_PASS_PROTOCOL, |packet| {
                packet.extension(next, &[])
            });
        }
    });
}

#[test]
fn hazard_42_jumbograms_and_wrong_lengths_pass_up() {
    on_both_hooks("lengths", |datapath| {
        for protocol in PROTOCOLS {
            let header = if protocol == Protocol::Tcp { 20 } else { 8 };
            for length in [0, header + 65, 1000, 65535] {
                expect_up(datapath, protocol, abi::BPFW_PASS_IP_HEADER, |packet| {
                    packet.total_length(length)
                });
            }
            // Shorter than its own header.
            expect_up(datapath, protocol, abi::BPFW_PASS_L4_HEADER, |packet| {
                packet.total_length(header - 1)
            });
        }
        expect_up(datapath, Protocol::Udp, abi::BPFW_PASS_L4_HEADER, |packet| {
            packet.udp_length(8 + 65)
        });
    });
}

#[test]
fn hazard_42_only_version_6() {
    on_both_hooks("version", |datapath| {
        for flow in PROTOCOLS.map(Flow::ipv6) {
            datapath.add(&flow);
            for version in (0..16).filter(|version| *version != 6) {
                let mut frame = flow.incoming(false).payload(&[7; 64]).build();
                frame[14] = version << 4 | frame[14] & 0x0f;
                datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_IP_HEADER);
                datapath.expect_flow(&flow, false);
            }
            datapath.remove(&flow);
        }
    });
}

/// Byte by byte, in both lanes: neither routing nor translation changes them.
#[test]
fn traffic_class_and_flow_label_stay() {
    on_both_hooks("label", |datapath| {
        for flow in PROTOCOLS.map(Flow::ipv6) {
            datapath.add(&flow);
            for (class, label) in
                [(0, 0), (0xff, 0xf_ffff), (0x03, 1), (0xb8, 0xf_0000), (0x5a, 0x1_2345)]
            {
                for reply in DIRECTIONS {
                    let [before, after] = [flow.incoming(reply), flow.outgoing(reply)]
                        .map(|packet| packet.tos(class).flow_label(label).build());
                    datapath.expect_forwarded(Input::new(flow.ingress(reply), &before), &after);
                }
            }
            datapath.remove(&flow);
        }
    });
}

/// As ip6_forward, which leaves it as it is.
#[test]
fn hazard_51_the_priority_stays() {
    on_hook("priority", Hook::Tc, |datapath| {
        let flow = Flow::ipv6(Protocol::Udp);
        datapath.add(&flow);
        for lane in FIRST_AND_LATER {
            let frame = flow.incoming(false).tos(0x10).payload(&[1; 64]).build();
            let outcome = datapath.run(Input { priority: 3, ..Input::new(LAN, &frame) });
            assert_eq!((name(outcome.verdict), outcome.priority), ("forwarded", 3), "{lane}");
        }
    });
}

#[test]
fn hazard_47_xdp_passes_partial_checksums_up() {
    on_hook("partial", Hook::Xdp, |datapath| {
        for protocol in PROTOCOLS {
            let partial = Packet::partial_l4_checksum;
            expect_up(datapath, protocol, abi::BPFW_PASS_PARTIAL_SUM, partial);
        }
    });
}

/// TC does not even look at it: without translation nothing of it changes.
#[test]
fn hazard_47_tc_leaves_partial_checksums_as_they_are() {
    on_hook("partial", Hook::Tc, |datapath| {
        for flow in PROTOCOLS.map(Flow::ipv6) {
            datapath.add(&flow);
            for reply in DIRECTIONS {
                let [before, after] = [flow.incoming(reply), flow.outgoing(reply)]
                    .map(|packet| packet.payload(b"odd").partial_l4_checksum().build());
                datapath.expect_forwarded(Input::new(flow.ingress(reply), &before), &after);
            }
            datapath.remove(&flow);
        }
    });
}

/// UDP without a checksum is legal in tunnels (RFC 6935).
#[test]
fn hazard_47_udp_without_checksum_stays_without() {
    on_both_hooks("zero-sum", |datapath| {
        let flow = Flow::ipv6(Protocol::Udp);
        datapath.add(&flow);
        for lane in FIRST_AND_LATER {
            println!("{lane}");
            let [before, after] = [flow.incoming(false), flow.outgoing(false)]
                .map(|packet| packet.payload(&[5; 64]).zero_l4_checksum().build());
            datapath.expect_forwarded(Input::new(LAN, &before), &after);
        }
    });
}

#[test]
fn hazard_48_the_mtu_of_the_family_limits() {
    on_both_hooks("mtu6", |datapath| {
        let mut limited = egresses();
        limited.retain(|(ifindex, _)| *ifindex != WAN.ifindex());
        let (ifindex, wan) = egress(WAN, 0, 0, 1500);
        limited.push((ifindex, abi::bpfw_egress { mtu6: 1300, ..wan }));
        datapath.devices.set(&links(), &limited).expect("devices");
        let flow = Flow::ipv6(Protocol::Udp);
        datapath.add(&flow);
        for (length, verdict) in [(1252, "forwarded"), (1253, "too-big")] {
            let frame = flow.incoming(false).payload(&vec![1; length]).build();
            assert_eq!(name(datapath.run_frame(LAN, &frame).verdict), verdict, "{length}");
        }
        let other = Flow::plain(Protocol::Udp);
        datapath.add(&other);
        let frame = other.incoming(false).payload(&[1; 1472]).build();
        assert_eq!(name(datapath.run_frame(LAN, &frame).verdict), "forwarded");
    });
}

/// Connections of both families with the same ports, and with what of their tuples may be alike.
#[test]
fn families_do_not_mix() {
    on_both_hooks("families", |datapath| {
        let flows = PROTOCOLS.into_iter().flat_map(|protocol| {
            (0..8).flat_map(move |number| {
                let ends = (LAN.at(40000 + number), WAN.at(443));
                let flow = Flow { id: u32::from(number), ..Flow::new(protocol, ends, ends) };
                [flow, Flow { ipv6: true, id: flow.id + 100, ..flow }]
            })
        });
        let flows: Vec<Flow> = flows.collect();
        for flow in &flows {
            datapath.add(flow);
        }
        for _ in FIRST_AND_LATER {
            for flow in &flows {
                DIRECTIONS.into_iter().for_each(|reply| datapath.expect_flow(flow, reply));
            }
        }
        // Of each pair the second goes: the first stays, and stays right.
        for pair in flows.chunks(2) {
            datapath.remove(&pair[1]);
            datapath.expect_flow(&pair[0], false);
            let frame = pair[1].incoming(false).payload(&[1; 64]).build();
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_UNKNOWN);
        }
    });
}

/// Each bit of the tuple counts, and none is another's.
#[test]
fn other_tuples_are_unknown() {
    on_both_hooks("tuples", |datapath| {
        let flow = Flow::ipv6(Protocol::Udp);
        datapath.add(&flow);
        datapath.expect_flow(&flow, false);
        // Both addresses and both ports.
        for bit in (22 * 8)..(58 * 8) {
            let mut frame = flow.incoming(false).payload(&[1; 64]).build();
            frame[bit / 8] ^= 1 << (bit % 8);
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_UNKNOWN);
        }
    });
}

/// As if the entry's memory had become another connection's between the comparison and the look at
/// the seal. Or as if the idle limit were another one's.
#[test]
fn hazard_28_reused() {
    on_both_hooks("reused", |datapath| {
        let flow = Flow::ipv6(Protocol::Tcp);
        datapath.add(&flow);
        datapath.expect_flow(&flow, false);
        let right = datapath.entry(&flow, false);
        let mut wrong = [right; 2];
        wrong[0].cell.seal ^= 1 << 20;
        wrong[1].cell.head.idle ^= 1;
        for entry in wrong {
            datapath.overwrite(&entry);
            let frame = flow.incoming(false).build();
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_REUSED);
            assert_eq!(datapath.entry(&flow, false), entry, "not ours to write to");
        }
        datapath.overwrite(&right);
        datapath.expect_flow(&flow, false);
    });
}

#[test]
fn signals_have_the_whole_tuple() {
    on_both_hooks("signals", |datapath| {
        for flow in PROTOCOLS.map(Flow::ipv6) {
            let frame = flow.incoming(false).build();
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_UNKNOWN);
            let signals = datapath.take_signals();
            assert_eq!(signals, [flow.tuple(false).into()]);
            assert_eq!(signals[0].decode(), Some(flow.tuple(false)));
        }
    });
}

/// The gateway's link-local address is the neighbor that the daemon keeps in use.
#[test]
fn a_link_local_gateway_is_the_neighbor() {
    on_both_hooks("link-local", |datapath| {
        let gateway: IpAddr = "fe80::1:2".parse().expect("an address");
        datapath.namespace.ip(&format!(
            "route del default via {}\nroute add default via {gateway} dev wan0\n\
             neigh add {gateway} lladdr 02:00:00:00:09:09 dev wan0 nud permanent\n",
            ipv6_of(WAN.host)
        ));
        let ends = (LAN.at(40000), SocketAddrV4::new([8, 8, 8, 8].into(), 443));
        let flow = Flow { ipv6: true, ..Flow::new(Protocol::Udp, ends, ends) };
        datapath.add_unproven(&flow);
        let ask = || {
            let frame = flow.incoming(false).build();
            datapath.run_frame(LAN, &frame).verdict
        };
        assert_eq!(name(ask()), "unproven");
        let out = flow.outgoing(false).mac(WAN.router_mac, [2, 0, 0, 0, 9, 9]);
        let rest = datapath.entry(&flow, false).rest;
        datapath.send(&support::datapath::Sent {
            frame: &out.build(),
            ingress: LAN.ifindex(),
            egress: WAN.ifindex(),
            tag: (0, 0),
            stamp: datapath.stamp(&rest, rest.way_back),
        });
        assert_eq!(name(ask()), "forwarded");
        let slot = datapath.entry(&flow, false).hop_slot().expect("a next hop");
        let hops = Hops::new(datapath.object.object()).expect("hops");
        let found = hops.in_slots(&BTreeSet::from([slot])).expect("readable");
        let [hop] = found[..] else { panic!("one next hop in one slot: {found:?}") };
        assert_eq!((hop.neighbor(), hop.egress), (gateway, WAN.ifindex()));
    });
}

/// The stack sends a redirect of neighbor discovery.
#[test]
fn hazard_52_out_where_it_came_in_passes_up() {
    on_both_hooks("same-link", |datapath| {
        let ends = (LAN.at(40000), support::flow::HOST2.at(80));
        let flow = Flow { ipv6: true, far: LAN, ..Flow::new(Protocol::Udp, ends, ends) };
        datapath.namespace.ip(&format!(
            "neigh add {} lladdr 02:00:00:00:07:07 dev lan0 nud permanent\n",
            ipv6_of(support::flow::HOST2.host)
        ));
        datapath.add_unproven(&flow);
        let frame = flow.incoming(false).build();
        datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_SAME_LINK);
        datapath.state.bump(Change::Topology).expect("bump");
        datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_SAME_LINK);
    });
}
