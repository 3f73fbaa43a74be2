// SPDX-License-Identifier: GPL-2.0-only
//! A netlink socket (netlink(7)): opens it, subscribes, sends and receives.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::SocketAddr;
pub use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{self, GetStruct};
use nix::sys::socket::{MsgFlags, MultiHeaders, NetlinkAddr, getsockopt, recvmmsg, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::{Error, Result};

/// The kernel fills at most 32 KiB per datagram of a dump (netlink_dump in af_netlink.c). A link with
/// many virtual functions takes more.
const LARGE: usize = 128 * 1024;
/// Conntrack's events, and what answers its updates, are smaller.
const SMALL: usize = 4 * 1024;
/// So many small datagrams are received at once.
const AT_ONCE: usize = 16;
/// The kernel answers within the call that asks, so silence is a fault.
const ANSWER_WITHIN_SECONDS: i64 = 2;

/// `SO_MEMINFO` of the kernel's asm-generic/socket.h: with room for one number only, what waits to be read.
const SO_MEMINFO: i32 = 55;

#[derive(Clone, Copy)]
struct Waiting;
nix::getsockopt_impl!(Waiting, libc::SOL_SOCKET, SO_MEMINFO, u32, GetStruct<u32>);

/// What a receive has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Datagrams.
    Datagrams,
    /// Nothing to read, or not in time.
    Empty,
    /// The kernel had to drop messages, or one had no room: something is missing.
    Lost,
}

/// A socket that talks to the kernel only.
pub struct Socket {
    inner: netlink_sys::Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
    /// Room for each datagram in the buffer.
    datagram: usize,
}

impl Socket {
    /// A socket for requests to a protocol (NETLINK_*). Answers are waited for, but not for long.
    pub fn open(protocol: isize) -> Result<Self> {
        Self::try_open(protocol).map_err(|cause| Error::system("opening a netlink socket", cause))
    }

    /// A non-blocking socket that hears the given groups, with room for `room` bytes.
    pub fn subscribe(protocol: isize, groups: &[u32], room: usize) -> Result<Self> {
        let socket = Self::open(protocol)?;
        let prepare = || {
            socket.set_non_blocking()?;
            socket.set_room(room)?;
            groups.iter().try_for_each(|&group| socket.join(group))
        };
        prepare().map_err(|cause| Error::system("subscribing to network changes", cause))?;
        Ok(socket)
    }

    /// As [`open`](Self::open), for callers with words of their own.
    pub fn try_open(protocol: isize) -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(protocol)?;
        let port = inner.bind_auto()?.port_number();
        inner.connect(&SocketAddr::new(0, 0))?;
        // An answer need not repeat the request, but says in words what is wrong with it.
        inner.set_cap_ack(true)?;
        inner.set_ext_ack(true)?;
        setsockopt(&inner, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_WITHIN_SECONDS))?;
        Ok(Self { inner, port, sequence: 0, buffer: vec![0; LARGE], datagram: LARGE })
    }

    /// Receives many datagrams at once. None of them may be part of a dump.
    #[must_use]
    pub fn with_small_datagrams(mut self) -> Self {
        self.buffer.truncate(AT_ONCE * SMALL);
        self.datagram = SMALL;
        self
    }

    /// Makes receives return at once.
    pub fn set_non_blocking(&self) -> io::Result<()> {
        self.inner.set_non_blocking(true)
    }

    /// Asks for a receive buffer of so many bytes.
    pub fn set_room(&self, bytes: usize) -> io::Result<()> {
        // The forced size needs CAP_NET_ADMIN; the plain one is limited by net.core.rmem_max.
        setsockopt(&self.inner, sockopt::RcvBufForce, &bytes)
            .or_else(|_| setsockopt(&self.inner, sockopt::RcvBuf, &bytes))?;
        Ok(())
    }

    /// Subscribes to a multicast group.
    pub fn join(&self, group: u32) -> io::Result<()> {
        self.inner.add_membership(group)
    }

    /// The port by which the kernel knows the socket.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// How many bytes wait to be read, the kernel's overhead included.
    pub fn waiting(&self) -> io::Result<u32> {
        Ok(getsockopt(&self.inner, Waiting)?)
    }

    /// A sequence number that no recent request had.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends messages.
    pub fn send(&self, messages: &[u8]) -> io::Result<()> {
        loop {
            match self.inner.send(messages, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(sent) if sent == messages.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            }
        }
    }

    /// Gives `each` what the kernel has sent, in one call to it. Datagrams of others are dropped.
    pub fn receive(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<Received> {
        let count = self.buffer.len() / self.datagram;
        let mut headers = MultiHeaders::<NetlinkAddr>::preallocate(count, None);
        let mut slices: Vec<_> =
            self.buffer.chunks_mut(self.datagram).map(|it| [IoSliceMut::new(it)]).collect();
        // A socket that waits does so for the first one only.
        let flags = MsgFlags::MSG_WAITFORONE;
        // Not netlink-sys' own receive: it passes the kernel a wrong address length on 64-bit
        // big-endian machines, so that each sender would look like the kernel.
        let fd = self.inner.as_raw_fd();
        let received = match recvmmsg(fd, &mut headers, slices.iter_mut(), flags, None) {
            // There may be some.
            Err(Errno::EINTR) => return Ok(Received::Datagrams),
            Err(Errno::EAGAIN) => return Ok(Received::Empty),
            Err(Errno::ENOBUFS) => return Ok(Received::Lost),
            Err(error) => return Err(error.into()),
            Ok(received) => received,
        };
        let mut outcome = Received::Datagrams;
        for datagram in received {
            if datagram.address.is_none_or(|sender| sender.pid() != 0) {
                continue;
            }
            if datagram.flags.contains(MsgFlags::MSG_TRUNC) {
                outcome = Received::Lost;
            } else {
                datagram.iovs().for_each(&mut each);
            }
        }
        Ok(outcome)
    }

    /// Drops what waits in a non-blocking socket, in at most `limit` receives; true if nothing is
    /// left.
    pub fn discard(&mut self, limit: usize) -> io::Result<bool> {
        for _ in 0..limit {
            if self.receive(|_| ())? == Received::Empty {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}
