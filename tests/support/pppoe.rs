// SPDX-License-Identifier: GPL-2.0-only
//! A PPPoE session by hand: what pppd does once all is negotiated.
#![allow(unsafe_code)]

use super::packet::Mac;
use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

nix::ioctl_read!(get_channel, b't', 55, libc::c_int);
nix::ioctl_write_ptr!(attach_channel, b't', 56, libc::c_int);
nix::ioctl_write_ptr!(connect_unit, b't', 58, libc::c_int);
nix::ioctl_readwrite!(new_unit, b't', 62, libc::c_int);

const AF_PPPOX: u16 = 24;
/// The length of `struct sockaddr_pppox` (linux/if_pppox.h).
const ADDRESS: usize = 30;

/// A PPP interface, for as long as this is open.
pub struct Session {
    /// The interface's number.
    pub unit: i32,
    _socket: OwnedFd,
    _channel: File,
    _interface: File,
}

impl Session {
    /// In the thread's namespace, over this device, with this peer.
    pub fn open(device: &str, peer: Mac, number: u16) -> io::Result<Self> {
        let socket = socket()?;
        connect(&socket, device, peer, number)?;
        let open = || File::options().read(true).write(true).open("/dev/ppp");
        let (channel, interface) = (open()?, open()?);
        // Any number.
        let (mut index, mut unit) = (0, -1);
        // SAFETY: the descriptors are open, and the kernel reads or writes one number each.
        unsafe {
            get_channel(socket.as_raw_fd(), &mut index)?;
            attach_channel(channel.as_raw_fd(), &index)?;
            new_unit(interface.as_raw_fd(), &mut unit)?;
            connect_unit(channel.as_raw_fd(), &unit)?;
        }
        Ok(Self { unit, _socket: socket, _channel: channel, _interface: interface })
    }
}

/// Fails where the kernel has no PPPoE.
pub fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is concerned.
    let fd = unsafe { libc::socket(AF_PPPOX.into(), libc::SOCK_STREAM, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn connect(socket: &OwnedFd, device: &str, peer: Mac, number: u16) -> io::Result<()> {
    let mut address = [0_u8; ADDRESS];
    address[..2].copy_from_slice(&AF_PPPOX.to_ne_bytes());
    // Then the protocol, PPPoE: 0.
    address[6..8].copy_from_slice(&number.to_be_bytes());
    address[8..14].copy_from_slice(&peer);
    address[14..14 + device.len()].copy_from_slice(device.as_bytes());
    let length = ADDRESS as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads as many bytes as are there.
    match unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
