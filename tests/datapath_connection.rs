// SPDX-License-Identifier: GPL-2.0-only
//! The life of an offloaded connection: from its first look-up to its end, and who may end it.

mod support;

use bpfw::abi::{self, Pod, bpfw_hop, bpfw_tuple};
use bpfw::datapath::hops::Hops;
use bpfw::datapath::state::Change;
use bpfw::flow::tuple::Protocol;
use std::time::Duration;
use support::datapath::{Datapath, Input, on_both_hooks};
use support::flow::{DMZ, Flow, HOST2, LAN, NEVER_IDLE, PROTOCOLS, Side, WAN};
use support::lab::show;
use support::packet::{Mac, tcp};

const DIRECTIONS: [bool; 2] = [false, true];

fn key(flow: &Flow, reply: bool) -> bpfw_tuple {
    bpfw_tuple::from(flow.tuple(reply))
}

fn finished(datapath: &Datapath<'_>, flow: &Flow) -> [u16; 2] {
    DIRECTIONS.map(|reply| datapath.entry(flow, reply).rest.finished)
}

/// Both entries as they are, byte for byte.
fn bytes(datapath: &Datapath<'_>, flow: &Flow) -> [Vec<u8>; 2] {
    DIRECTIONS.map(|reply| datapath.entry(flow, reply).bytes().to_vec())
}

#[test]
fn fin_and_rst_end_both_directions() {
    on_both_hooks("fin-rst", |datapath| {
        let flow = Flow::snat(Protocol::Tcp);
        let ends = [tcp::FIN | tcp::ACK, tcp::RST, tcp::RST | tcp::ACK, tcp::FIN];
        for (reply, flags) in DIRECTIONS.into_iter().flat_map(|r| ends.map(|f| (r, f))) {
            datapath.add(&flow);
            datapath.expect_flow(&flow, !reply);
            let frame = flow.incoming(reply).flags(flags).build();
            let input = Input::new(flow.ingress(reply), &frame);
            datapath.expect_passed(input, abi::BPFW_PASS_TCP_FLAGS);
            assert_eq!(finished(datapath, &flow), [1; 2]);
            assert_eq!(datapath.take_signals(), [key(&flow, reply)]);
            // It is told again, once a jiffy of 10 ms at most, for as long as the entry is there.
            std::thread::sleep(Duration::from_millis(20));
            datapath.expect_passed(input, abi::BPFW_PASS_FINISHED);
            assert_eq!(datapath.take_signals(), [key(&flow, reply)]);
            datapath.remove(&flow);
        }
    });
}

#[test]
fn the_end_of_one_connection_is_not_anothers() {
    on_both_hooks("neighbors-live", |datapath| {
        let flow = Flow::snat(Protocol::Tcp);
        let other = Flow::new(
            Protocol::Tcp,
            (LAN.at(40001), WAN.at(443)),
            (WAN.router_at(61001), WAN.at(443)),
        );
        datapath.add(&flow);
        datapath.add(&other);
        let frame = flow.incoming(false).flags(tcp::RST).build();
        datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_TCP_FLAGS);
        for reply in DIRECTIONS {
            datapath.expect_flow(&other, reply);
        }
    });
}

#[test]
fn syn_passes_and_ends_nothing() {
    on_both_hooks("syn", |datapath| {
        let flow = Flow::snat(Protocol::Tcp);
        datapath.add(&flow);
        for (reply, flags) in [(false, tcp::SYN), (true, tcp::SYN | tcp::ACK)] {
            let frame = flow.incoming(reply).flags(flags).build();
            let input = Input::new(flow.ingress(reply), &frame);
            datapath.expect_passed(input, abi::BPFW_PASS_TCP_FLAGS);
        }
        assert_eq!(finished(datapath, &flow), [0, 0]);
        // Conntrack saw them: the daemon must make it forget what they acknowledge.
        let mut signals = datapath.take_signals();
        signals.sort_by_key(|signal| *signal != key(&flow, false));
        assert_eq!(signals, DIRECTIONS.map(|reply| key(&flow, reply)));
        for reply in DIRECTIONS {
            datapath.expect_flow(&flow, reply);
        }
    });
}

/// Packets of the connection that came in elsewhere all pass.
#[track_caller]
fn expect_forged_passes(datapath: &Datapath<'_>, flow: &Flow, side: Side, verdict: u32) {
    let flags = [tcp::ACK, tcp::RST, tcp::RST | tcp::ACK, tcp::FIN | tcp::ACK, tcp::SYN];
    for flags in flags {
        let packet = flow.incoming(false).mac(side.host_mac, side.router_mac);
        let packet = if flow.protocol == Protocol::Tcp { packet.flags(flags) } else { packet };
        for packet in [packet.clone(), packet.clone().ttl(1), packet.payload(&[0; 1473])] {
            datapath.expect_passed(Input::new(side, &packet.build()), verdict);
        }
    }
}

