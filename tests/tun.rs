// SPDX-License-Identifier: GPL-2.0-only
//! Interfaces without an Ethernet header, by the example of tun: in, out, and from one to another.

mod support;

use support::lab::{CLIENT, Lab, SERVER};
use support::live::root_or_skip;
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::tcp::{Direction, Path, TcpPair};
use support::tun::{TunCable, join_lan, join_wan};

/// A lab whose WAN is a tun, and its LAN, too, if both are to be.
fn tun_lab(test: &str, rules: &str, both: bool) -> (Lab, Vec<TunCable>) {
    let lab = lab("tc", test, rules);
    let mut cables = vec![join_wan(&lab)];
    if both {
        cables.push(join_lan(&lab));
    }
    (lab, cables)
}

const BYTES: u64 = 16 << 20;

/// UDP echoes, then TCP both ways, all on the fast path and intact.
fn both_protocols(test: &str, rules: &str, both: bool) {
    if !root_or_skip(test) {
        return;
    }
    let (lab, _cables) = tun_lab(test, rules, both);
    let daemon = start(&lab, "tc", &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let before = lab.stack_packets();
    assert_eq!(client.count_echoes(0..50, LIMIT), 50);
    assert_eq!(lab.stack_packets(), before, "all 50 took the fast path");

    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    wait_until_tcp_fast(&lab, &pair);
    let (before, counted) = (lab.stack_packets(), forwarded(&daemon));
    for (direction, seed) in [(Direction::ToServer, 1), (Direction::ToClient, 2)] {
        pair.transfer(direction, BYTES, seed);
    }
    let (stack, fast) = (lab.stack_packets() - before, forwarded(&daemon) - counted);
    println!("{fast} packets on the fast path, {stack} by the stack");
    assert!(stack * 99 <= fast, "{stack} of {fast} packets went by the stack");
    assert!(fast < 2 * 2 * BYTES / 1400, "aggregated packets stay whole");
    assert_eq!(client.socket().local_addr().unwrap().ip(), CLIENT);
    assert!(daemon.stop(LIMIT).success());
}

#[test]
fn hazard_38_between_ethernet_and_tun_with_snat() {
    both_protocols("tun-snat", &snat_rules(), false);
}

#[test]
fn hazard_38_between_ethernet_and_tun_without_nat() {
    both_protocols("tun-plain", &no_nat_rules(), false);
}

#[test]
fn hazard_38_from_tun_to_tun_with_snat() {
    both_protocols("tuns-snat", &snat_rules(), true);
}

#[test]
fn hazard_38_from_tun_to_tun_without_nat() {
    both_protocols("tuns-plain", &no_nat_rules(), true);
}
