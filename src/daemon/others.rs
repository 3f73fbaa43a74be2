// SPDX-License-Identifier: GPL-2.0-only
//! Whoever else is at our interfaces, and must go on seeing the packets.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Daemon;
use crate::datapath::Hook;
use crate::datapath::attachment::{Attachment, Transmitting};
use crate::datapath::others::{AtTc, Handler};
use crate::datapath::sys;
use crate::error::{Error, Result};
use crate::netlink::link::Link;
use crate::offload::topology;

impl Daemon<'_> {
    /// Looks who is at the interfaces, and what their drivers can do, and acts on it.
    pub(super) fn look_around(&mut self) -> Result<()> {
        self.must_look_around = false;
        self.follow_mtus()?;
        self.last_look_around = Instant::now();
        self.keep_in_place()?;
        let mut left_out = BTreeMap::new();
        for link in self.monitor.network().links.values() {
            if let Some(reason) = self.reason_to_leave_out(link)? {
                left_out.insert(link.index, reason);
            }
        }
        self.report_others(&left_out);
        self.left_out = left_out;
        self.watch_shapers()?;
        self.update_devices()
    }

    fn keep_in_place(&mut self) -> Result<()> {
        let links = &self.monitor.network().links;
        let there = |attachment: &&mut Attachment| links.contains_key(&attachment.ifindex());
        for attachment in self.attachments.iter_mut().filter(there) {
            let at_tc = AtTc::read(attachment.ifindex())?;
            // Its programs go first, and the event comes last.
            if !attachment.interface_exists() {
                continue;
            }
            if let Err(error) = attachment.keep_in_place(&self.programs, &at_tc) {
                tracing::warn!("{error}");
            }
        }
        Ok(())
    }

    /// Why all packets of this interface must go to the stack, if there is a reason.
    fn reason_to_leave_out(&self, link: &Link) -> Result<Option<String>> {
        let attachment = |index| self.attachments.iter().find(|a| a.ifindex() == index);
        let own = attachment(link.index);
        let port = link.vlan.as_ref().and_then(|vlan| attachment(vlan.port));
        let Some(any) = own.or(port) else {
            return Ok(None);
        };
        if let Some(reason) = own.and_then(Attachment::off) {
            return Ok(Some(reason.to_owned()));
        }
        if own.is_some() && self.request.hook == Hook::Xdp && self.hides_tags(link)? {
            let off = format!("ethtool -K {} rxvlan off", link.name);
            return Ok(Some(format!("its VLAN tags are removed before XDP sees them ({off})")));
        }
        let at_tc = AtTc::read(link.index)?;
        if own.is_some_and(|own| !own.is_in_place(&at_tc) && own.interface_exists()) {
            return Ok(Some("someone took bpfw's program off: restart bpfw".into()));
        }
        let is_foreign = |handler: &&Handler| !any.is_ours(handler.program());
        let blind = match self.request.hook {
            Hook::Xdp => at_tc.ingress.iter().chain(&at_tc.egress).find(is_foreign),
            // Frames with its tag are forwarded where they come in at the port.
            Hook::Tc if port.is_some() => at_tc.ingress.iter().find(is_foreign),
            Hook::Tc => at_tc.behind(any.program()),
        };
        let advice = if self.request.hook == Hook::Xdp { " (use the hook tc)" } else { "" };
        Ok(blind.map(|handler| format!("{handler} would not see them{advice}")))
    }

    /// A driver that takes redirected frames no longer loses them without a word, and no event of
    /// rtnetlink's tells: it is asked each time.
    pub(super) fn watch_drivers(&mut self) -> Result<()> {
        let transmitting = self.ask_drivers();
        if transmitting == self.transmitting {
            return Ok(());
        }
        for (index, (attachment, now)) in self.attachments.iter().zip(&transmitting).enumerate() {
            if self.transmitting.get(index) != Some(now) {
                tracing::debug!("{}: {now}", attachment.name());
            }
        }
        self.transmitting = transmitting;
        self.update_devices()
    }

    /// What the drivers of the attached interfaces do with redirected XDP frames; nothing at TC.
    pub(super) fn ask_drivers(&mut self) -> Vec<Transmitting> {
        let Self { attachments, drivers, request, .. } = self;
        if request.hook != Hook::Xdp {
            return Vec::new();
        }
        attachments.iter().map(|attachment| attachment.transmitting(drivers)).collect()
    }

    /// Whether the driver takes off tags that VLAN devices need: to XDP, their packets look like
    /// the port's own.
    fn hides_tags(&self, link: &Link) -> Result<bool> {
        let has_vlans = topology::has_vlans(&self.monitor.network().links, link.index);
        if !has_vlans {
            return Ok(false);
        }
        sys::strips_tags(&link.name)
            .map_err(|error| Error::system(format!("reading the settings of {}", link.name), error))
    }

    fn report_others(&self, now: &BTreeMap<u32, String>) {
        let links = &self.monitor.network().links;
        let name = |index| links.get(index).map_or("?", |link| link.name.as_str());
        for (index, reason) in now {
            if self.left_out.get(index) != Some(reason) {
                tracing::warn!("packets of {} stay with the stack: {reason}", name(index));
            }
        }
        for index in self.left_out.keys().filter(|index| links.contains_key(index)) {
            if !now.contains_key(index) {
                tracing::info!("packets of {} are forwarded again", name(index));
            }
        }
    }
}
