// SPDX-License-Identifier: GPL-2.0-only
//! Interfaces in a VRF: its ports have routes of their own, in the VRF's table.

mod support;

use bpfw::abi;
use std::net::Ipv4Addr;
use support::lab::{CLIENT, Lab, ROUTER_LAN, ROUTER_WAN, SERVER};
use support::maps::Maps;
use support::netns::Namespace;
use support::router::*;
use support::rules::snat_rules;
use support::tcp::Path;
use support::trial::{Ends, try_both_protocols};

on_both_hooks!(
    hazard_49_between_ports_of_a_vrf,
    hazard_49_a_rule_drops_what_comes_in_by_the_vrf,
    hazard_49_the_same_addresses_in_two_vrfs_never_mix,
);

/// False, with the reason, where the kernel has no VRFs.
fn has_vrfs(test: &str) -> bool {
    let probe = Namespace::new("vrf-probe");
    let added = probe.try_run(&["sh", "-c", "ip link add red type vrf table 100"]);
    if !added.status.success() {
        support::live::lacking(test, "this kernel has no VRFs");
    }
    added.status.success()
}

/// A lab whose router has both interfaces in a VRF.
fn vrf_lab(hook: &str, test: &str) -> Option<Lab> {
    let name = test.trim_end_matches("-x").trim_end_matches("-t");
    if !has_vrfs(&format!("{name}::{hook}")) {
        return None;
    }
    // The forward chain sees the VRF in place of its port.
    let lab = lab(hook, test, &snat_rules().replace("iifname lan0", "iifname red"));
    enslave(&lab.router, "red", 100, &["lan0", "wan0"]);
    Some(lab)
}

fn enslave(router: &Namespace, vrf: &str, table: u32, ports: &[&str]) {
    router.ip(&format!("link add {vrf} type vrf table {table}\nlink set {vrf} up\n"));
    for port in ports {
        router.ip(&format!("link set {port} master {vrf}\n"));
    }
}

fn hazard_49_between_ports_of_a_vrf(hook: &str, test: &str) {
    let Some(lab) = vrf_lab(hook, test) else { return };
    let (_server, client) = echo(&lab, 40000);
    let path = Path::direct(at(SERVER, 5001));
    let ends = Ends { client: &lab.client, server: &lab.server };
    try_both_protocols(&lab, hook, client, path, ends);
}

fn hazard_49_a_rule_drops_what_comes_in_by_the_vrf(hook: &str, test: &str) {
    let Some(lab) = vrf_lab(hook, test) else { return };
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    lab.nft("insert rule ip rules forward iifname red oifname wan0 drop");
    std::thread::sleep(std::time::Duration::from_millis(250));
    let before = forwarded(&daemon);
    assert!(!client.echoes(1, std::time::Duration::from_millis(300)), "the rule drops it");
    assert_eq!(forwarded(&daemon), before, "none of it is fast");
}

/// Blue has the addresses of red: conntrack takes both for one connection, routing does not.
fn hazard_49_the_same_addresses_in_two_vrfs_never_mix(hook: &str, test: &str) {
    let Some(lab) = vrf_lab(hook, test) else { return };
    // A masqueraded connection that leaves by another interface is deleted (nf_nat_oif_changed).
    let snat = format!("snat to {ROUTER_WAN}");
    lab.nft(&snat_rules().replace("iifname lan0", "iifname red").replace("masquerade", &snat));
    let hosts = ["bluelan", "bluewan"].map(|role| Namespace::new(&format!("{role}-{test}")));
    let ends: [(&str, Ipv4Addr, Ipv4Addr); 2] =
        [("lan1", CLIENT, ROUTER_LAN), ("wan1", SERVER, ROUTER_WAN)];
    enslave(&lab.router, "blue", 101, &[]);
    for ((port, own, router), host) in ends.into_iter().zip(&hosts) {
        lab.router.ip(&format!(
            "link add {port} type veth peer name eth0 netns {}\nlink set {port} master blue\n\
             link set {port} up\naddr add {router}/24 dev {port}\n",
            host.name()
        ));
        host.ip(&format!(
            "link set eth0 up\naddr add {own}/24 dev eth0\nroute add default via {router}\n"
        ));
        host.sh("ethtool -K eth0 tx off tso off gso off gro on");
        lab.router.sh(&format!("ethtool -K {port} gro on"));
    }
    let daemon = start_at(&lab, hook, &[], &["lan0", "wan0", "lan1", "wan1"]);
    let (red, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let blue = support::udp::udp_echo(&hosts[1], ECHO);
    let twin = support::udp::UdpClient::open(&hosts[0], at(CLIENT, 40000), ECHO);
    let before = red.sources().len();
    for number in 0..20 {
        twin.echoes(number, std::time::Duration::from_millis(50));
    }
    assert_eq!(red.sources().len(), before, "no packet of blue's came out in red");
    assert!(!blue.sources().is_empty(), "the stack forwards them in blue");
    assert!(Maps::of(daemon.pid()).packets(abi::BPFW_PASS_INGRESS) > 0);
}
