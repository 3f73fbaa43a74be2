// SPDX-License-Identifier: GPL-2.0-only
//! Interfaces that vanish and come back, change their names or bridges, or match a pattern: what was named
//! stays wanted.

mod support;

use std::time::Duration;
use support::daemon::Daemon;
use support::lab::{CLIENT, CLIENT_MAC, Lab, ROUTER_LAN, ROUTER_LAN_MAC, show};
use support::netns::Namespace;
use support::router::*;
use support::rules::snat_rules;
use support::udp::{UdpClient, UdpEcho};
use support::wait::{becomes_true, eventually};

on_both_hooks!(
    hazard_41_an_interface_that_comes_again_is_attached_to_again,
    hazard_41_twenty_times_under_traffic_leak_nothing,
    hazard_41_a_name_that_another_interface_gets_is_that_one,
    hazard_41_an_interface_that_was_in_another_namespace_is_back,
    patterns_take_interfaces_that_come_later,
);

/// The far end of lan0 stays the client's eth0.
fn make_lan0(lab: &Lab, hook: &str) {
    lab.router.ip(&format!(
        "link add lan0 address {} type veth peer name eth0 address {} netns {}\nlink set lan0 up\n\
         addr add {ROUTER_LAN}/24 dev lan0\n",
        show(ROUTER_LAN_MAC),
        show(CLIENT_MAC),
        lab.client.name()
    ));
    lab.client.ip(&format!(
        "link set eth0 up\naddr add {CLIENT}/24 dev eth0\nroute add default via {ROUTER_LAN}\n"
    ));
    if hook == "xdp" {
        lab.client.sh("ethtool -K eth0 tx off tso off gso off gro on");
        lab.router.sh("ethtool -K lan0 gro on");
    }
}

/// A stream that is fast; the server's end, and the client's.
fn fast(lab: &Lab, port: u16) -> (UdpEcho, UdpClient) {
    let (server, client) = echo(lab, port);
    wait_until_fast(lab, &client);
    (server, client)
}

/// An echo comes back by the fast path, within the time that any test here waits.
fn is_fast_again(lab: &Lab, client: &UdpClient, what: &str) {
    let mut number = 2_000_000;
    eventually(LIMIT, what, || {
        number += 1;
        let before = lab.stack_packets();
        client.echoes(number, Duration::from_millis(50)) && lab.stack_packets() == before
    });
}

fn open_files(daemon: &Daemon) -> usize {
    let path = format!("/proc/{}/fd", daemon.pid());
    std::fs::read_dir(path).expect("the daemon runs").count()
}

fn hazard_41_an_interface_that_comes_again_is_attached_to_again(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let (server, client) = fast(&lab, 40000);
    drop(client);
    lab.router.ip("link del lan0\n");
    daemon.wait_for_line("lan0: the interface is gone", LIMIT);
    make_lan0(&lab, hook);
    daemon.wait_for_line("packets of lan0 are forwarded again", LIMIT);
    let client = UdpClient::open(&lab.client, at(CLIENT, 40001), ECHO);
    wait_until_fast(&lab, &client);
    assert!(!server.sources().is_empty());
    assert!(daemon.stop(LIMIT).success());
}

/// Connections survive: conntrack keeps them, and the new interface has the old addresses.
fn hazard_41_twenty_times_under_traffic_leak_nothing(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let (_server, client) = fast(&lab, 40000);
    drop(client);
    let mut files = 0;
    for time in 0..20 {
        lab.router.ip("link del lan0\n");
        make_lan0(&lab, hook);
        let client = UdpClient::open(&lab.client, at(CLIENT, 40000), ECHO);
        is_fast_again(&lab, &client, &format!("fast again, time {time}"));
        if time == 0 {
            files = open_files(&daemon);
        }
    }
    assert_eq!(open_files(&daemon), files, "links of interfaces that are gone are closed");
    assert!(daemon.stop(LIMIT).success());
}

/// The user's word is the name.
fn hazard_41_a_name_that_another_interface_gets_is_that_one(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let (_server, client) = fast(&lab, 40000);
    lab.router.ip("link set lan0 name other\n");
    daemon.wait_for_line("lan0: the interface is gone", LIMIT);
    lab.nft("insert rule ip rules forward iifname other accept");
    let before = forwarded(&daemon);
    assert_eq!(client.count_echoes(0..20, LIMIT), 20, "the stack forwards");
    assert_eq!(forwarded(&daemon), before, "nobody named it");
    lab.router.ip("link set other name lan0\n");
    is_fast_again(&lab, &client, "it has its name again");
    assert!(daemon.stop(LIMIT).success());
}

fn hazard_41_an_interface_that_was_in_another_namespace_is_back(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let (_server, client) = fast(&lab, 40000);
    let away = Namespace::new(&format!("away-{test}"));
    lab.router.ip(&format!("link set lan0 netns {}\n", away.name()));
    daemon.wait_for_line("lan0: the interface is gone", LIMIT);
    away.ip("link set lan0 up\n");
    let programs = away.sh("ip -d link show lan0; tc filter show dev lan0 ingress");
    assert!(
        !programs.contains("prog/xdp") && !programs.contains("bpfw_"),
        "nothing of ours goes along: {programs}"
    );
    away.ip(&format!("link set lan0 netns {}\n", lab.router.name()));
    lab.router.ip(&format!("link set lan0 up\naddr add {ROUTER_LAN}/24 dev lan0\n"));
    is_fast_again(&lab, &client, "it is back");
    assert!(daemon.stop(LIMIT).success());
}

