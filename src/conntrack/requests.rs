// SPDX-License-Identifier: GPL-2.0-only
//! Asking for single entries, and changing what bpfw changes in them: timeout and TCP flags.

use std::io;

use nix::libc::ENOENT;

use super::entry::Entry;
use super::message::{self, Change, GET, NEW};
use crate::error::{Error, Result};
use crate::flow::tuple::Tuple;
use crate::netlink::failure::{Answer, Failure, outcome};
use crate::netlink::message::{Header, NLM_F_REQUEST, NLMSG_ERROR, messages};
use crate::netlink::socket::{NETLINK_NETFILTER, Received, Socket};

/// Updates of one send; far below the send buffer of any system.
const BATCH: usize = 32 * 1024;
/// No message is larger, so a batch stays below `BATCH`.
const LARGEST_MESSAGE: usize = 512;
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
    pub reason: Option<Failure>,
    /// Whether the kernel dropped replies, so that some are missing.
    pub incomplete: bool,
}

/// Two sockets: one for questions, and one for updates, so that their answers do not mix.
pub struct Requests {
    questions: Socket,
    updates: Socket,
    queue: Vec<u8>,
    /// The connections of the queued updates, by the updates' sequence numbers.
    queued: Vec<(u32, Tuple)>,
    errors: UpdateErrors,
}

impl Requests {
    /// Opens both sockets.
    pub fn open() -> Result<Self> {
        let open = || {
            let questions = Socket::try_open(NETLINK_NETFILTER)?;
            let updates = Socket::try_open(NETLINK_NETFILTER)?.with_small_datagrams();
            updates.set_non_blocking()?;
            updates.set_room(REPLY_BUFFER)?;
            Ok((questions, updates))
        };
        let (questions, updates) = open()
            .map_err(|cause: io::Error| Error::system("opening sockets to conntrack", cause))?;
        Ok(Self {
            questions,
            updates,
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
        self.ask(tuple).map_err(|failure| failure.during(&format!("asking conntrack for {tuple}")))
    }

    fn ask(&mut self, tuple: &Tuple) -> Answer<Option<Entry>> {
        let header = header(&mut self.questions, GET);
        let mut request = Vec::with_capacity(LARGEST_MESSAGE);
        message::append(header, tuple, Change::default(), &mut request)?;
        self.questions.exchange(&request, header.sequence, |message| match message.kind {
            NEW => Some(Ok(Entry::decode(message.whole))),
            NLMSG_ERROR => match outcome(message) {
                Err(failure) if failure.is(ENOENT) => Some(Ok(None)),
                answer => answer.err().map(Err),
            },
            _ => None,
        })
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
        if self.queue.len() + LARGEST_MESSAGE > BATCH {
            self.send_queue()?;
        }
        let header = header(&mut self.updates, NEW);
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
            let received = self.updates.receive(|datagram| {
                messages(datagram)
                    .flatten()
                    .filter(|message| message.kind == NLMSG_ERROR)
                    .filter_map(|message| Some((message.sequence, outcome(&message).err()?)))
                    .for_each(|(sequence, failure)| errors.add(&queued, sequence, failure));
            });
            match received.map_err(updating)? {
                Received::Empty => return Ok(()),
                Received::Lost => errors.incomplete = true,
                Received::Datagrams => {}
            }
        }
    }
}

impl UpdateErrors {
    fn add(&mut self, queued: &[(u32, Tuple)], sequence: u32, failure: Failure) {
        let known = queued.iter().find(|(number, _)| *number == sequence);
        let original = known.map(|(_, original)| *original);
        if failure.is(ENOENT) {
            self.gone.extend(original);
        } else {
            self.failed.extend(original);
            self.reason.get_or_insert(failure);
        }
    }
}

fn header(socket: &mut Socket, kind: u16) -> Header {
    Header { kind, flags: NLM_F_REQUEST, sequence: socket.next_sequence() }
}

fn updating(cause: io::Error) -> Error {
    Error::system("updating conntrack entries", cause)
}
