// SPDX-License-Identifier: GPL-2.0-only
//! Raw frames on an interface: seeing them and sending them.

use super::netns::Namespace;
use super::view::View;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind,
    recvmsg, send, setsockopt, socket, sockopt,
};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// `PACKET_AUXDATA`: asks for what the kernel knows of a frame beside its bytes.
#[derive(Clone)]
struct Auxdata;
nix::setsockopt_impl!(
    Auxdata,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    bool,
    nix::sys::socket::sockopt::SetBool
);

/// `PACKET_VNET_HDR`: frames are sent with a `struct virtio_net_hdr` in front.
#[derive(Clone)]
pub(super) struct VnetHeader;
nix::setsockopt_impl!(
    VnetHeader,
    libc::SOL_PACKET,
    libc::PACKET_VNET_HDR,
    bool,
    nix::sys::socket::sockopt::SetBool
);

/// A frame as it passed the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// All bytes; a VLAN tag that the kernel had taken off is back in its place.
    pub bytes: Vec<u8>,
    /// Whether this host sent it.
    pub outgoing: bool,
    /// Whether its transport checksum is still to be completed by a NIC.
    pub partial_checksum: bool,
}

impl Frame {
    /// The frame taken apart, if it is IPv4.
    pub fn view(&self) -> Option<View> {
        View::parse(&self.bytes)
    }
}

/// A raw socket on one interface, which sees frames in both directions.
///
/// It does not see what it sends itself; open another one for that.
/// With GRO or TSO, a frame here can be larger than the MTU.
pub struct Capture {
    socket: OwnedFd,
    device: String,
}

impl Capture {
    /// Starts to capture; frames from now on are kept until they are asked for.
    pub fn open(namespace: &Namespace, device: &str) -> Self {
        let socket = namespace.enter(|| packet_socket(device));
        let capture = Self { socket, device: device.to_owned() };
        // Until it was bound, the socket took frames of all interfaces.
        while capture.receive().is_some() {}
        capture
    }

    /// The next frame that `wanted` accepts, or None after `limit`; others are thrown away.
    pub fn next(&self, limit: Duration, mut wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        let end = Instant::now() + limit;
        loop {
            match self.receive() {
                Some(frame) if wanted(&frame) => return Some(frame),
                Some(_) => {}
                None if !self.wait_until(end) => return None,
                None => {}
            }
        }
    }

    /// As `next`, for IPv4 packets coming in; taken apart. Panics with `what` if none comes.
    pub fn expect(
        &self,
        limit: Duration,
        what: &str,
        mut wanted: impl FnMut(&View) -> bool,
    ) -> View {
        let frame = self
            .next(limit, |frame| !frame.outgoing && frame.view().is_some_and(|view| wanted(&view)));
        frame
            .and_then(|frame| frame.view())
            .unwrap_or_else(|| panic!("on {}, not within {limit:?}: {what}", self.device))
    }

    /// All frames of the time from now to `limit`, and those kept so far, that `wanted` accepts.
    pub fn collect(&self, limit: Duration, mut wanted: impl FnMut(&Frame) -> bool) -> Vec<Frame> {
        let end = Instant::now() + limit;
        let left = || end.saturating_duration_since(Instant::now());
        std::iter::from_fn(|| self.next(left(), &mut wanted)).collect()
    }

    /// Sends a frame out of the interface, as it is.
    pub fn send_frame(&self, frame: &[u8]) {
        let send = || send(self.socket.as_raw_fd(), frame, MsgFlags::empty());
        // The interface's queue is full for a moment.
        let busy = |sent: &nix::Result<usize>| *sent == Err(Errno::ENOBUFS);
        let sent = std::iter::repeat_with(send).find(|sent| !busy(sent)).expect("endless");
        let sent = sent.unwrap_or_else(|error| panic!("sending on {}: {error}", self.device));
        assert_eq!(sent, frame.len(), "a frame was sent in part");
    }

