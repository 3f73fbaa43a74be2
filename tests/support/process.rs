// SPDX-License-Identifier: GPL-2.0-only
//! A child process that does not outlive its guard.

use super::wait::becomes_true;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// A running child; killed by its own pid and waited for when dropped.
pub struct Running {
    child: Child,
}

impl Running {
    /// Takes over a child that was just started.
    pub fn new(child: Child) -> Self {
        Self { child }
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; panics if the child is gone.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal)
            .unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.child.id()));
    }

    /// The exit status, if the child has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waiting for a child")
    }

    /// Waits until the child ends; panics if it does not in time.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let ended = becomes_true(limit, || self.exited().is_some());
        assert!(ended, "process {} still runs after {limit:?}", self.pid());
        self.exited().expect("it has just ended")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Child::kill does nothing to a child that was already waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
