// SPDX-License-Identifier: GPL-2.0-only
//! IPv6, end to end on both hooks: as IPv4, without translation, which is `nat66.rs`.

mod support;

use bpfw::abi;
use std::time::Duration;
use support::daemon::Daemon;
use support::ipv6::*;
use support::lab::Lab;
use support::maps::Maps;
use support::router::*;
use support::rules::no_nat_rules;
use support::tcp::{Direction, Path, TcpPair};
use support::trial::transfer;
use support::tun::{join_lan, join_wan};
use support::udp::UdpClient;
use support::wait::eventually;

on_both_hooks!(
    hazard_42_udp_and_tcp_of_ipv6_are_fast,
    hazard_42_a_hop_limit_that_ends_here_is_the_stacks,
    hazard_48_a_smaller_mtu_is_told_to_the_sender,
    hazard_48_a_smaller_mtu_of_a_route_is_told_to_the_sender,
    hazard_46_prefixes_that_rules_translate_are_never_fast,
    hazard_55_answers_of_ipv6_that_rules_drop_are_never_fast,
    hazard_56_a_new_drop_counts_for_ipv6,
    a_router_of_ipv4_alone_hears_nothing_of_ipv6,
);

const BYTES: u64 = 4 << 20;

fn hazard_42_udp_and_tcp_of_ipv6_are_fast(hook: &str, test: &str) {
    both_protocols(&lab6(hook, test), hook);
}

/// UDP echoes, then TCP both ways, on the fast path.
fn both_protocols(lab: &Lab, hook: &str) {
    let daemon = start(lab, hook, &[]);
    let (_server, client) = echo6(lab, 40000);
    wait_until_fast6(lab, &client);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at6(SERVER6, 5001)));
    wait_until_tcp_fast(lab, &pair);
    transfer(lab, &daemon, &pair);
    assert!(daemon.stop(LIMIT).success());
}

fn hazard_42_a_hop_limit_that_ends_here_is_the_stacks(hook: &str, test: &str) {
    let lab = lab6(hook, test);
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo6(&lab, 40000);
    wait_until_fast6(&lab, &client);
    let before = Maps::of(daemon.pid()).packets(abi::BPFW_PASS_TTL);
    client.socket().set_ttl(1).expect("of IPv4 alone, where it does no harm");
    nix::sys::socket::setsockopt(client.socket(), nix::sys::socket::sockopt::Ipv6Ttl, &1)
        .expect("a hop limit");
    client.send(1);
    assert_eq!(client.recv(Duration::from_millis(300)), None);
    assert_eq!(Maps::of(daemon.pid()).packets(abi::BPFW_PASS_TTL), before + 1);
}

/// "Packet too big" comes from the stack, so TCP goes on in smaller segments.
fn hazard_48_a_smaller_mtu_is_told_to_the_sender(hook: &str, test: &str) {
    is_told_to_the_sender(hook, test, |lab| lab.router.sysctl("net/ipv6/conf/wan0/mtu", "1300"));
}

/// The stack forwards by the route's metric, although look-ups do not tell it.
fn hazard_48_a_smaller_mtu_of_a_route_is_told_to_the_sender(hook: &str, test: &str) {
    let replace = |lab: &Lab| lab.router.ip("route add fd00:2::2/128 dev wan0 mtu 1300\n");
    is_told_to_the_sender(hook, test, replace);
}

fn is_told_to_the_sender(hook: &str, test: &str, shrink: impl FnOnce(&Lab)) {
    let lab = lab6(hook, test);
    let _daemon = start(&lab, hook, &[]);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at6(SERVER6, 5001)));
    wait_until_tcp_fast(&lab, &pair);
    shrink(&lab);
    std::thread::sleep(Duration::from_millis(1500));
    pair.transfer(Direction::ToServer, BYTES, 3);
    let route = lab.client.sh("ip -6 route get fd00:2::2");
    assert!(route.contains("mtu 1300"), "the client has learned it: {route}");
}