/// Where the next hop is not known, they ask as others do: conntrack sees them. They neither end the
/// connection nor take its proof.
#[track_caller]
fn expect_no_harm(datapath: &Datapath<'_>, flow: &Flow, side: Side) {
    let state = || {
        DIRECTIONS.map(|reply| {
            let abi::bpfw_conn { cell, rest } = datapath.entry(flow, reply);
            (cell.hop_word, cell.last_seen, rest.proof, rest.finished, rest.way_back)
        })
    };
    let before = state();
    expect_forged_passes(datapath, flow, side, abi::BPFW_PASS_UNPROVEN);
    assert_eq!(state(), before);
    datapath.take_signals();
}

/// Where it is known, they leave no trace.
#[track_caller]
fn expect_no_trace(datapath: &Datapath<'_>, flow: &Flow, side: Side, verdict: u32) {
    let before = bytes(datapath, flow);
    expect_forged_passes(datapath, flow, side, verdict);
    assert_eq!(bytes(datapath, flow), before);
    assert!(datapath.take_signals().is_empty());
}

#[test]
fn hazard_09_a_forged_packet_leaves_no_trace() {
    on_both_hooks("forged", |datapath| {
        for flow in PROTOCOLS.map(Flow::snat) {
            datapath.add(&flow);
            for side in [WAN, DMZ] {
                expect_no_harm(datapath, &flow, side);
            }
            for reply in DIRECTIONS {
                datapath.expect_flow(&flow, reply);
            }
            for side in [WAN, DMZ] {
                expect_no_trace(datapath, &flow, side, abi::BPFW_PASS_INGRESS);
            }
            datapath.state.bump(Change::Topology).expect("bump");
            for side in [WAN, DMZ] {
                expect_no_harm(datapath, &flow, side);
            }
            for reply in DIRECTIONS {
                datapath.expect_flow(&flow, reply);
            }
        }
    });
}

fn set_neighbor(datapath: &Datapath<'_>, side: Side, mac: Mac) {
    let (host, mac, device) = (side.host, show(mac), side.device);
    let command = format!("neigh replace {host} lladdr {mac} dev {device} nud permanent\n");
    datapath.namespace.ip(&command);
}

/// The first packet goes up, because the stack has sent none to this next hop.
fn expect_new_proof(datapath: &Datapath<'_>, flow: &Flow) {
    let frame = flow.incoming(false).build();
    datapath.expect_passed(Input::new(flow.near, &frame), abi::BPFW_PASS_UNPROVEN);
    datapath.prove(flow, false);
    datapath.expect_flow(flow, false);
}

#[test]
fn a_bump_makes_entries_look_up_again() {
    const NEW: Mac = [2, 0, 0, 0, 0x77, 7];
    on_both_hooks("bump", |datapath| {
        let flow = Flow::snat(Protocol::Udp);
        datapath.add(&flow);
        datapath.expect_flow(&flow, false);
        set_neighbor(datapath, WAN, NEW);
        datapath.expect_flow(&flow, false);
        datapath.state.bump(Change::Topology).expect("bump");
        let moved = Flow { far: Side { host_mac: NEW, ..WAN }, ..flow };
        expect_new_proof(datapath, &moved);
        // The other direction never used that neighbour.
        datapath.expect_flow(&flow, true);
    });
}

#[test]
fn a_new_gateway_on_the_same_interface_is_followed() {
    on_both_hooks("gateway", |datapath| {
        let flow = Flow { near: WAN, far: LAN, ..Flow::plain(Protocol::Tcp) };
        let far = std::net::SocketAddrV4::new([10, 1, 2, 3].into(), 80);
        let flow = Flow { before: (WAN.at(50000), far), after: (WAN.at(50000), far), ..flow };
        datapath.add(&flow);
        datapath.expect_flow(&flow, false);
        datapath.namespace.ip(&format!("route replace 10.0.0.0/8 via {}\n", HOST2.host));
        datapath.state.bump(Change::Topology).expect("bump");
        expect_new_proof(datapath, &Flow { far: HOST2, ..flow });
    });
}

