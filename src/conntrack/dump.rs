// SPDX-License-Identifier: GPL-2.0-only
//! Walking through all of conntrack's IPv4 entries, slice by slice.

use std::io;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::ffi::{Header, bare_message};
use super::socket::{GET, NEW, NLM_F_DUMP, NLM_F_REQUEST, Received, Socket, messages};
use crate::error::{Error, Result};

/// The kernel fills the next datagram while one is read, so nothing to read is a fault.
const TIMEOUT: Duration = Duration::from_secs(1);
const SEQUENCE: u32 = 1;

/// How far a dump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpProgress {
    /// The time is up; there is more.
    More,
    /// Every entry that existed all the time was seen.
    Done,
    /// The end was reached, but the table changed meanwhile so that entries may be missing.
    Interrupted,
}

/// A dump under way.
pub struct Dump {
    socket: Socket,
    interrupted: bool,
    ended: bool,
}

impl Dump {
    /// Asks the kernel for all IPv4 entries.
    pub fn start() -> Result<Self> {
        let start = || {
            let socket = Socket::open()?;
            socket.set_receive_timeout(TIMEOUT)?;
            let flags = NLM_F_REQUEST | NLM_F_DUMP;
            socket.send(&bare_message(Header { kind: GET, flags, sequence: SEQUENCE }))?;
            Ok(Self { socket, interrupted: false, ended: false })
        };
        start().map_err(dumping)
    }

    /// Hands entries of TCP and UDP to `f` until the end or until the time is up. At least one
    /// datagram is read.
    pub fn read(&mut self, until: Instant, f: &mut dyn FnMut(Entry)) -> Result<DumpProgress> {
        while !self.ended {
            self.read_datagram(f).map_err(dumping)?;
            if !self.ended && Instant::now() >= until {
                return Ok(DumpProgress::More);
            }
        }
        Ok(if self.interrupted { DumpProgress::Interrupted } else { DumpProgress::Done })
    }

    fn read_datagram(&mut self, f: &mut dyn FnMut(Entry)) -> io::Result<()> {
        let datagram = match self.socket.receive()? {
            Received::Datagram(datagram) => datagram,
            Received::Empty => return Err(io::ErrorKind::TimedOut.into()),
            Received::Overrun => {
                self.interrupted = true;
                return Ok(());
            }
        };
        for message in messages(datagram).filter(|message| message.sequence == SEQUENCE) {
            self.interrupted |= message.is_interrupted();
            if let Some(outcome) = message.end() {
                self.ended = true;
                return outcome;
            }
            message.verdict().transpose()?;
            if let Some(entry) =
                (message.kind == NEW).then(|| Entry::decode(message.bytes)).flatten()
            {
                f(entry);
            }
        }
        Ok(())
    }
}

fn dumping(cause: io::Error) -> Error {
    Error::system("dumping the conntrack table", cause)
}
