// SPDX-License-Identifier: GPL-2.0-only
//! The same frames go once through the network stack and once through the fast path. What comes out
//! at the other end is the same, byte for byte.

mod support;

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::time::Duration;
use support::capture::Capture;
use support::flow::ipv6_of;
use support::ipv6::add_twin;
use support::lab::{
    CLIENT, CLIENT_MAC, Lab, ROUTER_LAN, ROUTER_LAN_MAC, ROUTER_WAN, ROUTER_WAN_MAC, SERVER,
    SERVER_MAC, show,
};
use support::netns::{Namespace, text};
use support::packet::{Mac, Packet, tcp};
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::tcp::{Path, TcpPair};
use support::udp::{UdpClient, udp_echo};

on_both_hooks!(
    udp_with_snat,
    udp_without_nat,
    udp_of_ipv6,
    tcp_with_snat,
    tcp_without_nat,
    tcp_of_ipv6,
);

/// The port that the client's address gets, so that both runs translate alike.
const CLIENT_PORT: u16 = 40000;
const SERVICE: u16 = 7;

/// What a test compares.
#[derive(Clone, Copy)]
struct Case {
    tcp: bool,
    /// Masquerading, IPv4 only.
    translated: bool,
    ipv6: bool,
    /// `lan0` is the port of a bridge.
    bridged: bool,
}

const UDP: Case = Case { tcp: false, translated: false, ipv6: false, bridged: false };
const TCP: Case = Case { tcp: true, ..UDP };

/// One direction of the connection, as its sender sees it.
struct Way<'a> {
    sender: &'a Namespace,
    receiver: &'a Namespace,
    macs: (Mac, Mac),
    from: SocketAddrV4,
    to: SocketAddrV4,
    case: Case,
}

impl Way<'_> {
    fn packet(&self) -> Packet {
        let packet = if self.case.tcp {
            Packet::tcp(self.from, self.to).flags(tcp::ACK | tcp::PSH).seq(77).ack(99)
        } else {
            Packet::udp(self.from, self.to)
        };
        let packet = packet.mac(self.macs.0, self.macs.1);
        if self.case.ipv6 { packet.over_ipv6() } else { packet }
    }

    /// All that the header may say without concerning the router, and payloads of many lengths.
    fn frames(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for length in [0, 1, 2, 3, 17, 18, 19, 100, 511, 1024, 1399, 1440] {
            let payload: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
            packets.push(self.packet().payload(&payload));
        }
        for ttl in [2, 3, 64, 128, 255] {
            packets.push(self.packet().ttl(ttl).payload(b"ttl"));
        }
        for tos in [0, 1, 2, 3, 0x10, 0x28, 0xb8, 0xff] {
            packets.push(self.packet().tos(tos).payload(b"tos"));
        }
        packets.push(self.packet().df(true).payload(b"don't fragment"));
        packets.push(self.packet().payload(b"padded").pad_to(60));
        packets.push(self.packet().payload(b"padded a lot").pad_to(300));
        // Every value of the checksum's low byte: carries and zeros among them.
        for number in 0..=255_u8 {
            packets.push(self.packet().payload(&[number, 0xff, number]));
        }
        if self.case.tcp {
            let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
            packets.push(self.packet().tcp_options(&timestamps).payload(b"options"));
            packets.push(self.packet().flags(tcp::ACK).window(1));
        } else {
            packets.push(self.packet().zero_l4_checksum().payload(b"no checksum"));
            packets.push(self.packet().payload(&self.sum_to_zero()));
        }
        // The number in the identification or in the flow label tells them apart at the other end.
        let numbered = (0x4000_u16..).zip(packets);
        let label = |id: u16| u32::from(id) << 16 | u32::from(id);
        numbered.map(|(id, packet)| packet.id(id).flow_label(label(id)).build()).collect()
    }

    /// Where that number is in a frame.
    fn number_at(&self) -> Range<usize> {
        if self.case.ipv6 { 16..18 } else { 18..20 }
    }

    /// A payload with which the checksum, before translation, comes to 0 and is sent as 0xffff.
    fn sum_to_zero(&self) -> [u8; 2] {
        let frame = self.packet().payload(&[0, 0]).build();
        let checksum = if self.case.ipv6 { 60 } else { 40 };
        [frame[checksum], frame[checksum + 1]]
    }

    /// Sends each frame and takes what arrives.
    fn send(&self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let out = Capture::open(self.sender, "eth0");
        let arriving = Capture::open(self.receiver, "eth0");
        let received = frames.iter().map(|frame| {
            out.send_frame(frame);
            let limit = Duration::from_secs(2);
            // Neighbor discovery of IPv6 has a flow label of 0.
            let is_it = |seen: &[u8]| {
                seen.get(12..14) == frame.get(12..14)
                    && seen.get(self.number_at()) == frame.get(self.number_at())
            };
            let arrived = arriving.next(limit, |seen| !seen.outgoing && is_it(&seen.bytes));
            arrived.unwrap_or_else(|| panic!("lost: {frame:02x?}")).bytes
        });
        received.collect()
    }
}

