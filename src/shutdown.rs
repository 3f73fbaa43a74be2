// SPDX-License-Identifier: GPL-2.0-only
//! SIGINT and SIGTERM, as something to poll for: nothing is done inside of a signal handler.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::error::{Error, Result};

/// Becomes readable when the process is asked to end.
pub struct Shutdown {
    reader: UnixStream,
}

impl Shutdown {
    /// From here on the two signals no longer end the process by themselves.
    pub fn watch() -> Result<Self> {
        let make = || -> std::io::Result<UnixStream> {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            for signal in [SIGINT, SIGTERM] {
                pipe::register(signal, writer.try_clone()?)?;
            }
            Ok(reader)
        };
        match make() {
            Ok(reader) => Ok(Self { reader }),
            Err(error) => Err(Error::system("watching for signals", error)),
        }
    }

    /// What to poll.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Whether a signal has come.
    pub fn is_asked(&mut self) -> bool {
        match self.reader.read(&mut [0; 16]) {
            Ok(signals) => signals > 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}
