// SPDX-License-Identifier: GPL-2.0-only
//! What must go by the network stack where interfaces have no Ethernet header, and what needs not.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use support::lab::{CLIENT, CLIENT_MAC, show};
use support::live::root_or_skip;
use support::maps::Maps;
use support::packet::Packet;
use support::raw_end::{RawEnd, Sample};
use support::raw_lab::{Lan, RawLab, TCP, UDP};
use support::router::*;
use support::wait::eventually;

const SOON: Duration = Duration::from_millis(500);
const ICMP: u8 = 1;
const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;

/// A lab with a connection that is open, not translated.
fn open_lab(test: &str, lan: Lan, protocol: u8) -> Option<RawLab> {
    root_or_skip(test).then(|| {
        let lab = RawLab::new(test, lan, false, protocol);
        lab.open();
        lab
    })
}

/// The end that a direction's packets come from hears of them by this ICMP error.
fn hears_of(from: &RawEnd, sample: impl Into<Sample>, kind: u8) -> bool {
    from.send(&sample.into());
    from.next(SOON, |ip| ip.get(9) == Some(&ICMP) && ip.get(20) == Some(&kind)).is_some()
}

/// A packet with so much payload, which a NIC is to split into segments of this size.
fn aggregate(packet: Packet, length: usize, gso_size: u16) -> Sample {
    let packet = packet.payload(&vec![7; length]).partial_l4_checksum();
    Sample { packet, unfinished: true, gso_size }
}

fn the_last_hop_of_a_packet(test: &str, lan: Lan) {
    let Some(lab) = open_lab(test, lan, UDP) else { return };
    let _daemon = lab.start();
    for reply in [false, true] {
        let from = if reply { &lab.server } else { &lab.client };
        assert!(hears_of(from, lab.packet(reply).ttl(1), TIME_EXCEEDED), "reply: {reply}");
        lab.pass(reply, 7, lab.packet(reply).ttl(2));
    }
}

#[test]
fn hazard_10_a_ttl_of_1_is_answered_between_ethernet_and_tun() {
    the_last_hop_of_a_packet("tun-ttl", Lan::Ethernet);
}

#[test]
fn hazard_10_a_ttl_of_1_is_answered_between_tuns() {
    the_last_hop_of_a_packet("tuns-ttl", Lan::Tun);
}

/// The tun's MTU, then that of a route through it, then none again.
#[test]
fn hazard_39_the_mtu_is_the_interfaces_and_the_routes() {
    let Some(lab) = open_lab("tun-mtu", Lan::Ethernet, TCP) else { return };
    let daemon = lab.start();
    let fits = |size: usize| {
        let fast = forwarded(&daemon);
        let id = u16::try_from(size).expect("small");
        lab.pass(false, id, lab.packet(false).df(true).payload(&vec![1; size - 40]));
        forwarded(&daemon) > fast
    };
    let is_too_large = |size: usize| {
        let packet = lab.packet(false).df(true).payload(&vec![1; size - 40]);
        hears_of(&lab.client, packet, UNREACHABLE)
    };
    assert!(fits(1500));
    for change in ["link set wan0 mtu 1300", "route add 198.51.100.2 dev wan0 mtu 1300"] {
        lab.lab.router.ip(&format!("{change}\n"));
        eventually(LIMIT, "the new MTU counts", || is_too_large(1301));
        eventually(LIMIT, "what fits is fast", || fits(1300));
        let large = aggregate(lab.packet(false), 2 * 1261, 1261);
        assert!(hears_of(
            &lab.client,
            Sample { packet: large.packet.df(true), ..large },
            UNREACHABLE
        ));
        let fast = forwarded(&daemon);
        let whole = lab.pass(false, 0x5000, aggregate(lab.packet(false).df(true), 2 * 1260, 1260));
        assert_eq!((whole.gso_size, forwarded(&daemon)), (1260, fast + 1));
        lab.lab.router.ip("link set wan0 mtu 1500\n");
    }
}

