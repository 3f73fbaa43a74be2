// SPDX-License-Identifier: GPL-2.0-only
//! Changes of a router, ten steps a second, until they are to end.

use super::row::Change;
use crate::support::netns::Namespace;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PACE: Duration = Duration::from_millis(100);

/// A thread that makes changes.
pub struct Churn {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Churn {
    /// Begins with step 0.
    pub fn start(router: &Namespace, change: impl Fn(u32) -> Change + Send + 'static) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (name, until) = (router.name().to_owned(), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut ip = piped(Command::new("ip").args(["-n", &name, "-batch", "-"]))?;
            let (mut result, mut step) = (Ok(()), 0);
            let started = Instant::now();
            while result.is_ok() && !until.load(Ordering::Relaxed) {
                result = match change(step) {
                    Change::Ip(lines) => feed(&mut ip, &lines),
                    Change::Nft(input) => nft(&name, &input),
                };
                step += 1;
                std::thread::sleep((PACE * step).saturating_sub(started.elapsed()));
            }
            result.and(finish(ip))
        });
        Self { ended, thread }
    }

    /// An error if a change failed.
    pub fn end(self) -> Result<(), String> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the thread of the changes has panicked".to_owned())?
    }
}

fn piped(command: &mut Command) -> Result<Child, String> {
    command.stdin(Stdio::piped()).spawn().map_err(|error| format!("{command:?}: {error}"))
}

fn feed(child: &mut Child, input: &str) -> Result<(), String> {
    let stdin = child.stdin.as_mut().ok_or("the standard input is closed")?;
    stdin.write_all(input.as_bytes()).map_err(|error| format!("making changes: {error}"))
}

fn nft(namespace: &str, input: &str) -> Result<(), String> {
    let mut nft = piped(Command::new("ip").args(["netns", "exec", namespace, "nft", "-f", "-"]))?;
    feed(&mut nft, input).and(finish(nft))
}

/// Waits for the end, which the end of its input asks for.
fn finish(mut child: Child) -> Result<(), String> {
    drop(child.stdin.take());
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("making changes: {status}")),
        Err(error) => Err(format!("making changes: {error}")),
    }
}
