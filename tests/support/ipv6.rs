// SPDX-License-Identifier: GPL-2.0-only
//! The lab's IPv6 side.

use super::capture::Frame;
use super::checksum;
use super::flow::ipv6_of;
use super::lab::Lab;
use super::netns::{Namespace, text};
use super::router::{LIMIT, echo_is_fast, lab};
use super::rules::no_nat_rules;
use super::udp::{UdpClient, UdpEcho, udp_echo};
use super::wait::eventually;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::time::Duration;

pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2);
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2);
pub const ECHO6: SocketAddrV6 = SocketAddrV6::new(SERVER6, 7, 0, 0);

pub fn at6(address: Ipv6Addr, port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(address, port, 0, 0)
}

/// Gives an interface the address of IPv6 that belongs to its address of IPv4. It keeps it while it is down, as
/// IPv4's.
pub fn add_twin(namespace: &Namespace, device: &str, address: Ipv4Addr) {
    namespace.sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "0");
    namespace.sysctl(&format!("net/ipv6/conf/{device}/keep_addr_on_down"), "1");
    namespace.ip(&format!("addr replace {}/120 dev {device} nodad\n", ipv6_of(address)));
}

/// Gives all three an address, routes, and the router rules by which it tracks connections.
pub fn add_ipv6(lab: &Lab) {
    for (namespace, interfaces) in [
        (&lab.client, &[("eth0", "fd00:1::2/64")][..]),
        (&lab.router, &[("lan0", "fd00:1::1/64"), ("wan0", "fd00:2::1/64")]),
        (&lab.server, &[("eth0", "fd00:2::2/64")]),
    ] {
        for (interface, address) in interfaces {
            namespace.sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0");
            namespace.ip(&format!("addr add {address} dev {interface} nodad\n"));
        }
    }
    lab.router.sysctl("net/ipv6/conf/all/forwarding", "1");
    lab.client.ip("route add ::/0 via fd00:1::1\n");
    lab.server.ip("route add ::/0 via fd00:2::1\n");
    lab.nft(
        "table ip6 tracked {
            chain forward {
                type filter hook forward priority 0; policy drop;
                icmpv6 type { packet-too-big, time-exceeded, destination-unreachable } accept
                ct state established,related counter accept
                iifname lan0 accept
            }
        }",
    );
}

/// A lab with both families, without NAT.
pub fn lab6(hook: &str, test: &str) -> Lab {
    let lab = lab(hook, test, &no_nat_rules());
    add_ipv6(&lab);
    lab
}

/// An echo server at the lab's server, and a client with this port.
pub fn echo6(lab: &Lab, port: u16) -> (UdpEcho, UdpClient) {
    let server = udp_echo(&lab.server, ECHO6);
    (server, UdpClient::open(&lab.client, at6(CLIENT6, port), ECHO6))
}

/// As `wait_until_fast`: conntrack calls it a stream after 2 s.
pub fn wait_until_fast6(lab: &Lab, client: &UdpClient) {
    let port = client.socket().local_addr().expect("bound").port();
    let mut number = 1_000_000;
    eventually(LIMIT, "an echo takes the fast path, as a stream", || {
        number += 1;
        std::thread::sleep(Duration::from_millis(20));
        echo_is_fast(lab, client, number) && is_stream6(lab, port)
    });
}

/// Whether conntrack calls the client's echo with this port a stream.
pub fn is_stream6(lab: &Lab, port: u16) -> bool {
    let entries = conntrack6(lab, "udp");
    let port = format!("sport={port} ");
    entries.lines().any(|entry| entry.contains(&port) && entry.contains("[ASSURED]"))
}

/// The router's conntrack entries of IPv6, one a line.
pub fn conntrack6(lab: &Lab, protocol: &str) -> String {
    text(&lab.conntrack(&["-L", "-f", "ipv6", "-p", protocol]).stdout)
}

/// A TCP or UDP packet of IPv6 taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View6 {
    pub src: SocketAddrV6,
    pub dst: SocketAddrV6,
    pub hop_limit: u8,
    pub protocol: u8,
    /// Whether its checksum is right, or as it must be before a NIC completes it.
    pub checksum_right: bool,
}

impl View6 {
    /// `None` if something else follows the header.
    pub fn parse(frame: &Frame) -> Option<Self> {
        let bytes = &frame.bytes;
        if bytes.get(12..14)? != [0x86, 0xdd] || !matches!(bytes.get(20)?, 6 | 17) {
            return None;
        }
        let half = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let address = |at: usize| {
            let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets))
        };
        let (protocol, src, dst) = (bytes[20], address(22)?, address(38)?);
        let segment = bytes.get(54..54 + usize::from(half(18)?))?;
        let field = half(if protocol == 6 { 70 } else { 60 })?;
        let right = if frame.partial_checksum {
            checksum::partial(src, dst, protocol, segment.len())
        } else {
            checksum::transport(src, dst, protocol, segment)
        };
        Some(Self {
            src: at6(src, half(54)?),
            dst: at6(dst, half(56)?),
            hop_limit: bytes[21],
            protocol,
            checksum_right: field == right,
        })
    }
}
