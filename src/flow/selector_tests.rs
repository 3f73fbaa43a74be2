// SPDX-License-Identifier: GPL-2.0-only

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::flow::tuple::Protocol;

fn tuple(source: &str, destination: &str) -> Tuple {
    Tuple {
        protocol: Protocol::Udp,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// As in `192.0.2.0/24`.
fn net(text: &str) -> End {
    let (address, prefix) = text.split_once('/').unwrap();
    End::new(address.parse().unwrap(), prefix.parse().unwrap(), 0, 0)
}

fn between(source: &str, destination: &str) -> Selector {
    Selector { source: net(source), destination: net(destination), protocol: 0 }
}

/// A LAN host behind the router's address, and a server.
fn translated() -> (Tuple, Tuple) {
    let original = tuple("192.0.2.2:1000", "198.51.100.2:53");
    (original, tuple("198.51.100.2:53", "198.51.100.1:4000"))
}

#[test]
fn hazard_13_both_ways_before_and_after_translation() {
    let (original, reply) = translated();
    let selects = |selector: Selector| selector.may_select(original, reply);
    for near in ["192.0.2.2/32", "192.0.2.0/24", "198.51.100.1/32", "0.0.0.0/0"] {
        for far in ["198.51.100.2/32", "198.51.0.0/16"] {
            assert!(selects(between(near, far)) && selects(between(far, near)), "{near} {far}");
        }
    }
    assert!(!selects(between("192.0.2.3/32", "198.51.100.2/32")));
    assert!(!selects(between("192.0.2.0/24", "203.0.113.0/24")));
    assert!(!selects(between("192.0.2.0/24", "192.0.2.0/24")));
    assert!(!selects(between("198.51.100.2/32", "198.51.100.2/32")));
}

#[test]
fn hazard_13_a_selector_is_for_its_family() {
    let original = tuple("[2001:db8:1::2]:1000", "[2001:db8:2::2]:53");
    let reply = tuple("[2001:db8:2::2]:53", "[2001:db8:2::1]:4000");
    let selects = |selector: Selector| selector.may_select(original, reply);
    for near in ["2001:db8:1::2/128", "2001:db8:1::/64", "2001:db8:2::1/128", "::/0"] {
        for far in ["2001:db8:2::2/128", "2001:db8:2::/48"] {
            assert!(selects(between(near, far)) && selects(between(far, near)), "{near} {far}");
        }
    }
    assert!(!selects(between("2001:db8:1::3/128", "2001:db8:2::2/128")));
    assert!(!selects(between("0.0.0.0/0", "0.0.0.0/0")) && selects(Selector::ANYTHING));
    let (original, reply) = translated();
    assert!(!between("::/0", "::/0").may_select(original, reply));
}

#[test]
fn hazard_13_ports_and_protocols_narrow_down() {
    let (original, reply) = translated();
    let selects = |source: u16, mask: u16, destination: u16, protocol: u8| {
        let anyone = Ipv4Addr::UNSPECIFIED.into();
        let source = End::new(anyone, 0, source, mask);
        let destination = End::new(anyone, 0, destination, u16::MAX);
        Selector { source, destination, protocol }.may_select(original, reply)
    };
    for port in [1000, 4000] {
        assert!(selects(port, u16::MAX, 53, 17) && selects(port, u16::MAX, 53, 0));
        assert!(selects(53, u16::MAX, port, 17));
        assert!(!selects(port, u16::MAX, 53, 6));
    }
    assert!(!selects(1001, u16::MAX, 53, 17));
    assert!(selects(1001, 0xfff0, 53, 17), "1000 and 1001 differ in the last four bits only");
    assert!(!selects(0, 0, 54, 17));
}

#[test]
fn hazard_13_doubtful_selectors_select_everything() {
    let (original, reply) = translated();
    assert!(Selector::ANYTHING.may_select(original, reply));
    let senseless = End::new(Ipv4Addr::new(203, 0, 113, 0).into(), 33, 0, 0);
    let selector = Selector { source: senseless, destination: senseless, protocol: 0 };
    assert!(selector.may_select(original, reply));
}

#[test]
fn hazard_13_more_coverage_is_told_from_less() {
    let few = Selectors::new([between("192.0.2.0/24", "203.0.113.0/24")]);
    let more = Selectors::new([Selector::ANYTHING, between("192.0.2.0/24", "203.0.113.0/24")]);
    assert!(few.are_among(&more) && !more.are_among(&few));
    assert!(Selectors::default().are_among(&few) && more.are_among(&more));
    assert!(!few.are_too_many());
    let endless = Selectors::new(std::iter::repeat(Selector::ANYTHING));
    assert!(endless.are_too_many() && endless.len() == LIMIT + 1);
    assert!(!Selectors::new(std::iter::repeat_n(Selector::ANYTHING, LIMIT)).are_too_many());
}

/// A packet as the kernel compares it with a selector.
#[derive(Clone, Copy, Debug)]
struct Packet {
    source: SocketAddr,
    destination: SocketAddr,
}

/// A selector as the kernel keeps it, and its comparison (`__xfrm4_selector_match` and the same for
/// IPv6), bit by bit. Networks and hosts differ in their last bits only, whatever the family.
#[derive(Clone, Copy, Debug)]
struct Plain {
    family: Family,
    networks: [(u32, u8); 2],
    ports: [(u16, u16); 2],
    protocol: u8,
}

impl Plain {
    fn matches(&self, packet: Packet, protocol: u8) -> bool {
        let end = |at: usize, end: SocketAddr| {
            let (network, prefix) = self.networks[at];
            let (port, mask) = self.ports[at];
            let differs =
                octets(end.ip()).zip(octets(host(self.family, network))).map(|(a, b)| a ^ b);
            let differs: Vec<u8> = differs.collect();
            let free = self.free_bits(prefix);
            let counting = 0..8 * differs.len() - usize::from(free);
            let is_same = |bit: usize| differs[bit / 8] >> (7 - bit % 8) & 1 == 0;
            Family::of(end.ip()) == self.family
                && counting.into_iter().all(is_same)
                && (0..16).all(|bit| mask >> bit & 1 == 0 || (end.port() ^ port) >> bit & 1 == 0)
        };
        let asked = self.protocol;
        end(0, packet.source) && end(1, packet.destination) && (asked == 0 || asked == protocol)
    }

    /// The bits behind a prefix that is told as one of IPv4.
    fn free_bits(&self, prefix: u8) -> u8 {
        32 - prefix
    }

    fn compiled(&self) -> Selector {
        let end = |at: usize| {
            let ((network, prefix), (port, mask)) = (self.networks[at], self.ports[at]);
            let longest = if self.family == Family::Ipv4 { 32 } else { 128 };
            let prefix = longest - self.free_bits(prefix);
            End::new(host(self.family, network), prefix, port, mask)
        };
        Selector { source: end(0), destination: end(1), protocol: self.protocol }
    }
}

/// Every packet that the kernel may ask about: each end original or translated, both ways.
fn packets(original: Tuple, reply: Tuple) -> Vec<Packet> {
    let mut packets = Vec::new();
    for near in [original.source, reply.destination] {
        for far in [original.destination, reply.source] {
            packets.push(Packet { source: near, destination: far });
            packets.push(Packet { source: far, destination: near });
        }
    }
    packets
}

fn octets(address: IpAddr) -> impl Iterator<Item = u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
    .into_iter()
}

/// A host's address by its number.
fn host(family: Family, number: u32) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::from(0xc000_0200 + number).into(),
        Family::Ipv6 => Ipv6Addr::from((0x2001_0db8 << 96) + u128::from(number)).into(),
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(Family::ALL.to_vec())
}

