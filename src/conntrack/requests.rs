// SPDX-License-Identifier: GPL-2.0-only
//! Asking for single entries, and changing what bpfw changes in them: timeout and TCP flags.

use std::io;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::ffi::Header;
use super::message::{self, Change};
use super::socket::{GET, NEW, NLM_F_REQUEST, Outcome, Received, Socket, messages};
use crate::error::{Error, Result};
use crate::flow::tuple::Tuple;

/// How long the kernel may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Updates of one send; far below the send buffer of any system.
const BATCH: usize = 32 * 1024;
/// No update is larger, so a batch stays below `BATCH`.
const LARGEST_UPDATE: usize = 512;
/// Room for the error replies to a batch in which every update fails.
const REPLY_BUFFER: usize = 1024 * 1024;

/// The updates that the kernel refused.
#[derive(Debug, Default)]
pub struct UpdateErrors {
    /// Connections that conntrack does not know any more.
    pub gone: Vec<Tuple>,
    /// Those whose updates were refused for other reasons.
    pub failed: Vec<Tuple>,
    /// The first of those reasons.
    pub reason: Option<io::Error>,
    /// Whether the kernel dropped replies, so that some are missing.
    pub incomplete: bool,
}

/// Two sockets: one for questions, and one for updates, so that their answers do not mix.
pub struct Requests {
    questions: Socket,
    updates: Socket,
    sequence: u32,
    queue: Vec<u8>,
    /// The connections of the queued updates, by the updates' sequence numbers.
    queued: Vec<(u32, Tuple)>,
    errors: UpdateErrors,
}

impl Requests {
    /// Opens both sockets.
    pub fn open() -> Result<Self> {
        let open = || {
            let (questions, updates) = (Socket::open()?, Socket::open()?);
            questions.set_receive_timeout(TIMEOUT)?;
            updates.set_non_blocking()?;
            updates.set_receive_buffer(REPLY_BUFFER)?;
            Ok((questions, updates))
        };
        let (questions, updates) = open()
            .map_err(|cause: io::Error| Error::system("opening sockets to conntrack", cause))?;
        Ok(Self {
            questions,
            updates,
            sequence: 0,
            queue: Vec::with_capacity(BATCH),
            queued: Vec::new(),
            errors: UpdateErrors::default(),
        })
    }

    /// The port that events caused by updates carry.
    pub fn port(&self) -> u32 {
        self.updates.port()
    }

    /// The entry of a connection, looked up by the tuple of either direction.
    pub fn get(&mut self, tuple: &Tuple) -> Result<Option<Entry>> {
        self.ask(tuple)
            .map_err(|cause| Error::system(format!("asking conntrack for {tuple}"), cause))
    }

    fn ask(&mut self, tuple: &Tuple) -> io::Result<Option<Entry>> {
        let header = self.next_header(GET);
        let mut request = Vec::new();
        message::append(header, tuple, Change::default(), &mut request)?;
        self.questions.send(&request)?;
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            let Received::Datagram(datagram) = self.questions.receive()? else {
                break;
            };
            // Late answers to earlier questions are passed over.
            for message in messages(datagram).filter(|found| found.sequence == header.sequence) {
                match message.verdict() {
                    Some(Err(error)) if is_gone(&error) => return Ok(None),
                    Some(Err(error)) => return Err(error),
                    Some(Ok(())) => (),
                    None if message.kind == NEW => return Ok(Entry::decode(message.bytes)),
                    None => (),
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Queues an update of the connection with this original tuple: a new timeout in seconds, and
    /// for TCP, if asked, both directions accepting any window. Nothing else of the entry is
    /// touched; but an update of nothing makes it send an event, too. A full queue is sent.
    pub fn queue_update(
        &mut self,
        original: &Tuple,
        timeout: Option<u32>,
        tcp_liberal: bool,
    ) -> Result<()> {
        if self.queue.len() + LARGEST_UPDATE > BATCH {
            self.send_queue()?;
        }
        let header = self.next_header(NEW);
        let change = Change { timeout, tcp_liberal };
        message::append(header, original, change, &mut self.queue).map_err(updating)?;
        self.queued.push((header.sequence, *original));
        Ok(())
    }

    /// Sends what is queued, and tells which updates failed since the last flush.
    pub fn flush(&mut self) -> Result<UpdateErrors> {
        self.send_queue()?;
        Ok(std::mem::take(&mut self.errors))
    }

    /// The kernel handles updates within the send, and answers only those that fail.
    fn send_queue(&mut self) -> Result<()> {
        if self.queue.is_empty() {
            return Ok(());
        }
        let sent = self.updates.send(&self.queue);
        let queued = std::mem::take(&mut self.queued);
        self.queue.clear();
        sent.map_err(updating)?;
        let errors = &mut self.errors;
        loop {
            let outcome = self.updates.receive_many(&mut |datagram| {
                messages(datagram)
                    .filter_map(|message| Some((message.sequence, message.verdict()?.err()?)))
                    .for_each(|(sequence, error)| errors.add(&queued, sequence, error));
            });
            match outcome.map_err(updating)? {
                Outcome::Empty => return Ok(()),
                Outcome::Overrun => errors.incomplete = true,
                Outcome::Some => {}
            }
        }
    }

    fn next_header(&mut self, kind: u16) -> Header {
        self.sequence = self.sequence.wrapping_add(1);
        Header { kind, flags: NLM_F_REQUEST, sequence: self.sequence }
    }
}

impl UpdateErrors {
    fn add(&mut self, queued: &[(u32, Tuple)], sequence: u32, error: io::Error) {
        let known = queued.iter().find(|(number, _)| *number == sequence);
        let original = known.map(|(_, original)| *original);
        if is_gone(&error) {
            self.gone.extend(original);
        } else {
            self.failed.extend(original);
            self.reason.get_or_insert(error);
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENOENT)
}

fn updating(cause: io::Error) -> Error {
    Error::system("updating conntrack entries", cause)
}
