// SPDX-License-Identifier: GPL-2.0-only
//! Checksums of frames whose headers may say anything; and what needs a whole packet.

use super::checksum;
use super::flow::{Flow, Side};
use super::random::Random;
use bpfw::abi::{Pod, bpfw_tuple};
use bpfw::flow::tuple::Tuple;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_HEADER: usize = 40;

/// The IP packet of a frame with up to two tags; None if there is no whole header.
pub fn ip_of(frame: &mut [u8]) -> Option<&mut [u8]> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2)?, [0x81, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    let ip = frame.get_mut(at + 2..)?;
    (ip.len() >= 20).then_some(ip)
}

/// The TCP or UDP segment of a whole packet, and where its checksum is.
struct Segment {
    range: Range<usize>,
    field: Range<usize>,
}

impl Segment {
    /// None if conntrack would find no ports in it, or not its checksum: lengths, fragments, extension headers.
    fn of(ip: &[u8]) -> Option<Self> {
        if ip[0] >> 4 == 6 { Self::of_ipv6(ip) } else { Self::of_ipv4(ip) }
    }

    fn of_ipv6(ip: &[u8]) -> Option<Self> {
        let (shortest, field) = Self::places(ip[6])?;
        let total = IPV6_HEADER + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        let good = total <= ip.len() && total >= IPV6_HEADER + shortest;
        let field = IPV6_HEADER + field;
        good.then_some(Self { range: IPV6_HEADER..total, field: field..field + 2 })
    }

    /// How long the header is, and where the checksum is in it.
    fn places(protocol: u8) -> Option<(usize, usize)> {
        match protocol {
            TCP => Some((20, 16)),
            UDP => Some((8, 6)),
            _ => None,
        }
    }

    fn of_ipv4(ip: &[u8]) -> Option<Self> {
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let start = usize::from(ip[0] & 0x0f) * 4;
        let (shortest, field) = Self::places(ip[9])?;
        let whole = ip[6] & 0x3f == 0 && ip[7] == 0 && total <= ip.len();
        let good = ip[0] >> 4 == 4 && start >= 20 && total >= start + shortest;
        let (range, field) = (start..total, start + field..start + field + 2);
        (whole && good).then_some(Self { range, field })
    }

    fn sum(&self, ip: &[u8]) -> u16 {
        u16::from_be_bytes([ip[self.field.start], ip[self.field.start + 1]])
    }

    fn set_sum(&self, ip: &mut [u8], sum: u16) {
        ip[self.field.clone()].copy_from_slice(&sum.to_be_bytes());
    }

    fn right_sum(&self, ip: &[u8]) -> u16 {
        let (protocol, segment) = (protocol_of(ip), &ip[self.range.clone()]);
        if ip[0] >> 4 == 6 {
            let address =
                |at: usize| Ipv6Addr::from(*ip[at..].first_chunk::<16>().expect("a whole header"));
            return checksum::transport(address(8), address(24), protocol, segment);
        }
        let address =
            |at: usize| Ipv4Addr::from(*ip[at..].first_chunk::<4>().expect("a whole header"));
        checksum::transport(address(12), address(16), protocol, segment)
    }
}

/// Of a segment that there is.
fn protocol_of(ip: &[u8]) -> u8 {
    if ip[0] >> 4 == 6 { ip[6] } else { ip[9] }
}

/// Makes the checksums right, as far as the headers make sense; the header's own is left wrong
/// once in a while.
pub fn finish(random: &mut Random, frame: &mut [u8]) {
    let Some(ip) = ip_of(frame) else { return };
    let is_ipv6 = ip[0] >> 4 == 6;
    let header = (usize::from(ip[0] & 0x0f) * 4).clamp(20, ip.len());
    if !is_ipv6 {
        // The option with the router's time would differ between two routers.
        ip[20..header].iter_mut().filter(|byte| **byte == 68).for_each(|byte| *byte = 1);
    }
    if let Some(segment) = Segment::of(ip) {
        let without = protocol_of(ip) == UDP && segment.sum(ip) == 0;
        let right = segment.right_sum(ip);
        // Both say zero, for TCP at least.
        let other_zero = right == 0 && random.one_in(2);
        match (without, other_zero) {
            (true, _) => {}
            (_, true) => segment.set_sum(ip, 0xffff),
            _ => segment.set_sum(ip, right),
        }
    }
    if is_ipv6 {
        return;
    }
    let right = checksum::ipv4_header(&ip[..header]);
    let sum = if random.one_in(60) { right ^ 1 << random.below(16) } else { right };
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A copy of the frame with a wrong TCP or UDP checksum, if it has a right one.
pub fn spoil(random: &mut Random, frame: &[u8]) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    let ip = ip_of(&mut frame)?;
    let segment = Segment::of(ip)?;
    let right = segment.sum(ip);
    let wrong = random.next() as u16;
    // The two zeros may be right alike, or mean that there is none.
    if matches!(wrong, 0 | 0xffff) || wrong == right || (protocol_of(ip) == UDP && right == 0) {
        return None;
    }
    segment.set_sum(ip, wrong);
    Some(frame)
}

