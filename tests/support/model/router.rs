// SPDX-License-Identifier: GPL-2.0-only
//! The lab of the model, and the router's configuration as the model's network has it.

use super::net::{GATEWAY_MAC, MOVED_MAC, Net, SMALL_MTU};
use super::op::{Conn, How, Link, Neighbor, Route, Way};
use crate::support::flow::{DMZ, LAN, Side, WAN, ipv6_of};
use crate::support::ipv6::add_twin;
use crate::support::lab::{Lab, SERVER, show};
use crate::support::packet::Mac;
use crate::support::router;
use std::net::{IpAddr, Ipv4Addr};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);

/// Rules for the connections alone: fixed translations, so that each packet can be foretold.
/// Nothing begins but by its own first sender, and no host answers by itself.
const RULES: &str = "
table inet rules {
    counter invalid { }
    set forbidden { type inet_service; }
    set helped { type inet_service; }
    set banned_sport { type inet_service; }
    set banned_dport { type inet_service; }
    ct helper with_udp { type \"tftp\" protocol udp; }
    ct helper with_tcp { type \"ftp\" protocol tcp; }
    chain prerouting {
        type nat hook prerouting priority -100; policy accept;
        ip daddr 198.51.100.1 udp dport 8080 dnat ip to 192.0.2.2:7
    }
    chain helping {
        type filter hook prerouting priority 0; policy accept;
        udp sport @helped ct helper set \"with_udp\"
        tcp sport @helped ct helper set \"with_tcp\"
    }
    chain postrouting {
        type nat hook postrouting priority 100; policy accept;
        udp sport 40000 snat ip to 198.51.100.1:21000
        tcp sport 40001 snat ip to 198.51.100.1:21001
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state invalid counter name invalid drop
        meta l4proto { tcp, udp } th sport @banned_sport drop
        meta l4proto { tcp, udp } th dport @banned_dport drop
        udp sport @forbidden drop
        tcp sport @forbidden drop
        ct state established accept
        ct state new udp sport { 40000, 40002, 40004 } accept
        ct state new tcp sport { 40001, 40003, 40005 } accept
    }
    chain input {
        type filter hook input priority 0; policy accept;
        meta l4proto { tcp, udp } drop
    }
}
";

const MUTE: &str = "
table inet mute {
    chain input {
        type filter hook input priority 0; policy drop;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
}
";

/// A lab with a second way to the server, and all that the model's network says.
pub fn lab(hook: &str, test: &str) -> Lab {
    let lab = Lab::new(test, router::offloads(hook));
    lab.server.ip(&format!(
        "link add eth1 address {} type veth peer name dmz0 address {} netns {}\n\
         link set eth1 up\naddr add {}/24 dev eth1\n",
        show(DMZ.host_mac),
        show(DMZ.router_mac),
        lab.router.name(),
        DMZ.host
    ));
    lab.server.sh("ethtool -K eth1 tx off tso off gso off gro on");
    lab.router.sh("ethtool -K dmz0 gro on");
    add_ipv6_to_hosts(&lab);
    lab.nft(RULES);
    for host in [&lab.client, &lab.server] {
        host.run_with_input(&["nft", "-f", "-"], MUTE);
    }
    for (family, sysctl, value) in
        [("ipv4", "rp_filter", "0"), ("ipv4", "send_redirects", "0"), ("ipv6", "forwarding", "1")]
    {
        lab.router.sysctl(&format!("net/{family}/conf/all/{sysctl}"), value);
    }
    [LAN, WAN, DMZ].into_iter().for_each(|side| configure(&lab, side));
    // No connection expires while the others are being dealt with.
    lab.router.sysctl("net/netfilter/nf_conntrack_udp_timeout", "600");
    lab.router.sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", "600");
    let net = Net::default();
    lab.router.ip(&(route(&net) + &neighbors(&net)));
    lab
}

fn add_ipv6_to_hosts(lab: &Lab) {
    add_twin(&lab.client, "eth0", LAN.host);
    add_twin(&lab.server, "eth0", WAN.host);
    add_twin(&lab.server, "eth1", DMZ.host);
}

/// Sets an interface of the router up that may be new in its namespace.
fn configure(lab: &Lab, side: Side) {
    let Side { device, router, .. } = side;
    for sysctl in ["rp_filter", "send_redirects"] {
        lab.router.sysctl(&format!("net/ipv4/conf/{device}/{sysctl}"), "0");
    }
    lab.router.ip(&format!("link set {device} up\naddr replace {router}/24 dev {device}\n"));
    add_twin(&lab.router, device, router);
}

/// The interface leaves the router's namespace, and comes back with nothing but its name.
pub fn vanish(lab: &Lab, link: Link) {
    let side = side(link);
    for (from, to) in [(&lab.router, &lab.server), (&lab.server, &lab.router)] {
        from.ip(&format!("link set {} netns {}\n", side.device, to.name()));
    }
    configure(lab, side);
}

/// The commands for the routes to the server.
pub fn route(net: &Net) -> String {
    let mtu = if net.small_mtu { format!(" mtu {SMALL_MTU}") } else { String::new() };
    let [server, gateway, second] = [SERVER, GATEWAY, DMZ.host].map(of_both_families);
    let route = |server, gateway, second| match net.route {
        Route::Direct => format!("route replace {server} dev wan0{mtu}\n"),
        Route::Gateway => format!("route replace {server} via {gateway} dev wan0 onlink{mtu}\n"),
        Route::Second => format!("route replace {server} via {second} dev dmz0 onlink{mtu}\n"),
        Route::Blackhole => format!("route replace blackhole {server}\n"),
        Route::Prohibit => format!("route replace prohibit {server}\n"),
    };
    [0, 1].map(|family| route(server[family], gateway[family], second[family])).concat()
}

fn of_both_families(address: Ipv4Addr) -> [IpAddr; 2] {
    [address.into(), ipv6_of(address).into()]
}

/// Gives the router one more address of each family at the WAN, or takes it away. Both may be as they should.
pub fn second_address(lab: &Lab, yes: bool) {
    let (verb, options) = if yes { ("replace", &["nodad"][..]) } else { ("del", &[][..]) };
    for address in [format!("{SECOND}/24"), format!("{}/120", ipv6_of(SECOND))] {
        let args = ["ip", "addr", verb, &address, "dev", "wan0"];
        lab.router.try_run(&[&args[..], options].concat());
    }
}

/// Adds a routing rule by mark for each family, or deletes it.
pub fn mark_rule(lab: &Lab, yes: bool) {
    let verb = if yes { "add" } else { "del" };
    for family in ["-4", "-6"] {
        lab.router.run(&["ip", family, "rule", verb, "fwmark", "0x100", "lookup", "100"]);
    }
}

/// The commands for the neighbors that are set by hand.
pub fn neighbors(net: &Net) -> String {
    let gateway = Side { host: GATEWAY, ..WAN };
    let mut commands = permanent(DMZ, DMZ.host_mac);
    if net.up[Link::Wan as usize] {
        commands += &permanent(gateway, GATEWAY_MAC);
        commands += &neighbor(Link::Wan, net.neighbors[Link::Wan as usize]);
    }
    if net.up[Link::Lan as usize] {
        commands += &neighbor(Link::Lan, net.neighbors[Link::Lan as usize]);
    }
    commands
}

/// The command for one of them.
pub fn neighbor(link: Link, neighbor: Neighbor) -> String {
    let side = side(link);
    match neighbor {
        Neighbor::Unknown => String::new(),
        Neighbor::True => permanent(side, side.host_mac),
        Neighbor::Moved => permanent(side, MOVED_MAC),
    }
}

fn permanent(side: Side, mac: Mac) -> String {
    let (mac, device) = (show(mac), side.device);
    of_both_families(side.host)
        .map(|host| format!("neigh replace {host} lladdr {mac} dev {device} nud permanent\n"))
        .concat()
}

pub fn side(link: Link) -> Side {
    match link {
        Link::Lan => LAN,
        Link::Wan => WAN,
    }
}

/// Deletes a neighbor of both families; it may be gone already.
pub fn forget_neighbor(lab: &Lab, link: Link) {
    let side = side(link);
    for host in of_both_families(side.host) {
        lab.router.try_run(&["ip", "neigh", "del", &host.to_string(), "dev", side.device]);
    }
}

/// The protocol's word and the port by which rules and tools know a connection.
pub fn names(conn: Conn) -> [String; 2] {
    let protocol = conn.flow().protocol.to_string();
    [protocol, conn.flow().before.0.port().to_string()]
}

/// Deletes the connection's entry, if there is one.
pub fn delete(lab: &Lab, conn: Conn) {
    let [protocol, port] = names(conn);
    let family = if conn.flow().ipv6 { "ipv6" } else { "ipv4" };
    lab.conntrack(&["-D", "-f", family, "-p", &protocol, "--sport", &port]);
}

/// Puts a connection into one of the rules' sets, or takes it out.
pub fn set_member(lab: &Lab, set: &str, conn: Conn, yes: bool) {
    let verb = if yes { "add" } else { "delete" };
    lab.nft(&format!("{verb} element inet rules {set} {{ {} }}\n", names(conn)[1]));
}

/// Drops the packets of one direction of a connection, or no longer; `false` if this cannot be done.
pub fn ban(lab: &Lab, conn: Conn, way: Way, how: How, yes: bool) -> bool {
    let field = if way == Way::Original { "sport" } else { "dport" };
    match how {
        How::Rule => ban_by_rule(lab, conn, field, yes),
        How::Element => set_member(lab, &format!("banned_{field}"), conn, yes),
        How::Silent => {
            let (verb, [protocol, port]) = (if yes { "-I" } else { "-D" }, names(conn));
            let rule = format!("FORWARD -p {protocol} --{field} {port} -j DROP");
            let tool = if conn.flow().ipv6 { "ip6tables-legacy" } else { "iptables-legacy" };
            let command = format!("{tool} {verb} {rule}");
            // The kernel may have no tables for it.
            return lab.router.try_run(&["sh", "-c", &command]).status.success();
        }
    }
    true
}

/// Loads rules that stand there anew, as a program does that knows nothing of what has changed.
pub fn reload(lab: &Lab) {
    lab.nft(
        "table inet reloaded
        delete table inet reloaded
        table inet reloaded {
            chain c {
                type filter hook forward priority -5; policy accept;
                ct state established counter accept
            }
        }",
    );
}

fn ban_by_rule(lab: &Lab, conn: Conn, field: &str, yes: bool) {
    let port = conn.flow().before.0.port();
    let table = format!("table inet ban_{field}_{port}");
    lab.nft(&if yes {
        format!(
            "{table} {{
                chain c {{
                    type filter hook forward priority -10; policy accept;
                    meta l4proto {{ tcp, udp }} th {field} {port} drop
                }}
            }}"
        )
    } else {
        format!("delete {table}")
    });
}

/// How many packets conntrack called invalid.
pub fn invalid_packets(lab: &Lab) -> u64 {
    lab.counter("inet rules", "invalid")
}

/// What is attached to the router's interfaces, as tools see it. Their order changes when one vanishes.
pub fn attached(lab: &Lab) -> String {
    let filters = "for i in lan0 wan0 dmz0; do tc filter show dev $i ingress; done";
    lab.router
        .sh(&format!("ip -o link | grep -o 'prog/xdp.*' || true; tc qdisc show | sort; {filters}"))
}

/// More UDP connections than a paused daemon's event queue can hold come and go.
pub fn flood(lab: &Lab) {
    let entry = |number: u32| {
        let (port, low) = (1024 + number % 60_000, number / 60_000 + 10);
        format!(
            "-I -p udp -s 192.0.2.{low} -d 203.0.113.9 --sport {port} --dport 9 -r 203.0.113.9 \
             -q 192.0.2.{low} --reply-port-src 9 --reply-port-dst {port} -t 60 -u SEEN_REPLY\n"
        )
    };
    for from in [0, 10_000, 20_000, 30_000] {
        let lines: String = (from..from + 10_000).map(entry).collect();
        lab.router.run_with_input(&["conntrack", "-R", "-"], &lines);
    }
    lab.conntrack(&["-D", "-p", "udp", "--dport", "9"]);
}
