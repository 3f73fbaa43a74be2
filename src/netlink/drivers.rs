// SPDX-License-Identifier: GPL-2.0-only
//! What drivers can do by XDP, as the kernel describes them since Linux 6.3: linux/netdev.h. The
//! daemon asks often, so the socket stays open.

use super::attribute;
use super::generic::{self, HEADER};
use super::socket::{NETLINK_GENERIC, Socket};
use crate::error::Result;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// A way to ask for the drivers' descriptions, in the network namespace where it was opened.
pub struct Drivers {
    socket: Socket,
    /// The family's number, if there is one.
    family: Option<u16>,
}

impl Drivers {
    /// Finds out whether the kernel describes drivers.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::open(NETLINK_GENERIC)?;
        let family = generic::find_family(&mut socket, "netdev");
        Ok(Self { socket, family })
    }

    /// Whether the kernel describes drivers.
    pub fn are_described(&self) -> bool {
        self.family.is_some()
    }

    /// What an interface's driver can do: `NETDEV_XDP_ACT_*`. 0 also when the kernel does not tell.
    pub fn features(&mut self, ifindex: u32) -> Result<u64> {
        let Some(family) = self.family else {
            return Ok(0);
        };
        let request = generic::request(family, NETDEV_CMD_DEV_GET)
            .with(NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
        let mut features = None;
        self.socket.ask("asking what a driver can do", request, |answer| {
            let attributes = answer.payload.get(HEADER..).unwrap_or_default();
            let found = attribute::find(attributes, NETDEV_A_DEV_XDP_FEATURES);
            features = found.and_then(|value| attribute::u64_at(value, 0));
        })?;
        Ok(features.unwrap_or(0))
    }
}
