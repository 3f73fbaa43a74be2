// SPDX-License-Identifier: GPL-2.0-only
//! A netlink socket to the kernel's netfilter, and the messages that it brings.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{GetStruct, RcvBuf, RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    MsgFlags, MultiHeaders, NetlinkAddr, getsockopt, recvfrom, recvmmsg, setsockopt,
};
use nix::sys::time::TimeVal;

/// The netfilter subsystem of conntrack entries, as the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
/// Announces an entry, or sets one (`IPCTNL_MSG_CT_NEW`).
pub(super) const NEW: u16 = SUBSYSTEM;
/// Asks for entries (`IPCTNL_MSG_CT_GET`).
pub(super) const GET: u16 = SUBSYSTEM | 1;
/// Announces the end of an entry (`IPCTNL_MSG_CT_DELETE`).
pub(super) const DELETE: u16 = SUBSYSTEM | 2;

pub(super) const NLM_F_REQUEST: u16 = 0x01;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// Bytes of `nlmsghdr` and `nfgenmsg`, which start every conntrack message.
pub(super) const HEADERS: usize = 20;

/// `SO_MEMINFO` of the kernel's asm-generic/socket.h: with room for one number only, what waits to be read.
const SO_MEMINFO: i32 = 55;

#[derive(Clone, Copy)]
struct Waiting;
nix::getsockopt_impl!(Waiting, libc::SOL_SOCKET, SO_MEMINFO, u32, GetStruct<u32>);

/// The kernel's largest datagram is 32 KiB; one that fills all of this was cut.
const BUFFER: usize = 64 * 1024;
/// One that is not an answer to a dump is smaller than this, so that many fit in the buffer.
const SMALL: usize = 4 * 1024;

/// A socket with its own port and receive buffer.
pub(super) struct Socket {
    inner: netlink_sys::Socket,
    port: u32,
    buffer: Vec<u8>,
}

/// What a receive of many has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Datagrams.
    Some,
    /// Nothing to read, or not within the receive timeout.
    Empty,
    /// The kernel had to drop messages (`ENOBUFS`).
    Overrun,
}

/// What a receive brought.
pub(super) enum Received<'a> {
    /// Messages from the kernel.
    Datagram(&'a [u8]),
    /// Nothing to read, or not within the receive timeout.
    Empty,
    /// The kernel had to drop messages (`ENOBUFS`).
    Overrun,
}

