// SPDX-License-Identifier: GPL-2.0-only
//! The same frames go once through the network stack and once through the fast path. What comes out
//! at the other end is the same, byte for byte.

mod support;

use std::net::SocketAddrV4;
use std::time::Duration;
use support::capture::Capture;
use support::lab::{
    CLIENT, CLIENT_MAC, Lab, ROUTER_LAN_MAC, ROUTER_WAN, ROUTER_WAN_MAC, SERVER, SERVER_MAC,
};
use support::netns::Namespace;
use support::packet::{Mac, Packet, tcp};
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::tcp::{Path, TcpPair};

on_both_hooks!(udp_with_snat, udp_without_nat, tcp_with_snat, tcp_without_nat);

/// The port that the client's address gets, so that both runs translate alike.
const CLIENT_PORT: u16 = 40000;
const SERVICE: u16 = 7;

/// One direction of the connection, as its sender sees it.
struct Way<'a> {
    sender: &'a Namespace,
    receiver: &'a Namespace,
    macs: (Mac, Mac),
    from: SocketAddrV4,
    to: SocketAddrV4,
}

impl Way<'_> {
    fn packet(&self, protocol: u8) -> Packet {
        let packet = match protocol {
            6 => Packet::tcp(self.from, self.to).flags(tcp::ACK | tcp::PSH).seq(77).ack(99),
            _ => Packet::udp(self.from, self.to),
        };
        packet.mac(self.macs.0, self.macs.1)
    }

    /// All that the header may say without concerning the router, and payloads of many lengths.
    fn frames(&self, protocol: u8) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for length in [0, 1, 2, 3, 17, 18, 19, 100, 511, 1024, 1399, 1440] {
            let payload: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
            packets.push(self.packet(protocol).payload(&payload));
        }
        for ttl in [2, 3, 64, 128, 255] {
            packets.push(self.packet(protocol).ttl(ttl).payload(b"ttl"));
        }
        for tos in [0, 1, 2, 3, 0x10, 0x28, 0xb8, 0xff] {
            packets.push(self.packet(protocol).tos(tos).payload(b"tos"));
        }
        packets.push(self.packet(protocol).df(true).payload(b"don't fragment"));
        packets.push(self.packet(protocol).payload(b"padded").pad_to(60));
        packets.push(self.packet(protocol).payload(b"padded a lot").pad_to(300));
        // Every value of the checksum's low byte: carries and zeros among them.
        for number in 0..=255_u8 {
            packets.push(self.packet(protocol).payload(&[number, 0xff, number]));
        }
        if protocol == 6 {
            let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
            packets.push(self.packet(6).tcp_options(&timestamps).payload(b"options"));
            packets.push(self.packet(6).flags(tcp::ACK).window(1));
        } else {
            packets.push(self.packet(17).zero_l4_checksum().payload(b"no checksum"));
            packets.push(self.packet(17).payload(&self.sum_to_zero()));
        }
        // The number in the identification tells them apart at the other end.
        (0_u16..).zip(packets).map(|(id, packet)| packet.id(0x4000 + id).build()).collect()
    }

    /// A payload with which the checksum, before translation, comes to 0 and is sent as 0xffff.
    fn sum_to_zero(&self) -> [u8; 2] {
        let frame = self.packet(17).payload(&[0, 0]).build();
        [frame[40], frame[41]]
    }

    /// Sends each frame and takes what arrives.
    fn send(&self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let out = Capture::open(self.sender, "eth0");
        let arriving = Capture::open(self.receiver, "eth0");
        let received = frames.iter().map(|frame| {
            out.send_frame(frame);
            let id = [frame[18], frame[19]];
            let limit = Duration::from_secs(2);
            let arrived =
                arriving.next(limit, |seen| !seen.outgoing && seen.bytes.get(18..20) == Some(&id));
            arrived.unwrap_or_else(|| panic!("lost: {frame:02x?}")).bytes
        });
        received.collect()
    }
}

