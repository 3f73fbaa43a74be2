// SPDX-License-Identifier: GPL-2.0-only
//! Packets of an offloaded connection that are the stack's all the same: it answers, splits,
//! delivers or drops them as it always does.

mod support;

use bpfw::abi;
use std::time::Duration;
use support::capture::{Capture, Frame};
use support::daemon::Daemon;
use support::lab::{
    CLIENT, CLIENT_MAC, Lab, ROUTER_LAN, ROUTER_LAN_MAC, ROUTER_WAN, ROUTER_WAN_MAC, SERVER,
    SERVER_MAC,
};
use support::maps::Maps;
use support::packet::{Mac, Packet};
use support::router::*;
use support::rules::snat_rules;
use support::steady::{expect_frame, is_udp};
use support::tcp::{Direction, Path, TcpPair};
use support::udp::{UdpClient, UdpEcho, datagram, udp_echo};
use support::view::View;
use support::wait::eventually;

on_both_hooks!(
    hazard_09_a_forged_packet_is_not_forwarded,
    hazard_10_the_router_answers_an_expired_packet,
    hazard_10_the_router_answers_a_large_packet,
    hazard_10_tcp_finds_the_path_mtu,
    hazard_11_fragments_arrive,
    hazard_11_ip_options_arrive,
    hazard_20_frames_for_others_are_left_alone,
    hazard_20_an_address_that_becomes_local_is_not_forwarded,
    hazard_20_the_routers_own_connections_stay,
);

const FROM: u16 = 40000;

/// A connection on the fast path, and what passes at both hosts.
struct Fast {
    lab: Lab,
    daemon: Daemon,
    _server: UdpEcho,
    client: UdpClient,
    lan: Capture,
    wan: Capture,
}

impl Fast {
    fn new(hook: &str, test: &str) -> Self {
        let lab = lab(hook, test, &snat_rules());
        let daemon = start(&lab, hook, &[]);
        let (server, client) = echo(&lab, FROM);
        wait_until_fast(&lab, &client);
        let (lan, wan) = (Capture::open(&lab.client, "eth0"), Capture::open(&lab.server, "eth0"));
        Self { lab, daemon, _server: server, client, lan, wan }
    }

    fn packets(&self, verdict: abi::bpfw_verdict) -> u64 {
        Maps::of(self.daemon.pid()).packets(verdict)
    }

    /// Sends a frame from the client until the datapath has judged it so. In a pause it does not.
    fn expect_verdict(&self, frame: &[u8], verdict: abi::bpfw_verdict) {
        let before = self.packets(verdict);
        eventually(LIMIT, "the frame is judged", || {
            self.lan.send_frame(frame);
            self.packets(verdict) > before
        });
    }

    /// The connection is as fast as before.
    fn expect_fast(&self) {
        eventually(LIMIT, "the fast path goes on", || {
            self.client.echoes(1, Duration::from_millis(100))
                && echo_is_fast(&self.lab, &self.client, 2)
        });
    }
}

/// A packet of the connection as the client sends it.
fn packet() -> Packet {
    sized(64)
}

/// As `packet`, with so many bytes of payload: datagram 0, which no test waits for.
fn sized(payload: usize) -> Packet {
    let packet = Packet::udp(at(CLIENT, FROM), ECHO).mac(CLIENT_MAC, ROUTER_LAN_MAC);
    packet.payload(&datagram(0, payload))
}

/// An ICMP message of this type and code that the router sent to the client.
fn is_error(view: &View, kind: u8, code: u8) -> bool {
    view.protocol == 1 && *view.src.ip() == ROUTER_LAN && view.payload.starts_with(&[kind, code])
}

