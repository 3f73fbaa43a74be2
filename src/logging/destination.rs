// SPDX-License-Identifier: GPL-2.0-only
//! Where log lines go, and what stands in front of them there.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use clap::ValueEnum;
use tracing::Level;

/// Where programs send lines for the system's log.
const SYSLOG: &str = "/dev/log";
/// `LOG_DAEMON` of syslog(3).
const FACILITY: u8 = 3 << 3;

/// Where the log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogTo {
    /// The standard error, with priorities if it is systemd's journal
    #[default]
    Auto,
    /// The standard error
    Stderr,
    /// The system's log, for service managers that take all of the standard error for errors
    Syslog,
}

/// What the lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For people: the level as a word, if there is a terminal in color.
    Words,
    /// The priority in angle brackets, as the journal reads it.
    Journal,
    /// As a service of syslog.
    Syslog,
}

/// What takes lines.
pub(super) trait Destination: Write + AsFd + Send {}

impl Destination for File {}
impl Destination for Syslog {}

/// The system's log, which may be restarted.
pub(super) struct Syslog {
    socket: UnixDatagram,
}

impl LogTo {
    /// Opens it.
    pub(super) fn open(self) -> io::Result<(Form, Box<dyn Destination>)> {
        if self == Self::Syslog {
            return Ok((Form::Syslog, Box::new(Syslog { socket: connect()? })));
        }
        // Not by io::stderr(): a panic would wait for its lock as long as the log takes nothing.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let is_journal = self == Self::Auto && is_journal(&stderr);
        Ok((if is_journal { Form::Journal } else { Form::Words }, Box::new(stderr)))
    }
}

/// systemd tells which open file is the journal's. It is another one behind a redirection.
fn is_journal(stderr: &File) -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    stderr.metadata().is_ok_and(|about| stream == format!("{}:{}", about.dev(), about.ino()))
}

impl Form {
    /// What stands in front of a line.
    pub(super) fn prefix(self, level: Level) -> String {
        let priority = match level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        match self {
            Self::Words => String::new(),
            Self::Journal => format!("<{priority}>"),
            Self::Syslog => format!("<{}>bpfw[{}]: ", FACILITY | priority, std::process::id()),
        }
    }

    /// The same for the log's own warning.
    pub(super) fn warning(self) -> String {
        match self {
            Self::Words => " WARN ".to_owned(),
            _ => self.prefix(Level::WARN),
        }
    }
}

fn connect() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(SYSLOG)?;
    Ok(socket)
}

/// A line is a datagram.
impl Write for Syslog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let message = line.trim_ascii_end();
        let sent = match self.socket.send(message) {
            Err(error) if is_gone(&error) => {
                self.socket = connect()?;
                self.socket.send(message)
            }
            sent => sent,
        };
        sent.map(|_| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Syslog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whoever listened does not any more.
fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    [BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected].contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_its_priority() {
        let prefixes = |form: Form| {
            [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG].map(|level| form.prefix(level))
        };
        assert_eq!(prefixes(Form::Words), ["", "", "", ""]);
        assert_eq!(prefixes(Form::Journal), ["<3>", "<4>", "<6>", "<7>"]);
        let pid = std::process::id();
        let expected = [27, 28, 30, 31].map(|priority| format!("<{priority}>bpfw[{pid}]: "));
        assert_eq!(prefixes(Form::Syslog), expected);
    }
}