/// Of these changes conntrack knows nothing: its tuples are those of an untranslated connection.
fn hazard_46_prefixes_that_rules_translate_are_never_fast(hook: &str, test: &str) {
    let lab = lab6(hook, test);
    lab.nft(
        "table ip6 npt {
            chain out {
                type filter hook postrouting priority 150; policy accept;
                oifname wan0 ip6 saddr fd00:1::2 ip6 saddr set fd00:9::2
            }
            chain in {
                type filter hook prerouting priority -300; policy accept;
                iifname wan0 ip6 daddr fd00:9::2 ip6 daddr set fd00:1::2
            }
        }",
    );
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo6(&lab, 40000);
    eventually(LIMIT, "conntrack calls it a stream", || {
        assert!(client.echoes(1, LIMIT), "the stack forwards it");
        std::thread::sleep(Duration::from_millis(20));
        is_stream6(&lab, 40000)
    });
    for number in 0..50 {
        assert!(!echo_is_fast(&lab, &client, number), "echo {number}");
    }
    assert_eq!(offloaded(&daemon), 1, "it is offloaded, and has no proof");
    assert_eq!(forwarded(&daemon), 0);
}

fn drops(lab: &Lab, rule: &str) {
    lab.nft(&format!("insert rule ip6 tracked forward {rule} drop"));
}

fn no_answer_is_forwarded(daemon: &Daemon, client: &UdpClient) {
    let before = forwarded(daemon);
    for number in 0..10 {
        assert!(!client.echoes(number, Duration::from_millis(50)), "the rule drops it");
    }
    assert!(forwarded(daemon) <= before + 10, "the other direction alone");
}

fn hazard_55_answers_of_ipv6_that_rules_drop_are_never_fast(hook: &str, test: &str) {
    let lab = lab6(hook, test);
    drops(&lab, "iifname wan0 udp sport 7");
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo6(&lab, 40000);
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..5 {
        no_answer_is_forwarded(&daemon, &client);
    }
}

fn hazard_56_a_new_drop_counts_for_ipv6(hook: &str, test: &str) {
    let lab = lab6(hook, test);
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo6(&lab, 40000);
    wait_until_fast6(&lab, &client);
    drops(&lab, "ip6 saddr fd00:1::2");
    std::thread::sleep(Duration::from_millis(250));
    let before = forwarded(&daemon);
    assert!(!client.echoes(1, Duration::from_millis(300)), "the rule drops it");
    assert_eq!(forwarded(&daemon), before, "none of it is fast");
}

/// The kernel's defaults: hosts take redirects of IPv6, and forward nothing.
fn a_router_of_ipv4_alone_hears_nothing_of_ipv6(hook: &str, test: &str) {
    let lab = lab6(hook, test);
    lab.router.sysctl("net/ipv6/conf/all/forwarding", "0");
    for interface in ["lan0", "wan0"] {
        lab.router.sysctl(&format!("net/ipv6/conf/{interface}/accept_redirects"), "1");
    }
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let said = daemon.lines().into_iter().find(|line| line.contains("IPv6"));
    assert_eq!(said, None);
    // What is set then matters as soon as it forwards.
    lab.router.sysctl("net/ipv6/conf/all/forwarding", "1");
    lab.router.sysctl("net/ipv6/conf/lan0/forwarding", "0");
    lab.router.sysctl("net/ipv6/conf/lan0/accept_redirects", "1");
    daemon.wait_for_line("nothing of IPv6 is offloaded", LIMIT);
}

/// Packets of IPv6 that begin with their IP header: in, out, and from one such interface to another.
#[test]
fn hazard_39_ipv6_through_tuns_is_fast() {
    if !support::live::root_or_skip("hazard_39_ipv6_through_tuns_is_fast") {
        return;
    }
    for both in [false, true] {
        let lab = lab("tc", "tun6", &no_nat_rules());
        let mut cables = vec![join_wan(&lab)];
        if both {
            cables.push(join_lan(&lab));
        }
        add_ipv6(&lab);
        both_protocols(&lab, "tc");
        drop(cables);
    }
}
