// SPDX-License-Identifier: GPL-2.0-only
//! Configuration files that go away with their guard.

use super::daemon::Daemon;
use super::lab::Lab;
use super::router::LIMIT;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Makes names unique within this process.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A configuration file.
pub struct Configuration {
    path: PathBuf,
}

impl Configuration {
    /// A file with this hook, these interfaces, and more lines.
    pub fn new(hook: &str, interfaces: &[&str], more: &str) -> Self {
        let number = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("bpfw-{}-{number}.toml", std::process::id());
        let file = Self { path: std::env::temp_dir().join(name) };
        file.set(hook, interfaces, more);
        file
    }

    /// Says something else, in the same way.
    pub fn set(&self, hook: &str, interfaces: &[&str], more: &str) {
        self.write(&format!("hook = \"{hook}\"\ninterfaces = {interfaces:?}\n{more}\n"));
    }

    /// Says something else.
    pub fn write(&self, text: &str) {
        std::fs::write(&self.path, text).expect("a file of ours");
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        Path::to_str(&self.path).expect("no strange letters")
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Starts `bpfw run` in the lab's router, and waits until it forwards.
pub fn start_by(lab: &Lab, file: &Configuration, options: &[&str]) -> Daemon {
    let daemon = Daemon::start(&lab.router, &[&["run", "--config", file.path()], options].concat());
    daemon.wait_for_line("forwarding", LIMIT);
    lab.wait_for_carrier();
    daemon
}
