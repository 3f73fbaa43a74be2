// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw reload`: asks the daemon to read its configuration file again, waits, and says what came of it.
//!
//! The request is the signal SIGHUP, so the kernel says who may ask. The answer is in the daemon's status.

use std::io::Write;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::status::client::{self, Answer};
use crate::status::{Reload, Reloaded, State};
use crate::view::NO_DAEMON;

/// Some of it needs a restart.
const NEEDS_RESTART: u8 = 4;
/// How long a daemon may take that is late, or attaches to very many interfaces.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(20);

/// Asks, waits, and says it.
pub fn reload() -> Result<ExitCode> {
    let Some(daemon) = client::ask_one()? else {
        let _ = writeln!(std::io::stderr(), "error: no bpfw runs in this network namespace");
        return Ok(ExitCode::from(NO_DAEMON));
    };
    let pid = daemon.status.bpfw.pid;
    if daemon.status.state == State::Late {
        return Err(Error::refused(format!("bpfw (pid {pid}) is late")).with_advice("try again"));
    }
    if daemon.status.configuration.is_none() {
        // The signal would end it.
        return Err(Error::refused(format!("bpfw (pid {pid}) has no configuration file"))
            .with_advice("only 'bpfw run' has one: restart it with other options"));
    }
    ask(&daemon)?;
    let Reload { result, text, .. } = wait_for(daemon.status.reload.number)?;
    if result == Reloaded::Refused {
        return Err(Error::refused(text).with_advice("all settings stay as they are"));
    }
    // Nothing better can be done if the standard output is closed.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(match result {
        Reloaded::NeedsRestart => ExitCode::from(NEEDS_RESTART),
        _ => ExitCode::SUCCESS,
    })
}

/// Sends the signal, if we may.
fn ask(daemon: &Answer) -> Result<()> {
    let failed = |errno| {
        let error = Error::system(format!("asking bpfw (pid {})", daemon.pid), errno);
        match errno {
            Errno::EPERM => error.with_advice("run as root, or as the user that bpfw runs as"),
            _ => error,
        }
    };
    if daemon.pid <= 0 {
        return Err(Error::refused("bpfw runs in a container that hides its process")
            .with_advice("ask there"));
    }
    kill(Pid::from_raw(daemon.pid), Signal::SIGHUP).map_err(failed)
}

/// The first reload after so many.
fn wait_for(before: u64) -> Result<Reload> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        thread::sleep(AGAIN);
        let daemon = client::ask_one()?;
        let Some(daemon) = daemon else {
            return Err(Error::refused("bpfw has ended meanwhile"));
        };
        // One that is late has said nothing.
        if daemon.status.reload.number > before {
            return Ok(daemon.status.reload);
        }
    }
    Err(Error::refused(format!("bpfw has not reloaded within {PATIENCE:?}"))
        .with_advice("see bpfw status"))
}
