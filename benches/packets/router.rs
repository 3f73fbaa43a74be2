// SPDX-License-Identifier: GPL-2.0-only
//! The router's routes and rules.

use super::plan::{LAN_HOSTS, Nat, WAN_HOSTS};
use super::support::lab::{CLIENT, Lab, Offloads, SERVER};
use super::support::netns::text;
use super::support::rules;

/// Seconds until conntrack and flow tables forget: longer than the benchmark.
const TIMEOUT: &str = "36000";

/// No entry ends before it had its turn.
pub fn let_entries_last(lab: &Lab) {
    for name in ["udp_timeout", "udp_timeout_stream", "tcp_timeout_unacknowledged"] {
        lab.router.sysctl(&format!("net/netfilter/nf_conntrack_{name}"), TIMEOUT);
    }
}

/// A router with hosts beyond its neighbors, and with nobody who counts packets.
pub fn lab(nat: Nat) -> Lab {
    let lab = Lab::new("bench", Offloads::Plain);
    lab.static_neighbours();
    lab.router.ip(&format!(
        "route add {LAN_HOSTS}/16 via {CLIENT}\nroute add {WAN_HOSTS}/16 via {SERVER}\n"
    ));
    let_entries_last(&lab);
    lab.nft(&match nat {
        Nat::None => rules::no_nat_rules(),
        Nat::Snat => rules::snat_rules(),
        Nat::Dnat => format!("{}{}", rules::no_nat_rules(), dnat()),
    });
    lab.nft("delete table inet seen\n");
    lab
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
        "table ip bench {
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
    lab.counter("ip bench", "slow")
}

/// The kernel's own flow table between the router's interfaces; says why where there is none.
pub fn add_flowtable(lab: &Lab) -> Result<(), String> {
    let ruleset = "table ip bench_flow {
        flowtable fast { hook ingress priority 0; devices = { lan0, wan0 }; }
        chain forward {
            type filter hook forward priority -20; policy accept;
            meta l4proto { tcp, udp } flow add @fast
        }
    }";
    let output = lab.router.try_run(&["nft", ruleset]);
    if !output.status.success() {
        let errors = text(&output.stderr);
        return Err(errors.lines().next().unwrap_or("refused").to_owned());
    }
    for protocol in ["tcp", "udp"] {
        lab.router.sysctl(&format!("net/netfilter/nf_flowtable_{protocol}_timeout"), TIMEOUT);
    }
    Ok(())
}
