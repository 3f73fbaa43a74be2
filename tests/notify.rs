// SPDX-License-Identifier: GPL-2.0-only
//! As a service: what the manager hears, and what the log looks like there.

mod support;

use nix::sys::signal::Signal;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use support::ask::ask;
use support::configuration::Configuration;
use support::daemon::{Daemon, program};
use support::live::root_or_skip;
use support::outcome::{refuses, run};
use support::router::*;
use support::rules::snat_rules;

/// A service manager, or a system's log: a socket that takes messages.
struct Listener {
    socket: UnixDatagram,
    directory: PathBuf,
}

impl Listener {
    fn new(test: &str) -> Self {
        let name = format!("bpfw-{}-{test}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("a directory of ours");
        let socket = UnixDatagram::bind(directory.join("log")).expect("it is free");
        socket.set_read_timeout(Some(LIMIT)).expect("a socket");
        Self { socket, directory }
    }

    fn path(&self) -> String {
        self.directory.join("log").display().to_string()
    }

    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let length = loop {
            match self.socket.recv(&mut bytes) {
                // A wait with a limit ends when the process was halted meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                received => break received.expect("a message within the limit"),
            }
        };
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// The next message that begins so; those before it are thrown away.
    fn wait_for(&self, start: &str) -> String {
        loop {
            let message = self.next();
            if message.starts_with(start) {
                return message;
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The lab that a service runs in, and its file.
fn service(test: &str) -> (support::lab::Lab, Configuration) {
    let lab = lab("tc", test, &snat_rules());
    (lab, Configuration::new("tc", &["lan0", "wan0"], "max-connections = 16000"))
}

#[test]
fn the_manager_hears_of_start_reload_and_end() {
    let test = "the_manager_hears_of_start_reload_and_end";
    if !root_or_skip(test) {
        return;
    }
    let (lab, file) = service(test);
    let manager = Listener::new(test);
    let socket = format!("NOTIFY_SOCKET={}", manager.path());
    let program = program();
    let words = [&socket, &*program, "run", "--config", file.path()];
    let mut daemon = Daemon::start_program(&lab.router, "env", &words);
    assert_eq!(manager.next(), "READY=1");
    daemon.wait_for_line("attached to wan0", LIMIT);
    assert_eq!(manager.wait_for("STATUS=forwarding"), "STATUS=forwarding, 0 connections");
    lab.nft("table netdev guard { chain a { type filter hook ingress device lan0 priority 0; }; }");
    lab.nft("table netdev guard { chain b { type filter hook ingress device wan0 priority 0; }; }");
    manager.wait_for("STATUS=forwarding nothing: no usable interface");
    file.set("tc", &["lan0", "wan0"], "max-connections = 16001");
    assert_eq!(ask(&lab.router, &["reload"]).code, 4);
    let reloading = manager.wait_for("RELOADING=1\nMONOTONIC_USEC=");
    let since = reloading.rsplit('=').next().and_then(|it| it.parse::<u64>().ok());
    assert!(since.is_some_and(|it| it > 0), "{reloading}");
    assert_eq!(manager.next(), "READY=1");
    daemon.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(daemon.wait_exit(LIMIT).code(), Some(0));
}

/// Also while it pauses; the manager ends a daemon that is stopped.
#[test]
fn the_watchdog_is_fed() {
    let test = "the_watchdog_is_fed";
    if !root_or_skip(test) {
        return;
    }
    let (lab, file) = service(test);
    let manager = Listener::new(test);
    let (socket, program) = (format!("NOTIFY_SOCKET={}", manager.path()), program());
    let environment = [&*socket, "WATCHDOG_USEC=50000"];
    let command = [&*program, "run", "--interval", "1000", "--config", file.path()];
    let words = [&environment[..], &command].concat();
    let daemon = Daemon::start_program(&lab.router, "env", &words);
    manager.wait_for("READY=1");
    for _ in 0..20 {
        assert_eq!(manager.wait_for("WATCHDOG=1"), "WATCHDOG=1");
    }
    daemon.signal(Signal::SIGSTOP);
    std::thread::sleep(std::time::Duration::from_millis(300));
    manager.socket.set_nonblocking(true).expect("a socket");
    while manager.socket.recv(&mut [0; 4096]).is_ok() {}
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(manager.socket.recv(&mut [0; 64]).is_err(), "a stopped daemon says nothing");
    manager.socket.set_nonblocking(false).expect("a socket");
    daemon.signal(Signal::SIGCONT);
    manager.wait_for("WATCHDOG=1");
    // Meant for another process.
    let for_another = [&environment[..], &["WATCHDOG_PID=1"], &command].concat();
    drop(daemon);
    let _daemon = Daemon::start_program(&lab.router, "env", &for_another);
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=forwarding");
    manager.socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("a socket");
    let mut bytes = [0; 64];
    while let Ok(length) = manager.socket.recv(&mut bytes) {
        assert!(!bytes[..length].starts_with(b"WATCHDOG"), "nobody waits for it");
    }
}

#[test]
fn the_journal_gets_priorities_and_nobody_else() {
    let test = "the_journal_gets_priorities_and_nobody_else";
    if !root_or_skip(test) {
        return;
    }
    let (lab, file) = service(test);
    let script = |stream: &str| {
        format!("JOURNAL_STREAM={stream} exec {} run --config {}", program(), file.path())
    };
    let of_stderr = script("$(stat -L -c %d:%i /proc/self/fd/2)");
    let daemon = Daemon::start_program(&lab.router, "sh", &["-ec", &of_stderr]);
    daemon.wait_for_line("<6>forwarding", LIMIT);
    file.write("nonsense");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&format!("<3>{}:1: ", file.path()), LIMIT);
    assert!(daemon.lines().iter().all(|line| line.starts_with('<')), "{:?}", daemon.lines());
    assert!(daemon.stop(LIMIT).success());
    file.set("tc", &["lan0", "wan0"], "max-connections = 16000");
    let daemon = Daemon::start_program(&lab.router, "sh", &["-ec", &script("1:2")]);
    daemon.wait_for_line(" INFO forwarding", LIMIT);
}

/// In a mount namespace of its own, `/dev/log` is ours.
#[test]
fn syslog_gets_lines_with_priorities() {
    let test = "syslog_gets_lines_with_priorities";
    if !root_or_skip(test) {
        return;
    }
    let (lab, file) = service(test);
    let log = Listener::new(test);
    file.set("tc", &["lan0", "wan0"], "log-to = \"syslog\"\nmax-connections = 16000");
    let (path, directory) = (log.path(), log.directory.join("dev"));
    let script = format!(
        "mkdir {dev}; mount -t tmpfs none {dev}; cp -a /dev/null /dev/urandom {dev}; ln -s {path} {dev}/log
         mount --move {dev} /dev; exec {} run --config {}",
        program(),
        file.path(),
        dev = directory.display(),
    );
    let daemon = Daemon::start_program(&lab.router, "unshare", &["-m", "sh", "-ec", &script]);
    let line = log.wait_for("<30>");
    assert!(line.starts_with(&format!("<30>bpfw[{}]: ", daemon.pid())), "{line}");
    assert!(!line.ends_with('\n'), "{line}");
    file.write("nonsense");
    daemon.signal(Signal::SIGHUP);
    log.wait_for(&format!("<27>bpfw[{}]: {}:1: ", daemon.pid(), file.path()));
    assert_eq!(daemon.lines(), Vec::<String>::new());
    assert!(daemon.stop(LIMIT).success());
}

#[test]
fn a_log_that_is_not_there_is_named() {
    let test = "a_log_that_is_not_there_is_named";
    if !root_or_skip(test) || std::path::Path::new("/dev/log").exists() {
        return;
    }
    let (lab, _file) = service(test);
    refuses(
        &run(&lab, &["tc", "--log-to", "syslog", "lan0"]),
        1,
        &["error: opening /dev/log: No such"],
    );
}
