// SPDX-License-Identifier: GPL-2.0-only
//! nft rule sets for the lab's router. Each replaces the one loaded before.

use super::lab::{LAN_NET, ROUTER_WAN};
use std::net::SocketAddrV4;

/// Counts what the stack forwards, before any other rule sees it.
///
/// The prefix is there because nft reserves the bare words.
pub const SEEN: &str = "
table inet seen {
    counter seen_all { }
    counter seen_tcp { }
    counter seen_udp { }
    counter seen_icmp { }
    chain forward {
        type filter hook forward priority -300; policy accept;
        counter name seen_all
        meta l4proto tcp counter name seen_tcp
        meta l4proto udp counter name seen_udp
        meta l4proto icmp counter name seen_icmp
    }
}
";

/// A forward chain as routers have it: established passes, the WAN cannot start anything.
const FORWARD: &str = "
    chain forward {
        type filter hook forward priority 0; policy accept;
        ct state established,related accept
        ct state invalid counter drop
        iifname lan0 accept
        ct status dnat accept
        counter drop
    }
";

const MASQUERADE: &str = "
    chain postrouting {
        type nat hook postrouting priority 100; policy accept;
        oifname wan0 masquerade
    }
";

fn table(chains: &str) -> String {
    format!("table ip rules\ndelete table ip rules\ntable ip rules {{\n{chains}\n}}\n")
}

fn prerouting(port: u16, to: SocketAddrV4) -> String {
    format!(
        "chain prerouting {{
            type nat hook prerouting priority -100; policy accept;
            ip daddr {ROUTER_WAN} tcp dport {port} dnat to {to}
            ip daddr {ROUTER_WAN} udp dport {port} dnat to {to}
        }}\n"
    )
}

/// As `snat_rules`; connections of UDP from port 40001 get the mark 0x21.
pub fn marking_rules() -> String {
    let marking = "
        chain marking {
            type filter hook prerouting priority -150; policy accept;
            udp sport 40001 ct mark set 0x21
        }";
    snat_rules().replace("chain forward", &format!("{marking}\nchain forward"))
}

/// Masquerading out of wan0, and the forward chain.
pub fn snat_rules() -> String {
    table(&format!("{MASQUERADE}{FORWARD}"))
}

/// As `snat_rules`; also TCP and UDP to the router's WAN address and `port` go to `to`.
pub fn dnat_rules(port: u16, to: SocketAddrV4) -> String {
    table(&format!("{}{MASQUERADE}{FORWARD}", prerouting(port, to)))
}

/// As `dnat_rules`; also for LAN hosts, which then reach `to` through the router.
pub fn hairpin_rules(port: u16, to: SocketAddrV4) -> String {
    let postrouting = format!(
        "chain postrouting {{
            type nat hook postrouting priority 100; policy accept;
            oifname wan0 masquerade
            ct status dnat oifname lan0 ip saddr {LAN_NET} masquerade
        }}"
    );
    table(&format!("{}{postrouting}{FORWARD}", prerouting(port, to)))
}

/// Connection tracking without NAT: the forward chain alone.
///
/// The server needs its route, see `Lab::route_server_via_router`.
pub fn no_nat_rules() -> String {
    table(FORWARD)
}

/// Counts and drops what conntrack calls invalid, before NAT and routing. An answer to the router's
/// own address would not be forwarded, so `snat_rules` would not see it.
pub const INVALID: &str = "
table inet invalid_packets {
    counter seen_invalid { }
    chain prerouting {
        type filter hook prerouting priority -150; policy accept;
        ct state invalid counter name seen_invalid drop
    }
}
";