fn ways(lab: &Lab, translated: bool, port: u16) -> [Way<'_>; 2] {
    let inner = at(CLIENT, port);
    let outer = if translated { at(ROUTER_WAN, port) } else { inner };
    let service = at(SERVER, SERVICE);
    [
        Way {
            sender: &lab.client,
            receiver: &lab.server,
            macs: (CLIENT_MAC, ROUTER_LAN_MAC),
            from: inner,
            to: service,
        },
        Way {
            sender: &lab.server,
            receiver: &lab.client,
            macs: (SERVER_MAC, ROUTER_WAN_MAC),
            from: service,
            to: outer,
        },
    ]
}

/// A lab in which nobody but the test's frames makes noise.
fn quiet_lab(hook: &str, test: &str, rules: &str) -> Lab {
    let lab = lab(hook, test, rules);
    lab.static_neighbours();
    // The test's segments lie outside of the window; both runs must treat them alike.
    lab.router.sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1");
    lab
}

fn compare(lab: &Lab, hook: &str, protocol: u8, ways: &[Way<'_>; 2]) {
    let through_the_stack = ways.each_ref().map(|way| way.send(&way.frames(protocol)));
    let daemon = start(lab, hook, &[]);
    support::wait::eventually(LIMIT, "a packet brings it to the fast path", || {
        let fast = forwarded(&daemon);
        for way in ways {
            way.send(&way.frames(protocol)[..1]);
        }
        forwarded(&daemon) == fast + 2
    });
    let before = (lab.stack_packets(), forwarded(&daemon));
    let through_bpfw = ways.each_ref().map(|way| way.send(&way.frames(protocol)));
    let after = (lab.stack_packets(), forwarded(&daemon));
    let sent: usize = through_bpfw.iter().map(Vec::len).sum();
    println!("{hook}: {sent} frames compared");
    for (slow, fast) in through_the_stack.iter().flatten().zip(through_bpfw.iter().flatten()) {
        assert_eq!(slow, fast, "stack first, then bpfw");
    }
    assert!(after.1 - before.1 >= sent as u64, "all were forwarded by bpfw");
    if protocol == 17 {
        assert_eq!(after.0, before.0, "the stack forwarded none");
    }
}

fn udp(hook: &str, test: &str, rules: &str, translated: bool) {
    let lab = quiet_lab(hook, test, rules);
    let (server, client) = echo(&lab, CLIENT_PORT);
    wait_for_stream(&lab, &client);
    drop(server);
    // A socket that takes everything and says nothing: no ICMP errors. A program that another test
    // is just starting may have the server's socket for a moment.
    let mut sink = None;
    support::wait::eventually(LIMIT, "the port is free", || {
        sink = lab.server.enter(|| std::net::UdpSocket::bind(at(SERVER, SERVICE)).ok());
        sink.is_some()
    });
    let ways = ways(&lab, translated, CLIENT_PORT);
    compare(&lab, hook, 17, &ways);
}

fn wait_for_stream(lab: &Lab, client: &support::udp::UdpClient) {
    support::wait::eventually(LIMIT, "a stream", || {
        assert!(client.echoes(1, LIMIT));
        std::thread::sleep(Duration::from_millis(100));
        lab.conntrack_list().contains("[ASSURED]")
    });
}

fn udp_with_snat(hook: &str, test: &str) {
    udp(hook, test, &snat_rules(), true);
}

fn udp_without_nat(hook: &str, test: &str) {
    udp(hook, test, &no_nat_rules(), false);
}

fn tcp_connection(hook: &str, test: &str, rules: &str, translated: bool) {
    let lab = quiet_lab(hook, test, rules);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, SERVICE)));
    pair.exchange();
    let port = pair.client.local_addr().unwrap().port();
    let ways = ways(&lab, translated, port);
    compare(&lab, hook, 6, &ways);
}

fn tcp_with_snat(hook: &str, test: &str) {
    tcp_connection(hook, test, &snat_rules(), true);
}

fn tcp_without_nat(hook: &str, test: &str) {
    tcp_connection(hook, test, &no_nat_rules(), false);
}
