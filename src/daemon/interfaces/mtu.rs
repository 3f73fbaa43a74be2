// SPDX-License-Identifier: GPL-2.0-only
//! An MTU that changes while native XDP is attached.
//!
//! Native XDP drops frames that do not fit in a page. Some drivers refuse an MTU that allows such
//! frames, others (virtio_net, vmxnet3) check the MTU only when a program is attached. So the daemon
//! attaches anew when the MTU crosses that limit, and the driver decides again.

use super::Interfaces;
use crate::daemon::Daemon;
use crate::datapath::Hook;
use crate::datapath::state::Change;
use crate::error::Result;
use crate::netlink::link::Links;

impl Interfaces {
    /// Where in the list the attachments are that must be made anew, with the interfaces' MTUs.
    fn due_for_mtu(&mut self, links: &Links) -> Vec<(usize, u32)> {
        let mut due = Vec::new();
        if self.hook != Hook::Xdp {
            return due;
        }
        // Before Linux 6.3, which describes drivers, virtio_net refuses at such an MTU to take a
        // program off, too, and the kernel warns of a bug.
        let can_detach = self.drivers.are_described();
        for (at, attachment) in self.attachments.iter_mut().enumerate() {
            let Some(link) = links.get(&attachment.ifindex()) else { continue };
            let mode = self.xdp_modes.of(attachment.name());
            if attachment.must_ask_again(link.mtu, mode, can_detach) {
                due.push((at, link.mtu));
            }
        }
        // The kernel attaches no XDP below an interface that has some.
        for (at, attachment) in self.attachments.iter().enumerate() {
            let is_above =
                |(below, _): &(usize, u32)| attachment.is_above(&self.attachments[*below]);
            if due.iter().all(|(other, _)| *other != at) && due.iter().any(is_above) {
                due.push((at, links.get(&attachment.ifindex()).map_or(0, |link| link.mtu)));
            }
        }
        due.sort_unstable();
        due
    }

    fn attach_again(&mut self, due: Vec<(usize, u32)>) {
        for (at, _) in &due {
            self.attachments[*at].release_xdp();
        }
        for (at, mtu) in due {
            let attachment = &mut self.attachments[at];
            let mode = self.xdp_modes.of(attachment.name());
            attachment.attach_xdp_again(&self.programs, mtu, mode);
        }
    }
}

impl Daemon<'_> {
    /// `true` if something was attached anew.
    pub(in crate::daemon) fn follow_mtus(&mut self) -> Result<bool> {
        let due = self.interfaces.due_for_mtu(&self.monitor.network().links);
        if due.is_empty() {
            return Ok(false);
        }
        // Nothing may be redirected to an interface without a program.
        self.pause_for_devices()?;
        self.interfaces.attach_again(due);
        self.generations.ask(Change::Topology);
        Ok(true)
    }
}
