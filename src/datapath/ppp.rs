// SPDX-License-Identifier: GPL-2.0-only
//! Whether the kernel takes the Ethernet header off a packet that is redirected to PPP. It does so
//! since 2023 (`dev_is_mac_header_xmit` in include/linux/if_arp.h), also in older series; before, PPP
//! would send the header. So this is tried, in a network namespace of its own that nobody else sees.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

use super::attach_tc::attach_tc;
use super::interface::{Interface, Side};
use super::probe::{instruction, op, register};
use super::sys;
use crate::error::{Error, Result};
use crate::netlink::tc::Qdiscs;

/// Longer than a packet to this machine takes.
const LIMIT: Duration = Duration::from_secs(1);
/// PPP's number for IPv4, which stands in front of each packet.
const IPV4: [u8; 2] = [0x00, 0x21];
/// Version 4, no options.
const FIRST_BYTE: u8 = 0x45;
const LOOPBACK: &str = "lo";

/// Whether it does; `false` if that cannot be tried.
pub fn loses_header() -> bool {
    // The namespace goes with the thread.
    match thread::spawn(redirected_packet).join() {
        Ok(Ok(packet)) => packet.starts_with(&[IPV4[0], IPV4[1], FIRST_BYTE]),
        Ok(Err(error)) => {
            tracing::debug!("{error}");
            false
        }
        Err(_) => false,
    }
}

/// What PPP sends of a packet that came in at the loopback interface, which has an Ethernet header. The
/// calling thread is in another network namespace afterwards.
fn redirected_packet() -> Result<Vec<u8>> {
    let system = |error| Error::system("trying a redirect to PPP", error);
    let (ppp, target, loopback) = prepare().map_err(system)?;
    let program =
        sys::load(libbpf_sys::BPF_PROG_TYPE_SCHED_CLS, &redirect(target)).map_err(system)?;
    let mut qdiscs = Qdiscs::read()?;
    let _attached = attach_tc(program.as_fd(), &loopback, Side::Ingress, false, &mut qdiscs)?;
    send_and_read(&ppp).map_err(system)
}

/// A PPP interface in a new namespace, its index, and the loopback interface.
fn prepare() -> io::Result<(File, u32, Interface)> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let (ppp, unit) = sys::looping_ppp_unit()?;
    let name = format!("ppp{unit}");
    sys::set_up(LOOPBACK)?;
    sys::set_up(&name)?;
    let index = if_nametoindex(LOOPBACK)?;
    let loopback = Interface { index, name: LOOPBACK.into(), ..Interface::default() };
    Ok((ppp, if_nametoindex(name.as_str())?, loopback))
}

fn send_and_read(mut ppp: &File) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.send_to(b"probe", socket.local_addr()?)?;
    let timeout = PollTimeout::try_from(LIMIT).map_err(io::Error::other)?;
    if poll(&mut [PollFd::new(ppp.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut packet = vec![0; 128];
    let length = ppp.read(&mut packet)?;
    packet.truncate(length);
    Ok(packet)
}

/// A program that redirects all packets to this interface.
fn redirect(target: u32) -> [libbpf_sys::bpf_insn; 4] {
    let target = i32::try_from(target).unwrap_or_default();
    [
        instruction(op::MOVE, register::ARGUMENT_1, 0, 0, target),
        instruction(op::MOVE, register::ARGUMENT_2, 0, 0, 0),
        instruction(op::CALL, 0, 0, 0, libbpf_sys::BPF_FUNC_redirect as i32),
        instruction(op::EXIT, 0, 0, 0, 0),
    ]
}
