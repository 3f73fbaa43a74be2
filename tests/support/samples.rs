// SPDX-License-Identifier: GPL-2.0-only
//! Random frames: good ones, and ones that are odd or wrong in one way or in several.

use super::conversation::{ELSEWHERE, first_sequence, opposite, packet};
use super::flow::{Flow, LAN, Side};
use super::packet::{Packet, tcp};
use super::port::PortFrame;
use super::random::Random;
use super::spoil::{choose_sum, finish, fragments, spoil};
use super::twins::WAN_MTU;
use super::twist::{EDITS, ODD_DESTINATIONS, ODD_SOURCES, TWISTS};
use bpfw::flow::tuple::Protocol;
use std::net::SocketAddrV4;

/// A frame, and perhaps the same with a wrong TCP or UDP checksum.
#[derive(Clone, Debug)]
pub struct Sample {
    pub from: Side,
    pub frame: PortFrame,
    pub spoiled: Option<PortFrame>,
}

impl Sample {
    pub fn is_spoiled(&self) -> bool {
        self.spoiled.is_some()
    }
}

/// Makes frames of these connections, and of others.
pub struct Samples {
    random: Random,
    flows: Vec<Flow>,
    id: u16,
    /// Also frames that local senders leave to their NIC to complete and to split.
    unfinished: bool,
}

/// The largest packet that the host on this side can send.
fn mtu(side: Side) -> usize {
    if side == LAN { 1500 } else { WAN_MTU }
}

impl Samples {
    /// What follows from this seed.
    pub fn new(seed: u64, flows: Vec<Flow>, unfinished: bool) -> Self {
        let mut random = Random::new(seed);
        // Not the fragments of another seed, which may still wait for the rest.
        let id = random.next() as u16;
        Self { random, flows, id, unfinished }
    }

    /// The next frame from this side, or the next few if they are fragments of one packet.
    pub fn next(&mut self, from: Side) -> Vec<Sample> {
        self.id = self.id.wrapping_add(1);
        let flow = *self.random.pick(&self.flows);
        let sample = |frame| Sample { from, frame, spoiled: None };
        if self.unfinished && self.random.one_in(8) {
            return vec![sample(self.unfinished(&flow, from))];
        }
        let bytes = self.frame(&flow, from);
        if self.random.one_in(30) {
            let fragments = fragments(&mut self.random, &bytes);
            return fragments.into_iter().map(|bytes| sample(bytes.into())).collect();
        }
        let spoiled = self.random.one_in(20).then(|| spoil(&mut self.random, &bytes)).flatten();
        vec![Sample { spoiled: spoiled.map(PortFrame::from), ..sample(bytes.into()) }]
    }

    fn frame(&mut self, flow: &Flow, from: Side) -> Vec<u8> {
        let packet = self.twisted(flow, from);
        let random = &mut self.random;
        let mut bytes = packet.build();
        if random.one_in(8) {
            let right = bytes.clone();
            random.pick(EDITS)(random, &mut bytes);
            leave_resets_alone(&right, &mut bytes);
        }
        bytes.truncate(14 + mtu(from));
        if random.one_in(8) {
            choose_sum(random, flow, from, &mut bytes);
        }
        finish(random, &mut bytes);
        bytes
    }

    /// A packet of this connection as a rule; else one that is forged, or a stranger's.
    fn twisted(&mut self, flow: &Flow, from: Side) -> Packet {
        let kind = self.random.below(20);
        let speaker = if kind == 0 { opposite(from) } else { from };
        let packet = match kind {
            1 | 2 => self.stranger(from),
            _ => packet(flow, speaker).mac(from.host_mac, from.router_mac),
        };
        let mut packet = self.filled(packet, from, first_sequence(flow, speaker));
        if speaker == flow.far {
            packet = without_syn(packet);
        }
        for times in [3, 4] {
            if !self.random.one_in(times) {
                break;
            }
            packet = self.random.pick(TWISTS)(&mut self.random, packet);
        }
        packet
    }

    fn stranger(&mut self, from: Side) -> Packet {
        let random = &mut self.random;
        let far = opposite(from).host;
        let src = if random.one_in(4) { *random.pick(&ODD_SOURCES) } else { from.host };
        let dst = match random.below(4) {
            0 => far,
            1 => ELSEWHERE,
            _ => *random.pick(&ODD_DESTINATIONS),
        };
        let src = SocketAddrV4::new(src, 50000 + random.below(16) as u16);
        let dst = SocketAddrV4::new(dst, *random.pick(&[22, 7000, 7001, 7003, 7004, 7100]));
        let packet = if random.one_in(2) { Packet::tcp(src, dst) } else { Packet::udp(src, dst) };
        let packet = packet.mac(from.host_mac, from.router_mac);
        if random.one_in(4) { packet.over_ipv6() } else { packet }
    }

