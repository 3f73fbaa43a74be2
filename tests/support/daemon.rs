// SPDX-License-Identifier: GPL-2.0-only
//! The daemon under test, running in a namespace.

use super::netns::Namespace;
use super::process::Running;
use super::wait::becomes_true;
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The bpfw that is tested: the one that was built with the tests, or another one that stands in
/// `BPFW_PROGRAM`, built by other means.
pub fn program() -> String {
    std::env::var("BPFW_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_bpfw").to_owned())
}

/// A running daemon and what it has written; killed when dropped.
pub struct Daemon {
    running: Running,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Starts bpfw in the namespace with these arguments.
    pub fn start(namespace: &Namespace, args: &[&str]) -> Self {
        Self::start_program(namespace, &program(), args)
    }

    /// Starts any program the same way.
    pub fn start_program(namespace: &Namespace, program: &str, args: &[&str]) -> Self {
        let mut command = namespace.command(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("starting {program}: {error}"));
        let mut running = Running::new(child);
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let child = running.child();
        keep_lines(child.stdout.take().expect("standard output is a pipe"), &lines);
        keep_lines(child.stderr.take().expect("standard error is a pipe"), &lines);
        Self { running, lines }
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// All lines of standard output and standard error so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("not poisoned").clone()
    }

    /// How many lines there are so far, for `wait_for_line_after`.
    pub fn mark(&self) -> usize {
        self.lines.lock().expect("not poisoned").len()
    }

    /// The first line that contains `part`; waits for it, and panics with all output if none.
    pub fn wait_for_line(&self, part: &str, limit: Duration) -> String {
        self.wait_for_line_after(0, part, limit)
    }

    /// As `wait_for_line`, but not among the first `mark` lines.
    pub fn wait_for_line_after(&self, mark: usize, part: &str, limit: Duration) -> String {
        let mut found = None;
        becomes_true(limit, || {
            let lines = self.lines.lock().expect("not poisoned");
            found = lines.iter().skip(mark).find(|line| line.contains(part)).cloned();
            found.is_some()
        });
        found.unwrap_or_else(|| {
            panic!("no line with '{part}' within {limit:?} in:\n{}", self.lines().join("\n"))
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// The exit status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.running.exited()
    }

    /// Waits until it ends; panics with its output if it does not in time.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let ended = becomes_true(limit, || self.exited().is_some());
        assert!(ended, "still running after {limit:?}:\n{}", self.lines().join("\n"));
        self.exited().expect("it has just ended")
    }

    /// Ends it as a service manager would: SIGTERM, then up to `limit` for an orderly exit.
    pub fn stop(mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_exit(limit)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The harness shows this only for a test that failed.
        if std::thread::panicking() {
            eprintln!("output of process {}:\n{}", self.pid(), self.lines().join("\n"));
        }
    }
}

/// Collects lines in a thread, which ends with the pipe.
fn keep_lines(pipe: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        // Not `lines()`, which would stop at bytes that are not UTF-8.
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            lines.lock().expect("not poisoned").push(text);
            line.clear();
        }
    });
}
