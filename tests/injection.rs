// SPDX-License-Identifier: GPL-2.0-only
//! Each system call by which the daemon asks the kernel for something fails once: maps, programs,
//! netlink. Nothing leaks, and the daemon goes on, or ends at its start with nothing left.

mod support;

use nix::sys::signal::Signal;
use std::time::Duration;
use support::capture::Capture;
use support::crowd;
use support::daemon::{Daemon, program};
use support::injection::{Fault, Faulty, Injection};
use support::lab::{CLIENT, Lab, SERVER};
use support::maps::Maps;
use support::router::*;
use support::rules::no_nat_rules;
use support::tcp::{Path, TcpPair};
use support::udp::{UdpClient, udp_echo};
use support::wait::{becomes_true, eventually};

on_both_hooks!(hazard_28_a_failed_call_leaks_nothing, hazard_24_a_start_that_fails_leaves_nothing,);

const CONNECTIONS: u32 = 64;
const ROOM: &str = "64";

/// Of a row: each `step`th call, from `first` on.
struct Row {
    call: &'static str,
    error: &'static str,
    first: u32,
    step: usize,
}

impl Row {
    fn faults(&self) -> impl Iterator<Item = Fault> {
        let Self { call, error, first, step } = *self;
        (first..).step_by(step).map(move |number| Fault { call, error, number })
    }
}

/// The rows side by side, each with a lab of its own.
fn side_by_side(rows: &[Row], each: impl Fn(usize, &Row) + Sync) {
    std::thread::scope(|scope| {
        for (number, row) in rows.iter().enumerate() {
            let each = &each;
            scope.spawn(move || each(number, row));
        }
    });
}

fn ready_lab(hook: &str, test: &str) -> Lab {
    let lab = lab(hook, test, &no_nat_rules());
    lab.static_neighbours();
    lab.router.ip(&format!("route add default via {SERVER}\n"));
    lab
}

fn hazard_28_a_failed_call_leaks_nothing(hook: &str, test: &str) {
    let row = |call, error, first, step| Row { call, error, first, step };
    let rows = [
        row("bpf", "ENOMEM", 1, 3),
        row("bpf", "ENOMEM", 2, 3),
        row("bpf", "ENOMEM", 3, 3),
        row("sendto", "ENOBUFS", 1, 1),
        row("recvmmsg", "ENOMEM", 1, 2),
        row("recvmmsg", "ENOMEM", 2, 2),
    ];
    side_by_side(&rows, |number, row| fail_in_turn(hook, &format!("{test}-{number}"), row));
}

/// Until a round has fewer calls.
fn fail_in_turn(hook: &str, test: &str, row: &Row) {
    let lab = ready_lab(hook, test);
    let options = ["--max-connections", ROOM, "--interval", "1000", "--log-level", "info"];
    let mut daemon = start(&lab, hook, &options);
    let _server = udp_echo(&lab.server, ECHO);
    let mut failed = 0;
    for fault in row.faults() {
        let injection = Injection::into_process(&lab.router, daemon.pid(), fault);
        converse(&lab, &daemon, &injection);
        let injected = injection.end();
        assert_eq!(daemon.exited(), None, "the daemon goes on after {injected:?}");
        let maps = Maps::of(daemon.pid());
        eventually(LIMIT, "all is well again", || maps.generation() != 0 && maps.entries() == 0);
        if injected.is_none() {
            break;
        }
        failed += 1;
    }
    println!("{hook}: {failed} times {} has failed by {}", row.call, row.error);
    assert!(failed > 1, "{} was called", row.call);
    fill(&lab, &daemon);
    assert!(daemon.stop(LIMIT).success());
}

