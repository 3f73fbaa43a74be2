// SPDX-License-Identifier: GPL-2.0-only
//! A netlink socket: dumps, requests with and without an answer, events (netlink(7)).

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkHeader,
};
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc::ENOBUFS;
use nix::sys::socket::{NetlinkAddr, recvfrom, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::attribute::u32_at;
use crate::error::{Error, Result};

/// Messages with smaller numbers belong to netlink itself (NLMSG_MIN_TYPE).
pub const FIRST_FAMILY_MESSAGE: u16 = 16;

/// The kernel fills at most 32 KiB per datagram of a dump (netlink_dump in af_netlink.c).
const DATAGRAM: usize = 128 * 1024;
const ANSWER_WITHIN_SECONDS: i64 = 2;
/// How often a dump that the kernel calls inconsistent is started over.
const DUMP_ATTEMPTS: usize = 10;

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// RTM_* or XFRM_MSG_*, or NLMSG_* below [`FIRST_FAMILY_MESSAGE`].
    pub kind: u16,
    /// NLM_F_*.
    pub flags: u16,
    /// Of the request that this answers; 0 or the asking process's own in events.
    pub sequence: u32,
    /// What follows the netlink header.
    pub payload: &'a [u8],
}

/// The messages of a datagram; `None` in place of one that is cut off or malformed ends it.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let Ok(buffer) = NetlinkBuffer::new_checked(datagram) else {
            datagram = &[];
            return Some(None);
        };
        let next = (buffer.length() as usize).next_multiple_of(4).min(datagram.len());
        datagram = &datagram[next..];
        Some(Some(Message {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            sequence: buffer.sequence_number(),
            payload: buffer.payload(),
        }))
    })
}

