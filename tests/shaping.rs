// SPDX-License-Identifier: GPL-2.0-only
//! What an interface does that XDP does not see, gets around, or cannot use.

mod support;

use bpfw::datapath::sys::{self, AttachType};
use bpfw::reasons::interface::Problem;
use support::bystander::Bystander;
use support::daemon::Daemon;
use support::lab::Lab;
use support::live::root_or_skip;
use support::netns::text;
use support::outcome::BPFW;
use support::router::*;
use support::rules::snat_rules;
use support::wait::eventually;

/// `XDP_FLAGS_SKB_MODE` of linux/if_link.h.
const XDP_GENERIC: u32 = 1 << 1;
const WARNING: &str = Problem::Shaper.reason().words;

fn warnings(daemon: &Daemon) -> Vec<String> {
    let is_warning = |line: &String| line.contains("WARN") && line.contains(WARNING);
    daemon.lines().into_iter().filter(is_warning).collect()
}

/// Packets that the root discipline of wan0 has sent.
fn shaped(lab: &Lab) -> u64 {
    let shown = lab.router.sh("tc -s qdisc show dev wan0 root");
    let mut words = shown.split_whitespace().skip_while(|word| *word != "bytes");
    words.nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{shown}"))
}

#[test]
fn hazard_22_xdp_warns_of_shapers() {
    if !root_or_skip("hazard_22_xdp_warns_of_shapers") {
        return;
    }
    let lab = lab("xdp", "shapers-xdp", &snat_rules());
    lab.router.sh("tc qdisc add dev lan0 root pfifo");
    lab.router.sh("tc qdisc add dev wan0 root tbf rate 100mbit burst 64kb latency 50ms");
    let daemon = start(&lab, "xdp", &[]);
    let line = daemon.wait_for_line(WARNING, LIMIT);
    assert!(line.contains(&format!("wan0: {WARNING}: tbf")), "{line}");
    lab.router.sh("tc qdisc replace dev lan0 root htb");
    daemon.wait_for_line(&format!("lan0: {WARNING}: htb"), LIMIT);
    // It is said once, and again only after it was gone.
    lab.router.sh("tc qdisc del dev wan0 root");
    daemon.wait_for_line(&format!("wan0: solved: {WARNING}"), LIMIT);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(warnings(&daemon).len(), 2, "{:?}", warnings(&daemon));
    lab.router.sh("tc qdisc add dev wan0 root tbf rate 100mbit burst 64kb latency 50ms");
    eventually_warned(&daemon, 3);
}

fn eventually_warned(daemon: &Daemon, times: usize) {
    support::wait::eventually(LIMIT, "it is warned of again", || warnings(daemon).len() == times);
}

