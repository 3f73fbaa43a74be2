// SPDX-License-Identifier: GPL-2.0-only
//! A builder of Ethernet frames with an IP packet, good ones and spoiled ones.

use super::checksum;
use super::flow::ipv6_of;
use bpfw::flow::tuple::{Protocol, Tuple};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

/// A MAC address.
pub type Mac = [u8; 6];

/// TCP flags, for [`Packet::flags`].
pub mod tcp {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// VLAN number, 0 to 4095.
    pub id: u16,
    /// Priority, 0 to 7.
    pub pcp: u8,
    /// Tag protocol: 0x8100 or 0x88a8.
    pub proto: u16,
}

/// What goes into the TCP or UDP checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum L4Sum {
    Right,
    Wrong,
    Zero,
    Partial,
}

#[derive(Clone, Debug)]
struct Tcp {
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
}

/// A frame in the making. All values have usual defaults, and `build` makes the bytes.
#[derive(Clone, Debug)]
pub struct Packet {
    macs: (Mac, Mac),
    vlans: Vec<Tag>,
    src: SocketAddrV4,
    dst: SocketAddrV4,
    /// Both addresses as [`ipv6_of`] makes them.
    ipv6: bool,
    flow_label: u32,
    /// IPv6: what the header says of the next one, and what stands before TCP or UDP.
    extension: Option<(u8, Vec<u8>)>,
    tos: u8,
    id: u16,
    fragment: u16,
    ttl: u8,
    ip_options: Vec<u8>,
    tcp: Option<Tcp>,
    payload: Vec<u8>,
    bad_ip_checksum: bool,
    l4_checksum: L4Sum,
    total_length: Option<u16>,
    udp_length: Option<u16>,
    header_words: Option<u8>,
    pad_to: usize,
    truncate: Option<usize>,
}

const DF: u16 = 0x4000;
const MF: u16 = 0x2000;

impl Packet {
    /// A UDP datagram: TTL 64, DF set, no tag, no payload, right checksums.
    pub fn udp(src: SocketAddrV4, dst: SocketAddrV4) -> Self {
        Self {
            macs: ([2, 0, 0, 0, 0xee, 1], [2, 0, 0, 0, 0xee, 2]),
            vlans: Vec::new(),
            src,
            dst,
            ipv6: false,
            flow_label: 0,
            extension: None,
            tos: 0,
            id: 1,
            fragment: DF,
            ttl: 64,
            ip_options: Vec::new(),
            tcp: None,
            payload: Vec::new(),
            bad_ip_checksum: false,
            l4_checksum: L4Sum::Right,
            total_length: None,
            udp_length: None,
            header_words: None,
            pad_to: 0,
            truncate: None,
        }
    }

    /// A TCP segment: as `udp`, sequence and acknowledgement 1, flag ACK, window 64240.
    /// The first packet in the direction of a tuple.
    pub fn of(tuple: Tuple) -> Self {
        match (tuple.protocol, tuple.source, tuple.destination) {
            (Protocol::Tcp, SocketAddr::V4(src), SocketAddr::V4(dst)) => Self::tcp(src, dst),
            (Protocol::Udp, SocketAddr::V4(src), SocketAddr::V4(dst)) => Self::udp(src, dst),
            _ => panic!("{tuple} is not of IPv4"),
        }
    }

    pub fn tcp(src: SocketAddrV4, dst: SocketAddrV4) -> Self {
        let tcp = Tcp { seq: 1, ack: 1, flags: tcp::ACK, window: 64240, options: Vec::new() };
        Self { tcp: Some(tcp), ..Self::udp(src, dst) }
    }

    /// Source and destination MAC.
    #[must_use]
    pub fn mac(mut self, src: Mac, dst: Mac) -> Self {
        self.macs = (src, dst);
        self
    }

    /// Adds a VLAN tag inside those already there.
    #[must_use]
    pub fn vlan(mut self, id: u16, pcp: u8, proto: u16) -> Self {
        self.vlans.push(Tag { id, pcp, proto });
        self
    }

