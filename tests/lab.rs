// SPDX-License-Identifier: GPL-2.0-only
//! The lab works on the plain kernel: what its tests will claim about bpfw means something.

mod support;

use nix::sys::signal::Signal;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;
use support::capture::Capture;
use support::daemon::Daemon;
use support::lab::{
    CLIENT, CLIENT_MAC, HOST2, Lab, Offloads, ROUTER_LAN, ROUTER_LAN_MAC, ROUTER_WAN, SERVER,
    SERVER_MAC,
};
use support::live::root_or_skip;
use support::netns::Namespace;
use support::packet::Packet;
use support::tcp::{Direction, Path, TcpPair, reset, tcp_transfer};
use support::udp::{UdpClient, udp_echo};
use support::view::Checksum;
use support::wait::eventually;
use support::{netns, rules};

const LIMIT: Duration = Duration::from_secs(5);

fn at(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}

fn peer(stream: &TcpStream) -> IpAddr {
    stream.peer_addr().expect("connected").ip()
}

fn ping(from: &Namespace, to: Ipv4Addr) {
    from.run(&["ping", "-n", "-c", "2", "-i", "0.01", "-W", "2", &to.to_string()]);
}

#[test]
fn ping_goes_through_and_is_counted() {
    if !root_or_skip("ping_goes_through_and_is_counted") {
        return;
    }
    let lab = Lab::new("ping", Offloads::Default);
    lab.nft(&rules::no_nat_rules());
    lab.route_server_via_router();
    ping(&lab.client, ROUTER_LAN);
    assert_eq!(lab.stack_packets(), 0, "the router itself answered");
    ping(&lab.client, SERVER);
    assert_eq!((lab.stack_packets(), lab.stack_packets_of("icmp")), (4, 4));
    assert_eq!(lab.stack_packets_of("tcp"), 0);
}

#[test]
fn udp_echo_through_snat() {
    if !root_or_skip("udp_echo_through_snat") {
        return;
    }
    for offloads in [Offloads::Default, Offloads::Plain] {
        let lab = Lab::new("udp-snat", offloads);
        lab.nft(&rules::snat_rules());
        let server = udp_echo(&lab.server, at(SERVER, 7));
        let client = UdpClient::open(&lab.client, at(CLIENT, 40000), at(SERVER, 7)).size(1400);
        assert_eq!(client.count_echoes(0..20, LIMIT), 20);
        assert_eq!(lab.stack_packets_of("udp"), 40);
        assert!(server.sources().iter().all(|source| *source.ip() == ROUTER_WAN));
        let entries = lab.conntrack_list();
        assert!(entries.contains("sport=40000"), "{entries}");
        assert!(lab.conntrack(&["-F"]).status.success());
        assert!(!lab.conntrack_list().contains("sport=40000"));
    }
}

#[test]
fn tcp_transfers_through_snat() {
    if !root_or_skip("tcp_transfers_through_snat") {
        return;
    }
    let lab = Lab::new("tcp-snat", Offloads::Default);
    lab.nft(&rules::snat_rules());
    let path = Path::direct(at(SERVER, 5001));
    for (seed, direction) in [(1, Direction::ToServer), (2, Direction::ToClient)] {
        tcp_transfer(&lab.client, &lab.server, path, direction, 64 << 20, seed);
    }
    assert!(lab.stack_packets_of("tcp") > 1000);
}

#[test]
fn tcp_transfers_without_offloads() {
    if !root_or_skip("tcp_transfers_without_offloads") {
        return;
    }
    let lab = Lab::new("tcp-plain", Offloads::Plain);
    lab.nft(&rules::snat_rules());
    lab.static_neighbours();
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    pair.exchange();
    pair.transfer(Direction::ToServer, (4 << 20) + 5, 3);
    pair.transfer(Direction::ToClient, (4 << 20) + 5, 4);
    assert_eq!(peer(&pair.server), ROUTER_WAN);
}

