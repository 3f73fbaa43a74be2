// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw check`: what it foresees is what a start comes to, and it changes nothing.

mod support;

use bpfw::datapath::sys::AttachType;
use std::fs;
use support::ask::{Answer, ask, ask_as};
use support::bystander::{Bystander, add_filter};
use support::lab::Lab;
use support::outcome::attached;
use support::router::*;
use support::rules::snat_rules;
use support::wait::eventually;

on_both_hooks!(
    a_router_without_obstacles,
    a_filter_of_others,
    a_chain_at_an_interface,
    an_interface_that_is_down,
    a_policy_that_stands_against_all,
);

fn check(lab: &Lab, hook: &str) -> Answer {
    ask(&lab.router, &["check", hook, "lan0", "wan0"])
}

/// The table of interfaces, without what only a check says.
fn table(answer: &Answer) -> Vec<&str> {
    let lines = answer.out.lines().skip_while(|line| !line.starts_with("INTERFACE "));
    let table = lines.take_while(|line| !line.is_empty());
    table.filter(|line| !line.starts_with("    behind the ")).collect()
}

/// Checks, then starts bpfw: both must say the same of all interfaces, and the check must leave all as it was.
fn foresees(lab: &Lab, hook: &str, code: i32, first_line: &str) -> Answer {
    let before = attached(lab);
    let answer = check(lab, hook);
    assert_eq!(attached(lab), before);
    assert_eq!(answer.code, code, "{answer:?}");
    assert!(answer.first_line().ends_with(first_line), "{answer:?}");
    let _daemon = start(lab, hook, &[]);
    eventually(LIMIT, "it comes true", || {
        let status = ask(&lab.router, &["status"]);
        !table(&status).is_empty() && table(&status) == table(&answer) && status.code == code
    });
    answer
}

fn a_router_without_obstacles(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let answer = foresees(&lab, hook, 0, &format!(" (hook {hook}) would start: forwarding"));
    for words in [" loaded, the kernel's verifier has accepted them", "\nMEMORY ", "\nKERNEL "] {
        assert!(answer.out.contains(words), "{words} in {answer:?}");
    }
    assert_eq!(table(&answer).len(), 3, "{answer:?}");
}

fn a_filter_of_others(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    add_filter(&lab.router, "lan0", "ingress", 5);
    let (code, first_line) = match hook {
        "tc" => (0, " would start: forwarding"),
        _ => (4, " would start: forwarding, but not all at lan0"),
    };
    let answer = foresees(&lab, hook, code, first_line);
    let words = match hook {
        "tc" => "\n    behind the TC filter u32 of priority 5\n",
        _ => ": the TC filter u32 of priority 5 (use the hook tc)\n",
    };
    assert!(answer.out.contains(words), "{answer:?}");
}

fn a_chain_at_an_interface(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.nft(
        "table netdev guard { chain ban { type filter hook ingress device wan0 priority 0; }; }",
    );
    let answer = foresees(&lab, hook, 4, ": forwarding, but not all at wan0");
    let why = "\n    a chain of nftables at it must see all packets: netdev guard ban (move its";
    assert!(answer.out.contains(why), "{answer:?}");
}

fn an_interface_that_is_down(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.ip("link set lan0 down\n");
    let answer = foresees(&lab, hook, 4, ": forwarding, but not all at lan0");
    assert!(answer.out.contains("\n    it is down\n"), "{answer:?}");
}

fn a_policy_that_stands_against_all(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.ip("rule add tos 0x10 table main\n");
    let answer = check(&lab, hook);
    assert_eq!(answer.code, 4, "{answer:?}");
    assert!(answer.first_line().ends_with(": forwarding, but nothing of ipv4"), "{answer:?}");
    let line = "\n    ipv4: routing rules or routes by type of service (remove the rules and";
    assert!(answer.out.contains(line), "{answer:?}");
}

