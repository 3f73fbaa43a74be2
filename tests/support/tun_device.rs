// SPDX-License-Identifier: GPL-2.0-only
//! The two requests that make a tun device.
#![allow(unsafe_code)]

use nix::libc;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

// TUNSETFILTEREBPF of linux/if_tun.h, which reads although it says that it writes.
nix::ioctl_read!(set_filter_program, b'T', 225, libc::c_int);

/// A new tun device in the thread's namespace, for as long as this is open. Each packet has a `struct
/// virtio_net_hdr` in front; checksums may be unfinished, and TCP packets aggregated.
pub fn open(name: &str) -> io::Result<File> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all its members are numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    // The last byte stays 0.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads and writes a whole `struct ifreq`.
    let made = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    let offloads = libc::c_ulong::from(libc::TUN_F_CSUM | libc::TUN_F_TSO4);
    // SAFETY: the descriptor is open, and this request takes the number itself.
    let set = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
    if (made, set) == (0, 0) { Ok(tun) } else { Err(io::Error::last_os_error()) }
}

/// A program says how many bytes stay of each packet that leaves by the device.
pub fn set_filter(tun: &File, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut program = program.as_raw_fd();
    // SAFETY: both descriptors are open, and the kernel reads one number.
    unsafe { set_filter_program(tun.as_raw_fd(), &mut program) }?;
    Ok(())
}
