// SPDX-License-Identifier: GPL-2.0-only
//! What surrounds the daemon: logs that take no lines, signals.

mod support;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::pipe2;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::capture::Capture;
use support::crowd;
use support::daemon::{Daemon, program};
use support::lab::{Lab, SERVER};
use support::netns::text;
use support::outcome::attached;
use support::process::Running;
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::udp::UdpClient;
use support::wait::eventually;

on_both_hooks!(
    hazard_60_a_closed_log_ends_nothing,
    hazard_60_a_log_that_nobody_reads_delays_nothing,
    hazard_60_a_full_disk_ends_nothing,
    hazard_60_other_signals_end_nothing,
);
on_both_hooks!(redirecting nothing:
    hazard_60_a_log_at_its_limit_of_size_ends_nothing,
    hazard_60_the_log_says_how_many_lines_it_lacks,
    hazard_60_the_last_lines_get_out,
    hazard_60_signals_that_end_it_leave_nothing_behind,
    hazard_60_signals_that_its_parent_ignored_stay_ignored,
    hazard_60_signals_that_its_parent_blocked_end_it,
    hazard_60_more_signals_disturb_no_stop,
);

/// The smallest pipe: a page.
const SMALL_PIPE: i32 = 4096;
/// Twice as many lines as this are more than wait for a reader.
const CROWD: u32 = 12_000;
const LEVELS: [&str; 4] = ["ERROR", " WARN", " INFO", "DEBUG"];
/// Longer than the age at which the datapath takes a heartbeat for too old.
const HEARTBEATS: Duration = Duration::from_millis(2_500);

/// A pipe with little room that no other child gets: reader and writer.
fn small_pipe() -> (File, OwnedFd) {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(SMALL_PIPE)).expect("a small pipe");
    (File::from(reader), writer)
}

/// Where others can open it.
fn path_of(descriptor: &impl AsRawFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), descriptor.as_raw_fd())
}

fn read_all(mut log: File) -> String {
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes).expect("the log");
    text(&bytes)
}

