// SPDX-License-Identifier: GPL-2.0-only
//! Each kind of NAT, TCP and UDP, end to end on both hooks.

mod support;

use std::net::SocketAddrV4;
use support::lab::{CLIENT, HOST2, Lab, ROUTER_WAN, SERVER};
use support::router::*;
use support::tcp::Path;
use support::trial::{Ends, try_both_protocols};
use support::udp::{UdpClient, udp_echo};
use support::{rules, view};

on_both_hooks!(no_nat, snat, snat_with_ports, dnat, dnat_and_snat, hairpin, tos_and_ttl);

fn from_the_client(hook: &str, test: &str, rules: &str) {
    let lab = lab(hook, test, rules);
    let (server, client) = echo(&lab, 40000);
    let path = Path::direct(at(SERVER, 5001));
    let ends = Ends { client: &lab.client, server: &lab.server };
    try_both_protocols(&lab, hook, client, path, ends);
    let translated = rules.contains("masquerade") || rules.contains("snat");
    let expected = if translated { ROUTER_WAN } else { CLIENT };
    assert!(server.sources().iter().all(|source| *source.ip() == expected));
}

fn no_nat(hook: &str, test: &str) {
    from_the_client(hook, test, &rules::no_nat_rules());
}

fn snat(hook: &str, test: &str) {
    from_the_client(hook, test, &rules::snat_rules());
}

fn snat_with_ports(hook: &str, test: &str) {
    let to = format!("snat to {ROUTER_WAN}:20000-20999");
    let to = format!("meta l4proto {{ tcp, udp }} oifname wan0 {to}");
    let rules = rules::snat_rules().replace("oifname wan0 masquerade", &to);
    assert!(rules.contains("20000"));
    from_the_client(hook, test, &rules);
}

/// From the server to a port of the router, which leads to the client.
fn to_the_client(hook: &str, test: &str, rules: &str) {
    let lab = lab(hook, test, rules);
    let service = at(CLIENT, 7);
    let _server = udp_echo(&lab.client, service);
    let entrance = at(ROUTER_WAN, 8080);
    let client = UdpClient::open(&lab.server, at(SERVER, 40000), entrance);
    let path = Path { listen: service.into(), connect: entrance.into() };
    let ends = Ends { client: &lab.server, server: &lab.client };
    try_both_protocols(&lab, hook, client, path, ends);
}

fn dnat(hook: &str, test: &str) {
    to_the_client(hook, test, &rules::dnat_rules(8080, at(CLIENT, 7)));
}

fn dnat_and_snat(hook: &str, test: &str) {
    let rules = rules::dnat_rules(8080, at(CLIENT, 7))
        .replace("oifname wan0 masquerade", "oifname wan0 masquerade\noifname lan0 masquerade");
    to_the_client(hook, test, &rules);
}

fn hairpin(hook: &str, test: &str) {
    let service: SocketAddrV4 = at(HOST2, 7);
    let lab = Lab::with_switch(test, offloads(hook));
    lab.nft(&rules::hairpin_rules(8080, service));
    let _server = udp_echo(lab.host2(), service);
    let entrance = at(ROUTER_WAN, 8080);
    let client = UdpClient::open(&lab.client, at(CLIENT, 40000), entrance);
    let path = Path { listen: service.into(), connect: entrance.into() };
    let ends = Ends { client: &lab.client, server: lab.host2() };
    try_both_protocols(&lab, hook, client, path, ends);
}

/// On the sk_buff, where the driver has no XDP: slower, and right all the same.
#[test]
fn generic_xdp() {
    if !xdp_or_skip("generic_xdp") {
        return;
    }
    let lab = lab("xdp", "generic", &rules::snat_rules());
    let daemon = start(&lab, "xdp", &["--xdp-mode", "generic"]);
    daemon.wait_for_line("wan0 (generic XDP, ", LIMIT);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let before = lab.stack_packets();
    assert_eq!(client.count_echoes(0..50, LIMIT), 50);
    assert_eq!(lab.stack_packets(), before);
    assert!(daemon.stop(LIMIT).success());
}

/// The header fields that forwarding keeps, and the one that it changes.
fn tos_and_ttl(hook: &str, test: &str) {
    let lab = lab(hook, test, &rules::snat_rules());
    let (_server, client) = echo(&lab, 40000);
    let daemon = start(&lab, hook, &[]);
    wait_until_fast(&lab, &client);
    let capture = support::capture::Capture::open(&lab.server, "eth0");
    client.socket().set_ttl(33).unwrap();
    assert!(echo_is_fast(&lab, &client, 5));
    let seen = capture.expect(LIMIT, "the datagram at the server", |view| view.ttl < 60);
    assert_eq!(seen.ttl, 32);
    assert!(seen.ip_checksum_right);
    assert!(matches!(seen.l4_checksum, view::Checksum::Right | view::Checksum::Partial));
    drop(daemon);
}
