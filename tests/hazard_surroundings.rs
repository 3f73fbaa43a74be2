// SPDX-License-Identifier: GPL-2.0-only
//! What surrounds the daemon: logs that take no lines, signals, other users, descriptors, limits.

mod support;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::pipe2;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::bystander::ifindex;
use support::capture::Capture;
use support::crowd;
use support::daemon::{Daemon, program};
use support::lab::{Lab, SERVER};
use support::netns::{Namespace, text};
use support::outcome::{attached, refuses, run};
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
    hazard_60_closed_descriptors_are_not_written_to,
);
on_both_hooks!(redirecting nothing:
    hazard_60_a_log_at_its_limit_of_size_ends_nothing,
    hazard_60_the_log_says_how_many_lines_it_lacks,
    hazard_60_the_last_lines_get_out,
    hazard_60_signals_that_end_it_leave_nothing_behind,
    hazard_60_signals_that_its_parent_ignored_stay_ignored,
    hazard_60_signals_that_its_parent_blocked_end_it,
    hazard_60_more_signals_disturb_no_stop,
    hazard_60_no_other_user_can_keep_it_from_starting,
    hazard_60_a_killed_one_keeps_no_claim,
    hazard_60_each_namespace_has_its_own_claims,
    hazard_60_locks_that_are_not_its_own_are_refused,
    hazard_60_limits_that_are_too_low_are_errors,
    hazard_60_no_thread_for_the_log_is_an_error,
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
    command.arg(hook).args(options).args(["--max-connections", "16000"]);
    command.args(["--prove-every", "0", "lan0", "wan0"]);
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
        // Whoever runs the tests may ignore it (nohup).
        let args = ["--default-signal", &program(), hook, "lan0", "wan0"];
        let mut daemon = Daemon::start_program(&lab.router, "env", &args);
        daemon.wait_for_line("forwarding", LIMIT);
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
        let args = ["--default-signal", "--block-signal", &program(), hook, "lan0", "wan0"];
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

fn hazard_60_no_other_user_can_keep_it_from_starting(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    // A name that anybody can take.
    let name = format!("bpfw/{}", ifindex(&lab.router, "lan0"));
    let address = SocketAddr::from_abstract_name(name).expect("a name");
    let _taken = lab.router.enter(|| UnixDatagram::bind_addr(&address)).expect("it is free");
    let daemon = start(&lab, hook, &[]);
    for script in ["ls /run/bpfw", "flock -n /run/bpfw/lock true", "rm -f /run/bpfw/lock"] {
        let nobody = ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", script];
        let output = lab.router.try_run(&nobody);
        assert!(text(&output.stderr).contains("ermission denied"), "{script}: {output:?}");
    }
    assert!(daemon.stop(LIMIT).success());
}

fn hazard_60_a_killed_one_keeps_no_claim(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    for _ in 0..3 {
        let mut daemon = start(&lab, hook, &[]);
        refuses(&run(&lab, &[hook, "wan0"]), 1, &["another bpfw runs at wan0"]);
        daemon.signal(Signal::SIGKILL);
        daemon.wait_exit(LIMIT);
    }
    // The sockets of other tests' daemons come and go.
    let files = std::fs::read_dir("/run/bpfw").expect("its directory").flatten();
    let files: Vec<_> = files.map(|file| file.file_name()).collect();
    let is_socket = |name: &&std::ffi::OsString| name.to_string_lossy().contains('-');
    assert_eq!(files.iter().filter(|name| !is_socket(name)).count(), 1, "{files:?}");
}

/// Interfaces of two namespaces have the same numbers.
fn hazard_60_each_namespace_has_its_own_claims(hook: &str, test: &str) {
    let namespaces = [Namespace::new(test), Namespace::new(test)];
    let add = "link add lan0 type veth peer name lan1\nlink set lan0 up\nlink set lan1 up\n";
    namespaces.iter().for_each(|namespace| namespace.ip(add));
    let [first, second] = namespaces.each_ref().map(|namespace| ifindex(namespace, "lan0"));
    assert_eq!(first, second);
    let daemons = namespaces.each_ref().map(|namespace| {
        let daemon = Daemon::start(namespace, &[hook, "lan0"]);
        daemon.wait_for_line("forwarding", LIMIT);
        daemon
    });
    for daemon in daemons {
        assert!(daemon.stop(LIMIT).success());
    }
}

/// A shell that becomes bpfw after this, with a /run of its own that it has just mounted.
fn shell(hook: &str, before: &str) -> [String; 7] {
    let script = format!("mount -t tmpfs nodev /run\n{before}\nexec \"$@\"");
    ["-ec", &script, "sh", &program(), hook, "lan0", "wan0"].map(str::to_owned)
}

fn starts_after(lab: &Lab, hook: &str, before: &str) {
    let shell = shell(hook, before);
    let daemon = Daemon::start_program(&lab.router, "sh", &shell.each_ref().map(String::as_str));
    daemon.wait_for_line("forwarding", LIMIT);
    assert!(daemon.stop(LIMIT).success());
}

fn refuses_after(lab: &Lab, hook: &str, before: &str, words: &[&str]) {
    let (shell, untouched) = (shell(hook, before), attached(lab));
    let args = shell.each_ref().map(String::as_str);
    let output = lab.router.try_run(&[&["timeout", "10", "sh"], &args[..]].concat());
    refuses(&output, 1, words);
    assert_eq!(attached(lab), untouched, "{before}");
}

fn hazard_60_locks_that_are_not_its_own_are_refused(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let place = std::env::temp_dir().join(lab.router.name());
    std::fs::create_dir(&place).expect("a new directory");
    let victim = place.join("lock").display().to_string();
    let links = [
        format!("ln -s {} /run/bpfw", place.display()),
        format!("mkdir -m 700 /run/bpfw; ln -s {victim} /run/bpfw/lock"),
    ];
    let not_its_own = "is open to other users";
    for (prepare, word) in [
        (links[0].as_str(), "remove it"),
        (&links[1], "remove it"),
        ("touch /run/bpfw", "remove it"),
        ("mkdir -m 700 /run/bpfw; chown 65534 /run/bpfw", not_its_own),
        ("mkdir -m 770 /run/bpfw", not_its_own),
        ("mkdir -m 1777 /run/bpfw", not_its_own),
        ("mkdir /run/bpfw; touch /run/bpfw/lock; chmod 604 /run/bpfw/lock", not_its_own),
        ("mkdir /run/bpfw; touch /run/bpfw/lock; chown 65534 /run/bpfw/lock", not_its_own),
        ("mount -o remount,ro /run", "mount a tmpfs there"),
    ] {
        refuses_after(&lab, hook, prepare, &["/run/bpfw", word]);
    }
    assert!(!std::path::Path::new(&victim).exists(), "nothing is made behind a link");
    std::fs::remove_dir(&place).expect("removed");
    // As systemd makes it; and as whoever has no /run.
    starts_after(&lab, hook, "mkdir -m 755 /run/bpfw");
    starts_after(&lab, hook, &without_run());
}

/// Becomes bpfw in a root directory with /var/run alone.
fn without_run() -> String {
    let folder = program();
    let folder = std::path::Path::new(&folder).parent().expect("a folder").display();
    let binds = format!("/usr /lib /lib64 /proc /sys /dev {folder}");
    format!(
        "mkdir -p /run/root/var/run; cd /run/root
        for each in {binds}; do
            [ ! -e $each ] || {{ mkdir -p .$each; mount --rbind $each .$each; }}
        done
        set -- chroot . \"$@\""
    )
}

/// Else maps or sockets would get these numbers, and log lines.
fn hazard_60_closed_descriptors_are_not_written_to(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let mut command = lab.router.command("sh");
    let script = "exec \"$0\" \"$@\" --log-level trace lan0 wan0 <&- >&- 2>&-";
    command.args(["-c", script, &program(), hook]);
    let daemon = Running::new(command.spawn().expect("bpfw starts"));
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    for number in 0..=2 {
        let path = format!("/proc/{}/fd/{number}", daemon.pid());
        let file = std::fs::read_link(path).expect("something is open");
        assert_eq!(file.to_str(), Some("/dev/null"), "descriptor {number}");
    }
    stops_in_order(&lab, daemon, &before);
}

/// With each of them it says what it lacks, or works.
fn hazard_60_limits_that_are_too_low_are_errors(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let refuses_with = |limit: &str, words: &[&str]| {
        let args = ["timeout", "10", "prlimit", limit, &program(), hook, "lan0", "wan0"];
        refuses(&lab.router.try_run(&args), 1, words);
        assert_eq!(attached(&lab), before, "{limit}");
    };
    for number in (8..102).step_by(10) {
        refuses_with(&format!("--nofile={number}"), &["files can be open", "102", "ulimit"]);
    }
    for megabytes in [14, 16, 20] {
        let limit = format!("--as={}", megabytes << 20);
        refuses_with(&limit, &["there is no memory", "--max-connections"]);
    }
    for limit in ["--nofile=102", "--nofile=8:1000", "--as=100000000"] {
        let args = [limit, &program(), hook, "lan0", "wan0"];
        let daemon = Daemon::start_program(&lab.router, "prlimit", &args);
        daemon.wait_for_line("forwarding", LIMIT);
        assert!(daemon.stop(LIMIT).success());
    }
}

/// Another user than root, with what it takes to run and a directory for its locks.
fn hazard_60_no_thread_for_the_log_is_an_error(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let kept = "+bpf,+net_admin,+perfmon";
    let user = format!(
        "mkdir -m 700 /run/bpfw; chown 65534 /run/bpfw
        set -- --inh-caps={kept} --ambient-caps={kept} \"$@\"
        set -- setpriv --reuid=65534 --clear-groups \"$@\""
    );
    starts_after(&lab, hook, &user);
    let limit = format!("set -- prlimit --nproc=1 \"$@\"\n{user}");
    refuses_after(&lab, hook, &limit, &["error: starting the log: "]);
}
