// SPDX-License-Identifier: GPL-2.0-only
//! The same packets go once through the network stack and once through the fast path, where
//! interfaces have no Ethernet header. What comes out is the same, byte for byte.

mod support;

use support::live::root_or_skip;
use support::packet::Packet;
use support::port::PortFrame;
use support::raw_end::Sample;
use support::raw_lab::{Lan, RawLab, TCP, UDP};
use support::router::forwarded;

/// All samples in both directions; what leaves the router of them.
fn pass_all(lab: &RawLab, protocol: u8) -> Vec<PortFrame> {
    let pass = |reply| {
        let samples = samples(&|| lab.packet(reply), protocol);
        let numbered = (0_u16..).step_by(64).zip(samples);
        numbered.map(move |(id, sample)| lab.pass(reply, 0x1000 + id, sample))
    };
    pass(false).chain(pass(true)).collect()
}

/// All that the headers may say without concerning the router, payloads of many lengths, and what is left
/// to NICs.
fn samples(packet: &dyn Fn() -> Packet, protocol: u8) -> Vec<Sample> {
    let mut packets = Vec::new();
    for length in [0, 1, 2, 3, 17, 18, 19, 100, 511, 1024, 1399, 1440] {
        let payload: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
        packets.push(packet().payload(&payload));
    }
    packets.extend([2, 3, 64, 255].map(|ttl| packet().ttl(ttl).payload(b"ttl")));
    packets.extend([0, 3, 0x10, 0xb8, 0xff].map(|tos| packet().tos(tos).payload(b"tos")));
    packets.push(packet().df(true).payload(b"don't fragment"));
    packets.push(packet().payload(b"followed by something").pad_to(300));
    // Carries and zeros among the checksums.
    packets.extend((0..=255).map(|number| packet().payload(&[number, 0xff, number])));
    if protocol == TCP {
        let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        packets.push(packet().tcp_options(&timestamps).payload(b"options"));
    } else {
        packets.push(packet().zero_l4_checksum().payload(b"no checksum"));
    }
    let mut samples: Vec<Sample> = packets.into_iter().map(Sample::from).collect();
    let unfinished = |length| packet().payload(&vec![7; length]).partial_l4_checksum();
    samples.push(Sample { packet: unfinished(500), unfinished: true, gso_size: 0 });
    if protocol == TCP {
        for length in [1401, 3000, 30_000, 65_000] {
            samples.push(Sample { packet: unfinished(length), unfinished: true, gso_size: 1400 });
        }
    }
    samples
}

fn compare(test: &str, lan: Lan, translated: bool, protocol: u8) {
    if !root_or_skip(test) {
        return;
    }
    let lab = RawLab::new(test, lan, translated, protocol);
    lab.open();
    let by_stack = pass_all(&lab, protocol);
    let daemon = lab.start();
    let before = forwarded(&daemon);
    let by_bpfw = pass_all(&lab, protocol);
    for (slow, fast) in by_stack.iter().zip(&by_bpfw) {
        assert_eq!(slow, fast, "stack first, then bpfw");
    }
    println!("{} packets compared", by_bpfw.len());
    assert!(forwarded(&daemon) - before >= by_bpfw.len() as u64, "all were forwarded by bpfw");
}

#[test]
fn hazard_38_udp_between_ethernet_and_tun() {
    compare("udp-tun", Lan::Ethernet, false, UDP);
}

#[test]
fn hazard_38_udp_between_ethernet_and_tun_translated() {
    compare("udp-tun-nat", Lan::Ethernet, true, UDP);
}

#[test]
fn hazard_38_tcp_between_ethernet_and_tun() {
    compare("tcp-tun", Lan::Ethernet, false, TCP);
}

#[test]
fn hazard_38_tcp_between_ethernet_and_tun_translated() {
    compare("tcp-tun-nat", Lan::Ethernet, true, TCP);
}

#[test]
fn hazard_38_udp_between_tuns_translated() {
    compare("udp-tuns-nat", Lan::Tun, true, UDP);
}

#[test]
fn hazard_38_tcp_between_tuns_translated() {
    compare("tcp-tuns-nat", Lan::Tun, true, TCP);
}