fn patterns_take_interfaces_that_come_later(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.ip("link del lan0\n");
    let options = ["--log-level", "info"];
    let daemon = start_at(&lab, hook, &options, &["lan?", "docker*", "!lan7", "wan0"]);
    make_lan0(&lab, hook);
    let client = UdpClient::open(&lab.client, at(CLIENT, 40000), ECHO);
    let _server = support::udp::udp_echo(&lab.server, ECHO);
    wait_until_fast(&lab, &client);
    lab.router.ip("link add lan7 type veth peer name p7\nlink set lan7 up\nlink set p7 up\n");
    lab.router.ip("link add lan8 type veth peer name p8\nlink set lan8 up\nlink set p8 up\n");
    daemon.wait_for_line("attached to lan8 ", LIMIT);
    assert!(!daemon.lines().iter().any(|line| line.contains("lan7")), "it is an exception");
    assert!(daemon.stop(LIMIT).success());
}

/// As the first bpfw's own example has it: ports of a bridge are named.
#[test]
fn hazard_50_a_port_stands_for_its_bridge_until_it_leaves() {
    if !support::live::root_or_skip("hazard_50_a_port_stands_for_its_bridge_until_it_leaves") {
        return;
    }
    let lab = lab("tc", "ports", &snat_rules().replace("iifname lan0", "iifname { lan0, br-lan }"));
    lab.router.ip(&format!(
        "link add lan1 type veth peer name p1\nlink set lan1 up\nlink set p1 up\n\
         addr flush dev lan0\nlink add br-lan address {} type bridge\n\
         link set lan0 master br-lan\nlink set lan1 master br-lan\nlink set br-lan up\n\
         addr add {ROUTER_LAN}/24 dev br-lan\n",
        show(ROUTER_LAN_MAC)
    ));
    let daemon = start_at(&lab, "tc", &["--log-level", "info"], &["lan0", "lan1", "wan0"]);
    daemon.wait_for_line("packets of the port lan0 are forwarded at br-lan", LIMIT);
    let (_server, client) = fast(&lab, 40000);
    let attached = |name: &str| {
        daemon.lines().iter().any(|line| line.contains(&format!("attached to {name} ")))
    };
    assert!(attached("br-lan") && !attached("lan0") && !attached("lan1"));
    lab.router.ip(&format!(
        "link set lan0 nomaster\naddr flush dev br-lan\naddr add {ROUTER_LAN}/24 dev lan0\n"
    ));
    is_fast_again(&lab, &client, "the port is an interface of its own now");
    assert!(becomes_true(LIMIT, || attached("lan0")));
    lab.router.ip("link set lan1 nomaster\n");
    daemon.wait_for_line("attached to lan1 ", LIMIT);
    assert!(daemon.stop(LIMIT).success());
}

#[test]
fn hazard_50_xdp_says_what_it_cannot_do_at_a_port() {
    let test = "hazard_50_xdp_says_what_it_cannot_do_at_a_port";
    if !support::router::xdp_or_skip(test) {
        return;
    }
    let lab = lab("xdp", "xdp-port", &snat_rules());
    lab.router.ip("link add br-lan type bridge\nlink set lan0 master br-lan\nlink set br-lan up\n");
    let daemon = start_at(&lab, "xdp", &["--log-level", "info"], &["lan0", "wan0"]);
    daemon.wait_for_line("packets of lan0 stay with the stack: it is part of a bridge", LIMIT);
    assert!(!lab.router.sh("ip link show lan0").contains("prog/xdp"), "nothing without effect");
    lab.router.ip(&format!("link set lan0 nomaster\naddr replace {ROUTER_LAN}/24 dev lan0\n"));
    daemon.wait_for_line("packets of lan0 are forwarded again", LIMIT);
    let (_server, _client) = fast(&lab, 40000);
    let mark = daemon.mark();
    lab.router.ip("link set lan0 master br-lan\n");
    daemon.wait_for_line_after(mark, "packets of lan0 stay with the stack", LIMIT);
    assert!(!lab.router.sh("ip link show lan0").contains("prog/xdp"), "again a port");
}

/// A driver refuses XDP at this MTU. At the start that is an error, later a reason to try again.
#[test]
fn hazard_41_what_cannot_be_attached_to_is_tried_again() {
    let test = "hazard_41_what_cannot_be_attached_to_is_tried_again";
    if !support::router::xdp_or_skip(test) {
        return;
    }
    let lab = lab("xdp", "again", &snat_rules());
    let options = ["--log-level", "info", "--xdp-mode", "native"];
    let daemon = start_at(&lab, "xdp", &options, &["lan?", "wan0"]);
    lab.router.ip(
        "link add lan8 mtu 9000 type veth peer name p8 mtu 9000\nlink set lan8 up\nlink set p8 up\n",
    );
    daemon.wait_for_line(
        "packets of lan8 stay with the stack: bpfw's programs could not be attached to it",
        LIMIT,
    );
    let (_server, _client) = fast(&lab, 40000);
    lab.router.ip("link set lan8 mtu 1500\nlink set p8 mtu 1500\n");
    daemon.wait_for_line("attached to lan8 ", LIMIT);
    assert!(daemon.stop(LIMIT).success());
}
