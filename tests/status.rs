// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw status`: each state as users meet it, and clients that do not behave.

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::ask::{Answer, ask, ask_as, sockets};
use support::lab::Lab;
use support::router::*;
use support::rules::snat_rules;
use support::wait::eventually;

on_both_hooks!(a_forwarding_daemon_says_so, a_stopped_daemon_is_late, an_interface_may_be_left_out);

fn status(lab: &Lab) -> Answer {
    ask(&lab.router, &["status"])
}

fn status_json(lab: &Lab) -> Value {
    ask(&lab.router, &["status", "--json"]).json()
}

fn a_forwarding_daemon_says_so(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let answer = status(&lab);
    assert_eq!(answer.code, 0, "{answer:?}");
    let expected = format!("(pid {}, hook {hook}, up ", daemon.pid());
    assert!(answer.first_line().contains(&expected), "{answer:?}");
    assert!(answer.first_line().ends_with(": forwarding"), "{answer:?}");
    for words in
        ["CONNECTIONS  1 of 16,000 offloaded", "bpfw has just started", "NEXT HOPS    2 of"]
    {
        assert!(answer.out.contains(words), "{words} in {answer:?}");
    }
    let json = status_json(&lab);
    assert_eq!((&json["state"], &json["bpfw"]["hook"]), (&"forwarding".into(), &hook.into()));
    assert_eq!(json["bpfw"]["pid"], daemon.pid());
    assert_eq!(json["connections"]["used"], 1);
    assert_eq!(json["packets"]["forwarded"], forwarded(&daemon));
    assert_eq!(json["pauses"]["by_reason"]["start"]["count"], 1);
    let attached = if hook == "xdp" {
        "xdp"
    } else {
        json["interfaces"][0]["attached"].as_str().expect("a word")
    };
    assert!(["xdp", "tcx", "clsact"].contains(&attached));
    let devices: Vec<_> = (0..2).map(|at| json["interfaces"][at]["device"].clone()).collect();
    assert_eq!(devices, ["lan0", "wan0"]);
    assert!(daemon.stop(LIMIT).success());
    let answer = status(&lab);
    assert_eq!((answer.code, answer.out.as_str()), (3, ""), "{answer:?}");
    assert!(answer.errors.contains("no bpfw runs in this network namespace"), "{answer:?}");
    assert_eq!(sockets(&lab), Vec::<PathBuf>::new());
}

fn a_stopped_daemon_is_late(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    daemon.signal(Signal::SIGSTOP);
    let answer = status(&lab);
    assert_eq!(answer.code, 4, "{answer:?}");
    let pid = daemon.pid();
    let expected =
        format!("bpfw (pid {pid}): late: no answer within a second; all packets go to the stack");
    assert_eq!(answer.first_line(), expected);
    assert!(answer.out.contains("to do: see that bpfw is not stopped"), "{answer:?}");
    let json = status_json(&lab);
    assert_eq!((&json["state"], &json["reason"]["name"]), (&"late".into(), &"late".into()));
    let mark = daemon.mark();
    daemon.signal(Signal::SIGCONT);
    daemon.wait_for_line_after(mark, "forwarding", LIMIT);
    let json = status_json(&lab);
    assert_eq!(json["state"], "forwarding");
    assert_eq!(json["pauses"]["last"]["reason"]["name"], "late");
}

fn an_interface_may_be_left_out(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    lab.nft(
        "table netdev guard { chain ban { type filter hook ingress device lan0 priority 0; }; }",
    );
    daemon.wait_for_line("packets of lan0 stay with the stack", LIMIT);
    let expected = ": forwarding, but not all at lan0";
    eventually(LIMIT, "it says so", || status(&lab).first_line().ends_with(expected));
    let answer = status(&lab);
    assert_eq!(answer.code, 4, "{answer:?}");
    let why = "a chain of nftables at it must see all packets: netdev guard ban (move its rules to";
    assert!(answer.out.contains(why), "{answer:?}");
    let json = status_json(&lab);
    let left = &json["interfaces"][0];
    assert_eq!((&left["device"], &left["forwards_from"]), (&"lan0".into(), &false.into()));
    assert_eq!(left["reason"]["name"], "netdev-chain");
    assert_eq!(left["reason"]["detail"], "netdev guard ban");
}

#[test]
fn a_policy_may_stand_against_all() {
    let test = "a_policy_may_stand_against_all";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let _daemon = start(&lab, "tc", &[]);
    lab.router.ip("rule add tos 0x10 table main\n");
    let expected = ": nothing is offloaded: routing rules or routes by type of service";
    eventually(LIMIT, "it says so", || status(&lab).first_line().ends_with(expected));
    let answer = status(&lab);
    assert_eq!(answer.code, 4, "{answer:?}");
    assert!(answer.out.contains("to do: remove the rules and routes with tos"), "{answer:?}");
}

