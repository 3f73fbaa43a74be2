// SPDX-License-Identifier: GPL-2.0-only
//! ICMP redirects: of packets that go out by the interface they came in at, the stack tells the sender a
//! shorter way (`__mkroute_input` in net/ipv4/route.c).

mod support;

use bpfw::abi;
use std::net::Ipv4Addr;
use std::time::Duration;
use support::lab::{CLIENT, HOST2, Lab, ROUTER_LAN};
use support::maps::Maps;
use support::netns::text;
use support::router::*;
use support::rules;
use support::udp::{UdpClient, udp_echo};

on_both_hooks!(hazard_52_senders_hear_of_shorter_ways);

/// An address behind the second host of the LAN.
const BEHIND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The kernel waits longer after each redirect, 20 ms at first; so there are some six in this time.
const LISTEN: Duration = Duration::from_millis(1_500);

/// The client sends to an address behind its neighbor by way of the router, and never does as it is told.
fn one_armed(hook: &str, test: &str) -> Lab {
    let lab = Lab::with_switch(test, offloads(hook));
    lab.nft(&rules::no_nat_rules().replace("iifname lan0", "iifname lan0 accept\niifname lan0"));
    lab.host2().ip(&format!("addr add {BEHIND}/32 dev eth0\n"));
    lab.host2().ip(&format!("route add {CLIENT}/32 via {ROUTER_LAN}\n"));
    lab.router.ip(&format!("route add {BEHIND}/32 via {HOST2}\n"));
    for host in [&lab.client, lab.host2()] {
        host.sysctl("net/ipv4/conf/all/accept_redirects", "0");
        host.sysctl("net/ipv4/conf/eth0/accept_redirects", "0");
    }
    lab
}

/// Redirects that the router has sent while the client and its peer talk.
fn redirects(lab: &Lab, client: &UdpClient) -> u64 {
    let sent = || {
        let snmp = text(&lab.router.run(&["cat", "/proc/net/snmp"]).stdout);
        let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Icmp: "));
        let [names, values] =
            [lines.next(), lines.next()].map(|line| line.expect("a line of ICMP"));
        let mut both = names.split(' ').zip(values.split(' '));
        let (_, value) = both.find(|(name, _)| *name == "OutRedirects").expect("the counter");
        value.parse::<u64>().expect("a number")
    };
    let before = sent();
    let started = std::time::Instant::now();
    let mut number = 0;
    while started.elapsed() < LISTEN {
        assert!(client.echoes(number, LIMIT));
        number += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    sent() - before
}

fn hazard_52_senders_hear_of_shorter_ways(hook: &str, test: &str) {
    let talk = |which: &str, with_bpfw: bool| {
        let lab = one_armed(hook, &format!("{test}{which}"));
        let daemon = with_bpfw.then(|| start(&lab, hook, &[]));
        let _server = udp_echo(lab.host2(), at(BEHIND, 7));
        let client = UdpClient::open(&lab.client, at(CLIENT, 40000), at(BEHIND, 7));
        // Until conntrack calls it a stream, so that nothing else keeps it from the fast path.
        std::thread::sleep(Duration::from_millis(10));
        let heard = redirects(&lab, &client);
        let passed = daemon.map(|daemon| {
            wait_until_offloaded(&daemon, 1);
            Maps::of(daemon.pid()).packets(abi::BPFW_PASS_SAME_LINK)
        });
        (heard, passed)
    };
    let (stack, _) = talk("k", false);
    let (bpfw, passed) = talk("b", true);
    println!("{hook}: {stack} redirects by the stack alone, {bpfw} with bpfw");
    assert!(stack >= 4, "{stack} redirects by the stack alone");
    assert!(bpfw >= stack - 1, "{bpfw} redirects instead of {stack}");
    assert!(
        passed.is_some_and(|packets| packets > 100),
        "{passed:?} packets are left to the stack"
    );
}
