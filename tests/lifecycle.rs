// SPDX-License-Identifier: GPL-2.0-only
//! A connection's life on the fast path: how it gets there, and all the ways in which it ends.

mod support;

use bpfw::abi;
use bpfw::flow::tuple::{Protocol, Tuple};
use std::net::Shutdown;
use std::time::{Duration, Instant};
use support::conntrack::{entry, time_left, update};
use support::daemon::Daemon;
use support::lab::{CLIENT, Lab, SERVER};
use support::maps::Maps;
use support::packet::{Packet, tcp};
use support::router::*;
use support::rules::{marking_rules, snat_rules};
use support::tcp::{Path, TcpPair, reset};
use support::udp::UdpClient;
use support::wait::{becomes_true, eventually};

on_both_hooks!(
    offloading_follows_the_first_reply,
    hazard_05_udp_becomes_a_stream,
    connections_before_the_start_are_offloaded,
    hazard_05_an_unanswered_connection_stays_with_the_stack,
    hazard_02_fin_in_either_order_closes_through_the_stack,
    hazard_02_rst_closes_through_the_stack,
    hazard_02_a_reused_port_gets_its_own_translation,
    hazard_04_conntrack_delete_ends_the_fast_path,
    hazard_04_conntrack_flush_ends_the_fast_path,
    hazard_06_timeouts_are_refreshed_while_there_is_traffic,
    hazard_06_idle_connections_expire,
    hazard_27_only_marked_connections_are_offloaded,
    hazard_26_a_full_map_leaves_new_connections_to_the_stack,
    hazard_26_idle_connections_without_proof_give_way,
);

fn tcp_path() -> Path {
    Path::direct(at(SERVER, 5001))
}

/// A lab with SNAT, bpfw, and a TCP connection on the fast path.
fn fast_tcp(hook: &str, test: &str) -> (Lab, Daemon, TcpPair) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let pair = TcpPair::open(&lab.client, &lab.server, tcp_path());
    wait_until_tcp_fast(&lab, &pair);
    (lab, daemon, pair)
}

fn client_port(pair: &TcpPair) -> u16 {
    pair.client.local_addr().unwrap().port()
}

fn hazard_05_udp_becomes_a_stream(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    assert!(client.echoes(0, LIMIT));
    wait_until_offloaded(&daemon, 1);
    assert!(!echo_is_fast(&lab, &client, 1), "the stack must send one of each direction");
    assert!(echo_is_fast(&lab, &client, 2), "offloaded by its first reply");
    // A packet after the 2nd second goes up, so that conntrack calls it a stream.
    wait_until_fast(&lab, &client);
    assert!(Maps::of(daemon.pid()).packets(abi::BPFW_PASS_UNASSURED) > 0);
}

/// Prints how long it takes from the first reply to the entry in the map.
fn offloading_follows_the_first_reply(hook: &str, test: &str) {
    const NUMBER: u16 = 200;
    let lab = lab(hook, test, &snat_rules());
    lab.static_neighbours();
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let _server = support::udp::udp_echo(&lab.server, ECHO);
    let maps = Maps::of(daemon.pid());
    let mut times: Vec<Duration> = (0..NUMBER)
        .map(|number| {
            let from = at(CLIENT, 41_000 + number);
            let client = UdpClient::open(&lab.client, from, ECHO);
            assert!(client.echoes(0, LIMIT));
            let replied = Instant::now();
            let tuple = Tuple::new(Protocol::Udp, from, ECHO);
            while !maps.has_connection(tuple) {
                assert!(replied.elapsed() < LIMIT, "connection {number} is not offloaded");
            }
            replied.elapsed()
        })
        .collect();
    times.sort_unstable();
    let [half, most] = [50, 99].map(|percent| times[usize::from(NUMBER) * percent / 100]);
    println!("{hook}: offloaded {half:?} (p50), {most:?} (p99) after the first reply");
}

fn connections_before_the_start_are_offloaded(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let (_server, client) = echo(&lab, 40000);
    let pair = TcpPair::open(&lab.client, &lab.server, tcp_path());
    pair.exchange();
    assert!(client.echoes(0, LIMIT));
    let daemon = start(&lab, hook, &[]);
    wait_until_tcp_fast(&lab, &pair);
    wait_until_fast(&lab, &client);
    assert_eq!(offloaded(&daemon), 2);
}

fn hazard_05_an_unanswered_connection_stays_with_the_stack(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let client = UdpClient::open(&lab.client, at(CLIENT, 40000), at(SERVER, 9));
    // A socket that takes datagrams and never answers.
    let _sink = lab.server.enter(|| std::net::UdpSocket::bind(at(SERVER, 9)).unwrap());
    for number in 0..20 {
        client.send(number);
        std::thread::sleep(Duration::from_millis(20));
    }
    eventually(LIMIT, "all of them went by the stack", || lab.stack_packets() == 20);
    assert_eq!(offloaded(&daemon), 0);
}