fn hazard_09_a_forged_packet_is_not_forwarded(hook: &str, test: &str) {
    let fast = Fast::new(hook, test);
    let maps = Maps::of(fast.daemon.pid());
    let trace = || {
        let connections = maps.connections();
        let lan = connections.into_iter().find(|conn| conn.cell.head.src_port == FROM.into());
        lan.map(|abi::bpfw_conn { cell, rest }| {
            (cell.hop_word, cell.last_seen, cell.volume, rest.finished)
        })
    };
    let forged = packet().mac(SERVER_MAC, ROUTER_WAN_MAC).build();
    // After a change of routing it comes first, and then not.
    for verdict in [abi::BPFW_PASS_UNPROVEN, abi::BPFW_PASS_INGRESS] {
        let generation = maps.generation();
        if verdict == abi::BPFW_PASS_UNPROVEN {
            fast.lab.router.ip("route add 203.0.113.0/24 via 198.51.100.2\n");
            eventually(LIMIT, "the route is noticed", || maps.generation() > generation);
        }
        let (before, count) = (trace(), fast.packets(verdict));
        fast.wan.send_frame(&forged);
        eventually(LIMIT, "it is judged", || fast.packets(verdict) > count);
        assert!(before.is_some());
        assert_eq!(trace(), before, "it leaves no trace");
        fast.expect_fast();
    }
}

fn hazard_10_the_router_answers_an_expired_packet(hook: &str, test: &str) {
    let fast = Fast::new(hook, test);
    fast.expect_verdict(&packet().ttl(1).build(), abi::BPFW_PASS_TTL);
    fast.lan.expect(LIMIT, "time exceeded", |view| is_error(view, 11, 0));
    let before = fast.lab.stack_packets();
    fast.lan.send_frame(&packet().ttl(2).build());
    fast.wan.expect(LIMIT, "the next one's last hop", |view| view.ttl == 1);
    assert_eq!(fast.lab.stack_packets(), before, "that one was fast");
}

fn hazard_10_the_router_answers_a_large_packet(hook: &str, test: &str) {
    let fast = Fast::new(hook, test);
    fast.lab.router.sysctl("net/ipv4/icmp_ratelimit", "0");
    let route = |words: &str| format!("route replace {SERVER}/32 dev wan0 {words}\n");
    let changes = [
        (route("mtu 1280"), 1280),
        (route("mtu lock 1300"), 1300),
        (format!("route del {SERVER}/32\nlink set wan0 mtu 1400\n"), 1400),
    ];
    for (change, mtu) in changes {
        fast.lab.router.ip(&change);
        fast.expect_fast();
        let large = sized(1_422);
        fast.expect_verdict(&large.clone().build(), abi::BPFW_PASS_TOO_BIG);
        let error = fast.lan.expect(LIMIT, "too large", |view| is_error(view, 3, 4));
        let said = u16::from_be_bytes([error.payload[6], error.payload[7]]);
        assert_eq!(said, mtu, "after {change}");
        fast.expect_verdict(&large.df(false).build(), abi::BPFW_PASS_TOO_BIG);
        let first = fast.wan.expect(LIMIT, "a first part", |view| view.mf);
        assert!(first.total_length <= mtu && *first.src.ip() == ROUTER_WAN);
        // What fits exactly is fast.
        let stack = fast.lab.stack_packets();
        fast.lan.send_frame(&sized(usize::from(mtu) - 28).build());
        fast.wan.expect(LIMIT, "a full packet", |view| view.total_length == mtu && !view.mf);
        assert_eq!(fast.lab.stack_packets(), stack);
    }
}

/// The sender begins with segments that are too large, as for the whole way so far.
fn hazard_10_tcp_finds_the_path_mtu(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    wait_until_tcp_fast(&lab, &pair);
    lab.router.ip(&format!("route add {SERVER}/32 dev wan0 mtu 1280\n"));
    let maps = Maps::of(daemon.pid());
    let took = pair.transfer(Direction::ToServer, 16 << 20, 10);
    let (large, fast) = (maps.packets(abi::BPFW_PASS_TOO_BIG), maps.packets(abi::BPFW_FORWARDED));
    println!("{hook}: 16 MiB in {took:?}; {large} packets too large, {fast} forwarded");
    assert!(large > 0, "the first ones were too large");
    eventually(LIMIT, "what follows is fast", || {
        let before = maps.packets(abi::BPFW_PASS_TOO_BIG);
        pair.transfer(Direction::ToServer, 1 << 20, 11);
        maps.packets(abi::BPFW_PASS_TOO_BIG) == before
    });
    assert!(tcp_is_fast(&lab, &pair));
}