/// The kernel keeps an entry for all of a tun's neighbors, which is no neighbor's.
#[test]
fn hazard_39_no_neighbor_is_needed_at_a_tun() {
    let Some(lab) = open_lab("tun-neighbor", Lan::Ethernet, UDP) else { return };
    let daemon = lab.start();
    lab.lab.router.run(&["ip", "neigh", "flush", "dev", "wan0", "nud", "all"]);
    eventually(LIMIT, "both directions are fast", || {
        let fast = forwarded(&daemon);
        lab.pass(false, 6, lab.packet(false));
        lab.pass(true, 7, lab.packet(true));
        forwarded(&daemon) == fast + 2
    });
    let maps = Maps::of(daemon.pid());
    let hop = |conn: &bpfw::abi::bpfw_conn| maps.hop((conn.cell.hop_word >> 32) as u32);
    let hops: Vec<_> = maps.connections().iter().map(hop).collect();
    let mut neighbors: Vec<IpAddr> = hops.iter().map(|hop| hop.neighbor()).collect();
    neighbors.sort();
    assert_eq!(
        neighbors,
        [IpAddr::from(Ipv4Addr::UNSPECIFIED), CLIENT.into()],
        "the tun's is none's"
    );
}

/// The host at the Ethernet side vanishes: the stack looks for it.
#[test]
fn hazard_08_a_neighbor_behind_ethernet_is_needed() {
    let Some(lab) = open_lab("tun-gone", Lan::Ethernet, UDP) else { return };
    let daemon = lab.start();
    lab.lab.router.ip(&format!("neigh del {CLIENT} dev lan0\n"));
    eventually(LIMIT, "the stack asks for the neighbor", || {
        let fast = forwarded(&daemon);
        lab.server.send(&lab.packet(true).into());
        std::thread::sleep(SOON / 10);
        forwarded(&daemon) == fast
    });
    let mac = show(CLIENT_MAC);
    lab.lab.router.ip(&format!("neigh replace {CLIENT} lladdr {mac} dev lan0 nud permanent\n"));
    eventually(LIMIT, "it is fast again", || {
        let fast = forwarded(&daemon);
        lab.pass(true, 8, lab.packet(true));
        forwarded(&daemon) > fast
    });
}

/// Answers are dropped, from before the start or from later on: none of them is forwarded.
fn a_rule_that_drops(test: &str, lan: Lan, from_the_start: bool) {
    let Some(lab) = open_lab(test, lan, UDP) else { return };
    let daemon = if from_the_start {
        lab.lab.nft(BAN);
        start(&lab.lab, "tc", &[])
    } else {
        let daemon = lab.start();
        lab.lab.nft(BAN);
        // The rule's event takes the daemon no longer than that.
        std::thread::sleep(SOON);
        daemon
    };
    let goes_fast = |reply, id| {
        let fast = forwarded(&daemon);
        lab.pass(reply, id, lab.packet(reply));
        forwarded(&daemon) > fast
    };
    eventually(LIMIT, "the other direction is fast", || goes_fast(false, 9));
    let fast = forwarded(&daemon);
    for id in 20..40 {
        lab.server.send(&lab.packet(true).id(id).into());
    }
    assert!(lab.client.next(SOON, |ip| ip.get(5).is_some_and(|id| *id >= 20)).is_none());
    assert_eq!(forwarded(&daemon), fast, "packets that rules drop prove nothing");
    lab.lab.nft("delete table ip ban");
    eventually(LIMIT, "both directions are fast", || goes_fast(false, 10) && goes_fast(true, 11));
}

const BAN: &str = "table ip ban {
    chain c {
        type filter hook forward priority -10; policy accept;
        ip saddr 198.51.100.2 drop
    }
}";

#[test]
fn hazard_55_rules_that_drop_count_between_ethernet_and_tun() {
    a_rule_that_drops("tun-ban", Lan::Ethernet, true);
}

#[test]
fn hazard_56_a_new_drop_counts_between_ethernet_and_tun() {
    a_rule_that_drops("tun-new-ban", Lan::Ethernet, false);
}

#[test]
fn hazard_55_rules_that_drop_count_between_tuns() {
    a_rule_that_drops("tuns-ban", Lan::Tun, true);
}

#[test]
fn hazard_56_a_new_drop_counts_between_tuns() {
    a_rule_that_drops("tuns-new-ban", Lan::Tun, false);
}
