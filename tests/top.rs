// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw top` and `bpfw flows --sort rate`: what has traffic, and how much.

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::ask::{ask, ask_as};
use support::daemon::{Daemon, program};
use support::lab::{CLIENT, Lab, SERVER};
use support::netns::text;
use support::router::*;
use support::rules::snat_rules;
use support::udp::UdpClient;
use support::wait::eventually;

on_both_hooks!(connections_and_hosts_with_traffic_are_shown);

/// Sends echoes for as long as `during` takes.
fn with_traffic<T>(client: &UdpClient, during: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                assert!(client.echoes(number, LIMIT));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        stop.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Waits for a line of a fresh `bpfw top` that this holds for.
fn shows(lab: &Lab, words: &[&str], what: &str, is_it: impl Fn(&str) -> bool) -> Daemon {
    let top = Daemon::start(&lab.router, &[&["top"], words].concat());
    eventually(LIMIT, what, || top.lines().iter().any(|line| is_it(line)));
    top
}

fn connections_and_hosts_with_traffic_are_shown(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    let silent = UdpClient::open(&lab.client, at(CLIENT, 40001), ECHO);
    wait_until_fast(&lab, &client);
    wait_until_fast(&lab, &silent);
    let [busy, quiet] = [40000, 40001].map(|port| format!("udp {CLIENT}:{port} > {SERVER}:7 "));
    let mut top = with_traffic(&client, || {
        by_rate(&lab);
        let has_rates = |line: &str| line.contains("b/s") && !line.contains(" 0 b/s");
        let top = shows(&lab, &[], "the connection is shown", |line| {
            line.contains(&busy) && line.ends_with(" lan0 > wan0") && has_rates(line)
        });
        let lines = top.lines();
        assert!(lines[0].starts_with("bpfw ") && lines[0].ends_with(": forwarding"), "{lines:?}");
        assert!(lines[1].starts_with("fast path ") && lines[1].contains("; stack "), "{lines:?}");
        assert!(lines[2].starts_with("2 connections offloaded, 2 directions "), "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains(&quiet)), "{lines:?}");
        let host = format!("  {CLIENT}");
        shows(&lab, &["--by", "host"], "the host is shown", |line| {
            line.ends_with(&host) && has_rates(line)
        });
        let header = |line: &str| line.contains("-> RATE");
        let others = shows(&lab, &["-p", "tcp"], "TCP is shown", header);
        assert!(others.lines().iter().all(|line| !line.contains(&busy)), "{:?}", others.lines());
        top
    });
    assert!(daemon.stop(LIMIT).success());
    assert!(top.wait_exit(LIMIT).success(), "it ends with the daemon");
    assert_eq!(ask(&lab.router, &["top"]).code, 3);
}

fn by_rate(lab: &Lab) {
    let answer = ask(&lab.router, &["flows", "--json", "--sort", "rate"]);
    let object = |line| serde_json::from_str(line).expect("an object");
    let flows: Vec<Value> = answer.out.lines().map(object).collect();
    let ports: Vec<_> = flows.iter().map(|flow| flow["original"]["sport"].clone()).collect();
    assert_eq!(ports, [40000, 40001], "{answer:?}");
    for way in ["original", "reply"] {
        let rates = [0, 1].map(|at| flows[at][way]["rate"].as_u64().expect("a number"));
        assert!(rates[0] > 0 && rates[1] == 0, "{answer:?}");
    }
    let answer = ask(&lab.router, &["flows", "--sort", "rate"]);
    assert!(answer.first_line().contains(" -> RATE    <- RATE "), "{answer:?}");
    let line = answer.out.lines().nth(1).expect("a connection");
    assert!(line.contains(":40000 > ") && line.contains("b/s"), "{answer:?}");
}

#[test]
fn a_terminal_is_left_as_it_was() {
    let test = "a_terminal_is_left_as_it_was";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let _daemon = start(&lab, "tc", &[]);
    let in_terminal = |term: &str| {
        let command = format!("TERM={term} timeout --foreground -s INT 4 {} top", program());
        let output = lab.router.try_run(&["script", "-qec", &command, "/dev/null"]);
        text(&output.stdout)
    };
    let shown = in_terminal("xterm");
    assert!(shown.starts_with("\x1b[?1049h\x1b[?25l\x1b[?7l"), "{shown:?}");
    assert!(shown.ends_with("\x1b[?7h\x1b[?25h\x1b[?1049l"), "{shown:?}");
    assert!(shown.contains("\x1b[Hbpfw "), "{shown:?}");
    let shown = in_terminal("dumb");
    assert!(shown.contains("fast path ") && !shown.contains('\x1b'), "{shown:?}");
}

#[test]
fn only_root_may_see_it() {
    let test = "only_root_may_see_it";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let daemon = start(&lab, "tc", &[]);
    let few = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all"];
    let answer = ask_as(&lab.router, &few, &["top"]);
    assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(answer.errors.contains("run as root; 'bpfw status' needs the group"), "{answer:?}");
    let mut top = Daemon::start(&lab.router, &["top"]);
    top.wait_for_line("fast path ", LIMIT);
    top.signal(Signal::SIGINT);
    assert!(top.wait_exit(LIMIT).success());
    assert!(daemon.stop(LIMIT).success());
}
