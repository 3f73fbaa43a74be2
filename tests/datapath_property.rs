// SPDX-License-Identifier: GPL-2.0-only
//! Random connections and packets: each must come out as a packet that was built that way.

mod support;

use bpfw::abi::{BPFW_FORWARDED, BPFW_PASS_PARTIAL_SUM};
use bpfw::datapath::Hook;
use bpfw::datapath::conn_map::Added;
use bpfw::flow::tuple::Protocol;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::net::{Ipv4Addr, SocketAddrV4};
use support::datapath::{Datapath, Input, name, on_hook};
use support::flow::Flow;
use support::packet::Packet;

const CASES: u32 = 2500;

/// Which parts of the tuple change.
#[derive(Clone, Copy, Debug)]
struct Nat {
    src_address: bool,
    src_port: bool,
    dst_address: bool,
    dst_port: bool,
}

/// What both sides of the router have in common.
#[derive(Clone, Debug)]
struct Content {
    tos: u8,
    flow_label: u32,
    id: u16,
    df: bool,
    ttl: u8,
    payload: Vec<u8>,
    padded: bool,
    without_checksum: bool,
}

fn socket(address: u32, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(address), port)
}

/// Anywhere in 10.0.0.0/8, which is behind the LAN.
fn inside() -> impl Strategy<Value = SocketAddrV4> {
    (any::<u32>(), any::<u16>()).prop_map(|(a, port)| socket(10 << 24 | a >> 8, port))
}

/// Anywhere in 128.0.0.0/2, which the default route leads to.
fn outside() -> impl Strategy<Value = SocketAddrV4> {
    (any::<u32>(), any::<u16>()).prop_map(|(a, port)| socket(2 << 30 | a >> 2, port))
}

/// In IPv6, half of these are in none of the router's networks.
fn anywhere() -> impl Strategy<Value = SocketAddrV4> {
    let first = prop_oneof![Just(0), Just(0xf000_0000_u32)];
    (any::<u32>(), first, any::<u16>()).prop_map(|(a, first, port)| socket(a | first, port))
}

fn pick(new: SocketAddrV4, old: SocketAddrV4, address: bool, port: bool) -> SocketAddrV4 {
    SocketAddrV4::new(
        if address { *new.ip() } else { *old.ip() },
        if port { new.port() } else { old.port() },
    )
}

fn nat() -> impl Strategy<Value = Nat> {
    any::<[bool; 4]>().prop_map(|[src_address, src_port, dst_address, dst_port]| Nat {
        src_address,
        src_port,
        dst_address,
        dst_port,
    })
}

fn flow() -> impl Strategy<Value = Flow> {
    let ends = (inside(), outside(), anywhere(), anywhere());
    (any::<[bool; 2]>(), nat(), ends).prop_map(|([tcp, ipv6], nat, ends)| {
        let (client, server, source, dialed) = ends;
        let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
        let dialed = pick(dialed, server, nat.dst_address, nat.dst_port);
        let source = pick(source, client, nat.src_address, nat.src_port);
        Flow { ipv6, ..Flow::new(protocol, (client, dialed), (source, server)) }
    })
}

fn content() -> impl Strategy<Value = Content> {
    let header = (any::<u8>(), any::<u32>(), any::<u16>(), any::<bool>(), 2..=255_u8);
    let length = prop_oneof![4 => 0..40_usize, 1 => 0..1440_usize];
    let payload = length.prop_flat_map(|length| proptest::collection::vec(any::<u8>(), length));
    (header, payload, any::<bool>(), proptest::bool::weighted(0.1)).prop_map(
        |((tos, flow_label, id, df, ttl), payload, padded, without_checksum)| Content {
            tos,
            flow_label,
            id,
            df,
            ttl,
            payload,
            padded,
            without_checksum,
        },
    )
}

impl Content {
    fn apply(&self, packet: Packet, protocol: Protocol) -> Packet {
        let packet = packet
            .tos(self.tos)
            .flow_label(self.flow_label)
            .id(self.id)
            .df(self.df)
            .payload(&self.payload);
        match protocol {
            Protocol::Udp if self.without_checksum => packet.zero_l4_checksum(),
            _ => packet,
        }
    }
}

fn check(datapath: &Datapath<'_>, flow: &Flow, reply: bool, content: &Content) {
    let packet = content.apply(flow.incoming(reply), flow.protocol);
    let padded = if content.padded { 60 } else { 0 };
    let before = packet.clone().ttl(content.ttl).pad_to(padded).build();
    let after = content.apply(flow.outgoing(reply), flow.protocol).ttl(content.ttl - 1).build();
    let input = Input::new(flow.ingress(reply), &before);
    // One right checksum in 65,535 looks like a partial one.
    let at = flow.checksum_at();
    let partial = packet.partial_l4_checksum().build();
    if datapath.hook == Hook::Xdp && partial[at..at + 2] == before[at..at + 2] {
        return datapath.expect_passed(input, BPFW_PASS_PARTIAL_SUM);
    }
    let outcome = datapath.run(input);
    assert_eq!(name(outcome.verdict), name(BPFW_FORWARDED));
    assert_eq!(outcome.action, datapath.redirect());
    assert_eq!(outcome.frame, after);
}

fn run(datapath: &Datapath<'_>) {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let each = (flow(), content(), content());
    TestRunner::new(config)
        .run(&each, |(flow, there, back)| {
            // Two random tuples may be the same, or a direction its own reverse.
            prop_assume!(
                datapath.connections.borrow_mut().add(&flow.connection()).unwrap() == Added::Added
            );
            for reply in [false, true] {
                datapath.ask_and_prove(&flow, reply);
            }
            check(datapath, &flow, false, &there);
            check(datapath, &flow, true, &back);
            datapath.remove(&flow);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn xdp_makes_the_packets_that_are_expected() {
    on_hook("property", Hook::Xdp, |datapath| run(datapath));
}

#[test]
fn tc_makes_the_packets_that_are_expected() {
    on_hook("property", Hook::Tc, |datapath| run(datapath));
}
