// SPDX-License-Identifier: GPL-2.0-only
//! Proof at the way out, packet by packet: what makes a direction fast, and what does not.

mod support;

use bpfw::abi::{
    BPFW_FORWARDED, BPFW_NO_TESTIMONY, BPFW_PASS_UNPROVEN, BPFW_PROVEN, BPFW_STAMP_OLD, bpfw_rest,
};
use bpfw::clock::Jiffies;
use bpfw::datapath::state::{Change, NO_PERIODS};
use bpfw::flow::tuple::Protocol;
use std::panic::catch_unwind;
use std::time::Duration;
use support::datapath::{Datapath, HOOKS, Input, Sent, Stamped, on_both_hooks, on_hook_from};
use support::flow::{DMZ, Flow, LAN, PROTOCOLS, WAN};
use support::live::root_or_skip;
use support::packet::{Packet, tcp};
use support::patched::Patched;
use support::wait::eventually;

const DIRECTIONS: [bool; 2] = [false, true];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0x77, 7];

/// A packet of this direction comes in, and asks.
#[track_caller]
fn expect_asks(datapath: &Datapath<'_>, flow: &Flow, reply: bool) {
    let frame = flow.incoming(reply).build();
    datapath.expect_passed(Input::new(flow.ingress(reply), &frame), BPFW_PASS_UNPROVEN);
}

/// The packet of the original direction as the stack sends it.
fn sent<'a>(datapath: &Datapath<'_>, flow: &Flow, frame: &'a [u8]) -> Sent<'a> {
    let rest = datapath.entry(flow, false).rest;
    Sent {
        frame,
        ingress: LAN.ifindex(),
        egress: WAN.ifindex(),
        tag: (0, 0),
        stamp: datapath.stamp(&rest, rest.way_back),
    }
}

#[test]
fn each_direction_needs_a_packet_of_its_own() {
    on_both_hooks("own", own);
}

fn own(datapath: &mut Datapath<'_>) {
    let plain = PROTOCOLS.into_iter().map(Flow::plain);
    for flow in plain.chain(PROTOCOLS.into_iter().flat_map(Flow::of_each_family)) {
        datapath.add_unproven(&flow);
        for reply in DIRECTIONS {
            for _ in 0..2 {
                expect_asks(datapath, &flow, reply);
            }
            datapath.prove(&flow, reply);
            datapath.expect_flow(&flow, reply);
        }
        datapath.remove(&flow);
    }
}

/// What the stack may send that is not the packet which the fast path would send.
fn others(flow: &Flow) -> Vec<(&'static str, Packet)> {
    let right = || flow.outgoing(false);
    let mut all = vec![
        ("another next hop", right().mac(WAN.router_mac, OTHER_MAC)),
        ("another source MAC", right().mac(OTHER_MAC, WAN.host_mac)),
        ("the untranslated packet", flow.incoming(false).mac(WAN.router_mac, WAN.host_mac)),
    ];
    if flow.ipv6 {
        let number = if flow.protocol == Protocol::Tcp { 6 } else { 17 };
        let headers = [number, 0, 0, 0, 0, 0, 0, 0];
        all.push(("a fragment", right().extension(44, &headers)));
        all.push(("an extension header", right().extension(60, &headers)));
    } else {
        all.push(("a fragment", right().fragment(0, true)));
        all.push(("a later fragment", right().fragment(8, false)));
        all.push(("IP options", right().ip_options(&[1; 4])));
    }
    // Where there is no translation, none can be missing.
    all.retain(|(what, _)| flow.is_translated() || *what != "the untranslated packet");
    if flow.protocol == Protocol::Tcp {
        let flags = [tcp::SYN, tcp::FIN | tcp::ACK, tcp::RST, tcp::SYN | tcp::ACK, 0];
        all.extend(flags.map(|flags| ("TCP flags", right().flags(flags))));
    }
    all
}

#[test]
fn other_packets_prove_nothing() {
    on_both_hooks("others", others_prove_nothing);
}