/// Whether two frames are alike except for their TCP or UDP checksums: those, as ones' complement
/// numbers, without the difference between the two zeros.
pub fn sums_if_else_alike(one: &[u8], other: &[u8]) -> Option<[u16; 2]> {
    let (mut one, mut other) = (one.to_vec(), other.to_vec());
    let sums = [&mut one, &mut other].map(|frame| {
        let ip = ip_of(frame)?;
        let segment = Segment::of(ip)?;
        let sum = segment.sum(ip);
        segment.set_sum(ip, 0);
        Some(sum % 0xffff)
    });
    (one == other).then_some([sums[0]?, sums[1]?])
}

/// What must be added to the first to get the second, in ones' complement.
pub fn step([from, to]: [u16; 2]) -> u16 {
    ((u32::from(to) + 0xffff - u32::from(from)) % 0xffff) as u16
}

/// Chooses two bytes of the payload so that the checksum has a special value, either as it comes in
/// or after the translation.
pub fn choose_sum(random: &mut Random, flow: &Flow, from: Side, frame: &mut [u8]) {
    let Some(ip) = ip_of(frame) else { return };
    let Some(segment) = Segment::of(ip) else { return };
    let last = segment.range.end - 2 - (segment.range.len() & 1);
    if last < segment.range.start + if protocol_of(ip) == TCP { 20 } else { 8 } {
        return;
    }
    let mut sum: u16 = *random.pick(&[0, 1, 2, 0xfffd, 0xfffe]);
    if random.one_in(2) && !flow.ipv6 {
        let [there, back] = [false, true].map(|reply| ends_sum(flow.tuple(reply)));
        // What the translation will add to the sum's complement is taken off beforehand.
        let translation = if from == flow.near { [there, back] } else { [back, there] };
        sum = ((u32::from(sum) + u32::from(step(translation))) % 0xffff) as u16;
    }
    ip[last..last + 2].fill(0);
    let now = segment.right_sum(ip) % 0xffff;
    // The checksum falls by what is added to the payload.
    ip[last..last + 2].copy_from_slice(&step([sum, now]).to_be_bytes());
}

fn ends_sum(tuple: Tuple) -> u16 {
    const ENDS: usize = 12;
    checksum::sum(&bpfw_tuple::from(tuple).bytes()[..ENDS]) % 0xffff
}

/// The packet in two or three fragments; some in another order, or not all. As it is, if it cannot
/// be split.
pub fn fragments(random: &mut Random, frame: &[u8]) -> Vec<Vec<u8>> {
    const HEADERS: usize = 34;
    let mut whole = frame.to_vec();
    let splittable = whole.get(12..15) == Some(&[8, 0, 0x45])
        && ip_of(&mut whole).is_some_and(|ip| Segment::of(ip).is_some());
    let total = usize::from(u16::from_be_bytes([frame[16 % frame.len()], frame[17 % frame.len()]]));
    if !splittable || total < 36 {
        return vec![frame.to_vec()];
    }
    let data = &frame[HEADERS..14 + total];
    let size = (data.len() / (2 + random.below(2))).next_multiple_of(8).max(8);
    let mut fragments: Vec<_> = data
        .chunks(size)
        .enumerate()
        .map(|(number, piece)| {
            let more = (number + 1) * size < data.len();
            let field = (number * size / 8) as u16 | if more { 0x2000 } else { 0 };
            let mut bytes = [&frame[..HEADERS], piece].concat();
            bytes[16..18].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
            bytes[20..22].copy_from_slice(&field.to_be_bytes());
            let sum = checksum::ipv4_header(&bytes[14..HEADERS]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            bytes
        })
        .collect();
    if random.one_in(4) {
        fragments.reverse();
    }
    if random.one_in(8) {
        fragments.pop();
    }
    fragments
}
