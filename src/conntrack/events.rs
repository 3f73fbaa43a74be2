// SPDX-License-Identifier: GPL-2.0-only
//! Conntrack's events: which connections changed, and which ended.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::entry::Entry;
use super::ffi::attach_filter;
use super::filter::answered_tcp_and_udp;
use super::message::{DELETE, NEW};
use crate::error::{Error, Result};
use crate::flow::family::Families;
use crate::netlink::message::{Message, messages};
use crate::netlink::socket::{NETLINK_NETFILTER, Received, Socket};

const GROUP_UPDATE: u32 = 2;
const GROUP_DESTROY: u32 = 3;
const READING: &str = "reading conntrack events";

/// A change of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet changed the entry.
    Update(Entry),
    /// A program changed the entry: another one, or this one if it wanted to see the event.
    Edit {
        /// The entry after the change.
        entry: Entry,
        /// The netlink port of the socket that asked for it.
        port: u32,
    },
    /// The entry is gone.
    Destroy(Entry),
}

/// Where a read of events ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// There is nothing more to read.
    Empty,
    /// The time is up; there may be more.
    More,
    /// The kernel had to drop events: what is known is incomplete from here on.
    Overrun,
}

/// A subscription to the updates and ends of TCP and UDP connections that were answered.
pub struct Events {
    socket: Socket,
    bytes_read: u64,
}

impl Events {
    /// Subscribes to connections of these address families, with a receive buffer of the given bytes.
    /// What the socket with `own_port` causes is left out.
    pub fn open(families: Families, receive_buffer: usize, own_port: u32) -> Result<Self> {
        let open = || {
            let socket = Socket::try_open(NETLINK_NETFILTER)?.with_small_datagrams();
            socket.set_non_blocking()?;
            socket.set_room(receive_buffer)?;
            // Before the subscription, so that nothing unwanted is queued.
            attach_filter(socket.as_fd(), &answered_tcp_and_udp(families, own_port))?;
            socket.join(GROUP_UPDATE)?;
            socket.join(GROUP_DESTROY)?;
            Ok(socket)
        };
        let socket = open()
            .map_err(|cause: std::io::Error| Error::system("subscribing to conntrack", cause))?;
        Ok(Self { socket, bytes_read: 0 })
    }

    /// How many bytes of events were read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Bytes that wait to be read, counted generously: once `bytes_read` has grown by so much, every event that
    /// waits now has been handled.
    pub fn waiting(&self) -> Result<u64> {
        let waiting = self.socket.waiting().map(u64::from);
        waiting.map_err(|cause| Error::system("asking how many conntrack events wait", cause))
    }

    /// Hands events to `f` until there are no more, the time is up, or some were lost. What one call
    /// to the kernel brings is read in any case.
    pub fn read(&mut self, until: Instant, f: &mut dyn FnMut(Event)) -> Result<Drained> {
        loop {
            let bytes_read = &mut self.bytes_read;
            let received = self.socket.receive(|datagram| {
                *bytes_read = bytes_read.wrapping_add(datagram.len() as u64);
                let messages = messages(datagram).flatten();
                messages.filter_map(|message| decode(&message)).for_each(&mut *f);
            });
            match received.map_err(|cause| Error::system(READING, cause))? {
                Received::Empty => return Ok(Drained::Empty),
                Received::Lost => return Ok(Drained::Overrun),
                Received::Datagrams => {}
            }
            if Instant::now() >= until {
                return Ok(Drained::More);
            }
        }
    }

    /// Throws events away, unread; `true` when there are none left.
    pub fn discard(&mut self, until: Instant) -> Result<bool> {
        loop {
            if self.socket.discard(1).map_err(|cause| Error::system(READING, cause))? {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What packets cause has no port.
pub(super) fn decode(message: &Message<'_>) -> Option<Event> {
    match (message.kind, message.port) {
        (NEW, 0) => Entry::decode(message.whole).map(Event::Update),
        (NEW, port) => Entry::decode(message.whole).map(|entry| Event::Edit { entry, port }),
        (DELETE, _) => Entry::decode(message.whole).map(Event::Destroy),
        _ => None,
    }
}
