// SPDX-License-Identifier: GPL-2.0-only
//! Others at the router's interfaces: their filters, programs and qdiscs go on working.

mod support;

use bpfw::datapath::sys::AttachType;
use nix::sys::signal::Signal;
use std::os::fd::OwnedFd;
use std::time::Instant;
use support::bystander::{Bystander, add_filter, filtered};
use support::daemon::Daemon;
use support::lab::Lab;
use support::outcome::{attached, refuses, run};
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
    hazard_18_others_go_on_after_stop_and_sigkill,
    hazard_18_a_program_that_was_taken_off_is_noticed,
);

const ECHOES: u64 = 50;
/// `XDP_FLAGS_DRV_MODE` of linux/if_link.h.
const XDP_NATIVE: u32 = 1 << 2;

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
    let line = if hook == "tc" { "went behind others at TC" } else { "stay with the stack" };
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

/// Somebody at each of the hooks of both interfaces, except for the one that is ours.
struct Crowd {
    ingress: Bystander,
    egress: Bystander,
    xdp: Bystander,
    _links: Vec<OwnedFd>,
}

impl Crowd {
    fn gather(lab: &Lab, hook: &str) -> Self {
        let [ingress, egress, xdp] = [(); 3].map(|()| Bystander::load());
        let mut links = vec![
            ingress.attach(&lab.router, "lan0", AttachType::TcxIngress),
            egress.attach(&lab.router, "wan0", AttachType::TcxEgress),
        ];
        if hook == "tc" {
            links.push(xdp.attach(&lab.router, "lan0", AttachType::Xdp(XDP_NATIVE)));
        }
        for (device, side) in [("lan0", "ingress"), ("wan0", "egress")] {
            add_filter(&lab.router, device, side, 7);
        }
        Self { ingress, egress, xdp, _links: links }
    }

    /// Each of them sees each packet.
    fn sees_all(&self, lab: &Lab, hook: &str, client: &UdpClient) {
        let before = self.counts(lab);
        assert_eq!(client.count_echoes(0..ECHOES, LIMIT) as u64, ECHOES);
        let seen: Vec<u64> = self.counts(lab).iter().zip(before).map(|(a, b)| a - b).collect();
        let by_xdp = if hook == "tc" { ECHOES } else { 0 };
        assert_eq!(seen, [ECHOES, ECHOES, ECHOES, ECHOES, by_xdp]);
    }

    fn counts(&self, lab: &Lab) -> [u64; 5] {
        [
            filtered(&lab.router, "lan0", "ingress"),
            filtered(&lab.router, "wan0", "egress"),
            self.ingress.seen(),
            self.egress.seen(),
            self.xdp.seen(),
        ]
    }
}

fn hazard_18_others_go_on_after_stop_and_sigkill(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let crowd = Crowd::gather(&lab, hook);
    let before = attached(&lab);
    let (_server, client) = echo(&lab, 40000);
    crowd.sees_all(&lab, hook, &client);
    let daemon = start(&lab, hook, &[]);
    crowd.sees_all(&lab, hook, &client);
    expect_path(hook, &lab, &client);
    crowd.sees_all(&lab, hook, &client);
    assert!(daemon.stop(LIMIT).success());
    assert_eq!(attached(&lab), before);
    crowd.sees_all(&lab, hook, &client);

    let mut killed = start(&lab, hook, &[]);
    killed.signal(Signal::SIGKILL);
    killed.wait_exit(LIMIT);
    crowd.sees_all(&lab, hook, &client);
    if hook == "xdp" {
        eventually(LIMIT, "its link is closed", || attached(&lab) == before);
        return;
    }
    assert!(attached(&lab).contains("bpfw_tc"), "filters stay");
    let daemon = start(&lab, hook, &[]);
    daemon.wait_for_line("removed the filters that another bpfw left", LIMIT);
    expect_path(hook, &lab, &client);
    crowd.sees_all(&lab, hook, &client);
    assert!(daemon.stop(LIMIT).success());
    assert_eq!(attached(&lab), before);
}

/// The ids of the links that the daemon holds.
fn links(daemon: &Daemon) -> Vec<u32> {
    let files = std::fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid())).expect("it runs");
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let id = |text: String| {
        text.lines().find_map(|line| line.strip_prefix("link_id:")?.trim().parse().ok())
    };
    texts.filter_map(id).collect()
}