fn ways(lab: &Lab, case: Case, port: u16) -> [Way<'_>; 2] {
    let inner = at(CLIENT, port);
    let outer = if case.translated { at(ROUTER_WAN, port) } else { inner };
    let service = at(SERVER, SERVICE);
    [
        Way {
            sender: &lab.client,
            receiver: &lab.server,
            macs: (CLIENT_MAC, ROUTER_LAN_MAC),
            from: inner,
            to: service,
            case,
        },
        Way {
            sender: &lab.server,
            receiver: &lab.client,
            macs: (SERVER_MAC, ROUTER_WAN_MAC),
            from: service,
            to: outer,
            case,
        },
    ]
}

/// A lab in which nobody but the test's frames makes noise.
fn quiet_lab(hook: &str, test: &str, case: Case) -> Lab {
    let lan = if case.bridged { "br-lan" } else { "lan0" };
    let rules = if case.translated { snat_rules() } else { no_nat_rules() };
    let lab = lab(hook, test, &rules.replace("lan0", lan));
    lab.static_neighbours();
    if case.bridged {
        lab.bridge_the_lan();
        know(&lab.router, CLIENT, CLIENT_MAC, lan);
    }
    if case.ipv6 {
        add_ipv6(&lab, lan);
    }
    // The test's segments lie outside of the window; both runs must treat them alike.
    lab.router.sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1");
    lab
}

fn add_ipv6(lab: &Lab, lan: &str) {
    let ends = [
        (&lab.client, "eth0", CLIENT, (ROUTER_LAN, ROUTER_LAN_MAC)),
        (&lab.router, lan, ROUTER_LAN, (CLIENT, CLIENT_MAC)),
        (&lab.router, "wan0", ROUTER_WAN, (SERVER, SERVER_MAC)),
        (&lab.server, "eth0", SERVER, (ROUTER_WAN, ROUTER_WAN_MAC)),
    ];
    for (namespace, device, address, (other, mac)) in ends {
        add_twin(namespace, device, address);
        know(namespace, ipv6_of(other), mac, device);
    }
    lab.router.sysctl("net/ipv6/conf/all/forwarding", "1");
    lab.client.ip(&format!("route add ::/0 via {}\n", ipv6_of(ROUTER_LAN)));
    lab.server.ip(&format!("route add ::/0 via {}\n", ipv6_of(ROUTER_WAN)));
    lab.nft(
        "table ip6 tracked {
            chain forward {
                type filter hook forward priority 0; policy drop;
                ct state new,established accept
            }
        }",
    );
}

/// Tells a host where another one is, for good.
fn know(namespace: &Namespace, host: impl Into<IpAddr>, mac: Mac, device: &str) {
    let (host, mac) = (host.into(), show(mac));
    namespace.ip(&format!("neigh replace {host} lladdr {mac} dev {device} nud permanent\n"));
}

