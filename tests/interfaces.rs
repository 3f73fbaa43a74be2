// SPDX-License-Identifier: GPL-2.0-only
//! Many attached interfaces. The kernel takes some 10 ms to attach one program, so the start goes on
//! while the first ones forward.

mod support;

use bpfw::netlink::tc::Qdiscs;
use nix::net::if_::if_nametoindex;
use support::daemon::Daemon;
use support::lab::Lab;
use support::netns::Namespace;
use support::outcome::attached;
use support::router::*;
use support::rules::snat_rules;
use support::wait::eventually;

on_both_hooks!(
    hazard_61_the_first_interfaces_forward_before_the_last_is_attached,
    hazard_61_the_last_interfaces_forward_too,
);

/// More than can be attached before the daemon forwards.
const NUMBER: usize = 130;

/// A router with many interfaces, and bpfw at all of them, with the lab's own two before or behind.
fn start_on_many(hook: &str, test: &str, own_first: bool) -> (Lab, Daemon) {
    let lab = lab(hook, test, &snat_rules());
    let add = |number| {
        format!(
            "link add v{number} type veth peer name p{number}\nlink set v{number} up\nlink set \
             p{number} up\n"
        )
    };
    lab.router.ip(&(0..NUMBER).map(add).collect::<String>());
    let mut names: Vec<String> = (0..NUMBER).map(|number| format!("v{number}")).collect();
    let at = if own_first { 0 } else { NUMBER };
    names.splice(at..at, ["lan0".to_owned(), "wan0".to_owned()]);
    let options = ["--log-level", "debug", "--max-connections", "16000", "--prove-every", "0"];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&lab.router, &[&[hook][..], &options, &names].concat());
    daemon.wait_for_line("forwarding", LIMIT);
    (lab, daemon)
}

fn is_attached(daemon: &Daemon, name: &str) -> bool {
    daemon.lines().iter().any(|line| line.contains(&format!("attached to {name} ")))
}

fn hazard_61_the_first_interfaces_forward_before_the_last_is_attached(hook: &str, test: &str) {
    let (lab, mut daemon) = start_on_many(hook, test, true);
    let last = format!("v{}", NUMBER - 1);
    let (_server, client) = echo(&lab, 40000);
    let mut number = 0;
    eventually(LIMIT, "an echo takes the fast path", || {
        number += 1;
        echo_is_fast(&lab, &client, number)
    });
    assert!(!is_attached(&daemon, &last), "the kernel is too fast for this test");
    // All or none, also now.
    lab.router.ip(&format!("link del {last}\n"));
    assert_eq!(daemon.wait_exit(LIMIT).code(), Some(1));
    let left = attached(&lab);
    assert!(!left.contains("xdp") && !left.contains("clsact"), "{left}");
    assert!(left.contains("lan0 TcxIngress []") && left.contains("lan0 TcxEgress []"), "{left}");
}

fn hazard_61_the_last_interfaces_forward_too(hook: &str, test: &str) {
    let (lab, daemon) = start_on_many(hook, test, false);
    assert!(!is_attached(&daemon, "lan0"), "the kernel is too fast for this test");
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    assert!(is_attached(&daemon, "lan0") && is_attached(&daemon, "wan0"));
}

#[test]
fn hazard_61_the_qdiscs_of_all_interfaces_take_one_dump() {
    if !support::live::root_or_skip("hazard_61_the_qdiscs_of_all_interfaces_take_one_dump") {
        return;
    }
    let namespace = Namespace::new("qdiscs");
    namespace.ip("link add v0 type veth peer name v1\nlink set v0 up\nlink set v1 up\n");
    namespace.sh("tc qdisc add dev v0 clsact; tc qdisc add dev v1 root htb");
    let (index, mut qdiscs) = namespace.enter(|| {
        let index = |name| if_nametoindex(name).expect("it was just made");
        ([index("v0"), index("v1")], Qdiscs::read().expect("readable"))
    });
    // From here on nothing is dumped: what the kernel would say now differs.
    namespace.sh("tc qdisc del dev v1 root; tc qdisc add dev v1 clsact");
    assert_eq!(qdiscs.root_kind(index[1]), Some("htb"));
    assert_eq!(qdiscs.ingress(index[1]).expect("readable").qdisc, None);
    assert!(qdiscs.ingress(index[0]).expect("readable").qdisc.is_some());
}
