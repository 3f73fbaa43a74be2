// SPDX-License-Identifier: GPL-2.0-only
//! A host's port: many frames out, many frames in, with what their NIC is to do with them.

use super::capture::{Aux, VnetHeader, packet_socket};
use super::netns::Namespace;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{LinkAddr, MsgFlags, recvmsg, send, setsockopt};
use std::cell::RefCell;
use std::fmt;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// `PACKET_IGNORE_OUTGOING`: what the host sends is not seen.
#[derive(Clone)]
struct IgnoreOutgoing;
nix::setsockopt_impl!(
    IgnoreOutgoing,
    libc::SOL_PACKET,
    libc::PACKET_IGNORE_OUTGOING,
    bool,
    nix::sys::socket::sockopt::SetBool
);

/// The length of `struct virtio_net_hdr`: flags, kind of segments, and four 16-bit words.
const HEADER: usize = 10;
/// The length of an Ethernet header without tags.
const ETHERNET: u16 = 14;
const NEEDS_CHECKSUM: u8 = 1;
const TCP_SEGMENTS: u8 = 1;
const TCP_SEGMENTS_OF_IPV6: u8 = 4;
const LARGEST: usize = 66 << 10;

/// A frame with what lies beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortFrame {
    pub bytes: Vec<u8>,
    /// The transport checksum is the pseudo header's sum; a NIC is to complete it.
    pub unfinished: bool,
    /// A NIC is to split the payload of this TCP packet so; 0: it is one packet.
    pub gso_size: u16,
}

impl From<Vec<u8>> for PortFrame {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, unfinished: false, gso_size: 0 }
    }
}

impl fmt::Display for PortFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        if self.unfinished {
            write!(f, " (partial checksum, segments of {})", self.gso_size)?;
        }
        Ok(())
    }
}

impl PortFrame {
    /// As the kernel wants it: `struct virtio_net_hdr` (linux/virtio_net.h), then the frame. If the
    /// header says anything, the frame has `l2_len` bytes in front of an IP header without options.
    pub(super) fn with_header(&self, l2_len: u16) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        if self.unfinished {
            let ip = &self.bytes[usize::from(l2_len)..];
            let (l4, protocol, segments) = match ip[0] >> 4 {
                6 => (l2_len + 40, ip[6], TCP_SEGMENTS_OF_IPV6),
                _ => (l2_len + 20, ip[9], TCP_SEGMENTS),
            };
            let (field, length) = if protocol == 6 { (16, 20) } else { (6, 8) };
            bytes[0] = NEEDS_CHECKSUM;
            bytes[1] = if self.gso_size > 0 { segments } else { 0 };
            let words = [l4 + length, self.gso_size, l4, field];
            for (at, word) in words.into_iter().enumerate() {
                bytes[2 + 2 * at..][..2].copy_from_slice(&word.to_ne_bytes());
            }
        }
        bytes.extend(&self.bytes);
        bytes
    }

    pub(super) fn without_header(bytes: &[u8]) -> Self {
        let gso_size = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let unfinished = bytes[0] & NEEDS_CHECKSUM != 0;
        Self { bytes: bytes[HEADER..].to_vec(), unfinished, gso_size }
    }
}

/// A raw socket at a host's interface; it sees what comes in.
pub struct Port {
    socket: OwnedFd,
    buffer: RefCell<Vec<u8>>,
}

impl Port {
    /// Frames from now on are kept until they are asked for.
    pub fn open(namespace: &Namespace, device: &str) -> Self {
        let socket = namespace.enter(|| packet_socket(device));
        setsockopt(&socket, VnetHeader, &true).expect("PACKET_VNET_HDR");
        setsockopt(&socket, IgnoreOutgoing, &true).expect("PACKET_IGNORE_OUTGOING");
        Self { socket, buffer: RefCell::new(vec![0; LARGEST]) }
    }

    /// Sends a frame. False: the kernel takes no such frame, wherever it is to go.
    pub fn send(&self, frame: &PortFrame) -> bool {
        match send(self.socket.as_raw_fd(), &frame.with_header(ETHERNET), MsgFlags::empty()) {
            Ok(_) => true,
            Err(Errno::EINVAL) => false,
            Err(error) => panic!("{error}: {frame}"),
        }
    }

    /// The next frame that has come in, if there is one.
    pub fn receive(&self) -> Option<PortFrame> {
        let mut buffer = self.buffer.borrow_mut();
        let mut control = nix::cmsg_space!([u8; 20]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let message = match recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return None,
            Err(error) => panic!("receiving: {error}"),
        };
        let aux = message.cmsgs().expect("room for control data").find_map(|each| Aux::of(&each));
        let length = message.bytes;
        let mut frame = PortFrame::without_header(&buffer[..length]);
        aux.unwrap_or_default().restore_tag(&mut frame.bytes);
        Some(frame)
    }

    /// Waits for a frame, but not for long.
    pub fn wait(&self) {
        let timeout = PollTimeout::try_from(Duration::from_millis(5)).expect("a short wait");
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, timeout).expect("polling a socket");
    }
}
