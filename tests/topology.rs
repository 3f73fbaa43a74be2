// SPDX-License-Identifier: GPL-2.0-only
//! What the fast path found out about routing follows every change of it.

mod support;

use bpfw::abi;
use std::time::Duration;
use support::capture::{Capture, Frame};
use support::daemon::Daemon;
use support::lab::{Lab, ROUTER_LAN, ROUTER_LAN_MAC, SERVER, show};
use support::maps::Maps;
use support::packet::Mac;
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::udp::{UdpClient, UdpEcho};
use support::wait::eventually;

on_both_hooks!(
    hazard_08_a_neighbors_new_mac_is_followed,
    hazard_07_a_route_to_another_gateway_is_followed,
    hazard_07_a_route_to_an_interface_without_name_is_the_stacks,
    hazard_07_a_blackhole_route_is_the_stacks,
    hazard_07_a_vanished_route_is_the_stacks_business,
    hazard_10_a_smaller_mtu_is_heeded,
    hazard_07_a_replaced_interface_mac_is_followed,
    hazard_08_neighbors_in_use_stay_valid,
    hazard_08_a_vanished_neighbor_is_reported,
    hazard_08_a_neighbor_that_ages_is_no_change,
    hazard_62_no_packet_is_redirected_to_an_interface_without_name,
);

const NEW_MAC: Mac = [2, 0, 0, 0, 2, 99];