fn hazard_18_a_program_that_was_taken_off_is_noticed(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let links = links(&daemon);
    // At each interface one of XDP, and both sides of TC.
    assert_eq!(links.len(), if hook == "xdp" { 6 } else { 4 });
    for link in links {
        lab.router.sh(&format!("bpftool link detach id {link}"));
    }
    let taken_off = Instant::now();
    for device in ["lan0", "wan0"] {
        let line = format!("packets of {device} stay with the stack: bpfw's program is off");
        daemon.wait_for_line(&line, LIMIT);
    }
    println!("{hook}: noticed {:?} later", taken_off.elapsed());
    assert!(!echo_is_fast(&lab, &client, 1));
    // The place is somebody else's now, and stays so.
    let bystander = Bystander::load();
    let place = if hook == "xdp" { AttachType::Xdp(XDP_NATIVE) } else { AttachType::TcxIngress };
    let _link = bystander.attach(&lab.router, "lan0", place);
    all_are_seen(&client, || bystander.seen());
    let before = attached(&lab);
    assert!(daemon.stop(LIMIT).success());
    assert_eq!(attached(&lab), before);
    all_are_seen(&client, || bystander.seen());
}

#[test]
fn hazard_18_a_foreign_xdp_program_is_left_alone() {
    if !support::live::root_or_skip("hazard_18_a_foreign_xdp_program_is_left_alone") {
        return;
    }
    let lab = lab("xdp", "foreign", &snat_rules());
    let bystander = Bystander::load();
    let _link = bystander.attach(&lab.router, "wan0", AttachType::Xdp(XDP_NATIVE));
    let before = attached(&lab);
    for interfaces in [["lan0", "wan0"], ["wan0", "lan0"]] {
        let output = run(&lab, &[&["xdp"][..], &interfaces].concat());
        refuses(&output, 1, &["wan0 has an XDP program already", "bystander_xdp", "hook tc"]);
    }
    assert_eq!(attached(&lab), before, "neither lan0 nor wan0 has changed");
    let (_server, client) = echo(&lab, 40000);
    all_are_seen(&client, || bystander.seen());
    let daemon = start(&lab, "tc", &[]);
    wait_until_fast(&lab, &client);
    all_are_seen(&client, || bystander.seen());
    assert!(daemon.stop(LIMIT).success());
    assert_eq!(attached(&lab), before);
}

/// Flushed with all others, it comes back; replaced by somebody's, it does not, and theirs stays.
#[test]
fn hazard_18_a_lost_filter_comes_back_and_a_taken_place_is_left() {
    if !support::live::root_or_skip("hazard_18_a_lost_filter_comes_back_and_a_taken_place_is_left")
    {
        return;
    }
    let lab = lab("tc", "lost", &snat_rules());
    add_filter(&lab.router, "lan0", "ingress", 5);
    let daemon = start(&lab, "tc", &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    lab.router.sh("tc filter del dev lan0 ingress prio 65535");
    daemon.wait_for_line("someone removed bpfw's TC filter, attaching again", LIMIT);
    wait_until_fast(&lab, &client);
    let bystander = Bystander::load();
    bystander.add_filter(&lab.router, "lan0", 65535, 0xbf);
    daemon.wait_for_line("packets of lan0 stay with the stack: bpfw's program is off", LIMIT);
    all_are_seen(&client, || bystander.seen());
    let filters = || lab.router.sh("tc filter show dev lan0 ingress");
    let before = filters();
    assert!(before.contains("bystander_tc") && !before.contains("bpfw_tc"), "{before}");
    assert!(daemon.stop(LIMIT).success());
    assert_eq!(filters(), before);
    all_are_seen(&client, || bystander.seen());
}

/// What looks a little like our leftover is not ours, and who shares our priority is heeded.
#[test]
fn hazard_32_similar_filters_are_left_alone() {
    if !support::live::root_or_skip("hazard_32_similar_filters_are_left_alone") {
        return;
    }
    let lab = lab("tc", "similar", &snat_rules());
    let [same_handle, same_priority] = [(); 2].map(|()| Bystander::load());
    same_handle.add_filter(&lab.router, "lan0", 65534, 0xbf);
    same_priority.add_filter(&lab.router, "lan0", 65535, 0xbe);
    let before = attached(&lab);
    let daemon = start(&lab, "tc", &[]);
    let line = daemon.wait_for_line("packets of lan0 stay with the stack", LIMIT);
    assert!(line.contains("bpf of priority 65535"), "{line}");
    let (_server, client) = echo(&lab, 40000);
    wait_until_offloaded_after_echo(&daemon, &client);
    all_are_seen(&client, || same_handle.seen());
    all_are_seen(&client, || same_priority.seen());
    lab.router.sh("tc filter del dev lan0 ingress prio 65535 handle 0xbe bpf");
    wait_until_fast(&lab, &client);
    all_are_seen(&client, || same_handle.seen());
    assert!(daemon.stop(LIMIT).success());
    same_priority.add_filter(&lab.router, "lan0", 65535, 0xbe);
    assert_eq!(attached(&lab), before);
}

fn wait_until_offloaded_after_echo(daemon: &Daemon, client: &UdpClient) {
    assert!(client.echoes(0, LIMIT));
    wait_until_offloaded(daemon, 1);
}
