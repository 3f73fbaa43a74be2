// SPDX-License-Identifier: GPL-2.0-only
//! Connections without hosts: what both ends say are frames of the test's making.

use super::flow::{Ends, Flow, LAN, Side, WAN, ipv6_of};
use super::lab::{CLIENT, ROUTER_WAN, SERVER};
use super::packet::{Packet, tcp};
use bpfw::flow::tuple::Protocol;
use std::net::{Ipv4Addr, SocketAddrV4};

/// An address behind the server.
pub const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// The port of the packets that only say that those before them are through.
pub const LAST: u16 = 9;

/// How many connections there are of each kind and protocol.
const OF_EACH: u16 = 3;

fn at(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}

/// Connections with each kind of NAT: none, SNAT, DNAT, both; with other ports and without. Some of them
/// are of IPv6.
pub fn conversations() -> Vec<Flow> {
    let numbers =
        (0..OF_EACH).flat_map(|number| [Protocol::Tcp, Protocol::Udp].map(|p| (number, p)));
    numbers.flat_map(|(number, protocol)| of_each_kind(protocol, 20000 + 10 * number)).collect()
}

fn of_each_kind(protocol: Protocol, port: u16) -> Vec<Flow> {
    let out = |before: Ends, after: Ends| Flow::new(protocol, before, after);
    let into = |port, dialed, to| {
        let server = WAN.at(port);
        Flow { near: WAN, far: LAN, ..Flow::new(protocol, (server, dialed), (server, to)) }
    };
    let to_service =
        |port, source, service| out((LAN.at(port), WAN.at(service)), (source, WAN.at(service)));
    let twice = (WAN.router_at(port + 20005), WAN.at(80));
    vec![
        to_service(port, LAN.at(port), 7000),
        to_service(port + 1, WAN.router_at(port + 1), 7001),
        to_service(port + 2, WAN.router_at(port + 20002), 7002),
        into(port + 3, WAN.router_at(7003), LAN.at(7003)),
        into(port + 4, WAN.router_at(7004), LAN.at(80)),
        out((LAN.at(port + 5), at(ELSEWHERE, 7005)), twice),
        Flow { ipv6: true, ..to_service(port + 6, LAN.at(port + 6), 7006) },
        Flow { ipv6: true, ..to_service(port + 7, WAN.router_at(port + 7), 7007) },
        Flow { ipv6: true, ..into(port + 8, WAN.router_at(7008), LAN.at(80)) },
    ]
}

/// Rules that translate all of them, and a forward chain as routers have it.
pub fn rules(all: &[Flow]) -> String {
    let with_ports = all.iter().filter(|flow| flow.before.0.port() != flow.after.0.port());
    let snat: String = with_ports
        .map(|flow| {
            let (protocol, from, to) = (flow.protocol, flow.before.0, flow.after.0);
            format!("ip saddr {} {protocol} sport {} snat to {to}\n", from.ip(), from.port())
        })
        .collect();
    let (client6, router6) = (ipv6_of(CLIENT), ipv6_of(ROUTER_WAN));
    format!(
        "table ip rules {{
            chain prerouting {{
                type nat hook prerouting priority -100; policy accept;
                ip daddr {ROUTER_WAN} meta l4proto {{ tcp, udp }} th dport 7003 dnat to {CLIENT}
                ip daddr {ROUTER_WAN} tcp dport 7004 dnat to {CLIENT}:80
                ip daddr {ROUTER_WAN} udp dport 7004 dnat to {CLIENT}:80
                ip daddr {ELSEWHERE} tcp dport 7005 dnat to {SERVER}:80
                ip daddr {ELSEWHERE} udp dport 7005 dnat to {SERVER}:80
            }}
            chain postrouting {{
                type nat hook postrouting priority 100; policy accept;
                ip daddr != {SERVER} accept
                oifname wan0 ip saddr {CLIENT} meta l4proto {{ tcp, udp }} th dport 7001 masquerade
                {snat}
            }}
            chain forward {{
                type filter hook forward priority 0; policy accept;
                udp dport {LAST} accept
                ct state established,related accept
                ct state invalid counter drop
                iifname lan0 accept
                ct status dnat accept
                counter drop
            }}
        }}
        table ip6 rules {{
            chain prerouting {{
                type nat hook prerouting priority -100; policy accept;
                ip6 daddr {router6} tcp dport 7008 dnat to [{client6}]:80
                ip6 daddr {router6} udp dport 7008 dnat to [{client6}]:80
            }}
            chain postrouting {{
                type nat hook postrouting priority 100; policy accept;
                oifname wan0 ip6 saddr {client6} meta l4proto {{ tcp, udp }} th dport 7007 masquerade
            }}
            chain forward {{
                type filter hook forward priority 0; policy accept;
                ct state established,related accept
                ct state invalid counter drop
                iifname lan0 accept
                ct status dnat accept
                counter drop
            }}
        }}\n"
    )
}

/// The first sequence number of this side's end; that of some connections wraps around soon.
pub fn first_sequence(flow: &Flow, side: Side) -> u32 {
    let base = u32::from(flow.before.0.port() % 3) << 28;
    let base = base.wrapping_sub(20000);
    if side == LAN { base } else { base.wrapping_add(0x0800_0000) }
}

/// The side at the other end of the router.
pub fn opposite(side: Side) -> Side {
    if side == LAN { WAN } else { LAN }
}

/// A packet that comes in from this side: for TCP, an acknowledgement of an open connection.
pub fn packet(flow: &Flow, side: Side) -> Packet {
    let packet = flow.incoming(side != flow.near);
    match flow.protocol {
        Protocol::Udp => packet,
        Protocol::Tcp => {
            packet.seq(first_sequence(flow, side)).ack(first_sequence(flow, opposite(side)))
        }
    }
}

/// The packets that open the connection, and from which side they come.
pub fn opening(flow: &Flow) -> Vec<(Side, Packet)> {
    let (there, back) = (packet(flow, flow.near), packet(flow, flow.far));
    if flow.protocol == Protocol::Udp {
        return vec![(flow.near, there), (flow.far, back)];
    }
    let syn = |side| first_sequence(flow, side).wrapping_sub(1);
    vec![
        (flow.near, there.clone().flags(tcp::SYN).seq(syn(flow.near)).ack(0)),
        (flow.far, back.flags(tcp::SYN | tcp::ACK).seq(syn(flow.far))),
        (flow.near, there),
    ]
}
