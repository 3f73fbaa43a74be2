// SPDX-License-Identifier: GPL-2.0-only
//! Takes frames apart, for assertions.

use super::checksum;
use super::packet::{Mac, Tag};
use std::net::{Ipv4Addr, SocketAddrV4};

/// What the checksum field of TCP, UDP or ICMP holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The right value.
    Right,
    /// The pseudo header's sum: the sender left the rest to its NIC.
    Partial,
    /// UDP only: none was sent.
    Absent,
    /// Something else.
    Wrong,
    /// Not known: a fragment, a cut packet, or another protocol.
    Unknown,
}

/// The Ethernet header with its VLAN tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ethernet {
    pub src: Mac,
    pub dst: Mac,
    /// The tags, outermost first.
    pub vlans: Vec<Tag>,
    pub ethertype: u16,
}

/// The fields of a TCP header besides ports and checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpView {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
}

/// An IPv4 frame taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub ethernet: Ethernet,
    pub tos: u8,
    /// Total length as the header has it.
    pub total_length: u16,
    pub id: u16,
    pub df: bool,
    pub mf: bool,
    /// Fragment offset in units of 8 bytes.
    pub fragment_offset: u16,
    pub ttl: u8,
    /// 6 TCP, 17 UDP, 1 ICMP.
    pub protocol: u8,
    /// Source; port 0 where there are no ports.
    pub src: SocketAddrV4,
    /// Destination; port 0 where there are no ports.
    pub dst: SocketAddrV4,
    pub ip_options: Vec<u8>,
    pub ip_checksum_right: bool,
    pub tcp: Option<TcpView>,
    pub l4_checksum: Checksum,
    /// The checksum field as it was on the wire; 0 where there is none.
    pub l4_field: u16,
    /// The bytes after the TCP or UDP header; of other protocols, all after the IP header.
    pub payload: Vec<u8>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn address_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    u32_at(bytes, at).map(Ipv4Addr::from)
}

impl Ethernet {
    /// The header and what follows it; None if the frame is too short.
    pub fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let dst = frame.get(0..6)?.try_into().ok()?;
        let src = frame.get(6..12)?.try_into().ok()?;
        let mut at = 12;
        let mut vlans = Vec::new();
        let mut ethertype = u16_at(frame, at)?;
        while matches!(ethertype, 0x8100 | 0x88a8) {
            let word = u16_at(frame, at + 2)?;
            vlans.push(Tag { id: word & 0x0fff, pcp: (word >> 13) as u8, proto: ethertype });
            at += 4;
            ethertype = u16_at(frame, at)?;
        }
        Some((Self { src, dst, vlans, ethertype }, &frame[at + 2..]))
    }
}

/// What follows the IP header.
struct Segment {
    ports: (u16, u16),
    tcp: Option<TcpView>,
    checksum: Checksum,
    field: u16,
    payload: Vec<u8>,
}

impl View {
    /// The frame taken apart; None if it is not IPv4 or its headers are cut.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (ethernet, packet) = Ethernet::parse(frame)?;
        let first = *packet.first()?;
        let header_length = usize::from(first & 0x0f) * 4;
        if ethernet.ethertype != 0x0800 || first >> 4 != 4 || header_length < 20 {
            return None;
        }
        let header = packet.get(..header_length)?;
        let total_length = u16_at(header, 2)?;
        // Padding is not part of the packet.
        let end = packet.len().min(usize::from(total_length));
        let body = packet.get(header_length..end)?;
        let cut = end < usize::from(total_length);
        let fragment = u16_at(header, 6)?;
        let (src, dst) = (address_at(header, 12)?, address_at(header, 16)?);
        let segment = if fragment & 0x1fff != 0 {
            Segment::opaque(body)
        } else {
            Segment::parse(src, dst, header[9], body, cut || fragment & 0x2000 != 0)?
        };
        Some(Self {
            ethernet,
            tos: header[1],
            total_length,
            id: u16_at(header, 4)?,
            df: fragment & 0x4000 != 0,
            mf: fragment & 0x2000 != 0,
            fragment_offset: fragment & 0x1fff,
            ttl: header[8],
            protocol: header[9],
            src: SocketAddrV4::new(src, segment.ports.0),
            dst: SocketAddrV4::new(dst, segment.ports.1),
            ip_options: header[20..].to_vec(),
            ip_checksum_right: checksum::ipv4_header(header) == u16_at(header, 10)?,
            tcp: segment.tcp,
            l4_checksum: segment.checksum,
            l4_field: segment.field,
            payload: segment.payload,
        })
    }

    /// Whether both checksums are right; a UDP packet without one counts as right.
    pub fn checksums_right(&self) -> bool {
        self.ip_checksum_right && matches!(self.l4_checksum, Checksum::Right | Checksum::Absent)
    }
}

impl Segment {
    fn opaque(body: &[u8]) -> Self {
        let payload = body.to_vec();
        Self { ports: (0, 0), tcp: None, checksum: Checksum::Unknown, field: 0, payload }
    }

    fn parse(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, body: &[u8], cut: bool) -> Option<Self> {
        let (start, field, tcp) = match protocol {
            6 => {
                let tcp = TcpView::parse(body)?;
                (20 + tcp.options.len(), u16_at(body, 16)?, Some(tcp))
            }
            17 => (8, u16_at(body, 6)?, None),
            1 => return Some(Self::icmp(body, cut)),
            _ => return Some(Self::opaque(body)),
        };
        let checksum = match (cut, protocol, field) {
            (true, ..) => Checksum::Unknown,
            (_, 17, 0) => Checksum::Absent,
            _ if field == checksum::transport(src, dst, protocol, body) => Checksum::Right,
            _ if field == checksum::partial(src, dst, protocol, body.len()) => Checksum::Partial,
            _ => Checksum::Wrong,
        };
        let ports = (u16_at(body, 0)?, u16_at(body, 2)?);
        Some(Self { ports, tcp, checksum, field, payload: body.get(start..)?.to_vec() })
    }

    fn icmp(body: &[u8], cut: bool) -> Self {
        let checksum = match checksum::sum(body) {
            _ if cut => Checksum::Unknown,
            0xffff => Checksum::Right,
            _ => Checksum::Wrong,
        };
        Self { checksum, field: u16_at(body, 2).unwrap_or(0), ..Self::opaque(body) }
    }
}

impl TcpView {
    fn parse(body: &[u8]) -> Option<Self> {
        let length = usize::from(*body.get(12)? >> 4) * 4;
        Some(Self {
            seq: u32_at(body, 4)?,
            ack: u32_at(body, 8)?,
            flags: *body.get(13)?,
            window: u16_at(body, 14)?,
            options: body.get(20..length)?.to_vec(),
        })
    }
}
