// SPDX-License-Identifier: GPL-2.0-only
//! One end of a connection by hand, behind an interface with an Ethernet header or without.

use super::packet::{Mac, Packet};
use super::port::{Port, PortFrame};
use super::tun::Tun;
use std::time::{Duration, Instant};

const ETHERNET: usize = 14;

/// Where packets are sent and seen.
pub enum RawEnd {
    /// A host's port, its MAC address, and the router's.
    Ethernet(Port, Mac, Mac),
    Tun(Tun),
}

/// A packet, and what a NIC is to do with it: see [`PortFrame`].
#[derive(Clone, Debug)]
pub struct Sample {
    pub packet: Packet,
    pub unfinished: bool,
    pub gso_size: u16,
}

impl From<Packet> for Sample {
    fn from(packet: Packet) -> Self {
        Self { packet, unfinished: false, gso_size: 0 }
    }
}

impl RawEnd {
    /// The packet comes in at the router.
    pub fn send(&self, sample: &Sample) {
        let frame =
            |bytes| PortFrame { bytes, unfinished: sample.unfinished, gso_size: sample.gso_size };
        match self {
            Self::Ethernet(port, own, router) => {
                let bytes = sample.packet.clone().mac(*own, *router).build();
                assert!(port.send(&frame(bytes)), "the kernel takes it");
            }
            Self::Tun(tun) => tun.send(&frame(sample.packet.build().split_off(ETHERNET))),
        }
    }

    /// The first packet that leaves the router here and whose IP header is wanted; with all that is in
    /// front of it.
    pub fn next(&self, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<PortFrame> {
        let port = match self {
            Self::Tun(tun) => return tun.next(limit, |packet| wanted(&packet.bytes)),
            Self::Ethernet(port, ..) => port,
        };
        let end = Instant::now() + limit;
        while Instant::now() < end {
            match port.receive() {
                Some(frame) if frame.bytes.get(ETHERNET..).is_some_and(&wanted) => {
                    return Some(frame);
                }
                Some(_) => {}
                None => port.wait(),
            }
        }
        None
    }

    /// Takes the packet with this identification that leaves the router here.
    pub fn take(&self, id: u16) -> PortFrame {
        let limit = Duration::from_secs(5);
        let found = self.next(limit, |ip| ip.get(4..6) == Some(&id.to_be_bytes()[..]));
        found.unwrap_or_else(|| panic!("lost: {id:#x}"))
    }
}