    /// The bytes after the TCP or UDP header.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Time to live.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// The whole type-of-service byte: DSCP and ECN.
    #[must_use]
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// IPv6 in place of IPv4, with the addresses that belong to these.
    #[must_use]
    pub fn over_ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    /// IPv6: the flow label.
    #[must_use]
    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label & 0xf_ffff;
        self
    }

    /// IPv6: another number in place of the protocol's, and these bytes behind the header.
    #[must_use]
    pub fn extension(mut self, next_header: u8, bytes: &[u8]) -> Self {
        self.extension = Some((next_header, bytes.to_vec()));
        self
    }

    /// IP identification.
    #[must_use]
    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// Don't fragment.
    #[must_use]
    pub fn df(mut self, df: bool) -> Self {
        self.fragment = (self.fragment & !DF) | if df { DF } else { 0 };
        self
    }

    /// Makes it a fragment: offset in units of 8 bytes, and whether more follow. Clears DF.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = (offset & 0x1fff) | if more { MF } else { 0 };
        self
    }

    /// IP options; their length must be a multiple of 4, at most 40.
    #[must_use]
    pub fn ip_options(mut self, options: &[u8]) -> Self {
        assert!(options.len() % 4 == 0 && options.len() <= 40, "bad length of IP options");
        self.ip_options = options.to_vec();
        self
    }

    fn tcp_mut(&mut self) -> &mut Tcp {
        self.tcp.as_mut().expect("a TCP value set on a UDP packet")
    }

    /// TCP sequence number.
    #[must_use]
    pub fn seq(mut self, seq: u32) -> Self {
        self.tcp_mut().seq = seq;
        self
    }

    /// TCP acknowledgement number.
    #[must_use]
    pub fn ack(mut self, ack: u32) -> Self {
        self.tcp_mut().ack = ack;
        self
    }

    /// TCP flags, see [`tcp`].
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        self.tcp_mut().flags = flags;
        self
    }

    /// TCP window.
    #[must_use]
    pub fn window(mut self, window: u16) -> Self {
        self.tcp_mut().window = window;
        self
    }

    /// TCP options; their length must be a multiple of 4, at most 40.
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        assert!(options.len() % 4 == 0 && options.len() <= 40, "bad length of TCP options");
        self.tcp_mut().options = options.to_vec();
        self
    }

    /// A wrong IP header checksum.
    #[must_use]
    pub fn bad_ip_checksum(mut self) -> Self {
        self.bad_ip_checksum = true;
        self
    }

    /// A wrong TCP or UDP checksum, never 0.
    #[must_use]
    pub fn bad_l4_checksum(mut self) -> Self {
        self.l4_checksum = L4Sum::Wrong;
        self
    }

    /// A TCP or UDP checksum field of 0; for UDP that means "no checksum".
    #[must_use]
    pub fn zero_l4_checksum(mut self) -> Self {
        self.l4_checksum = L4Sum::Zero;
        self
    }

    /// A partial checksum: the pseudo header's sum, as of a sender that relies on its NIC.
    #[must_use]
    pub fn partial_l4_checksum(mut self) -> Self {
        self.l4_checksum = L4Sum::Partial;
        self
    }

    /// A total length in the IP header other than the true one.
    #[must_use]
    pub fn total_length(mut self, length: u16) -> Self {
        self.total_length = Some(length);
        self
    }

    /// A length in the UDP header other than the true one.
    #[must_use]
    pub fn udp_length(mut self, length: u16) -> Self {
        self.udp_length = Some(length);
        self
    }

    /// An IP header length (in words of 4 bytes) other than the true one.
    #[must_use]
    pub fn header_words(mut self, words: u8) -> Self {
        self.header_words = Some(words & 0x0f);
        self
    }

    /// Zero bytes after the packet until the frame has this length; 60 is Ethernet's minimum.
    #[must_use]
    pub fn pad_to(mut self, length: usize) -> Self {
        self.pad_to = length;
        self
    }

    /// Cuts the frame after this many bytes.
    #[must_use]
    pub fn truncate(mut self, length: usize) -> Self {
        self.truncate = Some(length);
        self
    }

    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = self.ethernet_header();
        let segment = self.segment();
        frame.extend(self.ip_header(segment.len()));
        frame.extend(segment);
        if frame.len() < self.pad_to {
            frame.resize(self.pad_to, 0);
        }
        frame.truncate(self.truncate.unwrap_or(usize::MAX));
        frame
    }

    fn ethernet_header(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.macs.1);
        bytes.extend(self.macs.0);
        for tag in &self.vlans {
            bytes.extend(tag.proto.to_be_bytes());
            bytes.extend((u16::from(tag.pcp) << 13 | tag.id & 0x0fff).to_be_bytes());
        }
        let ethertype: u16 = if self.ipv6 { 0x86dd } else { 0x0800 };
        bytes.extend(ethertype.to_be_bytes());
        bytes
    }

    fn ip_header(&self, segment_length: usize) -> Vec<u8> {
        if self.ipv6 { self.ipv6_header(segment_length) } else { self.ipv4_header(segment_length) }
    }

    /// The length that a test sets is the payload's.
    fn ipv6_header(&self, segment_length: usize) -> Vec<u8> {
        let (next, extension) = self.extension.clone().unwrap_or((self.protocol(), Vec::new()));
        let first = 6 << 28 | u32::from(self.tos) << 20 | self.flow_label;
        let length = self.total_length.unwrap_or((extension.len() + segment_length) as u16);
        let mut bytes = first.to_be_bytes().to_vec();
        bytes.extend(length.to_be_bytes());
        bytes.extend([next, self.ttl]);
        bytes.extend(ipv6_of(*self.src.ip()).octets());
        bytes.extend(ipv6_of(*self.dst.ip()).octets());
        bytes.extend(extension);
        bytes
    }

    fn ipv4_header(&self, segment_length: usize) -> Vec<u8> {
        let length = 20 + self.ip_options.len();
        let words = self.header_words.unwrap_or((length / 4) as u8);
        let total = self.total_length.unwrap_or((length + segment_length) as u16);
        let mut bytes = vec![0x40 | words, self.tos];
        bytes.extend(total.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, self.protocol(), 0, 0]);
        bytes.extend(self.src.ip().octets());
        bytes.extend(self.dst.ip().octets());
        bytes.extend(&self.ip_options);
        let right = checksum::ipv4_header(&bytes);
        let field = if self.bad_ip_checksum { spoil(right) } else { right };
        bytes[10..12].copy_from_slice(&field.to_be_bytes());
        bytes
    }

    /// Whether it is IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.ipv6
    }

    /// Whether it is TCP, and so has the values of TCP.
    pub fn is_tcp(&self) -> bool {
        self.tcp.is_some()
    }

    /// TCP's flags, of a TCP segment.
    pub fn tcp_flags(&self) -> Option<u8> {
        self.tcp.as_ref().map(|tcp| tcp.flags)
    }

    /// TCP's or UDP's number.
    pub fn protocol(&self) -> u8 {
        if self.tcp.is_some() { 6 } else { 17 }
    }

    fn segment(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.src.port().to_be_bytes());
        bytes.extend(self.dst.port().to_be_bytes());
        let field = match &self.tcp {
            Some(tcp) => tcp.append_to(&mut bytes),
            None => {
                let length = self.udp_length.unwrap_or((8 + self.payload.len()) as u16);
                bytes.extend(length.to_be_bytes());
                bytes.extend([0, 0]);
                6
            }
        };
        bytes.extend(&self.payload);
        let sum = self.l4_field(&bytes);
        bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn l4_field(&self, segment: &[u8]) -> u16 {
        let address = |end: SocketAddrV4| -> IpAddr {
            if self.ipv6 { ipv6_of(*end.ip()).into() } else { (*end.ip()).into() }
        };
        let (src, dst, protocol) = (address(self.src), address(self.dst), self.protocol());
        let right = checksum::transport(src, dst, protocol, segment);
        match self.l4_checksum {
            L4Sum::Right => right,
            L4Sum::Wrong => spoil(right),
            L4Sum::Zero => 0,
            L4Sum::Partial => checksum::partial(src, dst, protocol, segment.len()),
        }
    }
}

impl Tcp {
    /// Appends the header after the ports, and tells where its checksum field is.
    fn append_to(&self, bytes: &mut Vec<u8>) -> usize {
        let words = 5 + self.options.len() / 4;
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([(words as u8) << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.options);
        16
    }
}

/// A checksum that is wrong, and neither 0 nor 0xffff, which mean special things.
fn spoil(right: u16) -> u16 {
    [0x0101, 0x1010]
        .map(|bits| right ^ bits)
        .into_iter()
        .find(|sum| !matches!(sum, 0 | 0xffff))
        .expect("two different values cannot both be special here")
}