fn others_prove_nothing(datapath: &mut Datapath<'_>) {
    for flow in PROTOCOLS.into_iter().flat_map(Flow::of_each_family) {
        datapath.add_unproven(&flow);
        expect_asks(datapath, &flow, false);
        for (what, packet) in others(&flow) {
            let frame = packet.build();
            datapath.send(&sent(datapath, &flow, &frame));
            println!("{what}");
            expect_asks(datapath, &flow, false);
        }
        let frame = flow.outgoing(false).build();
        let right = || sent(datapath, &flow, &frame);
        let here = right().stamp;
        let rest = datapath.entry(&flow, false).rest;
        let of_another_way_back = datapath.stamp(&rest, DMZ.ifindex());
        // A queue held it while the connection got another mark, or was replaced by another one.
        let marked = bpfw_rest { mark: rest.mark ^ 1, ..rest };
        let of_another_mark = datapath.stamp(&marked, rest.way_back);
        let replaced = bpfw_rest { id: rest.id ^ 1, ..rest };
        let of_another_entry = datapath.stamp(&replaced, rest.way_back);
        for (other, counted) in [
            (Sent { stamp: 0, ..right() }, None),
            (Sent { stamp: here ^ 1, ..right() }, Some(BPFW_STAMP_OLD)),
            (Sent { stamp: of_another_way_back, ..right() }, Some(BPFW_STAMP_OLD)),
            (Sent { stamp: of_another_mark, ..right() }, Some(BPFW_STAMP_OLD)),
            (Sent { stamp: of_another_entry, ..right() }, Some(BPFW_STAMP_OLD)),
            (Sent { ingress: 0, ..right() }, Some(BPFW_NO_TESTIMONY)),
            (Sent { ingress: 0x7fff_ffff, ..right() }, Some(BPFW_NO_TESTIMONY)),
            (Sent { ingress: DMZ.ifindex(), ..right() }, Some(BPFW_PROVEN)),
            (Sent { egress: DMZ.ifindex(), ..right() }, Some(BPFW_PROVEN)),
        ] {
            assert_eq!(datapath.send(&other), counted);
            expect_asks(datapath, &flow, false);
        }
        assert_eq!(datapath.send(&right()), Some(BPFW_PROVEN));
        datapath.expect_flow(&flow, false);
        datapath.remove(&flow);
    }
}

#[test]
fn a_connection_that_is_not_there_gets_no_proof() {
    on_both_hooks("not-there", not_there);
}

fn not_there(datapath: &mut Datapath<'_>) {
    let flow = Flow::snat(Protocol::Udp);
    let frame = flow.outgoing(false).build();
    let way = Sent {
        frame: &frame,
        ingress: LAN.ifindex(),
        egress: WAN.ifindex(),
        tag: (0, 0),
        stamp: datapath.stamp(&bpfw_rest::default(), LAN.ifindex()),
    };
    assert_eq!(datapath.send(&way), Some(BPFW_NO_TESTIMONY));
    // A packet from before the insert: it may have passed as conntrack's first one.
    datapath.add_unproven(&flow);
    assert_eq!(datapath.send(&way), Some(BPFW_STAMP_OLD));
    expect_asks(datapath, &flow, false);
    // The next owner of the ports asks anew.
    datapath.prove(&flow, false);
    datapath.expect_flow(&flow, false);
    datapath.remove(&flow);
    datapath.add_unproven(&Flow { id: 4712, ..flow });
    assert_eq!(datapath.send(&way), Some(BPFW_STAMP_OLD));
    expect_asks(datapath, &flow, false);
}

#[test]
fn hazard_56_a_change_of_policy_wants_new_proofs_and_one_of_topology_does_not() {
    on_both_hooks("policy", policy);
}

fn policy(datapath: &mut Datapath<'_>) {
    let flow = Flow::snat(Protocol::Tcp);
    datapath.add(&flow);
    for reply in DIRECTIONS {
        datapath.expect_flow(&flow, reply);
    }
    datapath.state.bump(Change::Topology).expect("bump");
    for reply in DIRECTIONS {
        datapath.expect_flow(&flow, reply);
    }
    datapath.state.bump(Change::Policy).expect("bump");
    for reply in DIRECTIONS {
        expect_asks(datapath, &flow, reply);
        datapath.prove(&flow, reply);
        datapath.expect_flow(&flow, reply);
    }
}

#[test]
fn hazard_63_a_packet_from_before_a_change_proves_nothing() {
    on_both_hooks("waited", waited);
}

fn waited(datapath: &mut Datapath<'_>) {
    let flow = Flow::snat(Protocol::Udp);
    datapath.add_unproven(&flow);
    for change in [Change::Policy, Change::Topology] {
        expect_asks(datapath, &flow, false);
        let frame = flow.outgoing(false).build();
        let waiting = sent(datapath, &flow, &frame);
        datapath.state.bump(change).expect("bump");
        assert_eq!(datapath.send(&waiting), Some(BPFW_STAMP_OLD));
        expect_asks(datapath, &flow, false);
    }
    // In a pause, no stamp is the current one.
    let frame = flow.outgoing(false).build();
    let waiting = sent(datapath, &flow, &frame);
    datapath.state.pause().expect("a pause");
    assert_eq!(datapath.send(&waiting), Some(BPFW_STAMP_OLD));
}