/// What TC redirects passes the discipline, as what the stack forwards does.
#[test]
fn hazard_22_tc_keeps_to_the_shaper() {
    if !root_or_skip("hazard_22_tc_keeps_to_the_shaper") {
        return;
    }
    let lab = lab("tc", "shapers-tc", &snat_rules());
    lab.router.sh("tc qdisc add dev wan0 root tbf rate 100mbit burst 64kb latency 50ms");
    let daemon = start(&lab, "tc", &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let (before, fast) = (shaped(&lab), forwarded(&daemon));
    assert_eq!(client.count_echoes(0..50, LIMIT), 50);
    let (sent, fast) = (shaped(&lab) - before, forwarded(&daemon) - fast);
    assert!(fast >= 100, "{fast} of 50 datagrams and their echoes took the fast path");
    assert!(sent >= 50, "{sent} of 50 datagrams were seen by the shaper");
    assert_eq!(warnings(&daemon), [""; 0]);
}

/// A veth takes redirected frames while its peer has GRO or XDP, and loses them otherwise.
#[test]
fn hazard_19_a_target_that_cannot_is_left_to_the_stack() {
    if !root_or_skip("hazard_19_a_target_that_cannot_is_left_to_the_stack") {
        return;
    }
    let lab = lab("xdp", "targets", &snat_rules());
    lab.server.sh("ethtool -K eth0 gro off");
    let daemon = start(&lab, "xdp", &[]);
    let line = daemon.wait_for_line("packets to wan0 go by the stack", LIMIT);
    assert!(line.contains(Problem::VethPeer.reason().words), "{line}");
    let mark = daemon.mark();
    lab.router.ip("link set wan0 down\n");
    let line = daemon.wait_for_line_after(mark, "packets to wan0 go by the stack", LIMIT);
    assert!(line.ends_with(Problem::Down.reason().words), "{line}");
    lab.router.ip("link set wan0 up\n");
    let (_server, client) = echo(&lab, 40000);
    let towards_wan = |number| {
        let before = lab.stack_packets();
        assert!(client.echoes(number, LIMIT), "echo {number} is lost");
        lab.stack_packets() > before
    };
    for number in 0..30 {
        assert!(towards_wan(number), "datagram {number} did not go by the stack");
    }
    // That it cannot send says nothing of what comes in there.
    eventually(LIMIT, "answers are fast", || {
        let before = forwarded(&daemon);
        assert_eq!(client.count_echoes(30..40, LIMIT), 10);
        forwarded(&daemon) >= before + 5
    });
    lab.server.sh("ethtool -K eth0 gro on");
    wait_until_fast(&lab, &client);
    // What is on its way when the peer changes is lost; no more than the daemon needs to see it.
    let changed = std::time::Instant::now();
    lab.server.sh("ethtool -K eth0 gro off");
    let mut lost = 0;
    let recovered = |client: &support::udp::UdpClient, number| {
        client.echoes(number, std::time::Duration::from_millis(10))
    };
    while !recovered(&client, 1000 + lost) {
        lost += 1;
        assert!(changed.elapsed() < LIMIT, "it is not noticed");
    }
    println!(
        "{lost} datagrams lost in {:?} after the target could not any more",
        changed.elapsed()
    );
    for number in 2000..2030 {
        assert!(towards_wan(number), "datagram {number} did not go by the stack");
    }
}

/// That VLAN devices need the tags is decided in `connections::topology`.
#[test]
fn hazard_23_removed_tags_are_known() {
    if !root_or_skip("hazard_23_removed_tags_are_known") {
        return;
    }
    let lab = lab("xdp", "tags", &snat_rules());
    let strips = |device: &str| lab.router.enter(|| sys::strips_tags(device).expect("an answer"));
    for (setting, expected) in [("on", true), ("off", false), ("on", true)] {
        lab.router.sh(&format!("ethtool -K wan0 rxvlan {setting}"));
        assert_eq!(strips("wan0"), expected, "{setting}");
    }
    assert!(!strips("no-such-device"), "one that is gone does nothing");
}

/// A frame of native XDP must fit in a page. Asked for, such an interface is an error that names
/// MTU and limit; left to bpfw, it gets generic XDP, and nothing is lost.
#[test]
fn hazard_34_large_frames_are_refused_or_generic() {
    if !root_or_skip("hazard_34_large_frames_are_refused_or_generic") {
        return;
    }
    let lab = lab("xdp", "large", &snat_rules());
    for (host, port) in [(&lab.client, "lan0"), (&lab.server, "wan0")] {
        host.ip("link set eth0 mtu 9000\n");
        lab.router.ip(&format!("link set {port} mtu 9000\n"));
    }
    let refused = lab.router.try_run(&[BPFW, "xdp", "--xdp-mode", "native", "lan0", "wan0"]);
    let error = text(&[refused.stdout, refused.stderr].concat());
    assert_eq!(refused.status.code(), Some(1), "{error}");
    assert!(
        error.contains("lan0") && error.contains("9000") && error.contains("in a page"),
        "{error}"
    );
    let daemon = start(&lab, "xdp", &[]);
    daemon.wait_for_line("lan0: no native XDP", LIMIT);
    let (_server, client) = echo(&lab, 40000);
    let client = client.size(8000);
    wait_until_fast(&lab, &client);
    assert_eq!(client.count_echoes(0..50, LIMIT), 50);
    assert!(daemon.stop(LIMIT).success());
    let daemon = start(&lab, "tc", &[]);
    wait_until_fast(&lab, &client);
    assert_eq!(client.count_echoes(50..100, LIMIT), 50);
    assert!(daemon.stop(LIMIT).success());
}

/// Drivers that check the MTU only when a program is attached decide again. A veth agrees, as long as
/// its peer's frames are small.
#[test]
fn hazard_34_a_larger_mtu_makes_the_driver_decide_again() {
    if !root_or_skip("hazard_34_a_larger_mtu_makes_the_driver_decide_again") {
        return;
    }
    let lab = lab("xdp", "again", &snat_rules());
    lab.router.ip("link add mv0 link lan0 type macvlan\nlink set mv0 up\n");
    let daemon = Daemon::start(&lab.router, &["xdp", "mv0", "lan0", "wan0"]);
    daemon.wait_for_line("attached to mv0 (generic XDP, macvlan)", LIMIT);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    lab.router.ip("link set lan0 mtu 3000\nlink set lan0 mtu 1500\n");
    let mark = daemon.mark();
    lab.router.ip("link set lan0 mtu 9000\n");
    // It stands on lan0, which could not be attached to below it.
    daemon.wait_for_line_after(mark, "mv0: attached again", LIMIT);
    let line = daemon.wait_for_line_after(mark, "lan0: attached again with the MTU 9000", LIMIT);
    assert!(line.contains("native XDP"), "{line}");
    assert_eq!(client.count_echoes(0..50, LIMIT), 50);
    wait_until_fast(&lab, &client);
    let again = |line: &String| line.contains("attached again");
    assert_eq!(daemon.lines().iter().filter(|line| again(line)).count(), 2, "only beyond a page");
    assert!(daemon.stop(LIMIT).success());
}

/// What cannot be attached again is left to the stack, until a smaller MTU makes the daemon try.
#[test]
fn hazard_34_a_refusal_leaves_the_interface_to_the_stack() {
    if !root_or_skip("hazard_34_a_refusal_leaves_the_interface_to_the_stack") {
        return;
    }
    let lab = lab("xdp", "refusal", &snat_rules());
    lab.router.ip("link add mv0 link lan0 type macvlan\nlink set mv0 up\n");
    let daemon = start(&lab, "xdp", &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let bystander = Bystander::load();
    let link = bystander.attach(&lab.router, "mv0", AttachType::Xdp(XDP_GENERIC));
    lab.router.ip("link set lan0 mtu 9000\n");
    let line = daemon.wait_for_line("packets of lan0 stay with the stack", LIMIT);
    assert!(line.contains("while mv0"), "{line}");
    for number in 0..50 {
        assert!(!echo_is_fast(&lab, &client, number), "echo {number} is fast");
    }
    drop(link);
    let mark = daemon.mark();
    lab.router.ip("link set lan0 mtu 1500\n");
    daemon.wait_for_line_after(mark, "packets of lan0 are forwarded again", LIMIT);
    wait_until_fast(&lab, &client);
    assert!(daemon.stop(LIMIT).success());
}

/// While native XDP runs, a veth takes no larger MTU of the peer.
#[test]
fn hazard_34_the_mtu_stays_within_the_limit() {
    if !root_or_skip("hazard_34_the_mtu_stays_within_the_limit") {
        return;
    }
    let lab = lab("xdp", "raised", &snat_rules());
    let _daemon = start(&lab, "xdp", &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let raised = lab.server.try_run(&["ip", "link", "set", "eth0", "mtu", "9000"]);
    println!(
        "raising the peer's MTU: {}",
        if raised.status.success() { "done" } else { "refused" }
    );
    assert!(!raised.status.success(), "frames of 9,000 bytes would be lost");
    assert_eq!(client.count_echoes(0..50, LIMIT), 50);
}