impl Socket {
    /// Opens a socket that talks to the kernel only.
    pub(super) fn open() -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(NETLINK_NETFILTER)?;
        let port = inner.bind_auto()?.port_number();
        inner.connect(&SocketAddr::new(0, 0))?;
        // Error replies need not repeat the request.
        inner.set_cap_ack(true)?;
        Ok(Self { inner, port, buffer: vec![0; BUFFER] })
    }

    /// The port by which the kernel knows the socket.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Subscribes to a multicast group.
    pub(super) fn subscribe(&self, group: u32) -> io::Result<()> {
        self.inner.add_membership(group)
    }

    /// Makes receives return at once.
    pub(super) fn set_non_blocking(&self) -> io::Result<()> {
        self.inner.set_non_blocking(true)
    }

    /// Makes receives return after `timeout` at the latest.
    pub(super) fn set_receive_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = TimeVal::new(timeout.as_secs() as _, timeout.subsec_micros().into());
        Ok(setsockopt(&self.inner, ReceiveTimeout, &timeout)?)
    }

    /// Asks for a receive buffer of so many bytes, beyond the system's limit where allowed.
    pub(super) fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        setsockopt(&self.inner, RcvBufForce, &bytes)
            .or_else(|_| setsockopt(&self.inner, RcvBuf, &bytes))?;
        Ok(())
    }

    /// How many bytes wait to be read, the kernel's overhead included.
    pub(super) fn waiting(&self) -> io::Result<u32> {
        Ok(getsockopt(&self.inner, Waiting)?)
    }

    /// Sends messages to the kernel.
    pub(super) fn send(&self, messages: &[u8]) -> io::Result<()> {
        loop {
            match self.inner.send(messages, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
                Ok(sent) if sent == messages.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            }
        }
    }

    /// Receives one datagram of the kernel; those of others are dropped.
    pub(super) fn receive(&mut self) -> io::Result<Received<'_>> {
        loop {
            // Not netlink-sys' own receive: it passes the kernel a wrong address length on 64-bit
            // big-endian machines, so that each sender would look like the kernel.
            match recvfrom::<NetlinkAddr>(self.inner.as_raw_fd(), &mut self.buffer) {
                Ok((_, sender)) if sender.is_none_or(|sender| sender.pid() != 0) => (),
                Ok((BUFFER.., _)) => return Err(io::Error::other("a message was cut off")),
                Ok((length, _)) => {
                    return Ok(Received::Datagram(self.buffer.get(..length).unwrap_or_default()));
                }
                Err(Errno::EINTR) => (),
                Err(Errno::EAGAIN) => return Ok(Received::Empty),
                Err(Errno::ENOBUFS) => return Ok(Received::Overrun),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives what is there, many datagrams in one call; those of others than the kernel are
    /// dropped. For sockets that no dump is read from.
    pub(super) fn receive_many(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<Outcome> {
        let mut headers = MultiHeaders::<NetlinkAddr>::preallocate(BUFFER / SMALL, None);
        let mut slices: Vec<_> =
            self.buffer.chunks_mut(SMALL).map(|it| [IoSliceMut::new(it)]).collect();
        // A socket that waits does so for the first one only.
        let flags = MsgFlags::MSG_WAITFORONE;
        let received =
            match recvmmsg(self.inner.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None) {
                Err(Errno::EAGAIN) => return Ok(Outcome::Empty),
                // There may be some.
                Err(Errno::EINTR) => return Ok(Outcome::Some),
                Err(Errno::ENOBUFS) => return Ok(Outcome::Overrun),
                Err(error) => return Err(error.into()),
                Ok(received) => received,
            };
        for datagram in received {
            if datagram.flags.contains(MsgFlags::MSG_TRUNC) {
                return Err(io::Error::other("a message was cut off"));
            }
            if datagram.address.is_some_and(|sender| sender.pid() == 0) {
                datagram.iovs().for_each(&mut *each);
            }
        }
        Ok(Outcome::Some)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// One netlink message.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    /// Subsystem and message type.
    pub(super) kind: u16,
    /// The sequence number of the request that it answers.
    pub(super) sequence: u32,
    /// The port of the socket that caused it.
    pub(super) port: u32,
    /// All of it, header included.
    pub(super) bytes: &'a [u8],
    flags: u16,
}

impl Message<'_> {
    /// The answer of an error or acknowledging message: `Some(Ok)` acknowledges.
    pub(super) fn verdict(&self) -> Option<io::Result<()>> {
        (self.kind == NLMSG_ERROR).then(|| self.outcome())
    }

    /// The end of a dump, with how it ended.
    pub(super) fn end(&self) -> Option<io::Result<()>> {
        (self.kind == NLMSG_DONE).then(|| self.outcome())
    }

    /// Whether the table changed so much during a dump that entries may be missing.
    pub(super) fn is_interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    fn outcome(&self) -> io::Result<()> {
        match self.bytes.get(HEADER..).and_then(|payload| payload.first_chunk()) {
            None => Err(io::ErrorKind::InvalidData.into()),
            Some(code) => match i32::from_ne_bytes(*code) {
                0.. => Ok(()),
                code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            },
        }
    }
}

/// The complete messages in a datagram; what follows a malformed one is left out.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = datagram.first_chunk()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        if length < HEADER {
            return None;
        }
        let bytes = datagram.get(..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            bytes,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
        bytes.extend([5_u32.to_ne_bytes(), 6_u32.to_ne_bytes()].concat());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn messages_are_taken_apart() {
        let mut datagram = message(NEW, 0, &[1, 2, 3]);
        datagram.push(0);
        datagram.extend(message(DELETE, NLM_F_DUMP_INTR, &[]));
        let found: Vec<_> = messages(&datagram).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].bytes.len()), (NEW, 19));
        assert_eq!((found[1].kind, found[1].sequence, found[1].port), (DELETE, 5, 6));
        assert!(found[1].is_interrupted() && !found[0].is_interrupted());
    }

    #[test]
    fn verdicts_carry_the_error() {
        let verdict = |payload: &[u8]| {
            let bytes = message(NLMSG_ERROR, 0, payload);
            messages(&bytes).next().unwrap().verdict().unwrap()
        };
        assert!(verdict(&0_i32.to_ne_bytes()).is_ok());
        assert_eq!(verdict(&(-2_i32).to_ne_bytes()).unwrap_err().raw_os_error(), Some(2));
        assert!(verdict(&i32::MIN.to_ne_bytes()).is_err());
        assert!(verdict(&[]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn garbage_ends_the_walk(bytes: Vec<u8>) {
            for message in messages(&bytes) {
                assert!(message.bytes.len() >= HEADER);
                let _ = message.verdict();
            }
        }
    }
}