fn fast_udp(hook: &str, test: &str, rules: &str) -> (Lab, Daemon, UdpEcho, UdpClient) {
    let lab = lab(hook, test, rules);
    let daemon = start(&lab, hook, &[]);
    let (server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    (lab, daemon, server, client)
}

fn hazard_08_a_neighbors_new_mac_is_followed(hook: &str, test: &str) {
    let (lab, _daemon, _server, client) = fast_udp(hook, test, &snat_rules());
    // The server's interface changes its address, and says so by an unasked ARP reply.
    lab.server.ip(&format!("link set eth0 address {}\n", show(NEW_MAC)));
    lab.router
        .ip(&format!("neigh replace {SERVER} lladdr {} dev wan0 nud reachable\n", show(NEW_MAC)));
    wait_until_fast(&lab, &client);
    let capture = Capture::open(&lab.server, "eth0");
    assert!(echo_is_fast(&lab, &client, 3));
    let seen = capture.expect(LIMIT, "the datagram", |view| view.protocol == 17);
    assert_eq!(seen.ethernet.dst, NEW_MAC);
}

/// A second gateway in the WAN: another address of the server, with a MAC of its own.
fn hazard_07_a_route_to_another_gateway_is_followed(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.server.ip("addr add 203.0.113.7/32 dev lo\n");
    lab.router.ip(&format!(
        "route add 203.0.113.7 via {SERVER}\n\
         neigh replace 198.51.100.77 lladdr {} dev wan0 nud permanent\n",
        show(NEW_MAC)
    ));
    let daemon = start(&lab, hook, &[]);
    let service = at("203.0.113.7".parse().unwrap(), 7);
    let _server = support::udp::udp_echo(&lab.server, service);
    let client = UdpClient::open(&lab.client, at(support::lab::CLIENT, 40000), service);
    wait_until_fast(&lab, &client);
    let capture = Capture::open(&lab.server, "eth0");
    lab.router.ip("route replace 203.0.113.7 via 198.51.100.77\n");
    // The frame goes to the new gateway; nobody answers there.
    eventually(Duration::from_secs(5), "the new gateway gets the frames", || {
        client.send(1);
        capture
            .next(Duration::from_millis(100), |frame| {
                frame.view().is_some_and(|view| view.protocol == 17 && view.ethernet.dst == NEW_MAC)
            })
            .is_some()
    });
    assert_eq!(offloaded(&daemon), 1, "the same connection, another next hop");
}

fn hazard_07_a_route_to_an_interface_without_name_is_the_stacks(hook: &str, test: &str) {
    let (lab, daemon, _server, client) = fast_udp(hook, test, &no_nat_rules());
    // A second cable between router and server.
    lab.server.ip(&format!(
        "link add eth1 type veth peer name wan1 netns {}\nlink set eth1 up\n\
         addr add 203.0.113.2/24 dev eth1\n",
        lab.router.name()
    ));
    lab.router.ip("link set wan1 up\naddr add 203.0.113.1/24 dev wan1\n");
    lab.server.sysctl("net/ipv4/conf/all/rp_filter", "0");
    lab.router.sysctl("net/ipv4/conf/all/rp_filter", "0");
    lab.router.sysctl("net/ipv4/conf/wan0/rp_filter", "0");
    let maps = Maps::of(daemon.pid());
    lab.router.ip(&format!("route add {SERVER}/32 via 203.0.113.2 dev wan1\n"));
    eventually(LIMIT, "the new egress is noticed", || {
        client.echoes(1, Duration::from_millis(100));
        maps.packets(abi::BPFW_PASS_EGRESS) > 0
    });
    lab.server.ip("route replace 192.0.2.0/24 via 203.0.113.1 dev eth1\n");
    assert!(client.echoes(2, LIMIT), "the stack goes on with it");
    let before = maps.packets(abi::BPFW_PASS_EGRESS);
    assert_eq!(client.count_echoes(3..23, LIMIT), 20);
    assert!(maps.packets(abi::BPFW_PASS_EGRESS) >= before + 20, "wan1 was not named");
}

/// wan0 is not named: neither what leaves by it nor what comes in there is fast.
fn hazard_62_no_packet_is_redirected_to_an_interface_without_name(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = Daemon::start(&lab.router, &[hook, "--max-connections", "16000", "lan0"]);
    daemon.wait_for_line("forwarding", LIMIT);
    let (_server, client) = echo(&lab, 40000);
    assert!(client.echoes(0, LIMIT));
    wait_until_offloaded(&daemon, 1);
    assert_eq!(client.count_echoes(1..50, LIMIT), 49);
    let maps = Maps::of(daemon.pid());
    assert_eq!(maps.packets(abi::BPFW_FORWARDED), 0);
    assert!(maps.packets(abi::BPFW_PASS_EGRESS) >= 49);
}

fn hazard_07_a_blackhole_route_is_the_stacks(hook: &str, test: &str) {
    let (lab, daemon, _server, client) = fast_udp(hook, test, &snat_rules());
    let maps = Maps::of(daemon.pid());
    let before = maps.packets(abi::BPFW_PASS_NO_ROUTE);
    lab.router.ip(&format!("route add blackhole {SERVER}/32\n"));
    eventually(LIMIT, "the stack gets it, and drops", || {
        client.send(1);
        maps.packets(abi::BPFW_PASS_NO_ROUTE) > before
    });
    assert!(!client.echoes(2, Duration::from_millis(300)));
    lab.router.ip(&format!("route del blackhole {SERVER}/32\n"));
    wait_until_fast(&lab, &client);
}

fn hazard_07_a_vanished_route_is_the_stacks_business(hook: &str, test: &str) {
    let (lab, daemon, _server, client) = fast_udp(hook, test, &snat_rules());
    let maps = Maps::of(daemon.pid());
    lab.router.ip("link set wan0 down\n");
    let passed = || maps.packets(abi::BPFW_PASS_NO_ROUTE) + maps.packets(abi::BPFW_PASS_UNKNOWN);
    let (passed_before, fast_before) = (passed(), forwarded(&daemon));
    eventually(LIMIT, "packets go to the stack", || {
        client.send(1);
        passed() > passed_before + 3
    });
    assert!(forwarded(&daemon) <= fast_before + 10, "the fast path has stopped");
    lab.router.ip("link set wan0 up\n");
    wait_until_fast(&lab, &client);
}

fn hazard_10_a_smaller_mtu_is_heeded(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    // Without path MTU discovery the router splits packets, and the sender learns nothing.
    lab.client.sysctl("net/ipv4/ip_no_pmtu_disc", "1");
    let daemon = start(&lab, hook, &[]);
    let _server = support::udp::udp_echo(&lab.server, ECHO);
    let client = UdpClient::open(&lab.client, at(support::lab::CLIENT, 40000), ECHO).size(1400);
    wait_until_fast(&lab, &client);
    let maps = Maps::of(daemon.pid());
    // 1,400 bytes of payload no longer fit: the stack splits them, the fast path must not.
    lab.router.ip(&format!("route add {SERVER}/32 dev wan0 mtu 1280\n"));
    eventually(LIMIT, "large packets go to the stack", || {
        client.echoes(1, Duration::from_millis(200));
        maps.packets(abi::BPFW_PASS_TOO_BIG) > 0
    });
    lab.router.ip(&format!("route del {SERVER}/32 dev wan0\n"));
    wait_until_fast(&lab, &client);
}

fn hazard_07_a_replaced_interface_mac_is_followed(hook: &str, test: &str) {
    let (lab, _daemon, _server, client) = fast_udp(hook, test, &snat_rules());
    lab.router.ip(&format!("link set wan0 address {}\n", show(NEW_MAC)));
    lab.server.ip(&format!(
        "neigh replace {} lladdr {} dev eth0 nud reachable\n",
        support::lab::ROUTER_WAN,
        show(NEW_MAC)
    ));
    wait_until_fast(&lab, &client);
    let capture = Capture::open(&lab.server, "eth0");
    assert!(echo_is_fast(&lab, &client, 3));
    let seen = capture.expect(LIMIT, "the datagram", |view| view.protocol == 17);
    assert_eq!(seen.ethernet.src, NEW_MAC);
}

/// The stack sees no packets any more, and would let its entry go stale, then fail.
fn hazard_08_neighbors_in_use_stay_valid(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl("net/netfilter/nf_conntrack_udp_timeout", "8");
    for device in ["lan0", "wan0"] {
        lab.router.sysctl(&format!("net/ipv4/neigh/{device}/base_reachable_time_ms"), "1000");
        lab.router.sysctl(&format!("net/ipv4/neigh/{device}/delay_first_probe_time"), "1");
    }
    let _daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let capture = Capture::open(&lab.server, "eth0");
    let mut number = 0;
    // An ARP request to the server shows that the entry was found in use and is probed. The daemon
    // takes care of that every 10 s. On a busy machine, the connection may miss one or two such
    // turns.
    eventually(Duration::from_secs(40), "the neighbor is probed", || {
        number += 1;
        assert!(client.echoes(number, LIMIT));
        capture
            .next(Duration::from_millis(50), |frame| {
                !frame.outgoing && frame.bytes.get(12..14) == Some(&[8, 6])
            })
            .is_some()
    });
    assert!(echo_is_fast(&lab, &client, 9_999));
}

/// The host no longer answers ARP: the stack asks in vain, and tells the sender.
fn hazard_08_a_vanished_neighbor_is_reported(hook: &str, test: &str) {
    let (lab, daemon, _server, client) = fast_udp(hook, test, &snat_rules());
    let errors = Capture::open(&lab.client, "eth0");
    lab.server.ip("link set eth0 arp off\n");
    lab.router.ip("neigh flush dev wan0\n");
    let unreachable = |frame: &Frame| {
        frame.view().is_some_and(|view| view.protocol == 1 && view.payload.starts_with(&[3, 1]))
    };
    eventually(LIMIT, "host unreachable", || {
        client.send(1);
        errors.next(Duration::from_millis(100), unreachable).is_some()
    });
    assert!(Maps::of(daemon.pid()).packets(abi::BPFW_PASS_NO_NEIGHBOR) > 0);
    lab.server.ip("link set eth0 arp on\n");
    eventually(LIMIT, "it is back", || {
        client.echoes(2, Duration::from_millis(100)) && echo_is_fast(&lab, &client, 3)
    });
}

/// Fresh or stale, its MAC address is the same: nothing is looked up again.
fn hazard_08_a_neighbor_that_ages_is_no_change(hook: &str, test: &str) {
    let (lab, daemon, _server, client) = fast_udp(hook, test, &snat_rules());
    let maps = Maps::of(daemon.pid());
    let set = |mac: Mac, state: &str| {
        let mac = show(mac);
        lab.router.ip(&format!("neigh replace {SERVER} lladdr {mac} dev wan0 nud {state}\n"));
    };
    let before = maps.generation();
    for state in ["stale", "reachable", "delay", "probe", "stale", "reachable"] {
        set(support::lab::SERVER_MAC, state);
    }
    assert!(echo_is_fast(&lab, &client, 1));
    assert_eq!(maps.generation(), before);
    set(NEW_MAC, "reachable");
    eventually(LIMIT, "this is a change", || maps.generation() > before);
}

/// A bridge that is named itself is an interface like others; its ports are the kernel's.
#[test]
fn hazard_50_a_named_bridge_is_fast_at_tc() {
    if !support::live::root_or_skip("hazard_50_a_named_bridge_is_fast_at_tc") {
        return;
    }
    let lab = lab("tc", "bridge", &snat_rules());
    lab.router.ip(&format!(
        "addr flush dev lan0\nlink add br0 address {} type bridge\nlink set lan0 master br0\n\
         link set br0 up\naddr add {ROUTER_LAN}/24 dev br0\n",
        show(ROUTER_LAN_MAC)
    ));
    lab.nft("insert rule ip rules forward iifname br0 accept");
    let words = ["tc", "--max-connections", "16000", "--prove-every", "0", "br0", "wan0"];
    let daemon = Daemon::start(&lab.router, &words);
    daemon.wait_for_line("forwarding", LIMIT);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    for number in 0..20 {
        assert!(echo_is_fast(&lab, &client, number));
    }
}