fn hazard_02_fin_in_either_order_closes_through_the_stack(hook: &str, test: &str) {
    let (lab, daemon, first) = fast_tcp(hook, test);
    let second = TcpPair::open(&lab.client, &lab.server, tcp_path());
    wait_until_tcp_fast(&lab, &second);
    for (pair, client_first) in [(first, true), (second, false)] {
        let port = client_port(&pair);
        let ends = [&pair.client, &pair.server];
        let order = if client_first { [0, 1] } else { [1, 0] };
        for end in order {
            ends[end].shutdown(Shutdown::Write).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        eventually(LIMIT, "conntrack saw the end", || {
            entry(&lab, port).is_some_and(|entry| entry.contains("TIME_WAIT"))
        });
    }
    wait_until_offloaded(&daemon, 0);
    let rules = lab.router.sh("nft list chain ip rules forward");
    assert!(rules.contains("invalid counter packets 0 "), "{rules}");
}

fn hazard_02_rst_closes_through_the_stack(hook: &str, test: &str) {
    let (lab, daemon, pair) = fast_tcp(hook, test);
    pair.transfer(support::tcp::Direction::ToServer, 1 << 20, 3);
    let port = client_port(&pair);
    reset(pair.client);
    eventually(LIMIT, "conntrack saw the reset", || {
        entry(&lab, port).is_none_or(|entry| entry.contains("CLOSE"))
    });
    wait_until_offloaded(&daemon, 0);
}

/// The same client port twice, to the same server, with another translation each time.
fn hazard_02_a_reused_port_gets_its_own_translation(hook: &str, test: &str) {
    let rules = |port: u16| {
        let to = format!("meta l4proto udp oifname wan0 snat to {}:{port}", at_wan());
        snat_rules().replace("oifname wan0 masquerade", &to)
    };
    let lab = lab(hook, test, &rules(21000));
    let daemon = start(&lab, hook, &[]);
    let (server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    lab.nft(&rules(22000));
    assert!(lab.conntrack(&["-F"]).status.success());
    wait_until_offloaded(&daemon, 0);
    let before = server.sources().len();
    wait_until_fast(&lab, &client);
    let ports: Vec<u16> = server.sources()[before..].iter().map(|source| source.port()).collect();
    assert!(ports.iter().all(|port| *port == 22000), "{ports:?}");
}

fn at_wan() -> std::net::Ipv4Addr {
    support::lab::ROUTER_WAN
}

fn hazard_04_conntrack_delete_ends_the_fast_path(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    let (_other_server, other) = (
        support::udp::udp_echo(&lab.server, at(SERVER, 8)),
        UdpClient::open(&lab.client, at(CLIENT, 40001), at(SERVER, 8)),
    );
    wait_until_fast(&lab, &client);
    wait_until_fast(&lab, &other);
    let deleted = lab.conntrack(&["-D", "-p", "udp", "--sport", "40000"]);
    assert!(deleted.status.success());
    wait_until_offloaded(&daemon, 1);
    assert!(!echo_is_fast(&lab, &client, 2), "a new connection begins in the stack");
    assert!(echo_is_fast(&lab, &other, 2), "the other one is untouched");
}

fn hazard_04_conntrack_flush_ends_the_fast_path(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let pair = TcpPair::open(&lab.client, &lab.server, tcp_path());
    wait_until_tcp_fast(&lab, &pair);
    assert!(lab.conntrack(&["-F"]).status.success());
    wait_until_offloaded(&daemon, 0);
    assert!(!echo_is_fast(&lab, &client, 2));
}

/// Changes the mark of the client's UDP connection with these ports, as other programs do.
fn set_mark(lab: &Lab, (from, to): (u16, u16), mark: u32) {
    let (source, destination) = (at(CLIENT, from), at(SERVER, to));
    let original = Tuple::new(Protocol::Udp, source, destination);
    update(lab, original, &format!("-m {mark}"));
}

fn hazard_06_timeouts_are_refreshed_while_there_is_traffic(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", "8");
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let offloads = daemon.mark();
    set_mark(&lab, (40000, 7), 77);
    // Rules may go by marks: the stack must see the connection again.
    daemon.wait_for_line_after(offloads, "back to the stack", LIMIT);
    wait_until_fast(&lab, &client);
    let before = lab.stack_packets();
    let started = Instant::now();
    let mut number = 10;
    // Twice the timeout, all of it on the fast path: the stack refreshes nothing.
    while started.elapsed() < Duration::from_secs(16) {
        assert!(client.echoes(number, LIMIT));
        number += 1;
        std::thread::sleep(Duration::from_millis(100));
        assert!(time_left(&lab, 40000) <= 8, "never more than the timeout");
    }
    assert_eq!(lab.stack_packets(), before, "no packet went by the stack");
    assert_eq!(offloaded(&daemon), 1);
    let entry = entry(&lab, 40000).expect("the entry lives");
    assert!(entry.contains("mark=77"), "a mark set by others survives: {entry}");
}

fn hazard_06_idle_connections_expire(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", "3");
    lab.router.sysctl("net/netfilter/nf_conntrack_udp_timeout", "3");
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    assert!(client.echoes(0, LIMIT));
    wait_until_offloaded(&daemon, 1);
    assert!(client.echoes(1, LIMIT));
    assert!(echo_is_fast(&lab, &client, 2));
    // Conntrack collects what has expired in its own time, or when it is looked at.
    eventually(Duration::from_secs(20), "the entry expired", || entry(&lab, 40000).is_none());
    let gone = becomes_true(Duration::from_secs(20), || {
        lab.conntrack_list();
        offloaded(&daemon) == 0
    });
    assert!(gone, "the fast path outlives conntrack's entry");
}

fn hazard_27_only_marked_connections_are_offloaded(hook: &str, test: &str) {
    let lab = lab(hook, test, &marking_rules());
    let daemon = start(&lab, hook, &["--offload-mark", "0x20/0xf0"]);
    let (_server, plain) = echo(&lab, 40000);
    let _marked_server = support::udp::udp_echo(&lab.server, at(SERVER, 8));
    let marked = UdpClient::open(&lab.client, at(CLIENT, 40001), at(SERVER, 8));
    wait_until_fast(&lab, &marked);
    for number in 0..20 {
        assert!(!echo_is_fast(&lab, &plain, number));
    }
    // A mark that changes ends it.
    set_mark(&lab, (40001, 8), 1);
    wait_until_offloaded(&daemon, 0);
}

fn hazard_26_a_full_map_leaves_new_connections_to_the_stack(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &["--max-connections", "1"]);
    let (_server, first) = echo(&lab, 40000);
    wait_until_fast(&lab, &first);
    let second = UdpClient::open(&lab.client, at(CLIENT, 40001), ECHO);
    for number in 0..10 {
        assert!(!echo_is_fast(&lab, &second, number));
    }
    daemon.wait_for_line("too many connections", LIMIT);
    assert!(echo_is_fast(&lab, &first, 99));
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.wait_for_line("stayed with the stack: too many connections", LIMIT);
    let lines = daemon.lines();
    let warnings = lines.iter().filter(|line| line.contains("further ones stay")).count();
    assert_eq!(warnings, 1, "{lines:#?}");
}

/// A dump finds connections that have no traffic. They take all room, until others need it.
fn hazard_26_idle_connections_without_proof_give_way(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let (_server, idle) = echo(&lab, 40000);
    assert!(idle.echoes(0, LIMIT));
    let daemon = start(&lab, hook, &["--max-connections", "1"]);
    wait_until_offloaded(&daemon, 1);
    let active = UdpClient::open(&lab.client, at(CLIENT, 40001), ECHO);
    wait_until_fast(&lab, &active);
    assert_eq!(offloaded(&daemon), 1);
}

/// A RST with the connection's addresses, but from the other side, ends nothing.
#[test]
fn hazard_02_a_forged_rst_ends_nothing() {
    for hook in ["xdp", "tc"] {
        if !support::live::root_or_skip("hazard_02_a_forged_rst_ends_nothing") {
            return;
        }
        let (lab, daemon, pair) = fast_tcp(hook, "forged-rst");
        // Conntrack itself would believe it, before any routing check: what a firewall against
        // forged addresses must drop first.
        lab.nft(
            "table ip raw {
                chain prerouting {
                    type filter hook prerouting priority -400; policy accept;
                    iifname wan0 ip saddr 192.0.2.0/24 drop
                }
            }",
        );
        // Each direction has a new proof, and with it the next hop by which strangers are known.
        wait_until_tcp_fast(&lab, &pair);
        let port = client_port(&pair);
        let capture = support::capture::Capture::open(&lab.server, "eth0");
        let forged = Packet::tcp(at(CLIENT, port), at(SERVER, 5001))
            .mac(support::lab::SERVER_MAC, support::lab::ROUTER_WAN_MAC)
            .flags(tcp::RST | tcp::ACK)
            .build();
        capture.send_frame(&forged);
        let maps = Maps::of(daemon.pid());
        eventually(LIMIT, "the frame was judged", || maps.packets(abi::BPFW_PASS_INGRESS) > 0);
        assert_eq!(offloaded(&daemon), 1);
        assert!(maps.connections().iter().all(|conn| conn.rest.finished == 0));
        assert!(tcp_is_fast(&lab, &pair));
    }
}