/// A socket that talks to the kernel only.
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket for route netlink requests. No answer is waited for longer than two seconds.
    pub fn open() -> Result<Self> {
        Self::open_for(NETLINK_ROUTE)
    }

    /// As [`open`](Self::open), for another protocol (NETLINK_*).
    pub fn open_for(protocol: isize) -> Result<Self> {
        Self::try_open(protocol).map_err(|cause| Error::system("opening a netlink socket", cause))
    }

    fn try_open(protocol: isize) -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(protocol)?;
        inner.bind_auto()?;
        let limit = TimeVal::seconds(ANSWER_WITHIN_SECONDS);
        setsockopt(&inner, sockopt::ReceiveTimeout, &limit)?;
        Ok(Self { inner, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// A non-blocking socket that hears the given groups of a protocol, with room for `room` bytes.
    pub fn subscribe(protocol: isize, groups: &[u32], room: usize) -> Result<Self> {
        let socket = Self::open_for(protocol)?;
        let prepare = || -> io::Result<()> {
            socket.inner.set_non_blocking(true)?;
            // The forced size needs CAP_NET_ADMIN; the plain one is limited by net.core.rmem_max.
            if setsockopt(&socket.inner, sockopt::RcvBufForce, &room).is_err() {
                setsockopt(&socket.inner, sockopt::RcvBuf, &room)?;
            }
            groups.iter().try_for_each(|&group| socket.inner.add_membership(group))
        };
        prepare().map_err(|cause| Error::system("subscribing to network changes", cause))?;
        Ok(socket)
    }

    /// The next datagram from the kernel (port 0); other senders' are dropped.
    pub fn receive(&mut self) -> io::Result<&[u8]> {
        let length = loop {
            match recvfrom::<NetlinkAddr>(self.inner.as_raw_fd(), &mut self.buffer) {
                Ok((length, Some(sender))) if sender.pid() == 0 => break length,
                Ok(_) => {}
                Err(nix::Error::EINTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        };
        Ok(&self.buffer[..length.min(self.buffer.len())])
    }

    /// Sends a request and asks for no answer. A refusal is answered all the same and would fill
    /// the socket, so what earlier requests left is dropped first.
    pub fn send_only(&mut self, doing: &str, kind: u16, body: &impl Emitable) -> Result<()> {
        self.inner
            .set_non_blocking(true)
            .and_then(|()| self.discard(usize::MAX))
            .and_then(|_| self.send(kind, NLM_F_REQUEST, body))
            .map(|_| ())
            .map_err(|cause| Error::system(doing, cause))
    }

    /// Drops what waits in a non-blocking socket, at most `limit` datagrams; true if nothing is
    /// left.
    pub fn discard(&mut self, limit: usize) -> io::Result<bool> {
        for _ in 0..limit {
            match self.receive() {
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(cause) if cause.raw_os_error() != Some(ENOBUFS) => return Err(cause),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Sends a request and waits until the kernel has done it.
    pub fn execute(&mut self, doing: &str, kind: u16, body: &impl Emitable) -> Result<()> {
        self.ask(doing, kind, body, |_| ())
    }

    /// As [`execute`](Self::execute), and gives what the kernel answers to `each`.
    pub fn ask(
        &mut self,
        doing: &str,
        kind: u16,
        body: &impl Emitable,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<()> {
        let mut ask = || -> io::Result<()> {
            let sequence = self.send(kind, NLM_F_REQUEST | NLM_F_ACK, body)?;
            loop {
                for message in messages(self.answer()?) {
                    let message = message.ok_or(ErrorKind::InvalidData)?;
                    match message.kind {
                        _ if message.sequence != sequence => {}
                        NLMSG_ERROR => return outcome(&message),
                        FIRST_FAMILY_MESSAGE.. => each(&message),
                        _ => {}
                    }
                }
            }
        };
        ask().map_err(|cause| Error::system(doing, cause))
    }

    /// Asks for all objects of a kind and folds them, message by message, into what `start` makes.
    /// `start` is called again when the kernel says that the objects changed under the dump.
    pub fn dump<T>(
        &mut self,
        doing: &str,
        kind: u16,
        body: &impl Emitable,
        start: impl Fn() -> T,
        each: impl FnMut(&mut T, &Message<'_>),
    ) -> Result<T> {
        self.dump_until(None, (doing, kind), body, start, each)
    }

    /// As [`dump`](Self::dump); no further attempt begins after this time.
    pub fn dump_until<T>(
        &mut self,
        until: Option<Instant>,
        (doing, kind): (&str, u16),
        body: &impl Emitable,
        start: impl Fn() -> T,
        mut each: impl FnMut(&mut T, &Message<'_>),
    ) -> Result<T> {
        for attempt in 0..DUMP_ATTEMPTS {
            if attempt > 0 && until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            let mut all = start();
            let consistent = self
                .dump_once(kind, body, |message| each(&mut all, message))
                .map_err(|cause| Error::system(doing, cause))?;
            if consistent {
                return Ok(all);
            }
        }
        Err(Error::refused(format!("{doing}: changed during each attempt")))
    }

    fn dump_once(
        &mut self,
        kind: u16,
        body: &impl Emitable,
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<bool> {
        let sequence = self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)?;
        let mut consistent = true;
        loop {
            for message in messages(self.answer()?) {
                let message = message.ok_or(ErrorKind::InvalidData)?;
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match outcome(&message) {
                            Err(cause) if cause.kind() == ErrorKind::Interrupted => Ok(false),
                            outcome => outcome.map(|()| consistent),
                        };
                    }
                    FIRST_FAMILY_MESSAGE.. => each(&message),
                    _ => {}
                }
            }
        }
    }

    /// A datagram that must come; the receive timeout shows as EAGAIN.
    fn answer(&mut self) -> io::Result<&[u8]> {
        self.receive().map_err(|cause| match cause.kind() {
            ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "the kernel is silent"),
            _ => cause,
        })
    }

    fn send(&mut self, kind: u16, flags: u16, body: &impl Emitable) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.message_type = kind;
        header.flags = flags;
        header.sequence_number = self.sequence;
        let start = header.buffer_len();
        let mut bytes = vec![0; start + body.buffer_len()];
        header.length = bytes.len() as u32;
        header.emit(&mut bytes[..start]);
        body.emit(&mut bytes[start..]);
        loop {
            match self.inner.send_to(&bytes, &SocketAddr::new(0, 0), 0) {
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                sent => return sent.map(|_| self.sequence),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// NLMSG_ERROR and NLMSG_DONE begin with 0 or a negative errno.
fn outcome(message: &Message<'_>) -> io::Result<()> {
    match u32_at(message.payload, 0).unwrap_or(0) as i32 {
        0.. => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32, kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn datagrams_are_split_and_cut_ones_are_seen() {
        let mut datagram = message(17, 20, &[7, 0, 0, 0]);
        datagram.extend(message(16, 21, &[]));
        datagram.extend(message(99, 22, &[]));
        let seen: Vec<_> = messages(&datagram).map(|one| one.map(|one| one.kind)).collect();
        assert_eq!(seen, [Some(20), Some(21), None]);
        assert_eq!(messages(&[0; 16]).map(|one| one.is_some()).collect::<Vec<_>>(), [false]);
        // The last message's padding may be missing.
        assert_eq!(messages(&message(17, 20, &[7])).flatten().count(), 1);
    }

    #[test]
    fn outcomes_are_errno_values() {
        let answer = |code: i32| {
            let payload = code.to_ne_bytes();
            let message = Message { kind: NLMSG_ERROR, flags: 0, sequence: 1, payload: &payload };
            outcome(&message).map_err(|cause| cause.raw_os_error())
        };
        assert_eq!(answer(0), Ok(()));
        assert_eq!(answer(-2), Err(Some(2)));
        assert!(answer(i32::MIN).is_err());
    }
}
