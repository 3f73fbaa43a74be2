// SPDX-License-Identifier: GPL-2.0-only
//! Ways in which a packet can be odd or wrong.

use super::packet::{Mac, Packet};
use super::random::Random;
use super::spoil::ip_of;
use std::net::Ipv4Addr;

/// Addresses that are nobody's, or not those of a host in whose name one can send. None that is taken
/// for another host is among the destinations too: what goes there must not look like an answer.
pub const ODD_SOURCES: [Ipv4Addr; 12] = [
    Ipv4Addr::new(0, 0, 0, 0),
    Ipv4Addr::new(8, 8, 8, 8),
    Ipv4Addr::new(127, 0, 0, 1),
    Ipv4Addr::new(192, 0, 2, 0),
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 0, 2, 77),
    Ipv4Addr::new(192, 0, 2, 255),
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(198, 51, 100, 77),
    Ipv4Addr::new(224, 0, 0, 5),
    Ipv4Addr::new(240, 0, 0, 1),
    Ipv4Addr::new(255, 255, 255, 255),
];

pub const ODD_DESTINATIONS: [Ipv4Addr; 12] = [
    Ipv4Addr::new(0, 0, 0, 0),
    Ipv4Addr::new(8, 8, 4, 4),
    Ipv4Addr::new(127, 0, 0, 2),
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 0, 2, 78),
    Ipv4Addr::new(198, 51, 100, 255),
    Ipv4Addr::new(198, 51, 100, 0),
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(198, 51, 100, 78),
    Ipv4Addr::new(224, 0, 0, 6),
    Ipv4Addr::new(240, 0, 0, 2),
    Ipv4Addr::new(255, 255, 255, 255),
];

const MACS: [Mac; 5] = [
    [0xff; 6],
    [1, 0, 0x5e, 0, 0, 5],
    [2, 0, 0, 0, 0, 77],
    super::lab::ROUTER_LAN_MAC,
    super::lab::ROUTER_WAN_MAC,
];

/// No-operation, end, record route (good, full, cut), router alert, source routes, unknown ones.
const IP_OPTIONS: [&[u8]; 9] = [
    &[1, 1, 1, 1],
    &[0, 0, 0, 0],
    &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[7, 7, 8, 1, 2, 3, 4, 0],
    &[7, 40, 4, 0],
    &[148, 4, 0, 0],
    &[131, 7, 4, 203, 0, 113, 9, 0],
    &[137, 7, 4, 198, 51, 100, 2, 0],
    &[0x9e, 4, 1, 2],
];

/// No-operation, timestamps, SACK permitted with a large segment size, a length of 0, cut.
const TCP_OPTIONS: [&[u8]; 5] = [
    &[1, 1, 1, 1],
    &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
    &[2, 4, 0xff, 0xff, 4, 2, 1, 1],
    &[5, 0, 1, 2],
    &[3, 40, 1, 1],
];

/// A change of what the packet says.
type Twist = fn(&mut Random, Packet) -> Packet;

pub const TWISTS: &[Twist] = &[
    |random, packet| packet.ttl(*random.pick(&[0, 1, 2, 3, 255])),
    |random, packet| packet.tos(random.next() as u8),
    |random, packet| packet.mac([2, 0, 0, 0, 0xee, 1], *random.pick(&MACS)),
    |random, packet| packet.mac([1, 0, 0, 0, 0xee, 1], *random.pick(&MACS)),
    tag,
    |random, packet| {
        let packet = tag(random, packet);
        tag(random, packet)
    },
    |random, packet| packet.ip_options(random.pick::<&[u8]>(&IP_OPTIONS)),
    extended,
    extended,
    |random, packet| packet.fragment(*random.pick(&[0, 1, 2, 100, 0x1fff]), random.one_in(2)),
    |random, packet| packet.total_length(*random.pick(&[0, 19, 20, 27, 28, 40, 41, 60, 1400])),
    |random, packet| packet.total_length(random.next() as u16),
    |random, packet| packet.header_words(random.next() as u8),
    |random, packet| packet.pad_to(*random.pick(&[60, 64, 300, 1514])),
    |random, packet| packet.truncate(14 + random.below(60)),
    |random, packet| packet.truncate(14 + random.below(1500)),
    udp_only,
    udp_only,
    tcp_only,
    tcp_only,
];

