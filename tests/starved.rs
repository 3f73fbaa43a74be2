// SPDX-License-Identifier: GPL-2.0-only
//! A daemon that gets 5 % of a CPU: its heart misses beats, the stack takes over, and nothing is lost.

mod support;

use bpfw::reasons::pause::Pause;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use support::capture::{Capture, Frame};
use support::crowd;
use support::lab::{CLIENT, Lab};
use support::live::lacking;
use support::outlaw::{Outlaw, allow_for_a_moment, conntrack};
use support::process::Running;
use support::router::*;
use support::rules::snat_rules;
use support::steady::{is_udp, last_of};
use support::udp::UdpClient;
use support::wait::eventually;

on_both_hooks!(hazard_29_a_busy_loop_of_higher_priority_loses_nothing);

/// One test at a time: the daemons would share these 5 %.
static CPU: Mutex<()> = Mutex::new(());

/// What the daemon compares in some of the slices of time that it gets.
const ENTRIES: u32 = 10_000;

/// Takes all the time of the first CPU that real-time tasks may have, 95 % of each second
/// (sched(7), `sched_rt_runtime_us`).
fn busy_loop(lab: &Lab) -> Running {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", "chrt", "-f", "50", "sh", "-c", "while :; do :; done"]);
    lab.router.spawn(command)
}

/// Process 0 is the calling thread, and those that it starts.
fn bind_to_cpu(pid: u32, cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).expect("a CPU");
    sched_setaffinity(Pid::from_raw(pid as i32), &cpus).expect("an affinity");
}

fn is_of_the_stream(frame: &Frame) -> bool {
    is_udp(frame) && frame.view().is_some_and(|view| view.src.port() == 40000)
}

fn hazard_29_a_busy_loop_of_higher_priority_loses_nothing(hook: &str, test: &str) {
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
        return lacking(test, "there is one CPU only");
    }
    let _alone = CPU.lock().unwrap_or_else(PoisonError::into_inner);
    bind_to_cpu(0, 1);
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    bind_to_cpu(daemon.pid(), 0);
    allow_for_a_moment(&lab);
    let ends = echo(&lab, 40000);
    let other = UdpClient::open(&lab.client, at(CLIENT, 40001), ECHO);
    wait_until_fast(&lab, &other);
    crowd::insert(&lab, 0..ENTRIES, crowd::STREAM);
    let outlaw = Outlaw::new(lab, daemon, ends);
    let mark = outlaw.daemon.mark();
    let busy = busy_loop(&outlaw.lab);
    let deleted = conntrack(&outlaw.lab, &["-D", "-p", "udp", "--sport", "40000"]);
    let capture = Capture::open(&outlaw.lab.server, "eth0");
    let last = last_of(&capture, deleted, is_of_the_stream);
    println!("{hook}: the last packet {last:?} after the deletion");
    assert!(last < Duration::from_millis(1_500), "the heartbeat is too old after a second");
    for number in 0..100 {
        assert!(other.echoes(number, LIMIT), "echo {number} is lost");
        std::thread::sleep(Duration::from_millis(10));
    }
    outlaw.daemon.wait_for_line_after(mark, Pause::Late.reason().words, LIMIT);
    outlaw.daemon.wait_for_line_after(mark, "forwarding", LIMIT);
    drop(busy);
    // The stack counts what it drops of the deleted stream, too.
    eventually(LIMIT, "the fast path is back", || {
        let before = forwarded(&outlaw.daemon);
        other.echoes(1000, LIMIT) && forwarded(&outlaw.daemon) >= before + 2
    });
}