#[test]
fn hazard_66_another_way_back_wants_a_new_proof() {
    on_both_hooks("way-back", way_back);
}

fn way_back(datapath: &mut Datapath<'_>) {
    let flow = Flow::plain(Protocol::Udp);
    datapath.add(&flow);
    datapath.expect_flow(&flow, false);
    let routes = [
        format!("route add {} via {}\n", LAN.host, DMZ.host),
        format!("route replace unreachable {}\n", LAN.host),
    ];
    for route in routes {
        datapath.namespace.ip(&route);
        datapath.state.bump(Change::Topology).expect("bump");
        expect_asks(datapath, &flow, false);
        // Answers may leave elsewhere: if the stack sends it so, it is fast.
        datapath.prove(&flow, false);
        datapath.expect_flow(&flow, false);
    }
}

#[test]
fn hazard_67_each_period_wants_a_new_proof() {
    on_both_hooks("period", period);
}

fn period(datapath: &mut Datapath<'_>) {
    let flow = Flow::snat(Protocol::Udp);
    datapath.add(&flow);
    datapath.state.pause().expect("a pause");
    // Some 16 to 160 ms.
    datapath.state.set_period(4, Jiffies(datapath.now()));
    datapath.state.bump(Change::Topology).expect("bump");
    let frame = flow.incoming(false).build();
    expect_asks(datapath, &flow, false);
    let is = |verdict| datapath.run_frame(LAN, &frame).verdict == verdict;
    for _ in 0..3 {
        eventually(Duration::from_secs(10), "it is proven", || {
            datapath.ask_and_prove(&flow, false);
            is(BPFW_FORWARDED)
        });
        eventually(Duration::from_secs(10), "its period is over", || is(BPFW_PASS_UNPROVEN));
    }
    // Without periods, older proofs do not fit again.
    datapath.state.pause().expect("a pause");
    datapath.state.set_period(NO_PERIODS, Jiffies(datapath.now()));
    datapath.state.bump(Change::Topology).expect("bump");
    expect_asks(datapath, &flow, false);
}

#[test]
fn proofs_of_others_fit_nothing() {
    on_both_hooks("mixture", mixture);
}

/// As a weakly ordered machine may show an entry's rest while the memory changes hands.
fn mixture(datapath: &mut Datapath<'_>) {
    let flow = Flow::snat(Protocol::Udp);
    let other = Flow { before: (LAN.at(40001), WAN.at(443)), ..flow };
    let other = Flow { after: (WAN.router_at(61001), WAN.at(443)), ..other };
    datapath.add(&flow);
    datapath.add_unproven(&other);
    expect_asks(datapath, &other, false);
    let proven = datapath.entry(&flow, false);
    let mut mixed = datapath.entry(&other, false);
    mixed.rest.proof = proven.rest.proof;
    datapath.overwrite(&mixed);
    expect_asks(datapath, &other, false);
    let mut reused = proven;
    reused.rest.id ^= 1;
    datapath.overwrite(&reused);
    expect_asks(datapath, &flow, false);
    // Both entries that lead to each other must be of the same connection.
    let mut reply = datapath.entry(&other, true);
    reply.rest.id ^= 1;
    datapath.overwrite(&reply);
    datapath.prove(&other, false);
    expect_asks(datapath, &other, false);
}

#[test]
fn hazard_63_a_packet_from_an_earlier_period_proves_nothing() {
    on_both_hooks("waited-long", waited_long);
}

fn waited_long(datapath: &mut Datapath<'_>) {
    let flow = Flow::snat(Protocol::Udp);
    datapath.add_unproven(&flow);
    datapath.state.pause().expect("a pause");
    // Some 64 to 640 ms.
    datapath.state.set_period(6, Jiffies(datapath.now()));
    datapath.state.bump(Change::Topology).expect("bump");
    let frame = flow.outgoing(false).build();
    eventually(Duration::from_secs(10), "a packet leaves in its period", || {
        expect_asks(datapath, &flow, false);
        datapath.send(&sent(datapath, &flow, &frame)) == Some(BPFW_PROVEN)
    });
    let waiting = sent(datapath, &flow, &frame);
    let (period, until) = (datapath.now() >> 6, Duration::from_secs(10));
    eventually(until, "the next period", || datapath.now() >> 6 != period);
    assert_eq!(datapath.send(&waiting), Some(BPFW_STAMP_OLD));
}