/// Connections of both protocols come, a route changes, and the connections go.
fn converse(lab: &Lab, daemon: &Daemon, injection: &Injection) {
    let clients: Vec<_> =
        (0..4).map(|n| UdpClient::open(&lab.client, at(CLIENT, 40_000 + n), ECHO)).collect();
    clients.iter().for_each(|client| assert!(client.echoes(0, LIMIT), "it is answered"));
    let tcp = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 80)));
    tcp.exchange();
    let maps = Maps::of(daemon.pid());
    let done = |entries| injection.injected().is_some() || maps.entries() == entries;
    eventually(LIMIT, "they are offloaded", || done(10));
    lab.router.ip("route add 203.0.113.0/24 via 198.51.100.2\nroute del 203.0.113.0/24\n");
    clients.iter().for_each(|client| assert!(client.echoes(1, LIMIT), "it is answered"));
    tcp.exchange();
    drop(tcp);
    lab.conntrack(&["-D", "-p", "tcp"]);
    lab.conntrack(&["-D", "-p", "udp"]);
    eventually(LIMIT, "they are not offloaded", || done(0));
    lab.conntrack(&["-F"]);
}

/// As many as there is room for.
fn fill(lab: &Lab, daemon: &Daemon) {
    crowd::insert(lab, 0..CONNECTIONS, crowd::STREAM);
    let lan = Capture::open(&lab.client, "eth0");
    let maps = Maps::of(daemon.pid());
    let full = || {
        (0..CONNECTIONS).for_each(|number| lan.send_frame(&crowd::frame(number)));
        becomes_true(Duration::from_secs(1), || maps.entries() == 2 * CONNECTIONS as usize)
    };
    eventually(LIMIT, "there is room for all", full);
}

fn hazard_24_a_start_that_fails_leaves_nothing(hook: &str, test: &str) {
    let row = |call, error, first, step| Row { call, error, first, step };
    // The loader asks many times what the kernel can do.
    let rows = [
        row("bpf", "ENOMEM", 1, 8),
        row("bpf", "EPERM", 5, 8),
        row("sendto", "ENOBUFS", 1, 2),
        row("recvmmsg", "ENOMEM", 2, 3),
    ];
    side_by_side(&rows, |number, row| fail_at_start(hook, &format!("{test}-{number}"), row));
}

fn fail_at_start(hook: &str, test: &str, row: &Row) {
    let lab = ready_lab(hook, test);
    let program = program();
    let (mut failed, mut started) = (0, 0);
    for fault in row.faults() {
        let words = [&program, hook, "--max-connections", ROOM, "lan0", "wan0"];
        let faulty = Faulty::new(fault, &words);
        let words: Vec<_> = faulty.command.iter().map(String::as_str).collect();
        let mut daemon = Daemon::start_program(&lab.router, "strace", &words);
        let says = |part: &str| daemon_says(&daemon, part);
        eventually(LIMIT, "it forwards, or says what is wrong", || {
            says("forwarding") || says("ERROR")
        });
        if says("forwarding") {
            started += 1;
            daemon.signal(Signal::SIGTERM);
        } else {
            failed += 1;
        }
        // The call may be one of those at the end.
        let status = daemon.wait_exit(LIMIT);
        match status.code() {
            Some(0) => assert!(!daemon_says(&daemon, "ERROR"), "{:?}", faulty.injected()),
            Some(1) => eventually(LIMIT, "it says why", || daemon_says(&daemon, "ERROR")),
            code => panic!("{code:?} after {:?}", faulty.injected()),
        }
        expect_nothing_attached(&lab);
        if faulty.injected().is_none() {
            break;
        }
    }
    println!("{hook}: {} with {}: {failed} starts failed, {started} did not", row.call, row.error);
    assert!(failed > 0, "{} is needed for the start", row.call);
}

fn daemon_says(daemon: &Daemon, part: &str) -> bool {
    daemon.lines().iter().any(|line| line.contains(part))
}

fn expect_nothing_attached(lab: &Lab) {
    let attached = || lab.router.sh("bpftool net; tc filter show dev lan0 ingress");
    eventually(LIMIT, "nothing is attached", || !attached().contains("bpfw"));
}