/// A router of IPv4 alone does not hear of IPv6, which its policies may forbid.
#[test]
fn a_policy_may_stand_against_a_family() {
    let test = "a_policy_may_stand_against_a_family";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let _daemon = start(&lab, "tc", &[]);
    lab.router.sh("ip -6 rule add tos 0x10 table main");
    let reason = || status_json(&lab)["forbidden"]["ipv6"]["name"].clone();
    eventually(LIMIT, "it is heeded", || reason() == "type-of-service");
    let answer = status(&lab);
    assert!(answer.code == 0 && answer.first_line().ends_with(": forwarding"), "{answer:?}");
    lab.router.sysctl("net/ipv6/conf/all/forwarding", "1");
    let answer = status(&lab);
    assert_eq!(answer.code, 4, "{answer:?}");
    assert!(answer.first_line().ends_with(": forwarding, but nothing of ipv6"), "{answer:?}");
    let line = "    ipv6: routing rules or routes by type of service (remove the rules and routes";
    assert!(answer.out.contains(line), "{answer:?}");
}

#[test]
fn others_may_not_ask() {
    let test = "others_may_not_ask";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let _daemon = start(&lab, "tc", &[]);
    let nobody = ["setpriv", "--reuid=65534", "--clear-groups"];
    let answer = ask_as(&lab.router, &nobody, &["status"]);
    assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(answer.errors.contains("ermission denied"), "{answer:?}");
    assert!(answer.errors.contains("in the group bpfw"), "{answer:?}");
}

#[test]
fn a_killed_daemon_is_none() {
    let test = "a_killed_daemon_is_none";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let mut daemon = start(&lab, "tc", &[]);
    daemon.signal(Signal::SIGKILL);
    daemon.wait_exit(LIMIT);
    // Any daemon that starts now, another test's too, removes its sockets.
    assert!(sockets(&lab).len() <= 1 && status(&lab).code == 3);
    // The next one removes the dead one's socket.
    let _next = start_at(&lab, "tc", &[], &["wan0"]);
    let left = sockets(&lab);
    assert_eq!((left.len(), status(&lab).code), (1, 0), "{left:?}");
}

#[test]
fn several_daemons_answer() {
    let test = "several_daemons_answer";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let _daemons = [["lan0"], ["wan0"]].map(|names| start_at(&lab, "tc", &[], &names));
    let answer = ask(&lab.router, &["status", "--json"]);
    assert_eq!((answer.code, answer.out.lines().count()), (0, 2), "{answer:?}");
}

/// More clients connect than are answered at once or may wait, and never read. 50 others ask meanwhile.
#[test]
fn clients_that_never_read_delay_nothing() {
    let test = "clients_that_never_read_delay_nothing";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let daemon = start(&lab, "tc", &[]);
    let socket = sockets(&lab).pop().expect("it has one");
    let _stuck: Vec<UnixStream> =
        (0..100).map(|_| UnixStream::connect(&socket).expect("it listens")).collect();
    let start = Instant::now();
    for _ in 0..50 {
        let json = status_json(&lab);
        assert_eq!(json["state"], "forwarding");
        let age = json["heartbeat"]["age_ms"].as_u64().expect("a number");
        assert!(age < 1_000, "{json}");
    }
    assert!(start.elapsed() < Duration::from_secs(25), "50 answers took {:?}", start.elapsed());
    let json = status_json(&lab);
    assert_eq!(json["pauses"]["by_reason"]["late"], Value::Null, "{json}");
    assert!(daemon.stop(LIMIT).success());
}

#[test]
fn metrics_are_written_for_collectors() {
    let test = "metrics_are_written_for_collectors";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    assert_eq!(ask(&lab.router, &["metrics"]).code, 3);
    let daemon = start(&lab, "tc", &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let answer = ask(&lab.router, &["metrics"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let packets = format!("bpfw_packets_total{{verdict=\"forwarded\"}} {}", forwarded(&daemon));
    for line in
        [&packets, "bpfw_forwarding 1", "bpfw_flows 1", "bpfw_pauses_total{reason=\"start\"} 1"]
    {
        assert!(answer.out.lines().any(|each| each == line), "{line} in {answer:?}");
    }
    let path = std::env::temp_dir().join(format!("{}.prom", lab.router.name()));
    let words = ["metrics", "--output", path.to_str().expect("a path")];
    let answer = ask(&lab.router, &words);
    assert_eq!((answer.code, answer.out.as_str()), (0, ""), "{answer:?}");
    assert!(fs::read_to_string(&path).expect("written").contains("\nbpfw_forwarding 1\n"));
    fs::remove_file(&path).expect("it is there");
}