fn compare(lab: &Lab, hook: &str, ways: &[Way<'_>; 2]) {
    let through_the_stack = ways.each_ref().map(|way| way.send(&way.frames()));
    let daemon = start(lab, hook, &[]);
    support::wait::eventually(LIMIT, "a packet brings it to the fast path", || {
        let fast = forwarded(&daemon);
        for way in ways {
            way.send(&way.frames()[..1]);
        }
        forwarded(&daemon) == fast + 2
    });
    let before = (lab.stack_packets(), forwarded(&daemon));
    let through_bpfw = ways.each_ref().map(|way| way.send(&way.frames()));
    let after = (lab.stack_packets(), forwarded(&daemon));
    let sent: usize = through_bpfw.iter().map(Vec::len).sum();
    println!("{hook}: {sent} frames compared");
    for (slow, fast) in through_the_stack.iter().flatten().zip(through_bpfw.iter().flatten()) {
        assert_eq!(slow, fast, "stack first, then bpfw");
    }
    assert!(after.1 - before.1 >= sent as u64, "all were forwarded by bpfw");
    if !ways[0].case.tcp {
        assert_eq!(after.0, before.0, "the stack forwarded none");
    }
}

/// The same through the stack and through bpfw.
fn is_identical(hook: &str, test: &str, case: Case) {
    let lab = quiet_lab(hook, test, case);
    let end = |address, port| -> SocketAddr {
        if case.ipv6 { (ipv6_of(address), port).into() } else { at(address, port).into() }
    };
    let service = end(SERVER, SERVICE);
    if case.tcp {
        let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(service));
        pair.exchange();
        let port = pair.client.local_addr().unwrap().port();
        return compare(&lab, hook, &ways(&lab, case, port));
    }
    // Both ends keep a socket that takes everything and says nothing: no ICMP errors. A program that another test
    // is just starting may have the server's socket for a moment.
    let _client = open_a_stream(&lab, end(CLIENT, CLIENT_PORT), service);
    let mut sink = None;
    support::wait::eventually(LIMIT, "the port is free", || {
        sink = lab.server.enter(|| std::net::UdpSocket::bind(service).ok());
        sink.is_some()
    });
    compare(&lab, hook, &ways(&lab, case, CLIENT_PORT));
}

fn open_a_stream(lab: &Lab, client: SocketAddr, service: SocketAddr) -> UdpClient {
    let _server = udp_echo(&lab.server, service);
    let client = UdpClient::open(&lab.client, client, service);
    let family = if service.is_ipv6() { "ipv6" } else { "ipv4" };
    support::wait::eventually(LIMIT, "a stream", || {
        assert!(client.echoes(1, LIMIT));
        std::thread::sleep(Duration::from_millis(100));
        text(&lab.conntrack(&["-L", "-f", family]).stdout).contains("[ASSURED]")
    });
    client
}

fn udp_with_snat(hook: &str, test: &str) {
    is_identical(hook, test, Case { translated: true, ..UDP });
}

fn udp_without_nat(hook: &str, test: &str) {
    is_identical(hook, test, UDP);
}

fn udp_of_ipv6(hook: &str, test: &str) {
    is_identical(hook, test, Case { ipv6: true, ..UDP });
}

fn tcp_with_snat(hook: &str, test: &str) {
    is_identical(hook, test, Case { translated: true, ..TCP });
}

fn tcp_without_nat(hook: &str, test: &str) {
    is_identical(hook, test, TCP);
}

fn tcp_of_ipv6(hook: &str, test: &str) {
    is_identical(hook, test, Case { ipv6: true, ..TCP });
}

#[test]
fn all_are_identical_over_a_bridge() {
    if !support::live::root_or_skip("all_are_identical_over_a_bridge") {
        return;
    }
    for (name, case) in [("udp4", UDP), ("tcp4", TCP)] {
        is_identical(
            "tc",
            &format!("bridge-{name}"),
            Case { translated: true, bridged: true, ..case },
        );
    }
    for (name, case) in [("udp6", UDP), ("tcp6", TCP)] {
        is_identical("tc", &format!("bridge-{name}"), Case { ipv6: true, bridged: true, ..case });
    }
}
