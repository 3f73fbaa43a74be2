// SPDX-License-Identifier: GPL-2.0-only
//! Translated IPv6, end to end on both hooks.

mod support;

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;
use support::ask::ask;
use support::capture::Capture;
use support::checksum;
use support::ipv6::*;
use support::lab::{CLIENT_MAC, Lab, ROUTER_LAN_MAC};
use support::live::root_or_skip;
use support::netns::Namespace;
use support::router::*;
use support::rules::no_nat_rules;
use support::tcp::{Path, TcpPair};
use support::trial::transfer;
use support::tun::{join_lan, join_wan};
use support::udp::{UdpClient, UdpEcho, udp_echo};
use support::wait::eventually;

on_both_hooks!(
    hazard_42_masquerading_is_fast,
    hazard_42_snat_to_other_ports_is_fast,
    hazard_42_dnat_is_fast,
    hazard_42_dnat_to_another_port_is_fast,
    hazard_42_dnat_and_snat_are_fast,
    hazard_42_dnat_from_the_wan_is_fast,
    hazard_28_a_translation_ends_with_its_entry,
    translated_and_untranslated_connections_go_side_by_side,
    hazard_47_the_same_packets_leave_as_by_the_stack,
);

const ROUTER_WAN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1);
/// An address that is nobody's: the client dials it.
const DIALED: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 1, 2, 3, 4, 5, 6);

const MASQUERADE: &str = "oifname wan0 masquerade";

fn nat_lab(hook: &str, test: &str, prerouting: &str, postrouting: &str) -> Lab {
    let lab = lab6(hook, test);
    set_nat(&lab, prerouting, postrouting);
    lab.nft("insert rule ip6 tracked forward ct status dnat accept");
    lab
}

/// The rules for the first packets of connections.
fn set_nat(lab: &Lab, prerouting: &str, postrouting: &str) {
    lab.nft(&format!(
        "table ip6 nat
        delete table ip6 nat
        table ip6 nat {{
            chain in {{ type nat hook prerouting priority -100; policy accept; {prerouting}; }}
            chain out {{ type nat hook postrouting priority 100; policy accept; {postrouting}; }}
        }}"
    ));
}

/// Where connections are opened, and where they lead.
struct Ends<'a> {
    client: &'a Namespace,
    server: &'a Namespace,
}

/// The first sender's packets as they come in, and the answers.
type Tuples = [(SocketAddrV6, SocketAddrV6); 2];

/// What conntrack says of the only connection of this protocol.
fn tuples(lab: &Lab, protocol: &str) -> Tuples {
    let list = conntrack6(lab, protocol);
    let line = list.lines().next().unwrap_or_else(|| panic!("no {protocol}"));
    let words =
        |name: &'static str| line.split_whitespace().filter_map(move |w| w.strip_prefix(name));
    let addresses = |name| words(name).map(|word| word.parse().expect("an address"));
    let ports = |name| words(name).map(|word| word.parse().expect("a port"));
    let ends = |address, port| addresses(address).zip(ports(port)).map(|(a, port)| at6(a, port));
    let both: Vec<_> = ends("src=", "sport=").zip(ends("dst=", "dport=")).collect();
    both.try_into().unwrap_or_else(|_| panic!("two tuples: {line}"))
}

/// What was captured since is what conntrack says, with right checksums.
fn expect_translated(lab: &Lab, protocol: (&str, u8), wires: [(&Capture, usize); 2]) -> Tuples {
    let [original, reply] = tuples(lab, protocol.0);
    assert_ne!((original.0, original.1), (reply.1, reply.0), "it is translated");
    // The answers leave as the first tuple turned around, and the other way around.
    for ((wire, least), tuple) in wires.into_iter().zip([original, reply]) {
        let frames = wire.collect(Duration::from_millis(100), |frame| !frame.outgoing);
        let views: Vec<_> = frames.iter().filter_map(View6::parse).collect();
        let views: Vec<_> = views.iter().filter(|view| view.protocol == protocol.1).collect();
        assert!(views.len() >= least, "{} of {least} packets", views.len());
        for view in views {
            assert_eq!((view.src, view.dst), (tuple.1, tuple.0), "{view:?}");
            assert!(view.checksum_right && view.hop_limit == 63, "{view:?}");
        }
    }
    [original, reply]
}

