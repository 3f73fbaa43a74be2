// SPDX-License-Identifier: GPL-2.0-only
//! Failures of single system calls of a program, by strace.

use super::netns::Namespace;
use super::process::Running;
use super::wait::becomes_true;
use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// One call that fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The system call.
    pub call: &'static str,
    /// The name of its error.
    pub error: &'static str,
    /// Which of the calls of a thread, from 1.
    pub number: u32,
}

/// What strace writes, removed when dropped.
struct Trace(PathBuf);

impl Trace {
    fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("bpfw-trace-{}-{serial}", std::process::id())))
    }

    /// The first call that failed as was asked for.
    fn injected(&self) -> Option<String> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().find(|line| line.contains("(INJECTED)")).map(str::to_owned)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Fault {
    fn options(&self, trace: &Trace) -> Vec<String> {
        let Self { call, error, number } = self;
        let words = [
            "-f",
            "-qq",
            "-o",
            trace.0.to_str().expect("a path of plain letters"),
            "-e",
            &format!("trace={call}"),
            "-e",
            &format!("inject={call}:error={error}:when={number}"),
        ];
        words.map(str::to_owned).to_vec()
    }
}

/// A program that was started with a fault.
pub struct Faulty {
    /// It has the program's process id.
    pub command: Vec<String>,
    trace: Trace,
}

impl Faulty {
    /// How to start a program so: by `Daemon::start_program(_, "strace", ...)`.
    pub fn new(fault: Fault, command: &[&str]) -> Self {
        let trace = Trace::new();
        let mut words = vec!["-D".to_owned()];
        words.extend(fault.options(&trace));
        words.extend(command.iter().map(|word| (*word).to_owned()));
        Self { command: words, trace }
    }

    /// The call that has failed. The program has ended.
    pub fn injected(&self) -> Option<String> {
        let mut found = None;
        becomes_true(Duration::from_secs(1), || {
            found = self.trace.injected();
            found.is_some()
        });
        found
    }
}

/// A fault in a running process; it ends when dropped.
pub struct Injection {
    strace: Running,
    trace: Trace,
}

impl Injection {
    /// Waits until all threads are traced.
    pub fn into_process(namespace: &Namespace, pid: u32, fault: Fault) -> Self {
        let trace = Trace::new();
        let mut command = Command::new("strace");
        command.args(fault.options(&trace)).args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let strace = namespace.spawn(command);
        let traced = becomes_true(LIMIT, || {
            let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
            tasks.all(|task| {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
            })
        });
        assert!(traced, "strace traces process {pid}");
        Self { strace, trace }
    }

    /// The call that has failed, if it has.
    pub fn injected(&self) -> Option<String> {
        self.trace.injected()
    }

    /// Lets go of the process, and says which call has failed, if any.
    pub fn end(mut self) -> Option<String> {
        self.strace.signal(Signal::SIGINT);
        self.strace.wait_exit(LIMIT);
        self.trace.injected()
    }
}