    /// With a payload, and what else differs between good packets.
    fn filled(&mut self, packet: Packet, from: Side, first: u32) -> Packet {
        let random = &mut self.random;
        let ip = if packet.is_ipv6() { 40 } else { 20 };
        let headers = ip + if packet.is_tcp() { 20 } else { 8 };
        let length = match random.below(4) {
            0 => headers + random.below(20),
            1 => headers + random.below(200),
            2 => *random.pick(&[1299, 1300, 1301, 1399, 1400, 1401, 1500]),
            _ => headers + random.below(1440),
        };
        let payload = random.bytes(length.min(mtu(from)) - headers);
        let packet = packet.payload(&payload).id(self.id).df(!random.one_in(4));
        let packet = packet.flow_label(random.next() as u32);
        if packet.is_tcp() { segment(random, packet, first) } else { packet }
    }

    fn unfinished(&mut self, flow: &Flow, from: Side) -> PortFrame {
        let mut packet = self.filled(packet(flow, from), from, first_sequence(flow, from));
        if from == flow.far {
            packet = without_syn(packet);
        }
        let random = &mut self.random;
        if random.one_in(4) {
            packet = packet.ttl(*random.pick(&[1, 2, 255])).tos(random.next() as u8);
        }
        let mut gso_size = 0;
        if flow.protocol == Protocol::Tcp && random.one_in(2) {
            let size = 500 + random.below(mtu(from) - 559);
            let length = size + 1 + random.below(20_000);
            packet = packet.payload(&random.bytes(length));
            gso_size = size as u16;
        }
        let bytes = packet.partial_l4_checksum().build();
        PortFrame { bytes, unfinished: true, gso_size }
    }
}

/// Flags and sequence number. No two segments adjoin, so that the kernel does not merge them. A RST
/// is always exact: which others count depends on what conntrack has seen of the connection.
fn segment(random: &mut Random, packet: Packet, first: u32) -> Packet {
    let flags = match random.below(100) {
        0..3 => random.next() as u8,
        3 => *random.pick(&[0, tcp::FIN | tcp::ACK, tcp::SYN, tcp::SYN | tcp::ACK, tcp::RST]),
        4..10 => tcp::ACK | *random.pick(&[tcp::URG, tcp::ECE, tcp::CWR, tcp::ECE | tcp::CWR]),
        10..50 => tcp::ACK,
        _ => tcp::ACK | tcp::PSH,
    };
    let step = if flags & tcp::RST != 0 { 0 } else { 4096 * random.below(7) as u32 };
    packet.flags(flags).seq(first.wrapping_add(step))
}

/// Whether a RST counts depends on the highest acknowledgement that conntrack has seen of the other
/// side. bpfw makes it forget that (README.md, Limits). So an edit must not acknowledge more than
/// before, nor make a RST that comes before what was.
fn leave_resets_alone(right: &[u8], edited: &mut [u8]) {
    let (Some(before), Some(at)) = (tcp_header(right), tcp_header(edited)) else {
        return;
    };
    let number = |frame: &[u8], at: usize| {
        u32::from_be_bytes(*frame[at..].first_chunk().expect("a whole header"))
    };
    let exceeds = |a: u32, b: u32| (a.wrapping_sub(b) as i32) > 0;
    if exceeds(number(edited, at + ACK), number(right, before + ACK)) {
        edited[at + ACK..at + ACK + 4].copy_from_slice(&right[before + ACK..before + ACK + 4]);
    }
    let is_reset = edited[at + FLAGS] & tcp::RST != 0;
    if is_reset && exceeds(number(right, before + SEQUENCE), number(edited, at + SEQUENCE)) {
        edited[at + SEQUENCE..at + ACK].copy_from_slice(&right[before + SEQUENCE..before + ACK]);
    }
}

/// Places in a TCP header.
const SEQUENCE: usize = 4;
const ACK: usize = 8;
const FLAGS: usize = 13;

/// Where the TCP header begins in an untagged frame, if all of it is there.
fn tcp_header(frame: &[u8]) -> Option<usize> {
    let (header, protocol) = (*frame.get(14)?, *frame.get(23)?);
    let (at, protocol) = match frame[12..14] {
        [0x86, 0xdd] => (54, frame[20]),
        _ => (14 + 4 * usize::from(header & 0xf), protocol),
    };
    (protocol == 6 && frame.len() >= at + 20).then_some(at)
}

/// A SYN from the far end of a closed connection would open one with the same addresses, whose
/// translation is left to chance.
fn without_syn(packet: Packet) -> Packet {
    match packet.tcp_flags() {
        Some(flags) if flags & (tcp::SYN | tcp::ACK) == tcp::SYN => packet.flags(flags | tcp::ACK),
        _ => packet,
    }
}
