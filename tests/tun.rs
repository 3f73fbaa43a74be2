// SPDX-License-Identifier: GPL-2.0-only
//! Interfaces without an Ethernet header: tun, PPP and WireGuard. In, out, and from one to another.

mod support;

use support::lab::{Lab, ROUTER_LAN, ROUTER_LAN_MAC, show};
use support::live::root_or_skip;
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::tcp::{Direction, Path, TcpPair};
use support::tun::{TunCable, join_lan, join_wan};
use support::tunnels::{pppoe_or_skip, wan_by_pppoe, wan_by_wireguard, wireguard_or_skip};

/// A lab whose WAN is a tun, and its LAN, too, if both are to be.
fn tun_lab(test: &str, rules: &str, both: bool) -> (Lab, Vec<TunCable>) {
    let lab = lab("tc", test, rules);
    let mut cables = vec![join_wan(&lab)];
    if both {
        cables.push(join_lan(&lab));
    }
    (lab, cables)
}

const BYTES: u64 = 8 << 20;

/// UDP echoes, then TCP both ways, all on the fast path and intact. How many packets these were.
fn both_protocols(lab: &Lab) -> u64 {
    let daemon = start(lab, "tc", &[]);
    let (_server, client) = echo(lab, 40000);
    wait_until_fast(lab, &client);
    let before = lab.stack_packets();
    assert_eq!(client.count_echoes(0..50, LIMIT), 50);
    assert_eq!(lab.stack_packets(), before, "all 50 took the fast path");

    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(ECHO));
    wait_until_tcp_fast(lab, &pair);
    let (before, counted) = (lab.stack_packets(), forwarded(&daemon));
    for (direction, seed) in [(Direction::ToServer, 1), (Direction::ToClient, 2)] {
        pair.transfer(direction, BYTES, seed);
    }
    let (stack, fast) = (lab.stack_packets() - before, forwarded(&daemon) - counted);
    println!("{fast} packets on the fast path, {stack} by the stack");
    assert!(stack * 99 <= fast, "{stack} of {fast} packets went by the stack");
    assert!(daemon.stop(LIMIT).success());
    fast
}

fn tuns(test: &str, rules: &str, both: bool) {
    if !root_or_skip(test) {
        return;
    }
    let (lab, _cables) = tun_lab(test, rules, both);
    assert!(both_protocols(&lab) < 2 * BYTES / 1400, "aggregated packets stay whole");
}

#[test]
fn hazard_38_between_ethernet_and_tun_with_snat() {
    tuns("tun-snat", &snat_rules(), false);
}

#[test]
fn hazard_38_between_ethernet_and_tun_without_nat() {
    tuns("tun-plain", &no_nat_rules(), false);
}

#[test]
fn hazard_38_from_tun_to_tun_with_snat() {
    tuns("tuns-snat", &snat_rules(), true);
}

#[test]
fn hazard_38_from_tun_to_tun_without_nat() {
    tuns("tuns-plain", &no_nat_rules(), true);
}

/// The LAN is a bridge, which is named itself; its port is the cable to the client.
#[test]
fn hazard_38_between_a_bridge_and_tun() {
    if !root_or_skip("tun-bridge") {
        return;
    }
    let (lab, _cables) = tun_lab("tun-bridge", &snat_rules(), false);
    let mac = show(ROUTER_LAN_MAC);
    lab.router.ip(&format!(
        "link set lan0 down\naddr flush dev lan0\nlink set lan0 name port0\n\
         link add lan0 address {mac} type bridge\nlink set port0 master lan0 up\n\
         addr add {ROUTER_LAN}/24 dev lan0\nlink set lan0 up\n"
    ));
    both_protocols(&lab);
}

fn pppoe(test: &str, rules: &str) {
    if !pppoe_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, rules);
    let _sessions = wan_by_pppoe(&lab);
    both_protocols(&lab);
}

#[test]
fn hazard_40_between_ethernet_and_pppoe_with_snat() {
    pppoe("ppp-snat", &snat_rules());
}

#[test]
fn hazard_40_between_ethernet_and_pppoe_without_nat() {
    pppoe("ppp-plain", &no_nat_rules());
}

fn wireguard(test: &str, rules: &str) {
    if !wireguard_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, rules);
    wan_by_wireguard(&lab);
    both_protocols(&lab);
}

#[test]
fn hazard_38_between_ethernet_and_wireguard_with_snat() {
    wireguard("wg-snat", &snat_rules());
}

#[test]
fn hazard_38_between_ethernet_and_wireguard_without_nat() {
    wireguard("wg-plain", &no_nat_rules());
}