/// Few values, so that matches are as likely as misses.
fn end(family: Family) -> impl Strategy<Value = SocketAddr> + use<> {
    (0..4_u32, 0..4_u16).prop_map(move |(number, port)| (host(family, number), 1000 + port).into())
}

fn plain() -> impl Strategy<Value = Plain> {
    let network = || (0..4_u32, 29..=32_u8);
    let port = || (0..4_u16, prop::sample::select(vec![0, 1, 0xfffe, 0xffff]));
    let ports = [port(), port()].prop_map(|ports| ports.map(|(port, mask)| (1000 + port, mask)));
    let protocol = prop::sample::select(vec![0, 1, 6, 17]);
    (family(), [network(), network()], ports, protocol)
        .prop_map(|(family, networks, ports, protocol)| Plain { family, networks, ports, protocol })
}

fn connection() -> impl Strategy<Value = (Tuple, Tuple)> {
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp]);
    let ends = family().prop_flat_map(|family| [(); 4].map(|()| end(family)));
    (protocol, ends).prop_map(|(protocol, [a, b, c, d])| {
        (Tuple::new(protocol, a, b), Tuple::new(protocol, c, d))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// No packet that the kernel would select escapes, and without port masks and translation
    /// nothing else is taken.
    #[test]
    fn hazard_13_agrees_with_the_kernels_comparison(
        plain in plain(), (original, reply) in connection(), translated: bool,
    ) {
        let reply = if translated { reply } else { original.invert() };
        let protocol = original.protocol.number();
        let any = packets(original, reply).iter().any(|packet| plain.matches(*packet, protocol));
        let ours = plain.compiled().may_select(original, reply);
        prop_assert!(ours || !any, "a packet escapes");
        prop_assert!(translated || ours == any, "taken without need");
    }
}