/// UDP echoes and TCP both ways: fast, intact, and as conntrack says.
fn try_both(lab: &Lab, hook: &str, udp: &UdpClient, tcp: Path, ends: &Ends<'_>) -> Tuples {
    let daemon = start(lab, hook, &[]);
    wait_until_fast6(lab, udp);
    let wires = || [ends.client, ends.server].map(|end| Capture::open(end, "eth0"));
    let [near, far] = wires();
    let before = lab.stack_packets();
    assert_eq!(udp.count_echoes(0..50, LIMIT), 50);
    assert_eq!(lab.stack_packets(), before, "all 50 took the fast path");
    let tuples = expect_translated(lab, ("udp", 17), [(&near, 50), (&far, 50)]);
    listed_as_they_are(lab, "udp", tuples);

    let pair = TcpPair::open(ends.client, ends.server, tcp);
    wait_until_tcp_fast(lab, &pair);
    let [near, far] = wires();
    (0..20).for_each(|_| pair.exchange());
    let of_tcp = expect_translated(lab, ("tcp", 6), [(&near, 20), (&far, 20)]);
    listed_as_they_are(lab, "tcp", of_tcp);
    transfer(lab, &daemon, &pair);
    assert!(daemon.stop(LIMIT).success());
    tuples
}

/// `bpfw flows` and `bpfw why` know both tuples.
fn listed_as_they_are(lab: &Lab, protocol: &str, [original, reply]: Tuples) {
    let flow = ask(&lab.router, &["flows", "--json", "-p", protocol]).json();
    for (name, (src, dst)) in [("original", original), ("reply", reply)] {
        for (end, [address, port]) in [(src, ["src", "sport"]), (dst, ["dst", "dport"])] {
            assert_eq!(flow[name][address], end.ip().to_string(), "{flow}");
            assert_eq!(flow[name][port], end.port(), "{flow}");
        }
    }
    let words = [protocol, &original.0.to_string(), &original.1.to_string()];
    let answer = ask(&lab.router, &[&["why"], &words[..]].concat());
    assert_eq!(answer.first_line(), "on the fast path, both directions", "{answer:?}");
    for (differs, words) in [
        (original.0 != reply.1, format!("leaves as {}", reply.1)),
        (original.1 != reply.0, format!("goes to {}", reply.0)),
    ] {
        assert_eq!(answer.out.contains(&words), differs, "{words}: {answer:?}");
    }
}

/// From the client to what it dials; the server's own ports are 7 and 5001.
fn from_the_client(hook: &str, test: &str, nat: [&str; 2], dialed: [SocketAddrV6; 2]) -> Tuples {
    let lab = nat_lab(hook, test, nat[0], nat[1]);
    let _server = udp_echo(&lab.server, ECHO6);
    let client = UdpClient::open(&lab.client, at6(CLIENT6, 40000), dialed[0]);
    let path = Path { listen: at6(SERVER6, 5001).into(), connect: dialed[1].into() };
    try_both(&lab, hook, &client, path, &Ends { client: &lab.client, server: &lab.server })
}

const DIRECT: [SocketAddrV6; 2] = [ECHO6, SocketAddrV6::new(SERVER6, 5001, 0, 0)];

fn hazard_42_masquerading_is_fast(hook: &str, test: &str) {
    let [_, reply] = from_the_client(hook, test, ["", MASQUERADE], DIRECT);
    assert_eq!(*reply.1.ip(), ROUTER_WAN6);
}

fn hazard_42_snat_to_other_ports_is_fast(hook: &str, test: &str) {
    let snat =
        format!("meta l4proto {{ tcp, udp }} oifname wan0 snat to [{ROUTER_WAN6}]:20000-20999");
    let [_, reply] = from_the_client(hook, test, ["", &snat], DIRECT);
    assert!(*reply.1.ip() == ROUTER_WAN6 && (20000..21000).contains(&reply.1.port()));
}

const DNAT: &str = "iifname lan0 ip6 daddr fd00:9:1:2:3:4:5:6 dnat to fd00:2::2";

fn hazard_42_dnat_is_fast(hook: &str, test: &str) {
    let [original, reply] =
        from_the_client(hook, test, [DNAT, ""], [at6(DIALED, 7), at6(DIALED, 5001)]);
    assert_eq!((original.1, reply.0), (at6(DIALED, 7), ECHO6));
}

/// The addresses stay.
fn hazard_42_dnat_to_another_port_is_fast(hook: &str, test: &str) {
    let dnat = "iifname lan0 udp dport 8080 dnat to :7
                iifname lan0 tcp dport 8080 dnat to :5001";
    let dialed = at6(SERVER6, 8080);
    let [original, reply] = from_the_client(hook, test, [dnat, ""], [dialed; 2]);
    assert_eq!((original.1, reply.0), (dialed, ECHO6));
}