/// bpfw at both of the router's interfaces, with its log there. Nobody knows when it is ready.
fn start_with_log(lab: &Lab, hook: &str, options: &[&str], log: impl Into<Stdio>) -> Running {
    let mut command = lab.router.command(&program());
    command.arg(hook).args(options).args(["--max-connections", "16000", "lan0", "wan0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Running::new(command.spawn().expect("bpfw starts"))
}

fn stops_in_order(lab: &Lab, mut daemon: Running, before: &str) {
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(LIMIT).code(), Some(0));
    assert_eq!(attached(lab), before);
}

fn stays_fast(lab: &Lab, client: &UdpClient) {
    let end = Instant::now() + HEARTBEATS;
    let mut number = 2_000_000;
    while Instant::now() < end {
        assert!(echo_is_fast(lab, client, number), "echo {number} went by the stack");
        number += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Each connection that is offloaded or ends is a line.
fn make_lines(lab: &Lab, client: &UdpClient) {
    lab.conntrack(&["-F"]);
    wait_until_fast(lab, client);
}

fn hazard_60_a_closed_log_ends_nothing(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    // Somebody reads the first lines, as `head` does.
    let (mut reader, writer) = small_pipe();
    let mut daemon = start_with_log(&lab, hook, &["--log-level", "debug"], writer);
    reader.read_exact(&mut [0; 100]).expect("some lines");
    drop(reader);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    make_lines(&lab, &client);
    assert!(daemon.exited().is_none());
    stops_in_order(&lab, daemon, &before);
}

fn hazard_60_a_log_that_nobody_reads_delays_nothing(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let (_reader, writer) = small_pipe();
    let daemon = start_with_log(&lab, hook, &["--log-level", "trace"], writer);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    stays_fast(&lab, &client);
    stops_in_order(&lab, daemon, &before);
}

fn hazard_60_a_full_disk_ends_nothing(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let daemon = start_with_log(&lab, hook, &["--log-level", "debug"], full);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    make_lines(&lab, &client);
    stops_in_order(&lab, daemon, &before);
}

/// The kernel sends SIGXFSZ to who writes beyond it.
fn hazard_60_a_log_at_its_limit_of_size_ends_nothing(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let path = std::env::temp_dir().join(lab.router.name());
    let mut command = lab.router.command("prlimit");
    command.args(["--fsize=300", &program(), hook, "--log-level", "trace", "lan0", "wan0"]);
    let log = File::create(&path).expect("a log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let daemon = Running::new(command.spawn().expect("bpfw starts"));
    eventually(LIMIT, "it is attached", || attached(&lab) != before);
    let length = || std::fs::metadata(&path).expect("the log").len();
    eventually(LIMIT, "the log is at its limit", || length() == 300);
    stops_in_order(&lab, daemon, &before);
    std::fs::remove_file(&path).expect("removed");
}

/// More lines than wait for a reader: of each connection that comes, and that goes.
fn hazard_60_the_log_says_how_many_lines_it_lacks(hook: &str, test: &str) {
    let lab = lab(hook, test, &no_nat_rules());
    lab.static_neighbours();
    lab.router.ip(&format!("route add default via {SERVER}\n"));
    let (reader, writer) = small_pipe();
    let redirected = format!("2>{}", path_of(&writer));
    let script = format!("exec \"$0\" \"$@\" --max-connections 16000 lan0 wan0 {redirected}");
    let args = ["-c", &script, &program(), hook, "--log-level", "debug"];
    let before = attached(&lab);
    let mut daemon = Daemon::start_program(&lab.router, "sh", &args);
    eventually(LIMIT, "it is attached", || attached(&lab) != before);
    drop(writer);
    let lan = Capture::open(&lab.client, "eth0");
    crowd::offload(&lab, &lan, &daemon, CROWD);
    let number = offloaded(&daemon);
    lab.conntrack(&["-F"]);
    wait_until_offloaded(&daemon, 0);
    let log = Daemon::start_program(&lab.router, "cat", &[&path_of(&reader)]);
    let line = log.wait_for_line("log lines were lost", LIMIT);
    let lost = line.strip_prefix(" WARN ").and_then(|line| line.split(' ').next());
    let lost: usize = lost.and_then(|number| number.parse().ok()).expect("a number");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(LIMIT).code(), Some(0));
    log.wait_for_line("detached from wan0", LIMIT);
    let lines = log.lines();
    let seen = ["offloaded", "back to the stack"].map(|end| {
        lines.iter().filter(|line| line.starts_with("DEBUG udp ") && line.ends_with(end)).count()
    });
    println!("{hook}: {seen:?} lines of {number} connections, {lost} were lost");
    // Some lines are about other things.
    let known = lost + seen[0] + seen[1];
    assert!((2 * number..2 * number + 20).contains(&known), "{known} lines of {number}");
    assert!(lines.iter().all(|line| LEVELS.iter().any(|level| line.starts_with(level))));
}

/// Before there is a log.
#[test]
fn hazard_60_errors_that_nobody_reads_keep_their_exit_code() {
    for (args, code) in [
        (&["tc", "a.o", "b.o", "lan0"][..], 2),
        (&["tc", "--interval", "5", "lan0"], 2),
        (&["tc", "lan0", "lan0"], 2),
    ] {
        let full = || File::options().write(true).open("/dev/full").expect("/dev/full");
        let (_, closed) = small_pipe();
        for log in [OwnedFd::from(full()), closed] {
            let status = Command::new(program()).args(args).stderr(log).status();
            assert_eq!(status.expect("bpfw starts").code(), Some(code), "{args:?}");
        }
    }
}

/// They wait for a reader when it is asked to end.
fn hazard_60_the_last_lines_get_out(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let (reader, writer) = small_pipe();
    let daemon = start_with_log(&lab, hook, &["--log-level", "trace"], writer);
    eventually(LIMIT, "it is attached", || attached(&lab) != before);
    daemon.signal(Signal::SIGTERM);
    eventually(LIMIT, "it is detached", || attached(&lab) == before);
    let log = read_all(reader);
    for device in ["lan0", "wan0"] {
        assert!(log.contains(&format!("INFO detached from {device}\n")), "{log}");
    }
    assert!(!log.contains("lost"), "{log}");
}

#[test]
fn rust_log_says_more_and_silences_nothing_by_mistake() {
    if !support::live::root_or_skip("rust_log_says_more_and_silences_nothing_by_mistake") {
        return;
    }
    let lab = lab("tc", "rust-log", &snat_rules());
    for (asked, word) in [
        ("", "INFO attached"),
        (",", "INFO attached"),
        ("debgu", "INFO attached"),
        ("libbpf=debug,", "INFO attached"),
        ("libbpf=trace", "TRACE libbpf: "),
        ("libbpf=loud", "RUST_LOG=libbpf=loud is not understood: "),
        ("libbpf=loud", "INFO attached"),
    ] {
        let asked = format!("RUST_LOG={asked}");
        let args = [&asked, &program(), "tc", "lan0", "wan0"];
        let daemon = Daemon::start_program(&lab.router, "env", &args);
        daemon.wait_for_line(word, LIMIT);
        daemon.wait_for_line("INFO forwarding", LIMIT);
        assert!(daemon.stop(LIMIT).success());
    }
}

fn hazard_60_signals_that_end_it_leave_nothing_behind(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    for signal in [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGXCPU] {
        let mut daemon = start(&lab, hook, &[]);
        daemon.signal(signal);
        assert_eq!(daemon.wait_exit(LIMIT).code(), Some(0), "{signal}");
        assert_eq!(attached(&lab), before);
    }
}

/// All but those that end it, cannot be ignored, stop it or mean that it is broken.
fn hazard_60_other_signals_end_nothing(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let mut daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let names = "PIPE ALRM USR1 USR2 VTALRM PROF IO PWR XFSZ TTIN TTOU";
    let numbers: Vec<String> =
        [16].into_iter().chain(34..=64).map(|number| number.to_string()).collect();
    for signal in names.split(' ').chain(numbers.iter().map(String::as_str)) {
        lab.router.sh(&format!("kill -{signal} {}", daemon.pid()));
    }
    stays_fast(&lab, &client);
    assert!(daemon.exited().is_none());
    assert!(daemon.stop(LIMIT).success());
}

/// nohup ignores SIGHUP, shells without job control SIGQUIT and SIGINT of their background jobs.
fn hazard_60_signals_that_its_parent_ignored_stay_ignored(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let args = ["--ignore-signal=HUP,QUIT,INT", &program(), hook, "lan0", "wan0"];
    let mut daemon = Daemon::start_program(&lab.router, "env", &args);
    daemon.wait_for_line("forwarding", LIMIT);
    let (_server, client) = echo(&lab, 40000);
    daemon.signal(Signal::SIGHUP);
    daemon.signal(Signal::SIGQUIT);
    // It is at work after them.
    assert!(client.echoes(0, LIMIT));
    wait_until_offloaded(&daemon, 1);
    assert!(daemon.exited().is_none());
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.wait_exit(LIMIT).code(), Some(0));
}

fn hazard_60_signals_that_its_parent_blocked_end_it(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let args = ["--block-signal", &program(), hook, "lan0", "wan0"];
        let mut daemon = Daemon::start_program(&lab.router, "env", &args);
        daemon.wait_for_line("forwarding", LIMIT);
        daemon.signal(signal);
        assert_eq!(daemon.wait_exit(LIMIT).code(), Some(0));
        assert_eq!(attached(&lab), before);
    }
}

fn hazard_60_more_signals_disturb_no_stop(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let mut daemon = start(&lab, hook, &[]);
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
    let mut sent = 0;
    eventually(LIMIT, "it ends", || {
        // Of a process that has ended, until somebody waits for it, signals are lost.
        signals.iter().for_each(|signal| daemon.signal(*signal));
        sent += signals.len();
        daemon.exited().is_some()
    });
    println!("{hook}: {sent} signals until its end");
    assert_eq!(daemon.wait_exit(LIMIT).code(), Some(0));
    assert_eq!(attached(&lab), before);
    daemon.wait_for_line("detached from wan0", LIMIT);
}