fn hazard_11_fragments_arrive(hook: &str, test: &str) {
    let fast = Fast::new(hook, test);
    let large = UdpClient::open(&fast.lab.client, at(CLIENT, FROM + 1), ECHO).size(4_000);
    eventually(LIMIT, "it is offloaded, too", || {
        assert!(large.echoes(0, LIMIT), "fragments are lost");
        offloaded(&fast.daemon) == 2
    });
    let before = fast.packets(abi::BPFW_PASS_FRAGMENT);
    for number in 1..20 {
        assert!(large.echoes(number, LIMIT), "fragments are lost");
    }
    let passed = fast.packets(abi::BPFW_PASS_FRAGMENT) - before;
    assert!(passed >= 19 * 6, "three each way: {passed}");
    fast.expect_fast();
}

fn hazard_11_ip_options_arrive(hook: &str, test: &str) {
    const NOTHING: [u8; 4] = [1, 1, 1, 0];
    let fast = Fast::new(hook, test);
    fast.expect_verdict(&packet().ip_options(&NOTHING).build(), abi::BPFW_PASS_IP_OPTIONS);
    let seen = fast.wan.expect(LIMIT, "the packet", |view| view.ip_options == NOTHING);
    assert_eq!((*seen.src.ip(), seen.ttl), (ROUTER_WAN, 63));
    assert!(seen.checksums_right());
    fast.expect_fast();
}

fn hazard_20_frames_for_others_are_left_alone(hook: &str, test: &str) {
    const VIRTUAL: Mac = [0, 0, 0x5e, 0, 1, 7];
    let fast = Fast::new(hook, test);
    fast.lab.router.ip("link set lan0 promisc on\n");
    let others = [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [2, 0, 0, 0, 1, 77], VIRTUAL];
    let before = fast.packets(abi::BPFW_FORWARDED);
    let frame = |mac| sized(77).mac(CLIENT_MAC, mac).build();
    let is_ours =
        |frame: &Frame| is_udp(frame) && frame.view().is_some_and(|view| view.payload.len() == 77);
    others.iter().for_each(|mac| fast.expect_verdict(&frame(*mac), abi::BPFW_PASS_MAC));
    assert_eq!(fast.packets(abi::BPFW_FORWARDED), before);
    assert_eq!(fast.wan.next(Duration::from_millis(200), is_ours), None);
    // Another router's address that this one takes over, as VRRP does.
    fast.lab
        .router
        .ip("link add vrrp0 link lan0 address 00:00:5e:00:01:07 type macvlan mode bridge\n\
         link set vrrp0 up\n");
    fast.expect_verdict(&frame(VIRTUAL), abi::BPFW_PASS_MAC);
    expect_frame(&fast.wan, "the stack forwards it", is_ours);
    fast.expect_fast();
}

fn hazard_20_an_address_that_becomes_local_is_not_forwarded(hook: &str, test: &str) {
    let fast = Fast::new(hook, test);
    fast.lab.router.ip(&format!("addr add {SERVER}/32 dev lo\n"));
    eventually(LIMIT, "nothing is forwarded any more", || {
        let before = fast.packets(abi::BPFW_FORWARDED);
        fast.lan.send_frame(&packet().build());
        std::thread::sleep(Duration::from_millis(20));
        fast.packets(abi::BPFW_FORWARDED) == before
    });
    while fast.wan.next(Duration::from_millis(100), is_udp).is_some() {}
    fast.lan.send_frame(&packet().build());
    assert_eq!(fast.wan.next(Duration::from_millis(200), is_udp), None);
    fast.lab.router.ip(&format!("addr del {SERVER}/32 dev lo\n"));
    fast.expect_fast();
}

fn hazard_20_the_routers_own_connections_stay(hook: &str, test: &str) {
    let fast = Fast::new(hook, test);
    let service = at(ROUTER_LAN, 9);
    let _server = udp_echo(&fast.lab.router, service);
    let client = UdpClient::open(&fast.lab.client, at(CLIENT, FROM + 1), service);
    let before = fast.packets(abi::BPFW_FORWARDED);
    for number in 0..20 {
        assert!(client.echoes(number, LIMIT), "echo {number} is lost");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fast.packets(abi::BPFW_FORWARDED), before);
    assert_eq!(offloaded(&fast.daemon), 1);
    fast.expect_fast();
}