fn hazard_42_dnat_and_snat_are_fast(hook: &str, test: &str) {
    let dialed = [at6(DIALED, 7), at6(DIALED, 5001)];
    let [original, reply] = from_the_client(hook, test, [DNAT, MASQUERADE], dialed);
    assert_eq!((original.1, reply.0, *reply.1.ip()), (at6(DIALED, 7), ECHO6, ROUTER_WAN6));
}

/// From the server to a port of the router, which leads to the client.
fn hazard_42_dnat_from_the_wan_is_fast(hook: &str, test: &str) {
    let dnat = "iifname wan0 udp dport 8080 dnat to [fd00:1::2]:7
                iifname wan0 tcp dport 8080 dnat to [fd00:1::2]:7";
    let lab = nat_lab(hook, test, dnat, MASQUERADE);
    let service = at6(CLIENT6, 7);
    let _server = udp_echo(&lab.client, service);
    let entrance = at6(ROUTER_WAN6, 8080);
    let client = UdpClient::open(&lab.server, at6(SERVER6, 40000), entrance);
    let path = Path { listen: service.into(), connect: entrance.into() };
    let ends = Ends { client: &lab.server, server: &lab.client };
    let [original, reply] = try_both(&lab, hook, &client, path, &ends);
    assert_eq!((original.1, reply.0), (entrance, service));
}

fn snat_to(ports: &str) -> String {
    format!("udp dport 7 oifname wan0 snat to [{ROUTER_WAN6}]:{ports}")
}

/// The same packets of the client come to be another connection, with other ports: as often as the entry goes.
fn hazard_28_a_translation_ends_with_its_entry(hook: &str, test: &str) {
    let lab = nat_lab(hook, test, "", "");
    let (_server, client) = echo6(&lab, 40000);
    let _daemon = start(&lab, hook, &[]);
    for first in [20000, 30000, 40000, 50000] {
        set_nat(&lab, "", &snat_to(&format!("{first}-{}", first + 999)));
        lab.conntrack(&["-D", "-f", "ipv6", "-p", "udp"]);
        // What was on its way has arrived.
        std::thread::sleep(Duration::from_millis(100));
        let wire = Capture::open(&lab.server, "eth0");
        wait_until_fast6(&lab, &client);
        assert_eq!(client.count_echoes(0..20, LIMIT), 20);
        let frames = wire.collect(Duration::from_millis(50), |frame| !frame.outgoing);
        let views: Vec<_> = frames.iter().filter_map(View6::parse).collect();
        assert!(views.len() > 20);
        for view in views {
            assert_eq!(*view.src.ip(), ROUTER_WAN6);
            assert!((first..first + 1000).contains(&view.src.port()), "{view:?} after {first}");
            assert!(view.checksum_right, "{view:?}");
        }
    }
}

fn translated_and_untranslated_connections_go_side_by_side(hook: &str, test: &str) {
    let lab = nat_lab(hook, test, "", "udp sport 40000 oifname wan0 masquerade");
    let (_server, translated): (UdpEcho, _) = echo6(&lab, 40000);
    let plain = UdpClient::open(&lab.client, at6(CLIENT6, 40001), ECHO6);
    let daemon = start(&lab, hook, &[]);
    for client in [&translated, &plain] {
        wait_until_fast6(&lab, client);
    }
    assert_eq!(offloaded(&daemon), 2);
    let wire = Capture::open(&lab.server, "eth0");
    let before = lab.stack_packets();
    for number in 0..50 {
        assert!(translated.echoes(number, LIMIT) && plain.echoes(number, LIMIT));
    }
    assert_eq!(lab.stack_packets(), before, "all took the fast path");
    let frames = wire.collect(Duration::from_millis(50), |frame| !frame.outgoing);
    let sources: Vec<_> = frames.iter().filter_map(View6::parse).map(|view| view.src).collect();
    for source in [at6(ROUTER_WAN6, 40000), at6(CLIENT6, 40001)] {
        assert_eq!(sources.iter().filter(|each| **each == source).count(), 50, "{source}");
    }
    assert_eq!(sources.len(), 100, "and nobody else");
}

