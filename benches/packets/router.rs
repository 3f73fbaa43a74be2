// SPDX-License-Identifier: GPL-2.0-only
//! The router's routes and rules.

use super::plan::{Connections, Family, LAN_HOSTS, Nat, WAN_HOSTS};
use super::support::flow::ipv6_of;
use super::support::ipv6::{CLIENT6, SERVER6, add_ipv6};
use super::support::lab::{CLIENT, CLIENT_MAC, Lab, Offloads, SERVER, SERVER_MAC, show};
use super::support::netns::text;
use super::support::rules;
use super::way::{Layers, Way};

/// Seconds until conntrack and flow tables forget: longer than the benchmark.
const TIMEOUT: &str = "36000";

/// No entry ends before it had its turn.
pub fn let_entries_last(lab: &Lab) {
    for name in ["udp_timeout", "udp_timeout_stream", "tcp_timeout_unacknowledged"] {
        lab.router.sysctl(&format!("net/netfilter/nf_conntrack_{name}"), TIMEOUT);
    }
}

/// A router with hosts beyond its neighbors, and with nobody who counts packets; or why there is none.
pub fn lab(connections: Connections) -> Result<(Lab, Layers), String> {
    let Connections { family, nat, way, .. } = connections;
    let lab = Lab::new("bench", Offloads::Plain);
    let layers = if way == Way::Port {
        add_hosts(&lab, family);
        Layers::default()
    } else {
        way.lay(&lab)?
    };
    let_entries_last(&lab);
    let rules = match nat {
        Nat::None => rules::no_nat_rules(),
        Nat::Snat => rules::snat_rules(),
        Nat::Dnat => format!("{}{}", rules::no_nat_rules(), dnat()),
    };
    lab.nft(&of_family(&way.rules(&rules), family));
    lab.nft("delete table inet seen\n");
    Ok((lab, layers))
}

/// Routes to the hosts beyond the neighbors, who need not be asked for.
pub fn add_hosts(lab: &Lab, family: Family) {
    lab.static_neighbours();
    lab.router.ip(&format!(
        "route add {LAN_HOSTS}/16 via {CLIENT}\nroute add {WAN_HOSTS}/16 via {SERVER}\n"
    ));
    if family == Family::Ipv4 {
        return;
    }
    add_ipv6(lab);
    lab.nft("delete table ip6 tracked\n");
    let hosts =
        [(LAN_HOSTS, CLIENT6, CLIENT_MAC, "lan0"), (WAN_HOSTS, SERVER6, SERVER_MAC, "wan0")];
    for (hosts, via, mac, device) in hosts {
        let (hosts, mac) = (ipv6_of(hosts), show(mac));
        lab.router.ip(&format!(
            "route add {hosts}/112 via {via}\n\
             neigh replace {via} lladdr {mac} dev {device} nud permanent\n"
        ));
    }
}

/// Rules of IPv4's tables, for this family.
pub fn of_family(rules: &str, family: Family) -> String {
    rules.replace("table ip ", &format!("table {} ", family.table()))
}

/// All that the LAN sends to the WAN's hosts goes to the server.
fn dnat() -> String {
    format!(
        "table ip bench_nat {{
            chain prerouting {{
                type nat hook prerouting priority -100; policy accept;
                iifname lan0 ip daddr {WAN_HOSTS}/16 dnat to {SERVER}
            }}
        }}\n"
    )
}

/// Counts what the forward hook sees, which a fast path gets around.
pub fn count_slow(lab: &Lab) {
    lab.nft(
        "table inet bench {
            counter slow { }
            chain forward {
                type filter hook forward priority -10; policy accept;
                counter name slow
            }
        }\n",
    );
}

/// Packets that took the slow path since `count_slow`.
pub fn slow_packets(lab: &Lab) -> u64 {
    lab.counter("inet bench", "slow")
}

/// The kernel's own flow table between the router's interfaces; says why where there is none.
pub fn add_flowtable(lab: &Lab, connections: Connections) -> Result<(), String> {
    let devices = connections.way.flow_devices().join(", ");
    let ruleset = format!(
        "table {} bench_flow {{
            flowtable fast {{ hook ingress priority 0; devices = {{ {devices} }}; }}
            chain forward {{
                type filter hook forward priority -20; policy accept;
                meta l4proto {{ tcp, udp }} flow add @fast
            }}
        }}",
        connections.family.table()
    );
    let output = lab.router.try_run(&["nft", &ruleset]);
    if !output.status.success() {
        let errors = text(&output.stderr);
        return Err(errors.lines().next().unwrap_or("refused").to_owned());
    }
    for protocol in ["tcp", "udp"] {
        lab.router.sysctl(&format!("net/netfilter/nf_flowtable_{protocol}_timeout"), TIMEOUT);
    }
    Ok(())
}
