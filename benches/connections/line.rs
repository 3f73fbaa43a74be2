// SPDX-License-Identifier: GPL-2.0-only
//! A host's interface, for sending only: many frames in one system call.

use crate::support::netns::Namespace;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, socket,
};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

/// Frames of one system call. A veth queues no more than 256.
const BATCH: usize = 64;

/// A raw socket that receives nothing.
pub struct Line {
    socket: OwnedFd,
}

impl Line {
    /// Opens it at an interface of the namespace.
    pub fn open(namespace: &Namespace, device: &str) -> Self {
        let open = || {
            // Without a protocol no frame is received, not even copied.
            let socket =
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            let mut all = nix::ifaddrs::getifaddrs()?;
            let address = all.find_map(|each| {
                let address = *each.address.as_ref()?.as_link_addr()?;
                (each.interface_name == device).then_some(address)
            });
            bind(socket.as_raw_fd(), &address.ok_or(Errno::ENODEV)?)?;
            Ok::<_, Errno>(socket)
        };
        let socket = namespace.enter(open);
        Self { socket: socket.unwrap_or_else(|error| panic!("opening {device}: {error}")) }
    }

    /// Sends these frames in their order; waits while the interface takes none.
    pub fn send<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>) {
        let frames: Vec<[IoSlice<'_>; 1]> =
            frames.into_iter().map(|frame| [IoSlice::new(frame)]).collect();
        let mut left = &frames[..];
        while !left.is_empty() {
            left = &left[self.send_some(&left[..left.len().min(BATCH)])..];
        }
    }

    fn send_some(&self, frames: &[[IoSlice<'_>; 1]]) -> usize {
        let mut headers = MultiHeaders::<()>::preallocate(frames.len(), None);
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        match sendmmsg(fd, &mut headers, frames, [None::<()>; BATCH], [], flags) {
            Ok(sent) => sent.count(),
            // The interface's queue is full for a moment.
            Err(Errno::ENOBUFS | Errno::EAGAIN) => 0,
            Err(error) => panic!("sending frames: {error}"),
        }
    }
}
