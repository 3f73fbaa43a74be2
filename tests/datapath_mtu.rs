// SPDX-License-Identifier: GPL-2.0-only
//! What is larger than the next hop's MTU goes to the stack, which splits it or says so.

mod support;

use bpfw::abi::BPFW_PASS_TOO_BIG;
use bpfw::datapath::Hook;
use bpfw::flow::tuple::Protocol;
use std::net::IpAddr;
use support::datapath::{Datapath, Input, egress, egresses, links, on_both_hooks, on_hook};
use support::flow::{Flow, LAN, PROTOCOLS, WAN, ipv6_of};

/// Headers of the family and the protocol.
fn headers(flow: &Flow) -> usize {
    let ip = if flow.ipv6 { 40 } else { 20 };
    ip + if flow.protocol == Protocol::Tcp { 20 } else { 8 }
}

/// The largest packet that is forwarded has `mtu` bytes, in both protocols and families.
#[track_caller]
fn expect_limit(datapath: &Datapath<'_>, mtu: usize) {
    for flow in PROTOCOLS.into_iter().flat_map(Flow::of_each_family) {
        datapath.add(&flow);
        let payload = vec![0x77; mtu - headers(&flow)];
        let larger = vec![0x77; payload.len() + 1];
        // The larger one first: it must not matter which packet asks for the route.
        let before = flow.incoming(false).payload(&larger).build();
        datapath.expect_passed(Input::new(LAN, &before), BPFW_PASS_TOO_BIG);
        let [before, after] =
            [flow.incoming(false), flow.outgoing(false)].map(|p| p.payload(&payload).build());
        datapath.expect_forwarded(Input::new(LAN, &before), &after);
        let before = flow.incoming(false).payload(&larger).df(false).build();
        datapath.expect_passed(Input::new(LAN, &before), BPFW_PASS_TOO_BIG);
        datapath.remove(&flow);
    }
}

#[test]
fn the_device_limits() {
    on_both_hooks("device-mtu", |datapath| expect_limit(datapath, 1500));
}

#[test]
fn a_smaller_device_limits() {
    on_both_hooks("small-device", |datapath| {
        datapath.namespace.ip("link set wan0 mtu 1400\n");
        expect_limit(datapath, 1400);
    });
}

#[test]
fn the_mtu_of_the_egress_map_limits() {
    on_both_hooks("egress-mtu", |datapath| {
        let mut fixed = egresses();
        fixed.retain(|(ifindex, _)| *ifindex != WAN.ifindex());
        fixed.push(egress(WAN, 0, 0, 1280));
        datapath.devices.set(&links(), &fixed).expect("devices");
        expect_limit(datapath, 1280);
    });
}

#[test]
fn hazard_10_a_locked_route_mtu_limits() {
    on_both_hooks("locked-mtu", |datapath| {
        for host in [WAN.host.into(), IpAddr::from(ipv6_of(WAN.host))] {
            datapath.namespace.ip(&format!("route add {host} dev wan0 mtu lock 1300\n"));
        }
        expect_limit(datapath, 1300);
    });
}

#[test]
fn a_larger_ingress_does_not_matter() {
    on_both_hooks("jumbo-lan", |datapath| {
        datapath.namespace.ip("link set lan0 mtu 3000\n");
        expect_limit(datapath, 1500);
    });
}

/// An MTU limits what an interface sends. The way back must be found all the same.
#[test]
fn a_smaller_ingress_does_not_matter() {
    on_both_hooks("small-lan", |datapath| {
        // With less than 1280, the interface would have no IPv6.
        datapath.namespace.ip("link set lan0 mtu 1300\n");
        expect_limit(datapath, 1500);
    });
}

#[test]
fn padding_does_not_count() {
    on_both_hooks("mtu-padding", |datapath| {
        let flow = Flow::snat(Protocol::Udp);
        datapath.add(&flow);
        let before = flow.incoming(false).payload(b"abc").pad_to(1600).build();
        let after = flow.outgoing(false).payload(b"abc").build();
        datapath.expect_forwarded(Input::new(LAN, &before), &after);
    });
}

/// TCP only: in a test run, the kernel does not know what kind of segments a packet stands for. So
/// it cannot say of UDP what fits. `aggregates.rs` sends such packets.
#[test]
fn hazard_10_segments_are_judged_one_by_one() {
    on_hook("gso", Hook::Tc, |datapath| {
        for flow in Flow::of_each_family(Protocol::Tcp) {
            datapath.add(&flow);
            let [before, after] =
                [flow.incoming(false), flow.outgoing(false)].map(|p| p.payload(&[9; 2800]).build());
            let largest = (1500 - headers(&flow)) as u32;
            for fits in [1, 1000, largest] {
                let input = Input { gso_size: fits, ..Input::new(LAN, &before) };
                datapath.expect_forwarded(input, &after);
            }
            for large in [largest + 1, 2000] {
                let input = Input { gso_size: large, ..Input::new(LAN, &before) };
                datapath.expect_passed(input, BPFW_PASS_TOO_BIG);
            }
        }
    });
}

#[test]
fn tcp_options_count_in_each_segment() {
    on_hook("gso-options", Hook::Tc, |datapath| {
        let flow = Flow::snat(Protocol::Tcp);
        datapath.add(&flow);
        let [before, after] = [flow.incoming(false), flow.outgoing(false)]
            .map(|p| p.tcp_options(&[1; 12]).payload(&[9; 2800]).build());
        let input = Input { gso_size: 1448, ..Input::new(LAN, &before) };
        datapath.expect_forwarded(input, &after);
        let input = Input { gso_size: 1449, ..Input::new(LAN, &before) };
        datapath.expect_passed(input, BPFW_PASS_TOO_BIG);
    });
}
