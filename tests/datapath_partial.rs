// SPDX-License-Identifier: GPL-2.0-only
//! Packets whose checksum is left to a NIC, on TC: what local senders and GRO make. A test run
//! knows no such packets, so these are really sent.

mod support;

use bpfw::datapath::Hook;
use bpfw::flow::tuple::Protocol;
use std::time::Duration;
use support::capture::{Capture, send_unfinished};
use support::datapath::{Datapath, on_hook};
use support::flow::{Flow, LAN, PROTOCOLS, WAN};

/// One unfinished packet through the router: it must come out unfinished, and right.
fn expect_partial(datapath: &Datapath<'_>, flow: &Flow, payload: &[u8], gso_size: u16) {
    let to = Capture::open(datapath.namespace, "wan0-peer");
    let [before, after] = [flow.incoming(false), flow.outgoing(false)]
        .map(|packet| packet.payload(payload).partial_l4_checksum().build());
    send_unfinished(datapath.namespace, "lan0-peer", &before, gso_size);
    // The kernel sends frames of its own, too: neighbor discovery, group membership.
    let ports = if flow.ipv6 { 54..58 } else { 34..38 };
    let is_ours = |bytes: &[u8]| {
        bytes[12..14] == after[12..14] && bytes.get(ports.clone()) == after.get(ports.clone())
    };
    let frame = to.next(Duration::from_secs(5), |frame| is_ours(&frame.bytes));
    let frame = frame.expect("a frame");
    assert!(frame.partial_checksum, "someone completed the checksum");
    assert_eq!(frame.bytes, after);
}

#[test]
fn hazard_12_partial_checksums_stay_partial_and_right() {
    on_hook("partial", Hook::Tc, |datapath| {
        datapath.attach_tc(LAN);
        for protocol in PROTOCOLS {
            let ends = (LAN.at(40000), WAN.at(443));
            let same_port = Flow::new(protocol, ends, (WAN.router_at(40000), WAN.at(443)));
            let ports = Flow::new(protocol, ends, (LAN.at(1), WAN.at(9)));
            let kinds = [Flow::plain(protocol), Flow::snat(protocol), same_port, ports];
            for flow in kinds.into_iter().flat_map(|flow| [flow, Flow { ipv6: true, ..flow }]) {
                datapath.add(&flow);
                for payload in [&b""[..], b"odd", &[0x99; 1400]] {
                    expect_partial(datapath, &flow, payload, 0);
                }
                datapath.remove(&flow);
            }
        }
    });
}

#[test]
fn hazard_12_large_packets_stay_whole() {
    on_hook("partial-gso", Hook::Tc, |datapath| {
        datapath.attach_tc(LAN);
        let kinds = [Flow::plain, Flow::snat, Flow::ipv6, Flow::nat66];
        for flow in kinds.map(|kind| kind(Protocol::Tcp)) {
            datapath.add(&flow);
            for length in [2920, 30_001] {
                expect_partial(
                    datapath,
                    &flow,
                    &vec![0x42; length],
                    if flow.ipv6 { 1440 } else { 1460 },
                );
            }
            datapath.remove(&flow);
        }
    });
}