/// A frame of the client's connection as it comes in.
fn frame(payload: &[u8], class: u8, has_checksum: bool) -> Vec<u8> {
    let mut segment = [40000_u16, 7, 8 + payload.len() as u16, 0].map(u16::to_be_bytes).concat();
    segment.extend(payload);
    if has_checksum {
        let right = checksum::transport(CLIENT6, SERVER6, 17, &segment);
        segment[6..8].copy_from_slice(&right.to_be_bytes());
    }
    let mut bytes = [ROUTER_LAN_MAC, CLIENT_MAC].concat();
    bytes.extend([0x86, 0xdd]);
    bytes.extend((6 << 28 | u32::from(class) << 20 | 0x5_1234).to_be_bytes());
    bytes.extend((segment.len() as u16).to_be_bytes());
    bytes.extend([17, 9]);
    bytes.extend(CLIENT6.octets().iter().chain(&SERVER6.octets()));
    bytes.extend(segment);
    bytes
}

/// Frames with and without a checksum, one by one with another sum: that of some comes to 0.
fn frames() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = (0..40)
        .flat_map(|length| [true, false].map(|sum| frame(&vec![0xa5; length], length as u8, sum)))
        .collect();
    // What leaves has the sum of a payload of zeros, and this in addition: the last ones are around 0.
    let to_zero = checksum::transport(ROUTER_WAN6, SERVER6, 17, &zeros());
    all.extend((0..5_u16).map(|more| {
        let word = to_zero.wrapping_sub(2).wrapping_add(more);
        frame(&word.to_be_bytes(), 0, true)
    }));
    all
}

/// What leaves if the payload is 0.
fn zeros() -> Vec<u8> {
    [40000_u16, 7, 10, 0, 0].map(u16::to_be_bytes).concat()
}

/// Sends each, and gives them as they come to the server. The client throws the echoes away.
fn pass(lab: &Lab, client: &UdpClient, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (from, to) = (Capture::open(&lab.client, "eth0"), Capture::open(&lab.server, "eth0"));
    let arrived = frames.iter().map(|frame| {
        from.send_frame(frame);
        let is_it = |bytes: &[u8]| bytes.len() == frame.len() && bytes[12..16] == frame[12..16];
        let found = to.next(LIMIT, |seen| !seen.outgoing && is_it(&seen.bytes));
        found.expect("it arrives").bytes
    });
    let arrived = arrived.collect();
    client.socket().set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    while client.socket().recv(&mut [0; 2048]).is_ok() {}
    arrived
}

/// Byte by byte, also packets without a checksum, and those whose checksum comes to 0.
fn hazard_47_the_same_packets_leave_as_by_the_stack(hook: &str, test: &str) {
    let lab = nat_lab(hook, test, "", MASQUERADE);
    let (_server, client) = echo6(&lab, 40000);
    eventually(LIMIT, "conntrack calls it a stream", || {
        assert!(client.echoes(1, LIMIT));
        std::thread::sleep(Duration::from_millis(20));
        is_stream6(&lab, 40000)
    });
    let frames = frames();
    let by_the_stack = pass(&lab, &client, &frames);
    let [_, reply] = tuples(&lab, "udp");
    assert_eq!(reply.1, at6(ROUTER_WAN6, 40000));
    let sums = |value: [u8; 2]| by_the_stack.iter().filter(|bytes| bytes[60..62] == value).count();
    assert_eq!((sums([0, 0]), sums([0xff, 0xff])), (40, 1), "none, and a computed 0");

    let daemon = start(&lab, hook, &[]);
    wait_until_fast6(&lab, &client);
    let counted = forwarded(&daemon);
    assert_eq!(pass(&lab, &client, &frames), by_the_stack);
    assert!(forwarded(&daemon) - counted >= frames.len() as u64, "they took the fast path");
}

/// Packets that begin with their IP header, in and out.
#[test]
fn hazard_39_translated_ipv6_through_tuns_is_fast() {
    if !root_or_skip("hazard_39_translated_ipv6_through_tuns_is_fast") {
        return;
    }
    let lab = lab("tc", "tun66", &no_nat_rules());
    let _cables = [join_wan(&lab), join_lan(&lab)];
    add_ipv6(&lab);
    set_nat(&lab, "", MASQUERADE);
    let daemon = start(&lab, "tc", &[]);
    let (_server, client) = echo6(&lab, 40000);
    wait_until_fast6(&lab, &client);
    assert_eq!(tuples(&lab, "udp")[1].1, at6(ROUTER_WAN6, 40000));
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at6(SERVER6, 5001)));
    wait_until_tcp_fast(&lab, &pair);
    transfer(&lab, &daemon, &pair);
}
