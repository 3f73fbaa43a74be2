// SPDX-License-Identifier: GPL-2.0-only
//! The configuration file is read again: what changes at once, what needs a restart, and what does not suffer.

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;
use support::ask::{Answer, ask, ask_as};
use support::configuration::{Configuration, start_by};
use support::daemon::Daemon;
use support::lab::{CLIENT, Lab, SERVER};
use support::live::root_or_skip;
use support::outcome::attached;
use support::router::*;
use support::rules::{marking_rules, snat_rules};
use support::udp::{UdpClient, udp_echo};
use support::wait::eventually;

on_both_hooks!(
    interfaces_come_and_go_and_those_that_stay_do_not_notice,
    connections_that_are_not_wanted_any_longer_leave_the_fast_path,
);

/// Connections do not prove themselves anew: tests that count packets would see these.
const USUAL: &str = "prove-every = 0\nmax-connections = 16000\nlog-level = \"debug\"";

fn reload(lab: &Lab) -> Answer {
    ask(&lab.router, &["reload"])
}

fn status(lab: &Lab) -> Value {
    ask(&lab.router, &["status", "--json"]).json()
}

/// The addresses of what is attached to an interface, which change when it is attached anew.
fn programs_at(lab: &Lab, device: &str) -> String {
    lab.router.sh(&format!("bpftool net show dev {device} 2>/dev/null || ip -d link show {device}"))
}

/// An interface more, without any host.
fn make_lan7(lab: &Lab) {
    lab.router.ip("link add lan7 type veth peer name far7\nlink set lan7 up\nlink set far7 up\n");
}