/// A check, and a part of the proof without which it fails: the file, what stands there, and what stands
/// there instead.
type Part = (fn(&mut Datapath<'_>), &'static str, &'static str, &'static str);

const PARTS: [Part; 14] = [
    (own, "next_hop.h", "if (rest->proof == proof_of", "if (1 || rest->proof == proof_of"),
    (mixture, "proof.h", "(__u64)seal << 32 | id", "id"),
    (mixture, "proof.h", "(__u64)seal << 32 | id", "(__u64)seal << 32"),
    (mixture, "egress.h", "conn.rest->id != reply.rest->id", "0"),
    (policy, "proof.h", "(__u64)way->epoch << 32 | way->ingress", "way->ingress"),
    (others_prove_nothing, "proof.h", "way->epoch << 32 | way->ingress", "way->epoch << 32"),
    (others_prove_nothing, "proof.h", "(__u64)way->egress << 32 | way->back", "way->back"),
    (way_back, "proof.h", "way->egress << 32 | way->back", "way->egress << 32"),
    (
        others_prove_nothing,
        "proof.h",
        "(__u64) * (const __u16 *)macs << 32 | *(const __u32 *)(macs + 2)",
        "0",
    ),
    (
        others_prove_nothing,
        "proof.h",
        "(__u64) * (const __u16 *)(macs + 10) << 32 | *(const __u32 *)(macs + 6)",
        "0",
    ),
    (
        waited,
        "egress.h",
        "stamp != stamp_of(generation.current, conn.rest, way.back, now)",
        "0 * stamp",
    ),
    (
        others_prove_nothing,
        "egress.h",
        "if (!bpf_map_lookup_elem(&egress_map, &way.ingress))",
        "if (0)",
    ),
    (others_prove_nothing, "skb.h", "pkt->tuple->head.protocol != IPPROTO_TCP ||", "1 ||"),
    (period, "proof.h", ">> generation_now.period", ">> 63"),
];

/// A check, and a part of the stamp without which it fails. The words are what proof.h says, what
/// it says instead, and the same for the stamps of the test.
type StampPart = (fn(&mut Datapath<'_>), &'static str, &'static str, fn(&mut Stamped));

const STAMP_PARTS: [StampPart; 5] = [
    (waited, "(current + period_of(0, now)", "(period_of(0, now)", |stamped| {
        stamped.generation = 0
    }),
    (waited_long, "(current + period_of(0, now)", "(current", |stamped| stamped.period = 0),
    (others_prove_nothing, "mix(way_back, rest->id)", "mix(0, rest->id)", |s| s.way_back = 0),
    (others_prove_nothing, "mix(way_back, rest->id)", "mix(way_back, 0)", |s| s.id = 0),
    (others_prove_nothing, "rest->id), rest->mark)", "rest->id), 0)", |s| s.mark = 0),
];

#[test]
fn no_part_of_the_stamp_is_idle() {
    if !root_or_skip("no_part_of_the_stamp_is_idle") {
        return;
    }
    for (number, (check, part, instead, lacking)) in STAMP_PARTS.into_iter().enumerate() {
        for hook in HOOKS {
            let name = format!("stamp-{number}-{}", hook.name());
            let patched = Patched::new(&name, "proof.h", part, instead);
            let object = patched.compile(hook);
            // The check holds up to where the part matters.
            on_hook_from(&name, hook, &object, |datapath| {
                datapath.lacking = lacking;
                own(datapath);
            });
            let held = catch_unwind(|| {
                on_hook_from(&name, hook, &object, |datapath| {
                    datapath.lacking = lacking;
                    check(datapath);
                });
            });
            assert!(held.is_err(), "{} without '{part}': no check fails", hook.name());
        }
    }
}

/// Each part of the proof alone is what a test stands on: without it, that test fails.
#[test]
fn no_part_of_the_proof_is_idle() {
    if !root_or_skip("no_part_of_the_proof_is_idle") {
        return;
    }
    for (number, (check, file, part, instead)) in PARTS.into_iter().enumerate() {
        for hook in HOOKS {
            let patched = Patched::new(&format!("{number}-{}", hook.name()), file, part, instead);
            let object = patched.compile(hook);
            let test = format!("part-{number}");
            // What fails below is the check, not the loading.
            on_hook_from(&test, hook, &object, |_| ());
            let held = catch_unwind(|| on_hook_from(&test, hook, &object, check)).is_ok();
            assert!(!held, "{} without '{part}' of {file}: no check fails", hook.name());
        }
    }
}
