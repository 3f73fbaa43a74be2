// SPDX-License-Identifier: GPL-2.0-only

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
fn hazard_13_ports_and_protocols_narrow_down() {
    let (original, reply) = translated();
    let selects = |source: u16, mask: u16, destination: u16, protocol: u8| {
        let anyone = Ipv4Addr::UNSPECIFIED;
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
    let senseless = End::new(Ipv4Addr::new(203, 0, 113, 0), 33, 0, 0);
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

/// A selector as the kernel keeps it, and its comparison (`__xfrm4_selector_match`), bit by bit.
#[derive(Clone, Copy, Debug)]
struct Plain {
    networks: [(u32, u8); 2],
    ports: [(u16, u16); 2],
    protocol: u8,
}

impl Plain {
    fn matches(&self, packet: Packet, protocol: u8) -> bool {
        let end = |at: usize, end: SocketAddr| {
            let (network, prefix) = self.networks[at];
            let (port, mask) = self.ports[at];
            let IpAddr::V4(address) = end.ip() else { return false };
            let address = address.to_bits();
            (0..prefix).all(|bit| (address ^ network) >> (31 - bit) & 1 == 0)
                && (0..16).all(|bit| mask >> bit & 1 == 0 || (end.port() ^ port) >> bit & 1 == 0)
        };
        let asked = self.protocol;
        end(0, packet.source) && end(1, packet.destination) && (asked == 0 || asked == protocol)
    }

    fn compiled(&self) -> Selector {
        let end = |at: usize| {
            let ((network, prefix), (port, mask)) = (self.networks[at], self.ports[at]);
            End::new(network.into(), prefix, port, mask)
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

/// Few values, so that matches are as likely as misses.
fn end() -> impl Strategy<Value = SocketAddr> {
    (0..4_u32, 0..4_u16)
        .prop_map(|(host, port)| (Ipv4Addr::from(0xc000_0200 + host), 1000 + port).into())
}

fn plain() -> impl Strategy<Value = Plain> {
    let network = || (0..4_u32, 29..=32_u8).prop_map(|(host, prefix)| (0xc000_0200 + host, prefix));
    let port = || (0..4_u16, prop::sample::select(vec![0, 1, 0xfffe, 0xffff]));
    let ports = [port(), port()].prop_map(|ports| ports.map(|(port, mask)| (1000 + port, mask)));
    let protocol = prop::sample::select(vec![0, 1, 6, 17]);
    ([network(), network()], ports, protocol).prop_map(|(networks, ports, protocol)| Plain {
        networks,
        ports,
        protocol,
    })
}

fn connection() -> impl Strategy<Value = (Tuple, Tuple)> {
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp]);
    (protocol, [end(), end(), end(), end()]).prop_map(|(protocol, [a, b, c, d])| {
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