/// The other direction's packets may be dropped now, because answers would leave elsewhere
/// (rp_filter).
#[test]
fn a_move_to_another_interface_wants_a_proof_of_both_directions() {
    on_both_hooks("moved", |datapath| {
        let flow = Flow::plain(Protocol::Udp);
        datapath.add(&flow);
        for reply in DIRECTIONS {
            datapath.expect_flow(&flow, reply);
        }
        datapath.namespace.ip(&format!("route add {} via {}\n", WAN.host, DMZ.host));
        // Nobody has said so yet.
        datapath.expect_flow(&flow, false);
        datapath.state.bump(Change::Topology).expect("bump");
        let there = flow.incoming(false).build();
        let back = flow.incoming(true).build();
        for _ in 0..2 {
            datapath.expect_passed(Input::new(LAN, &there), abi::BPFW_PASS_UNPROVEN);
            datapath.expect_passed(Input::new(WAN, &back), abi::BPFW_PASS_UNPROVEN);
        }
        assert_eq!(finished(datapath, &flow), [0, 0]);
        // An answer still comes in where it did; the way to the server is another.
        datapath.prove(&flow, true);
        datapath.expect_flow(&flow, true);
        datapath.expect_passed(Input::new(LAN, &there), abi::BPFW_PASS_UNPROVEN);
        expect_new_proof(datapath, &Flow { far: DMZ, ..flow });
    });
}

#[test]
fn a_neighbor_that_went_and_came_back() {
    on_both_hooks("neighbor-gone", |datapath| {
        let flow = Flow::snat(Protocol::Udp);
        datapath.add(&flow);
        datapath.expect_flow(&flow, false);
        datapath.namespace.ip(&format!("neigh del {} dev {}\n", WAN.host, WAN.device));
        datapath.state.bump(Change::Topology).expect("bump");
        let frame = flow.incoming(false).build();
        for _ in 0..2 {
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_NO_NEIGHBOR);
        }
        assert_eq!(finished(datapath, &flow), [0, 0]);
        // The way back needs no neighbour, only its interface.
        datapath.expect_flow(&flow, true);
        set_neighbor(datapath, WAN, WAN.host_mac);
        datapath.expect_flow(&flow, false);
    });
}

#[test]
fn unknown_connections_are_signalled_once() {
    on_both_hooks("unknown", |datapath| {
        for flow in PROTOCOLS.into_iter().flat_map(Flow::of_each_family) {
            let frame = flow.incoming(false).build();
            for _ in 0..3 {
                datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_UNKNOWN);
            }
            assert_eq!(datapath.take_signals(), [key(&flow, false)]);
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_UNKNOWN);
            assert_eq!(datapath.take_signals(), [key(&flow, false)], "taken out, so again");
        }
    });
}

#[test]
fn opening_and_closing_segments_are_no_signals() {
    on_both_hooks("no-signal", |datapath| {
        let flow = Flow::snat(Protocol::Tcp);
        for flags in [tcp::SYN, tcp::SYN | tcp::ACK, tcp::FIN | tcp::ACK, tcp::RST, tcp::PSH, 0] {
            let frame = flow.incoming(false).flags(flags).build();
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_UNKNOWN);
        }
        assert!(datapath.take_signals().is_empty());
    });
}

#[test]
fn what_is_forwarded_is_counted() {
    on_both_hooks("counted", |datapath| {
        let flow = Flow::snat(Protocol::Udp);
        datapath.add(&flow);
        let fresh = datapath.entry(&flow, false);
        assert_eq!(fresh.volume(), (0, 0));
        assert_eq!(fresh.cell.last_seen, NEVER_IDLE as u32 - 1, "before the stack saw one");
        let before = datapath.now() as u32;
        for length in [0, 1, 100] {
            let frame = flow.incoming(false).payload(&vec![1; length]).pad_to(60).build();
            let outcome = datapath.run_frame(LAN, &frame);
            assert_eq!(outcome.verdict, abi::BPFW_FORWARDED);
        }
        let entry = datapath.entry(&flow, false);
        // Without Ethernet and padding.
        assert_eq!(entry.volume(), (3, 3 * 28 + 101));
        let age = entry.cell.last_seen.wrapping_sub(before);
        assert!(age <= (datapath.now() as u32).wrapping_sub(before));
        assert_eq!(entry.rest.passed_up, NEVER_IDLE);
        assert!(entry.hop_slot().is_some());
        let reply = datapath.entry(&flow, true);
        assert_eq!((reply.volume(), reply.cell.last_seen), ((0, 0), fresh.cell.last_seen));
        assert_eq!(reply.hop_slot(), None);
    });
}

/// A cell has room for 4 GiB; what is beyond half of that goes to its rest with the next packet.
#[test]
fn counts_go_on_beyond_what_a_cell_holds() {
    on_both_hooks("volume", |datapath| {
        // Of UDP this is too short for the express lane.
        let flow = Flow::snat(Protocol::Tcp);
        datapath.add(&flow);
        for reply in DIRECTIONS {
            datapath.expect_flow(&flow, reply);
        }
        let mut entry = datapath.entry(&flow, false);
        entry.cell.volume = 5_000_000 << 32 | u64::from(abi::BPFW_VOLUME_FULL - 1);
        entry.rest.packets = 1 << 40;
        entry.rest.bytes = 1 << 50;
        datapath.overwrite(&entry);
        for packets in 1..=3 {
            datapath.expect_flow(&flow, false);
            let found = datapath.entry(&flow, false);
            let (before, bytes) = entry.volume();
            let length = flow.incoming(false).build().len() as u64 - 14;
            assert_eq!(found.volume(), (before + packets, bytes + packets * length));
            // The express lane, which never is in conn_map, leaves that to the full lane.
            let is_moved = found.rest.packets > entry.rest.packets;
            assert_eq!(is_moved, packets > 1 || datapath.is_full());
        }
    });
}

