// SPDX-License-Identifier: GPL-2.0-only
//! Reads all objects of a kind, datagram by datagram.

use std::io::{self, ErrorKind};

use nix::libc::EINTR;

use super::failure::{Answer, Failure, outcome};
use super::message::{
    FIRST_FAMILY_MESSAGE, Message, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, messages,
};
use super::request::Request;
use super::socket::{Received, Socket};

/// How far a dump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more.
    More,
    /// Every object that existed all the time was seen.
    Done,
    /// The end was reached, but the objects changed meanwhile so that some may be missing.
    Interrupted,
}

/// A dump under way. Its socket must not be used for anything else until it ends.
pub struct Dump {
    sequence: u32,
    interrupted: bool,
    ended: bool,
}

impl Dump {
    /// Asks for the objects.
    pub fn start(socket: &mut Socket, request: &mut Request) -> io::Result<Self> {
        let sequence = socket.next_sequence();
        socket.send(request.bytes(NLM_F_REQUEST | NLM_F_DUMP, sequence))?;
        Ok(Self { sequence, interrupted: false, ended: false })
    }

    /// Hands the messages of the next datagram to `each`.
    pub fn read(
        &mut self,
        socket: &mut Socket,
        mut each: impl FnMut(&Message<'_>),
    ) -> Answer<Progress> {
        if !self.ended {
            let mut taken = Ok(());
            match socket.receive(|datagram| taken = self.take(datagram, &mut each))? {
                Received::Datagrams => taken?,
                Received::Empty => return Err(Failure::silence()),
                Received::Lost => self.interrupted = true,
            }
        }
        Ok(match (self.ended, self.interrupted) {
            (false, _) => Progress::More,
            (true, false) => Progress::Done,
            (true, true) => Progress::Interrupted,
        })
    }

    fn take(&mut self, datagram: &[u8], mut each: impl FnMut(&Message<'_>)) -> Answer<()> {
        for message in messages(datagram) {
            let message = message.ok_or(ErrorKind::InvalidData)?;
            // Late answers to earlier requests are passed over.
            if message.sequence != self.sequence {
                continue;
            }
            self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.kind {
                NLMSG_DONE | NLMSG_ERROR => {
                    self.ended = true;
                    return outcome(&message).or_else(|failure| self.survive(failure));
                }
                FIRST_FAMILY_MESSAGE.. => each(&message),
                _ => {}
            }
        }
        Ok(())
    }

    /// Some objects' dumps end this way if they change.
    fn survive(&mut self, failure: Failure) -> Answer<()> {
        self.interrupted |= failure.is(EINTR);
        if failure.is(EINTR) { Ok(()) } else { Err(failure) }
    }
}
