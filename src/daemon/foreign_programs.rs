// SPDX-License-Identifier: GPL-2.0-only
//! Whoever else is at our interfaces, and must go on seeing the packets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::{BUMP_PAUSE, Daemon};
use crate::connections::topology;
use crate::datapath::Hook;
use crate::datapath::attachment::{Attachment, Kind, Transmitting};
use crate::datapath::sys;
use crate::datapath::tc_chain::{AtTc, Handler};
use crate::error::{Error, Result};
use crate::netlink::link::Link;
use crate::netlink::tc::Qdiscs;
use crate::reasons::interface::{Found, Problem};

/// How often the kernel is asked who else is at the interfaces.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// The next look comes no sooner than after so many times what the last one took: with very many
/// interfaces, looking around takes no more than a tenth of the daemon's time.
const PAUSE_TIMES: u32 = 10;

/// The same for the question what drivers can do, which is asked far more often.
const DRIVERS_TIMES: u32 = 200;

/// A look at who else is at the interfaces, which goes on over as many turns as it takes.
pub(super) struct Look {
    /// As they were at its start.
    qdiscs: Qdiscs,
    /// Where the attachments are in their list, by interface.
    attached: HashMap<u32, usize>,
    /// Ports that carry frames of VLAN devices.
    vlan_ports: HashSet<u32>,
    /// The interfaces that are still to be looked at have this index, or a larger one.
    next: u32,
    /// Interfaces whose packets are the stack's, with the reason.
    left_out: BTreeMap<u32, Found>,
    /// What it has taken so far.
    took: Duration,
}

impl Look {
    /// The attachment at this interface, if it was named itself, and at the port of this VLAN.
    fn attachments<'a>(
        &self,
        all: &'a [Attachment],
        link: &Link,
    ) -> (Option<&'a Attachment>, Option<&'a Attachment>) {
        let at = |index| self.attached.get(&index).and_then(|at| all.get(*at));
        (at(link.index), link.vlan.and_then(|vlan| at(vlan.port)))
    }
}

