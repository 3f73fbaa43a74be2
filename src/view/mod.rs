// SPDX-License-Identifier: GPL-2.0-only
//! The commands that ask: what is shown to people, and to other programs.

pub mod check;
mod events;
mod filter;
mod flow;
mod flows;
mod metrics;
mod screen;
mod status;
mod top;
mod why;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};
use crate::shutdown::Shutdown;
use crate::status::client::Daemons;

/// No bpfw runs in this network namespace, as LSB's `status` says it.
pub(crate) const NO_DAEMON: u8 = 3;
/// How often is looked again.
const TURN: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Debug, Subcommand)]
pub enum Question {
    /// Say whether bpfw forwards here, and if not, why
    ///
    /// Exit status: 0 if it forwards at all interfaces, 3 if no bpfw runs in this network namespace, 4 if one
    /// runs but pauses, or leaves an interface or an address family to the network stack, 1 if it cannot be
    /// asked.
    Status(status::Options),
    /// List the offloaded connections, with packets, bytes and ways; as root
    ///
    /// -> is the direction of who opened the connection, <- the answers. The last word says what becomes of
    /// the next packet, if it is not forwarded: see docs/reasons.md; 'looks-up' asks routing again. Exit
    /// status: 0, or 3 if no bpfw runs in this network namespace, or 1 if it cannot be asked.
    Flows(flows::Options),
    /// Show the connections or hosts with the most traffic, once a second; as root
    ///
    /// On a terminal over itself, until Ctrl-C, else one below the other. -> is the direction of who opened the
    /// connection, <- the answers. Exit status: 0, or 3 if no bpfw runs in this network namespace, or 1 if it cannot
    /// be asked.
    Top(top::Options),
    /// Say why a connection is, or is not, on the fast path; without words, of all connections; as root
    ///
    /// bpfw why tcp 192.0.2.2:41276 198.51.100.2:443, bpfw why -s 192.0.2.20 --dport 21, or a line of
    /// conntrack -L in quotes. Exit status: 0 if it is on the fast path in both directions, 3 if not, 4 if
    /// there is no such connection, 1 if this cannot be found out.
    Why(why::Options),
    /// Tell when the offload of a connection begins and ends, with its final counts
    ///
    /// -> is the direction of who opened the connection, <- the answers. A connection may be offloaded several
    /// times, one after the other, each time counted from 0. With --interval, as root, also which ones go on. Exit
    /// status: 0 when the daemon ends, or 3 if no bpfw runs in this network namespace, or 1 if it cannot be
    /// listened to.
    Events(events::Options),
    /// Write the status in the text format of Prometheus
    ///
    /// Exit status: 0, or 3 if no bpfw runs in this network namespace, or 1 if it cannot be asked.
    Metrics(metrics::Options),
}

impl Question {
    /// Answers on the standard output.
    pub fn answer(&self) -> Result<ExitCode> {
        match self {
            Self::Status(options) => status::show(options),
            Self::Flows(options) => flows::show(options),
            Self::Top(options) => top::show(options),
            Self::Why(options) => why::show(options),
            Self::Events(options) => events::show(options),
            Self::Metrics(options) => metrics::show(options),
        }
    }
}

/// Why an answer of many lines ends early.
enum Stop {
    /// Its reader has seen enough.
    Closed,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Closed;
        }
        Self::Failed(Error::system("writing the answer", error))
    }
}

fn no_json(error: serde_json::Error) -> Error {
    Error::system("writing the answer", error)
}

/// Writes all of an answer. A reader that has seen enough is no error.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::system("writing the answer", error))
        }
        _ => Ok(()),
    }
}

/// Waits until this time; whether a signal asks for the end before it comes.
fn is_asked_to_end(shutdown: &mut Shutdown, until: Instant) -> Result<bool> {
    while !shutdown.is_asked() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout =
            PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(shutdown.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("waiting for the next turn", errno)),
        }
    }
    Ok(true)
}

/// Says that no bpfw runs here.
fn no_daemon(daemons: &Daemons) -> ExitCode {
    let elsewhere = match daemons.elsewhere {
        0 => String::new(),
        number => format!("; {number} in others"),
    };
    // Nothing better can be done if the standard error is closed.
    let _ = writeln!(
        io::stderr(),
        "error: no bpfw runs in this network namespace{elsewhere} (start one: bpfw tc lan0 wan0)"
    );
    ExitCode::from(NO_DAEMON)
}
