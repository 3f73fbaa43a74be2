// SPDX-License-Identifier: GPL-2.0-only
//! Others at the router's interfaces: their filters, programs and qdiscs go on working.

mod support;

use bpfw::datapath::sys::AttachType;
use std::time::Instant;
use support::bystander::{Bystander, add_filter, filtered};
use support::daemon::Daemon;
use support::lab::Lab;
use support::router::*;
use support::rules::snat_rules;
use support::udp::UdpClient;
use support::wait::eventually;

on_both_hooks!(
    hazard_31_an_earlier_filter_sees_every_packet,
    hazard_31_a_later_filter_sees_every_packet,
    hazard_31_an_earlier_tcx_program_sees_every_packet,
    hazard_31_a_later_tcx_program_sees_every_packet,
    hazard_31_egress_handlers_see_every_packet,
    hazard_31_a_filter_that_takes_packets_away_gets_them,
);

const ECHOES: u64 = 50;

/// Sends echoes, none of which may be lost; `seen` must count each of them.
fn all_are_seen(client: &UdpClient, seen: impl Fn() -> u64) {
    let before = seen();
    for number in 0..ECHOES {
        assert!(client.echoes(number, LIMIT), "echo {number} is lost");
    }
    assert_eq!(seen() - before, ECHOES, "packets went by unseen");
}

/// What bpfw does about others: TC goes behind them, XDP leaves the interface to the stack.
fn wait_until_heeded(daemon: &Daemon, hook: &str, mark: usize) {
    let line = if hook == "tc" { "going behind others at TC" } else { "stay with the stack" };
    daemon.wait_for_line_after(mark, line, LIMIT);
}

/// TC is as fast as before, and XDP passes everything up.
fn expect_path(hook: &str, lab: &Lab, client: &UdpClient) {
    if hook == "tc" {
        wait_until_fast(lab, client);
    } else {
        assert!(!echo_is_fast(lab, client, 70), "XDP must not take packets away");
    }
}

fn hazard_31_an_earlier_filter_sees_every_packet(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    add_filter(&lab.router, "lan0", "ingress", 5);
    let daemon = start(&lab, hook, &[]);
    if hook == "xdp" {
        let line = daemon.wait_for_line("packets of lan0 stay with the stack", LIMIT);
        assert!(
            line.contains("the TC filter u32 of priority 5") && line.contains("use the hook tc")
        );
    }
    let (_server, client) = echo(&lab, 40000);
    all_are_seen(&client, || filtered(&lab.router, "lan0", "ingress"));
    wait_until_offloaded(&daemon, 1);
    expect_path(hook, &lab, &client);
    all_are_seen(&client, || filtered(&lab.router, "lan0", "ingress"));
    lab.router.sh("tc filter del dev lan0 ingress prio 5");
    wait_until_fast(&lab, &client);
}

fn hazard_31_a_later_filter_sees_every_packet(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let mark = daemon.mark();
    add_filter(&lab.router, "lan0", "ingress", 5);
    let added = Instant::now();
    wait_until_heeded(&daemon, hook, mark);
    println!("{hook}: heeded {:?} after it was added", added.elapsed());
    all_are_seen(&client, || filtered(&lab.router, "lan0", "ingress"));
    expect_path(hook, &lab, &client);
    all_are_seen(&client, || filtered(&lab.router, "lan0", "ingress"));
    // As SQM ends: the qdisc goes, with the filters of all.
    lab.router.sh("tc qdisc del dev lan0 clsact");
    wait_until_fast(&lab, &client);
    assert!(daemon.stop(LIMIT).success());
}

fn hazard_31_an_earlier_tcx_program_sees_every_packet(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let bystander = Bystander::load();
    let link = bystander.attach(&lab.router, "lan0", AttachType::TcxIngress);
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    all_are_seen(&client, || bystander.seen());
    wait_until_offloaded(&daemon, 1);
    expect_path(hook, &lab, &client);
    all_are_seen(&client, || bystander.seen());
    drop(link);
    wait_until_fast(&lab, &client);
}

fn hazard_31_a_later_tcx_program_sees_every_packet(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let (mark, bystander) = (daemon.mark(), Bystander::load());
    let link = bystander.attach(&lab.router, "lan0", AttachType::TcxIngress);
    let added = Instant::now();
    wait_until_heeded(&daemon, hook, mark);
    println!("{hook}: heeded {:?} after it was attached", added.elapsed());
    all_are_seen(&client, || bystander.seen());
    expect_path(hook, &lab, &client);
    all_are_seen(&client, || bystander.seen());
    drop(link);
    wait_until_fast(&lab, &client);
}

/// TC's redirected packets pass the egress as all others do; those of XDP would not.
fn hazard_31_egress_handlers_see_every_packet(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let (mark, bystander) = (daemon.mark(), Bystander::load());
    add_filter(&lab.router, "wan0", "egress", 5);
    let link = bystander.attach(&lab.router, "lan0", AttachType::TcxEgress);
    if hook == "xdp" {
        daemon.wait_for_line_after(mark, "packets of wan0 stay with the stack", LIMIT);
        daemon.wait_for_line_after(mark, "packets of lan0 stay with the stack", LIMIT);
    }
    expect_path(hook, &lab, &client);
    all_are_seen(&client, || filtered(&lab.router, "wan0", "egress"));
    all_are_seen(&client, || bystander.seen());
    drop(link);
    lab.router.sh("tc qdisc del dev wan0 clsact");
    wait_until_fast(&lab, &client);
}

/// As SQM shapes what comes in: all of it goes by way of another interface.
fn hazard_31_a_filter_that_takes_packets_away_gets_them(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let mark = daemon.mark();
    lab.router.sh("ip link add ifb0 type ifb; ip link set ifb0 up
         tc qdisc add dev wan0 handle ffff: ingress
         tc filter add dev wan0 parent ffff: protocol all prio 10 u32 match u32 0 0 flowid 1:1 \
            action mirred egress redirect dev ifb0");
    wait_until_heeded(&daemon, hook, mark);
    let through_ifb = || {
        let text = lab.router.sh("cat /sys/class/net/ifb0/statistics/tx_packets");
        text.trim().parse::<u64>().expect("a number")
    };
    all_are_seen(&client, through_ifb);
    lab.router.sh("tc qdisc del dev wan0 ingress");
    wait_until_fast(&lab, &client);
    eventually(LIMIT, "no packet goes by way of ifb0", || {
        let before = through_ifb();
        assert!(client.echoes(80, LIMIT));
        through_ifb() == before
    });
}
