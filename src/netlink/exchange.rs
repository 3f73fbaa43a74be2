// SPDX-License-Identifier: GPL-2.0-only
//! Requests to the kernel and its answers to them.

use std::io::ErrorKind;
use std::time::Instant;

use super::dump::{Dump, Progress};
use super::failure::{Answer, Failure, outcome};
use super::message::{
    FIRST_FAMILY_MESSAGE, Message, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, messages,
};
use super::request::Request;
use super::socket::{Received, Socket};
use crate::error::{Error, Result};

/// How often a dump that the kernel calls inconsistent is started over.
const DUMP_ATTEMPTS: usize = 10;

impl Socket {
    /// Sends a request and asks for no answer. A refusal is answered all the same and would fill
    /// the socket, so what earlier requests left is dropped first.
    pub fn send_only(&mut self, doing: &str, mut request: Request) -> Result<()> {
        let sequence = self.next_sequence();
        self.set_non_blocking()
            .and_then(|()| self.discard(usize::MAX))
            .and_then(|_| self.send(request.bytes(NLM_F_REQUEST, sequence)))
            .map_err(|cause| Error::system(doing, cause))
    }

    /// Sends a request and waits until the kernel has done it.
    pub fn execute(&mut self, doing: &str, request: Request) -> Result<()> {
        self.ask(doing, request, |_| ())
    }

    /// As [`execute`](Self::execute), and gives what the kernel answers to `each`.
    pub fn ask(
        &mut self,
        doing: &str,
        mut request: Request,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<()> {
        let sequence = self.next_sequence();
        let request = request.bytes(NLM_F_REQUEST | NLM_F_ACK, sequence);
        let asked = self.exchange(request, sequence, |message| {
            match message.kind {
                NLMSG_ERROR => return Some(outcome(message)),
                FIRST_FAMILY_MESSAGE.. => each(message),
                _ => {}
            }
            None
        });
        asked.map_err(|failure| failure.during(doing))
    }

    /// Sends a message with this sequence number and hands its answers to `each`, until that gives the
    /// outcome.
    pub fn exchange<T>(
        &mut self,
        message: &[u8],
        sequence: u32,
        mut each: impl FnMut(&Message<'_>) -> Option<Answer<T>>,
    ) -> Answer<T> {
        self.send(message)?;
        loop {
            let mut end = None;
            let received = self.receive(|datagram| {
                let answer = |message: Option<Message<'_>>| match message {
                    Some(message) if message.sequence == sequence => each(&message),
                    // A late answer to an earlier request.
                    Some(_) => None,
                    None => Some(Err(ErrorKind::InvalidData.into())),
                };
                end = end.take().or_else(|| messages(datagram).find_map(answer));
            })?;
            match (received, end) {
                (_, Some(end)) => return end,
                (Received::Datagrams, None) => {}
                (Received::Empty, None) => return Err(Failure::silence()),
                (Received::Lost, None) => return Err(Failure::loss()),
            }
        }
    }

    /// Asks for all objects of a kind and folds them, message by message, into what `start` makes.
    /// `start` is called again when the kernel says that the objects changed under the dump.
    pub fn dump<T>(
        &mut self,
        doing: &str,
        request: Request,
        start: impl Fn() -> T,
        each: impl FnMut(&mut T, &Message<'_>),
    ) -> Result<T> {
        self.dump_until(None, doing, request, start, each)
    }

    /// As [`dump`](Self::dump); no further attempt begins after this time.
    pub fn dump_until<T>(
        &mut self,
        until: Option<Instant>,
        doing: &str,
        mut request: Request,
        start: impl Fn() -> T,
        mut each: impl FnMut(&mut T, &Message<'_>),
    ) -> Result<T> {
        for attempt in 0..DUMP_ATTEMPTS {
            if attempt > 0 && until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            let mut all = start();
            let consistent = self
                .dump_once(&mut request, |message| each(&mut all, message))
                .map_err(|failure| failure.during(doing))?;
            if consistent {
                return Ok(all);
            }
        }
        Err(Error::refused(format!("{doing}: changed during each attempt")))
    }

    fn dump_once(
        &mut self,
        request: &mut Request,
        mut each: impl FnMut(&Message<'_>),
    ) -> Answer<bool> {
        let mut dump = Dump::start(self, request)?;
        loop {
            match dump.read(self, &mut each)? {
                Progress::More => {}
                Progress::Done => return Ok(true),
                Progress::Interrupted => return Ok(false),
            }
        }
    }
}
