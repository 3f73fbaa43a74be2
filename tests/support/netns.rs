// SPDX-License-Identifier: GPL-2.0-only
//! Network namespaces that go away with their guard.

use super::process::Running;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A named network namespace; removed when dropped.
pub struct Namespace {
    name: String,
}

/// The longest name we use.
const NAME_LIMIT: usize = 60;

/// Makes names unique within this process.
static SERIAL: AtomicU32 = AtomicU32::new(0);

impl Namespace {
    /// Creates a namespace with its loopback up and IPv6 off, named after `name`.
    pub fn new(name: &str) -> Self {
        let namespace = Self { name: unique(name) };
        finish(
            "ip netns add",
            run(Command::new("ip").args(["netns", "add", namespace.name()]), ""),
        );
        namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        namespace.ip("link set lo up\n");
        namespace
    }

    /// The name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in the namespace, with the /sys that belongs to it.
    ///
    /// `ip netns exec` replaces itself, so the child's pid is the program's own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a program and returns what it wrote; panics with its standard error on failure.
    pub fn run(&self, args: &[&str]) -> Output {
        finish(&args.join(" "), self.try_run(args))
    }

    /// Runs a program, whatever comes of it.
    pub fn try_run(&self, args: &[&str]) -> Output {
        run(self.command(args[0]).args(&args[1..]), "")
    }

    /// Runs a program that reads `input`; panics with its standard error on failure.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Output {
        let what = format!("{} with input:\n{input}", args.join(" "));
        finish(&what, run(self.command(args[0]).args(&args[1..]), input))
    }

    /// Runs a shell script and returns its standard output; panics on failure.
    pub fn sh(&self, script: &str) -> String {
        text(&self.run(&["sh", "-ec", script]).stdout)
    }

    /// Runs several `ip` commands, one a line, each without the word `ip`.
    pub fn ip(&self, commands: &str) {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name, "-batch", "-"]);
        finish(&format!("ip -batch:\n{commands}"), run(&mut ip, commands));
    }

    /// Writes a sysctl of this namespace, given by its path below /proc/sys.
    pub fn sysctl(&self, path: &str, value: &str) {
        let path = format!("/proc/sys/{path}");
        self.enter(|| std::fs::write(&path, value).unwrap_or_else(|e| panic!("{path}: {e}")));
    }

    /// Runs `work` in a thread that is in the namespace; its sockets stay there.
    ///
    /// /proc/sys/net follows the thread, /sys does not.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        let inside = || {
            let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            setns(&file, CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        };
        let joined = std::thread::scope(|scope| scope.spawn(inside).join());
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a command of [`Namespace::command`] or any other within the namespace.
    pub fn spawn(&self, mut command: Command) -> Running {
        let child = self.enter(|| command.spawn());
        Running::new(child.unwrap_or_else(|error| panic!("starting {command:?}: {error}")))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A panic here, perhaps during another one, would hide the first.
        let output = Command::new("ip").args(["netns", "del", &self.name]).output();
        if !output.is_ok_and(|output| output.status.success()) {
            eprintln!("could not remove the namespace {}", self.name);
        }
    }
}

/// `bpfw-<name>-<pid>-<serial>`, with the name cut as needed.
fn unique(name: &str) -> String {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let tail = format!("-{}-{serial}", std::process::id());
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = name.chars().map(allowed).take(NAME_LIMIT - 5 - tail.len()).collect();
    format!("bpfw-{name}{tail}")
}

/// Runs a command with `input` as its standard input.
fn run(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    let mut pipe = child.stdin.take().expect("standard input is a pipe");
    // A program that does not read its input is judged by its exit status.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    child.wait_with_output().expect("waiting for a command")
}

fn finish(what: &str, output: Output) -> Output {
    let (status, errors) = (output.status, text(&output.stderr));
    assert!(status.success(), "{what}\nfailed with {status}: {errors}{}", text(&output.stdout));
    output
}

/// Bytes of a program's output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