#[test]
fn what_passes_is_noted_but_not_counted() {
    on_both_hooks("passed-up", |datapath| {
        let flow = Flow::snat(Protocol::Tcp);
        let syn = flow.incoming(false).flags(tcp::SYN).build();
        let expiring = flow.incoming(false).ttl(1).build();
        let large = flow.incoming(false).payload(&[0; 1461]).build();
        for frame in [syn, expiring, large] {
            datapath.add(&flow);
            let before = datapath.now();
            let outcome = datapath.run_frame(LAN, &frame);
            assert_eq!(outcome.action, datapath.pass());
            let entry = datapath.entry(&flow, false);
            assert_eq!(entry.volume(), (0, 0));
            assert_eq!(entry.cell.last_seen, NEVER_IDLE as u32 - 1);
            assert!((before..=datapath.now()).contains(&entry.rest.passed_up));
            assert_eq!(datapath.entry(&flow, true).rest.passed_up, NEVER_IDLE);
            datapath.remove(&flow);
        }
    });
}

#[test]
fn a_udp_connection_passes_from_its_time_on() {
    on_both_hooks("pass-from", |datapath| {
        let soon = datapath.now() + 30;
        let flow = Flow { pass_from: soon, ..Flow::snat(Protocol::Udp) };
        datapath.add(&flow);
        let mut verdicts = Vec::new();
        // Up to 0.3 s at 100 jiffies in a second, and as much again for a busy machine.
        for _ in 0..600 {
            let (before, frame) = (datapath.now(), flow.incoming(false).build());
            let outcome = datapath.run_frame(LAN, &frame);
            if before >= soon {
                assert_eq!(outcome.verdict, abi::BPFW_PASS_UNASSURED);
            } else if datapath.now() < soon {
                assert_eq!(outcome.verdict, abi::BPFW_FORWARDED);
            }
            verdicts.push(outcome.verdict);
            if outcome.verdict == abi::BPFW_PASS_UNASSURED {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(verdicts.last(), Some(&abi::BPFW_PASS_UNASSURED));
        assert_eq!(finished(datapath, &flow), [0, 0]);
    });
}

fn hop_in(hops: &Hops, slot: u32) -> bpfw_hop {
    let [hop] = hops.in_slots(&[slot].into()).expect("reading")[..] else {
        panic!("one next hop in slot {slot}");
    };
    hop
}

#[test]
fn next_hops_are_shared() {
    on_both_hooks("hops", |datapath| {
        let hops = Hops::new(datapath.object.object()).expect("hops");
        let flows: Vec<_> = (0..50)
            .map(|i| {
                let (inside, outside) = (LAN.at(1000 + i), WAN.router_at(2000 + i));
                Flow::new(Protocol::Udp, (inside, WAN.at(53)), (outside, WAN.at(53)))
            })
            .collect();
        for flow in &flows {
            datapath.add(flow);
            assert_eq!(datapath.entry(flow, false).hop_slot(), None);
            for reply in DIRECTIONS {
                datapath.expect_flow(flow, reply);
            }
            let slots = DIRECTIONS.map(|reply| datapath.entry(flow, reply).hop_slot());
            assert_eq!(slots, [Some(0), Some(1)]);
        }
        for (slot, side) in [(0, WAN), (1, LAN)] {
            let hop = hop_in(&hops, slot);
            assert_eq!((hop.egress, hop.hot.port), (side.ifindex(), side.ifindex()));
            assert_eq!((hop.neighbor(), hop.hot.mtu), (side.host.into(), 1500));
        }
    });
}

/// Packets look alike to both, but each has to be kept in use.
#[test]
fn neighbors_with_the_same_mac_are_two_next_hops() {
    on_both_hooks("same-mac", |datapath| {
        let hops = Hops::new(datapath.object.object()).expect("hops");
        let twin = Side { host_mac: LAN.host_mac, ..HOST2 };
        set_neighbor(datapath, twin, twin.host_mac);
        for (slot, far) in [(0, LAN), (1, twin)] {
            let ends = (WAN.at(50000), far.at(53));
            let flow = Flow { near: WAN, far, ..Flow::new(Protocol::Udp, ends, ends) };
            datapath.add(&flow);
            datapath.expect_flow(&flow, false);
            let hop = hop_in(&hops, slot);
            assert_eq!((hop.neighbor(), hop.egress), (far.host.into(), LAN.ifindex()));
        }
    });
}