#[test]
fn reset_crosses_the_router() {
    if !root_or_skip("reset_crosses_the_router") {
        return;
    }
    let lab = Lab::new("reset", Offloads::Default);
    lab.nft(&rules::snat_rules());
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    pair.exchange();
    let TcpPair { client, mut server } = pair;
    reset(client);
    let error = std::io::Read::read(&mut server, &mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn dnat_reaches_the_client() {
    if !root_or_skip("dnat_reaches_the_client") {
        return;
    }
    let lab = Lab::new("dnat", Offloads::Default);
    lab.nft(&rules::dnat_rules(8080, at(CLIENT, 80)));
    let path = Path { listen: at(CLIENT, 80).into(), connect: at(ROUTER_WAN, 8080).into() };
    let pair = TcpPair::open(&lab.server, &lab.client, path);
    pair.exchange();
    assert_eq!(peer(&pair.server), SERVER);
    let _echo = udp_echo(&lab.client, at(CLIENT, 80));
    let outside = UdpClient::open(&lab.server, at(SERVER, 0), at(ROUTER_WAN, 8080));
    assert_eq!(outside.count_echoes(0..3, LIMIT), 3);
    lab.route_server_via_router();
    let refused = UdpClient::open(&lab.server, at(SERVER, 0), at(CLIENT, 80));
    assert!(!refused.echoes(9, Duration::from_millis(50)), "not by the forward chain");
}

#[test]
fn hairpin_comes_back_into_the_lan() {
    if !root_or_skip("hairpin_comes_back_into_the_lan") {
        return;
    }
    let lab = Lab::with_switch("hairpin", Offloads::Plain);
    lab.nft(&rules::hairpin_rules(8080, at(HOST2, 80)));
    let path = Path { listen: at(HOST2, 80).into(), connect: at(ROUTER_WAN, 8080).into() };
    let pair = TcpPair::open(&lab.client, lab.host2(), path);
    pair.exchange();
    assert_eq!(peer(&pair.server), ROUTER_LAN);
    let echo = udp_echo(lab.host2(), at(HOST2, 80));
    let client = UdpClient::open(&lab.client, at(CLIENT, 0), at(ROUTER_WAN, 8080));
    assert_eq!(client.count_echoes(0..3, LIMIT), 3);
    assert!(echo.sources().iter().all(|source| *source.ip() == ROUTER_LAN));
    assert_eq!(lab.stack_packets_of("udp"), 6);
    ping(&lab.client, HOST2);
    ping(lab.host2(), SERVER);
}

#[test]
fn frames_are_sent_and_captured() {
    if !root_or_skip("frames_are_sent_and_captured") {
        return;
    }
    let lab = Lab::new("frames", Offloads::Plain);
    lab.nft(&rules::no_nat_rules());
    lab.static_neighbours();
    let near = Capture::open(&lab.client, "eth0");
    let beside = Capture::open(&lab.client, "eth0");
    let far = Capture::open(&lab.server, "eth0");
    let packet = Packet::udp(at(CLIENT, 1000), at(SERVER, 2000)).payload(b"hello").ttl(9);
    let packet = packet.mac(CLIENT_MAC, ROUTER_LAN_MAC);
    near.send_frame(&packet.build());
    let seen = far.expect(LIMIT, "the forwarded datagram", |view| view.dst.port() == 2000);
    assert_eq!((seen.ttl, seen.ethernet.dst, &seen.payload[..]), (8, SERVER_MAC, &b"hello"[..]));
    assert!(seen.checksums_right());
    let sent = beside.next(LIMIT, |frame| frame.outgoing).expect("the sent frame");
    assert_eq!(sent.bytes, packet.build());
    let tagged = packet.vlan(5, 3, 0x8100).build();
    let router = Capture::open(&lab.router, "lan0");
    near.send_frame(&tagged);
    let seen = router.next(LIMIT, |frame| frame.view().is_some()).expect("the tagged frame");
    assert_eq!(seen.bytes, tagged, "with its tag");
    assert_eq!(far.collect(Duration::from_millis(30), |frame| frame.view().is_some()).len(), 0);
}

#[test]
fn default_offloads_send_partial_checksums() {
    if !root_or_skip("default_offloads_send_partial_checksums") {
        return;
    }
    for (offloads, expected) in
        [(Offloads::Default, Checksum::Partial), (Offloads::Plain, Checksum::Right)]
    {
        let lab = Lab::new("partial", offloads);
        let router = Capture::open(&lab.router, "lan0");
        UdpClient::open(&lab.client, at(CLIENT, 0), at(ROUTER_LAN, 9)).send(1);
        let is_udp = |view: support::view::View| view.protocol == 17;
        let frame = router.next(LIMIT, |frame| frame.view().is_some_and(is_udp));
        let frame = frame.expect("the datagram");
        assert_eq!(frame.view().expect("IPv4").l4_checksum, expected);
        assert_eq!(frame.partial_checksum, expected == Checksum::Partial);
    }
}

#[test]
fn a_daemon_is_heard_signalled_and_ended() {
    if !root_or_skip("a_daemon_is_heard_signalled_and_ended") {
        return;
    }
    let namespace = Namespace::new("daemon");
    let script = "echo pid $$; trap 'echo bye >&2; exit 3' TERM; while :; do sleep 0.02; done";
    let daemon = Daemon::start_program(&namespace, "sh", &["-c", script]);
    let line = daemon.wait_for_line("pid ", LIMIT);
    assert_eq!(line, format!("pid {}", daemon.pid()), "ip netns exec became the program");
    let mark = daemon.mark();
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_line_after(mark, "bye", LIMIT);
    assert_eq!(daemon.stop(LIMIT).code(), Some(3));
    let mut killed = Daemon::start_program(&namespace, "sleep", &["100"]);
    assert!(killed.exited().is_none());
    let pid = killed.pid();
    drop(killed);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_spawned_command_is_in_the_namespace() {
    if !root_or_skip("a_spawned_command_is_in_the_namespace") {
        return;
    }
    let namespace = Namespace::new("spawn");
    let mut command = namespace.command("sleep");
    command.arg("100");
    let running = namespace.spawn(command);
    let pids = || namespace_pids(&namespace);
    eventually(LIMIT, "the command is in the namespace", || pids().contains(&running.pid()));
    drop(running);
    assert!(pids().is_empty());
}

fn namespace_pids(namespace: &Namespace) -> Vec<u32> {
    let output =
        std::process::Command::new("ip").args(["netns", "pids", namespace.name()]).output();
    let output = netns::text(&output.expect("ip netns pids").stdout);
    output.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn a_panic_leaves_no_namespace() {
    if !root_or_skip("a_panic_leaves_no_namespace") {
        return;
    }
    let name = std::sync::Mutex::new(String::new());
    let outcome = std::panic::catch_unwind(|| {
        let namespace = Namespace::new(&"a-very-long-name-of-a-test-".repeat(4));
        namespace.name().clone_into(&mut name.lock().expect("not poisoned"));
        namespace.enter(|| panic!("within the namespace"))
    });
    let text = outcome.expect_err("a panic").downcast_ref::<&str>().map(|text| (*text).to_owned());
    assert_eq!(text.as_deref(), Some("within the namespace"));
    let name = name.lock().expect("not poisoned").clone();
    assert!(name.len() <= 60 && name.starts_with("bpfw-a-very"), "{name}");
    assert!(!std::path::Path::new("/run/netns").join(&name).exists());
}