/// Bytes of extension headers behind the first one, which says what follows (RFC 8200, IANA's
/// registry of protocol numbers). Hop-by-hop options with padding, router alert, a jumbo payload
/// and unknown ones. Routing headers. Fragments (an atomic one, a first, a last). Destination
/// options, authentication, mobility, nothing, ESP.
const EXTENSIONS: [(u8, &[u8]); 16] = [
    (0, &[0, 1, 4, 0, 0, 0, 0]),
    (0, &[0, 5, 2, 0, 0, 1, 0]),
    (0, &[0, 0xc2, 4, 0, 1, 0, 0]),
    (0, &[0, 0x9e, 4, 0, 0, 0, 0]),
    (0, &[9, 1, 4, 0, 0, 0, 0]),
    (43, &[0, 0, 1, 0, 0, 0, 0]),
    (43, &[0, 2, 0, 0, 0, 0, 0]),
    (43, &[0, 4, 1, 0, 0, 0, 0]),
    (44, &[0, 0, 0, 0, 0, 0, 1]),
    (44, &[0, 0, 1, 0, 0, 0, 2]),
    (44, &[0, 0, 8, 0, 0, 0, 2]),
    (60, &[0, 1, 4, 0, 0, 0, 0]),
    (51, &[1, 0, 0, 0, 0, 0, 1]),
    (135, &[0, 5, 0, 0, 0, 0, 0]),
    (59, &[0, 0, 0, 0, 0, 0, 0]),
    (50, &[0, 0, 1, 0, 0, 0, 1]),
];

/// IPv6: one or two extension headers.
fn extended(random: &mut Random, packet: Packet) -> Packet {
    let ((first, outer), (second, inner)) = (*random.pick(&EXTENSIONS), *random.pick(&EXTENSIONS));
    let protocol = packet.protocol();
    if random.one_in(3) {
        let bytes = [&[second], outer, &[protocol], inner].concat();
        return packet.extension(first, &bytes);
    }
    packet.extension(first, &[&[protocol], outer].concat())
}

fn tag(random: &mut Random, packet: Packet) -> Packet {
    let protocol = *random.pick(&[0x8100, 0x8100, 0x88a8]);
    packet.vlan(*random.pick(&[0, 1, 5, 4095]), random.below(8) as u8, protocol)
}

fn udp_only(random: &mut Random, packet: Packet) -> Packet {
    if packet.is_tcp() {
        return packet;
    }
    match random.below(3) {
        0 => packet.zero_l4_checksum(),
        1 => packet.udp_length(*random.pick(&[0, 7, 8, 9, 12, 1400, 0xffff])),
        _ => packet.udp_length(random.next() as u16).zero_l4_checksum(),
    }
}

fn tcp_only(random: &mut Random, packet: Packet) -> Packet {
    if !packet.is_tcp() {
        return packet;
    }
    match random.below(3) {
        0 => packet.tcp_options(random.pick::<&[u8]>(&TCP_OPTIONS)),
        1 => packet.window(*random.pick(&[0, 1, 0xffff])),
        // Far from what the other side has sent: conntrack learns nothing from it.
        _ => packet.ack(*random.pick(&[0x4000_0000, 0x5fff_ffff, 0x7000_0001])),
    }
}

/// Bytes of an IPv4 packet. Of IPv6 all are in the header. Not TCP's numbers and flags. How conntrack takes a RST depends on the
/// numbers that it has seen, and it sees less of a connection that bpfw forwards.
const FLIPPED: [usize; 30] = {
    let mut all = [32; 30];
    let mut at = 0;
    while at < 29 {
        all[at] = if at < 24 { at } else { at + 10 };
        at += 1;
    }
    all
};

/// A change of the frame's bytes.
type Edit = fn(&mut Random, &mut Vec<u8>);

pub const EDITS: &[Edit] = &[
    |random, frame| set(frame, 0, &random.bytes(1)),
    |random, frame| set(frame, 0, &[0x40 | random.next() as u8 & 0x0f]),
    |_, frame| change(frame, 6, 0x80),
    |random, frame| set(frame, 9, &[*random.pick(&[1, 2, 4, 17, 33, 47, 50, 132, 136, 255])]),
    |random, frame| set(frame, 12, &random.pick(&ODD_SOURCES).octets()),
    |random, frame| set(frame, 16, &random.pick(&ODD_DESTINATIONS).octets()),
    // TCP's data offset with the reserved bits, and its urgent pointer; or a UDP payload.
    |random, frame| set(frame, 32, &random.bytes(1)),
    |random, frame| change(frame, 32, 1 << random.below(4)),
    |random, frame| set(frame, 38, &random.bytes(2)),
    |random, frame| {
        frame[12..14].copy_from_slice(&random.pick(&[0x0806_u16, 0x86dd, 60]).to_be_bytes())
    },
    |random, frame| {
        for _ in 0..=random.below(3) {
            let at = *random.pick(&FLIPPED);
            change(frame, at, 1 << random.below(8));
        }
    },
];

/// Overwrites bytes of the IP packet, where it has them.
fn set(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = ip_of(frame).and_then(|ip| ip.get_mut(at..at + bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

/// Turns bits of the IP packet over, where it has them.
fn change(frame: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = ip_of(frame).and_then(|ip| ip.get_mut(at)) {
        *byte ^= bits;
    }
}