#[test]
fn without_words_all_interfaces_are_told_of() {
    let test = "without_words_all_interfaces_are_told_of";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    lab.router.ip("link add link lan0 name mv0 type macvlan\n");
    let answer = ask(&lab.router, &["check"]);
    assert_eq!(answer.code, 4, "mv0 is down: {answer:?}");
    let names: Vec<_> =
        table(&answer).iter().filter_map(|line| line.split_whitespace().next()).collect();
    for name in ["lan0", "wan0", "mv0"] {
        assert!(names.contains(&name), "{name} in {answer:?}");
    }
    assert!(!names.contains(&"lo"), "{answer:?}");
}

#[test]
fn what_would_not_start_says_why() {
    let test = "what_would_not_start_says_why";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let refused = |words: &[&str], code: i32, why: &str| {
        let answer = ask(&lab.router, &[&["check"], words].concat());
        assert_eq!((answer.code, answer.out.as_str()), (code, ""), "{answer:?}");
        assert!(answer.errors.contains(why), "{why} in {answer:?}");
    };
    refused(&["tc", "lan7"], 1, "error: there is no interface lan7 (there are ");
    refused(&["tc", "/dev/null", "lan0"], 1, "reading the object /dev/null");
    refused(&["lan0"], 2, "unrecognized subcommand");
    refused(&["tc", "lan0", "lan0"], 2, "named twice");
    let bystander = Bystander::load();
    let link = bystander.attach(&lab.router, "lan0", AttachType::Xdp(0));
    refused(&["xdp", "lan0"], 1, "lan0 has an XDP program already (bystander_xdp");
    drop(link);
    let daemon = start_at(&lab, "tc", &[], &["wan0"]);
    refused(&["tc", "lan0", "wan0"], 1, "another bpfw runs at wan0 (stop it first)");
    assert!(daemon.stop(LIMIT).success());
    assert_eq!(check(&lab, "tc").code, 0);
}

/// A service starts without some of its interfaces, and bpfw takes them when they come.
#[test]
fn a_file_is_checked_as_a_service_takes_it() {
    let test = "a_file_is_checked_as_a_service_takes_it";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let path = std::env::temp_dir().join(format!("{}.toml", lab.router.name()));
    let check = |text: &str| {
        fs::write(&path, text).expect("written");
        ask(&lab.router, &["check", "run", "--config", path.to_str().expect("a path")])
    };
    let answer = check("hook = \"tc\"\ninterfaces = [\"lan0\", \"wan0\"]\n");
    assert_eq!(answer.code, 0, "{answer:?}");
    let answer = check("hook = \"tc\"\ninterfaces = [\"lan0\", \"wan7\"]\n");
    assert_eq!(answer.code, 4, "{answer:?}");
    assert!(answer.first_line().ends_with("not all at wan7"), "{answer:?}");
    let answer = check("hook = \"tc\"\ninterface = [\"lan0\"]\n");
    assert_eq!((answer.code, answer.out.as_str()), (2, ""), "{answer:?}");
    let daemon = start_at(&lab, "tc", &[], &["wan0"]);
    let answer = check("hook = \"tc\"\ninterfaces = [\"lan0\", \"wan0\"]\n");
    assert!(answer.code == 4 && answer.out.contains("another bpfw runs at wan0"), "{answer:?}");
    assert!(daemon.stop(LIMIT).success());
    fs::remove_file(&path).expect("it is there");
}

/// Whoever may not start bpfw cannot have the kernel's word on its programs either.
#[test]
fn others_may_not_check() {
    let test = "others_may_not_check";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let nobody = ["setpriv", "--reuid=65534", "--clear-groups"];
    let answer = ask_as(&lab.router, &nobody, &["check", "tc", "lan0"]);
    assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(answer.errors.contains("CAP_BPF"), "{answer:?}");
}

/// What a killed bpfw has left is what the next start removes.
#[test]
fn what_a_killed_bpfw_left_is_nobodys() {
    let test = "what_a_killed_bpfw_left_is_nobodys";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    add_filter(&lab.router, "lan0", "ingress", 5);
    let mut daemon = start(&lab, "tc", &[]);
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.wait_exit(LIMIT);
    let answer = foresees(&lab, "tc", 0, " would start: forwarding");
    assert!(answer.out.contains("\n    behind the TC filter u32 of priority 5\n"), "{answer:?}");
}
