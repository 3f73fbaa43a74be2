// SPDX-License-Identifier: GPL-2.0-only
//! The lab's IPv6 side.

use super::flow::ipv6_of;
use super::lab::Lab;
use super::netns::Namespace;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

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