fn interfaces_come_and_go_and_those_that_stay_do_not_notice(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    make_lan7(&lab);
    let before = attached(&lab);
    let file = Configuration::new(hook, &["lan0", "wan0"], USUAL);
    let daemon = start_by(&lab, &file, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let programs = ["lan0", "wan0"].map(|device| programs_at(&lab, device));
    let unchanged = |daemon: &Daemon| {
        let lines = daemon.lines();
        let count = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
        assert_eq!((count("attached to lan0"), count("attached to wan0")), (1, 1), "{lines:?}");
        assert_eq!((count("detached from lan0"), count("detached from wan0")), (0, 0));
        assert_eq!(["lan0", "wan0"].map(|device| programs_at(&lab, device)), programs);
    };
    for round in 0..3 {
        file.set(hook, &["lan0", "wan0", "lan7"], USUAL);
        let answer = reload(&lab);
        assert_eq!((answer.code, &*answer.out), (0, "applied: interfaces (+lan7)\n"), "{answer:?}");
        let mark = daemon.mark();
        let is_there = || status(&lab)["interfaces"].as_array().expect("a list").len() == 3;
        eventually(LIMIT, "it is attached to", is_there);
        // Not one echo is lost meanwhile, and they are fast after the moment that it takes.
        assert_eq!(client.count_echoes(round * 1000..round * 1000 + 50, LIMIT), 50);
        eventually(LIMIT, "fast as before", || echo_is_fast(&lab, &client, round * 1000 + 500));
        assert_eq!(offloaded(&daemon), 1);
        file.set(hook, &["lan0", "wan0"], USUAL);
        let answer = reload(&lab);
        assert_eq!((answer.code, &*answer.out), (0, "applied: interfaces (-lan7)\n"), "{answer:?}");
        daemon.wait_for_line_after(mark, "detached from lan7", LIMIT);
        assert_eq!(client.count_echoes(round * 1000 + 600..round * 1000 + 650, LIMIT), 50);
        eventually(LIMIT, "fast as before", || echo_is_fast(&lab, &client, round * 1000 + 700));
        assert_eq!(offloaded(&daemon), 1);
        unchanged(&daemon);
    }
    // An interface with connections goes: the stack has them.
    file.set(hook, &["wan0"], USUAL);
    assert_eq!(reload(&lab).code, 0);
    eventually(LIMIT, "the stack forwards", || !echo_is_fast(&lab, &client, 5000));
    assert_eq!(client.count_echoes(5001..5030, LIMIT), 29);
    file.set(hook, &["wan0", "lan0"], USUAL);
    assert_eq!(reload(&lab).code, 0);
    eventually(LIMIT, "fast again", || echo_is_fast(&lab, &client, 6000));
    assert!(daemon.stop(LIMIT).success());
    assert_eq!(attached(&lab), before);
}

fn connections_that_are_not_wanted_any_longer_leave_the_fast_path(hook: &str, test: &str) {
    let lab = lab(hook, test, &marking_rules());
    let file = Configuration::new(hook, &["lan0", "wan0"], USUAL);
    let daemon = start_by(&lab, &file, &[]);
    let (_server, plain) = echo(&lab, 40000);
    let _other_server = udp_echo(&lab.server, at(SERVER, 8));
    let marked = UdpClient::open(&lab.client, at(CLIENT, 40001), at(SERVER, 8));
    wait_until_fast(&lab, &plain);
    wait_until_fast(&lab, &marked);
    wait_until_offloaded(&daemon, 2);
    let mut number = 0;
    let mut is_fast = |client: &UdpClient| {
        number += 1;
        echo_is_fast(&lab, client, number)
    };
    // Those with the mark, those without it, all.
    for (mark, [plain_is_fast, marked_is_fast]) in
        [("0x20/0xf0", [false, true]), ("!0x20/0xf0", [true, false]), ("", [true, true])]
    {
        let line = if mark.is_empty() { "" } else { &format!("offload-mark = {mark:?}") };
        file.set(hook, &["lan0", "wan0"], &format!("{USUAL}\n{line}"));
        let answer = reload(&lab);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert!(answer.out.starts_with("applied: offload-mark ("), "{answer:?}");
        for (client, expected) in [(&plain, plain_is_fast), (&marked, marked_is_fast)] {
            eventually(LIMIT, "it is as wanted", || is_fast(client) == expected);
        }
        assert_eq!(offloaded(&daemon), usize::from(plain_is_fast) + usize::from(marked_is_fast));
        assert_eq!(status(&lab)["options"]["offload_mark_negated"], mark.starts_with('!'));
    }
}

#[test]
fn what_needs_a_restart_is_said_and_the_rest_is_done() {
    let test = "what_needs_a_restart_is_said_and_the_rest_is_done";
    if !root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let file = Configuration::new("tc", &["lan0", "wan0"], "max-connections = 16000");
    let daemon = start_by(&lab, &file, &[]);
    assert!(!daemon.lines().iter().any(|line| line.contains("DEBUG")));
    let more = "max-connections = 20000\nlog-level = \"debug\"\ninterval = 50";
    file.set("xdp", &["lan0", "wan0"], more);
    let answer = reload(&lab);
    let expected = "applied: interval (100 -> 50), log-level (info -> debug); restart for: hook (tc -> xdp), \
                    max-connections (16000 -> 20000)\n";
    assert_eq!((answer.code, &*answer.out), (4, expected), "{answer:?}");
    let told = status(&lab);
    assert_eq!(
        (&told["bpfw"]["hook"], &told["connections"]["limit"]),
        (&"tc".into(), &16000.into())
    );
    assert_eq!(told["heartbeat"]["interval_ms"], 50);
    let (_server, client) = echo(&lab, 40000);
    assert!(client.echoes(0, LIMIT));
    daemon.wait_for_line("DEBUG udp 192.0.2.2:40000", LIMIT);
    // It stays said until then; a longer interval would outlast the heartbeat's limit.
    file.set("xdp", &["lan0", "wan0"], "log-level = \"debug\"\ninterval = 200");
    let expected =
        "restart for: hook (tc -> xdp), interval (50 -> 200), max-connections (16000 -> default)\n";
    let answer = reload(&lab);
    assert_eq!((answer.code, &*answer.out), (4, expected), "{answer:?}");
    assert_eq!(status(&lab)["heartbeat"]["interval_ms"], 50);
    file.set(
        "tc",
        &["lan0", "wan0"],
        "max-connections = 16000\nlog-level = \"debug\"\ninterval = 50",
    );
    let answer = reload(&lab);
    assert_eq!((answer.code, &*answer.out), (0, "nothing has changed\n"), "{answer:?}");
    assert!(daemon.stop(LIMIT).success());
}

#[test]
fn a_mode_counts_for_interfaces_that_are_attached_from_then_on() {
    let test = "a_mode_counts_for_interfaces_that_are_attached_from_then_on";
    if !xdp_or_skip(test) {
        return;
    }
    let lab = lab("xdp", test, &snat_rules());
    make_lan7(&lab);
    let file = Configuration::new("xdp", &["lan0", "wan0"], USUAL);
    let daemon = start_by(&lab, &file, &[]);
    let section = |name: &str| format!("{USUAL}\n[interface.{name}]\nxdp-mode = \"generic\"");
    file.set("xdp", &["lan0", "wan0", "lan7"], &section("lan7"));
    let answer = reload(&lab);
    let expected = "applied: interface.lan7 (default -> generic), interfaces (+lan7)\n";
    assert_eq!((answer.code, &*answer.out), (0, expected), "{answer:?}");
    daemon.wait_for_line("attached to lan7 (generic XDP, veth)", LIMIT);
    file.set(
        "xdp",
        &["lan0", "wan0", "lan7"],
        &format!("{}\n[interface.lan0]\nxdp-mode = \"generic\"", section("lan7")),
    );
    for _ in 0..2 {
        let answer = reload(&lab);
        let expected = "restart for: interface.lan0 (default -> generic)\n";
        assert_eq!((answer.code, &*answer.out), (4, expected), "{answer:?}");
    }
}

#[test]
fn a_wrong_file_changes_nothing() {
    let test = "a_wrong_file_changes_nothing";
    if !root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let file = Configuration::new("tc", &["lan0", "wan0"], USUAL);
    let daemon = start_by(&lab, &file, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    file.set("tc", &["lan0"], "intervall = 50");
    let answer = reload(&lab);
    let what =
        format!("error: {}:3: there is no key 'intervall' (did you mean 'interval'?)", file.path());
    assert_eq!((answer.code, &*answer.out), (1, ""), "{answer:?}");
    assert!(answer.errors.starts_with(&what), "{answer:?}");
    assert!(answer.errors.contains("(all settings stay as they are)"), "{answer:?}");
    // By the signal alone, the log says it.
    let mark = daemon.mark();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line_after(mark, "there is no key 'intervall'", LIMIT);
    file.write(&"x".repeat(60_000));
    assert_eq!(reload(&lab).code, 1);
    std::fs::remove_file(file.path()).expect("it is there");
    let answer = reload(&lab);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.errors.contains("No such file"), "{answer:?}");
    assert!(echo_is_fast(&lab, &client, 1), "it never paused");
    assert_eq!(status(&lab)["pauses"]["count"], 1, "that of the start");
    assert_eq!(status(&lab)["interfaces"].as_array().expect("a list").len(), 2);
}

#[test]
fn nobody_else_may_ask_for_a_reload() {
    let test = "nobody_else_may_ask_for_a_reload";
    if !root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    assert_eq!(reload(&lab).code, 3);
    let file = Configuration::new("tc", &["lan0", "wan0"], USUAL);
    let daemon = start_by(&lab, &file, &[]);
    file.set("tc", &["lan0"], USUAL);
    // Root's group may ask for the status, if root has no rights of root.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    assert_eq!(ask_as(&lab.router, &nobody, &["reload"]).code, 1);
    let told = status(&lab);
    assert_eq!(
        (&told["reload"]["number"], &told["reload"]["result"]),
        (&0.into(), &"unknown".into())
    );
    assert_eq!(told["configuration"], file.path());
    assert!(daemon.stop(LIMIT).success());
    // A daemon without a file would end by the signal.
    let mut daemon = start(&lab, "tc", &[]);
    let answer = reload(&lab);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.errors.contains("has no configuration file"), "{answer:?}");
    std::thread::sleep(Duration::from_millis(100));
    assert!(daemon.exited().is_none());
}

/// Signals come in any number, at any time, beside questions, and also while it ends.
#[test]
fn many_reloads_at_once_are_as_good_as_one() {
    let test = "many_reloads_at_once_are_as_good_as_one";
    if !root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    make_lan7(&lab);
    let before = attached(&lab);
    let file = Configuration::new("tc", &["lan0", "wan0"], USUAL);
    let mut daemon = start_by(&lab, &file, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    for round in 0..100 {
        let names = [&["lan0", "wan0"][..], &["lan0", "wan0", "lan7"]];
        file.set("tc", names[round % 2], USUAL);
        daemon.signal(Signal::SIGHUP);
        // A reload whose client is killed goes on.
        if round % 10 == 0 {
            lab.router
                .sh(&format!("timeout -s KILL 0.01 {} reload || true", support::daemon::program()));
        }
        assert!(client.echoes(100 + round as u64, LIMIT));
    }
    file.set("tc", &["lan0", "wan0"], USUAL);
    assert_eq!(reload(&lab).code, 0);
    eventually(LIMIT, "fast as before", || echo_is_fast(&lab, &client, 1000));
    daemon.signal(Signal::SIGHUP);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(LIMIT).code(), Some(0));
    assert_eq!(attached(&lab), before);
}