impl Daemon<'_> {
    /// Looks who is at the interfaces, and what their drivers can do, and acts on it.
    pub(super) fn look_around(&mut self) -> Result<()> {
        self.start_look()?;
        while !self.go_on_looking(Instant::now() + LOOK_AROUND)? {}
        Ok(())
    }

    /// Starts a look if one is due: once a while, and soon after an event.
    pub(super) fn start_due_look(&mut self) -> Result<()> {
        let pause = pause_before_look(self.must_look_around, self.last_look_took);
        if self.look.is_none() && self.last_look_around.elapsed() >= pause {
            self.start_look()?;
        }
        Ok(())
    }

    fn start_look(&mut self) -> Result<()> {
        let started = Instant::now();
        self.must_look_around = false;
        self.look = None;
        self.follow_mtus()?;
        self.look = Some(Look {
            qdiscs: Qdiscs::read()?,
            attached: self.positions(),
            vlan_ports: topology::ports_of_vlans(&self.monitor.network().links),
            next: 0,
            left_out: BTreeMap::new(),
            took: started.elapsed(),
        });
        Ok(())
    }

    /// Goes on with the look, if there is one, until this time; `true` if none is going on then.
    pub(super) fn go_on_looking(&mut self, until: Instant) -> Result<bool> {
        let started = Instant::now();
        // After an error, the next look begins anew.
        let Some(mut look) = self.look.take() else {
            return Ok(true);
        };
        while let Some(index) = self.next_link(look.next) {
            look.next = index + 1;
            self.look_at(&mut look, index)?;
            if Instant::now() >= until {
                look.took += started.elapsed();
                self.look = Some(look);
                return Ok(false);
            }
        }
        self.report_others(&look.left_out);
        self.left_out = look.left_out;
        self.watch_shapers(&look.qdiscs);
        self.update_devices()?;
        self.last_look_around = Instant::now();
        self.last_look_took = look.took + started.elapsed();
        Ok(true)
    }

    fn next_link(&self, from: u32) -> Option<u32> {
        self.monitor.network().links.range(from..).next().map(|(index, _)| *index)
    }

    fn look_at(&mut self, look: &mut Look, index: u32) -> Result<()> {
        let Some(link) = self.monitor.network().links.get(&index) else {
            return Ok(());
        };
        let own = look.attached.get(&index).copied();
        let is_on_ours = link.vlan.is_some_and(|vlan| look.attached.contains_key(&vlan.port));
        if own.is_none() && !is_on_ours {
            return Ok(());
        }
        let mut at_tc = AtTc::read(index, &mut look.qdiscs)?;
        if let Some(at) = own
            && self.keep_in_place(at, &at_tc, &mut look.qdiscs)?
        {
            at_tc = AtTc::read(index, &mut look.qdiscs)?;
        }
        if let Some(found) = self.reason_to_leave_out(look, index, &at_tc)? {
            look.left_out.insert(index, found);
        }
        Ok(())
    }

    /// `true` if something else stands at the interface now.
    fn keep_in_place(&mut self, at: usize, at_tc: &AtTc, qdiscs: &mut Qdiscs) -> Result<bool> {
        let attachment = &mut self.attachments[at];
        // Its programs go first, and the event comes last.
        if !attachment.interface_exists() {
            return Ok(false);
        }
        let moved = attachment.keep_in_place(&self.programs, at_tc, qdiscs);
        if let Err(error) = &moved {
            tracing::warn!("{error}");
        }
        // Before an error, some of it may have been done.
        let moved = moved.unwrap_or(true);
        if moved {
            *qdiscs = Qdiscs::read()?;
        }
        Ok(moved)
    }

    /// Why all packets of this interface must go to the stack, if there is a reason.
    fn reason_to_leave_out(&self, look: &Look, index: u32, at_tc: &AtTc) -> Result<Option<Found>> {
        let Some(link) = self.monitor.network().links.get(&index) else {
            return Ok(None);
        };
        let (own, port) = look.attachments(&self.attachments, link);
        let Some(any) = own.or(port) else {
            return Ok(None);
        };
        if let Some(error) = own.and_then(Attachment::off) {
            let detail = Some(error.to_owned());
            return Ok(Some(Found { problem: Problem::XdpRefused, detail }));
        }
        let has_vlans = look.vlan_ports.contains(&link.index);
        if own.is_some() && self.request.hook == Hook::Xdp && has_vlans && hides_tags(link)? {
            return Ok(Some(Problem::TagsRemoved.into()));
        }
        if own.is_some_and(|own| !own.is_in_place(at_tc) && own.interface_exists()) {
            return Ok(Some(Problem::ProgramOff.into()));
        }
        let is_foreign = |handler: &&Handler| !any.is_ours(handler.program());
        let (blind, problem) = match self.request.hook {
            Hook::Xdp => {
                let mut all = at_tc.ingress.iter().chain(&at_tc.egress);
                (all.find(is_foreign), Problem::HiddenByXdp)
            }
            // Frames with its tag are forwarded where they come in at the port.
            Hook::Tc if port.is_some() => {
                (at_tc.ingress.iter().find(is_foreign), Problem::ProgramBehind)
            }
            Hook::Tc => (at_tc.behind(any.program()), Problem::ProgramBehind),
        };
        Ok(blind.map(|handler| Found { problem, detail: Some(handler.to_string()) }))
    }

    /// A driver that takes redirected frames no longer loses them without a word, and no event of
    /// rtnetlink's tells. Each driver is asked in each interval, with very many interfaces less often.
    pub(super) fn watch_drivers(&mut self) -> Result<()> {
        if Instant::now() < self.next_drivers {
            return Ok(());
        }
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
        let started = Instant::now();
        let all = attachments.iter().map(|attachment| attachment.transmitting(drivers)).collect();
        self.next_drivers = Instant::now() + started.elapsed() * DRIVERS_TIMES;
        all
    }

    /// Where the attachments are in their list, by interface.
    pub(super) fn positions(&self) -> HashMap<u32, usize> {
        self.attachments.iter().enumerate().map(|(at, ours)| (ours.ifindex(), at)).collect()
    }

    /// Why nothing can be redirected to this interface, which exists and is not left out.
    pub(super) fn reason_for_no_egress(&self, attachment: &Attachment) -> Problem {
        let link = self.monitor.network().links.get(&attachment.ifindex());
        let is_veth = link.is_some_and(|link| link.kind.as_deref() == Some("veth"));
        match link {
            Some(link) if !link.up => Problem::Down,
            Some(link) if !link.is_routed() => Problem::Port,
            Some(link) if link.vlan.is_some_and(|vlan| vlan.has_egress_qos) => {
                Problem::TagPriorities
            }
            _ if self.request.hook == Hook::Tc => Problem::NoRoom,
            _ if attachment.kind() == Kind::XdpGeneric => Problem::GenericTarget,
            _ if is_veth => Problem::VethPeer,
            _ => Problem::NoTransmit,
        }
    }

    fn report_others(&self, now: &BTreeMap<u32, Found>) {
        let links = &self.monitor.network().links;
        let name = |index| links.get(index).map_or("?", |link| link.name.as_str());
        for (index, found) in now {
            if self.left_out.get(index) != Some(found) {
                tracing::warn!("packets of {} stay with the stack: {found}", name(index));
            }
        }
        for index in self.left_out.keys().filter(|index| links.contains_key(index)) {
            if !now.contains_key(index) {
                tracing::info!("packets of {} are forwarded again", name(index));
            }
        }
    }
}

/// Whether the driver takes off tags: to XDP, the packets of VLAN devices look like the port's own.
fn hides_tags(link: &Link) -> Result<bool> {
    sys::strips_tags(&link.name)
        .map_err(|error| Error::system(format!("reading the settings of {}", link.name), error))
}

/// How long after the last look, which took so long, the next one begins.
fn pause_before_look(after_event: bool, last_took: Duration) -> Duration {
    let pause = if after_event { BUMP_PAUSE } else { LOOK_AROUND };
    pause.max(last_took * PAUSE_TIMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_61_after_a_long_look_there_is_time_to_forward() {
        let [short, long] = [1, 1_500].map(Duration::from_millis);
        assert_eq!(pause_before_look(false, short), LOOK_AROUND);
        assert_eq!(pause_before_look(true, short), BUMP_PAUSE);
        for after_event in [false, true] {
            assert!(pause_before_look(after_event, long) >= 10 * long);
        }
    }
}