    /// Waits for a frame; false when the time is over.
    fn wait_until(&self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now());
        // A wait of less than a millisecond would become a busy loop.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).expect("a short wait");
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        !left.is_zero() && poll(&mut polled, timeout).is_ok()
    }

    fn receive(&self) -> Option<Frame> {
        let mut buffer = vec![0; 128 << 10];
        let mut control = nix::cmsg_space!([u8; 20]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        let message = match recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return None,
            Err(error) => panic!("receiving on {}: {error}", self.device),
        };
        let outgoing =
            message.address.is_some_and(|address| address.pkttype() == libc::PACKET_OUTGOING);
        let aux = message.cmsgs().expect("room for control data").find_map(|each| Aux::of(&each));
        let length = message.bytes;
        buffer.truncate(length);
        let aux = aux.unwrap_or_default();
        aux.restore_tag(&mut buffer);
        Some(Frame { bytes: buffer, outgoing, partial_checksum: aux.partial })
    }
}

/// Sends an untagged TCP or UDP frame as local sockets do: its checksum is partial. With a
/// `gso_size`, which is for TCP only, it stands for many segments.
pub fn send_unfinished(namespace: &Namespace, device: &str, frame: &[u8], gso_size: u16) {
    const NEEDS_CHECKSUM: u8 = 1;
    let is_ipv6 = frame[12..14] == [0x86, 0xdd];
    // TCP's large packets have a type for each family.
    let (l4, protocol, large) = if is_ipv6 { (54, frame[20], 4) } else { (34, frame[23], 1) };
    let (checksum_offset, headers) = if protocol == 6 { (16, l4 + 20) } else { (6, l4 + 8) };
    let mut bytes = vec![NEEDS_CHECKSUM, if gso_size > 0 { large } else { 0 }];
    for half in [headers, gso_size, l4, checksum_offset] {
        bytes.extend(half.to_ne_bytes());
    }
    bytes.extend(frame);
    let socket = namespace.enter(|| packet_socket(device));
    setsockopt(&socket, VnetHeader, &true).expect("PACKET_VNET_HDR");
    let sent = send(socket.as_raw_fd(), &bytes, MsgFlags::empty());
    assert_eq!(sent, Ok(bytes.len()), "sending on {device}");
}

/// What matters of the kernel's `struct tpacket_auxdata`.
#[derive(Default)]
pub(super) struct Aux {
    partial: bool,
    tag: Option<(u16, u16)>,
}

impl Aux {
    pub(super) fn of(message: &ControlMessageOwned) -> Option<Self> {
        let ControlMessageOwned::Unknown(unknown) = message else { return None };
        let header = &unknown.cmsg_header;
        if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            return None;
        }
        // Three words of 32 bits (status, length, kept length), then four of 16 bits.
        let bytes = &unknown.data_bytes;
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let status = u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes"));
        let tag = (status & libc::TP_STATUS_VLAN_VALID != 0).then(|| (half(18), half(16)));
        Some(Self { partial: status & libc::TP_STATUS_CSUMNOTREADY != 0, tag })
    }

    pub(super) fn restore_tag(&self, frame: &mut Vec<u8>) {
        if let Some((protocol, word)) = self.tag {
            let bytes = [protocol.to_be_bytes(), word.to_be_bytes()].concat();
            frame.splice(12..12, bytes);
        }
    }
}

/// A raw socket bound to `device`, which must be in the thread's namespace.
pub(super) fn packet_socket(device: &str) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
        .expect("a packet socket");
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).expect("a large receive buffer");
    setsockopt(&socket, Auxdata, &true).expect("PACKET_AUXDATA");
    let address = link_address(device).unwrap_or_else(|| panic!("no interface {device}"));
    bind(socket.as_raw_fd(), &address).expect("binding a packet socket");
    socket
}

/// The address to bind to; its protocol is 0, which keeps the socket's own.
fn link_address(device: &str) -> Option<LinkAddr> {
    let mut all = nix::ifaddrs::getifaddrs().expect("listing interfaces");
    all.find_map(|each| {
        let address = *each.address.as_ref()?.as_link_addr()?;
        (each.interface_name == device).then_some(address)
    })
}
