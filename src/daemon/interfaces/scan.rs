// SPDX-License-Identifier: GPL-2.0-only
//! Scans: which programs and filters of others are at our interfaces, and must go on seeing the packets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::Interfaces;
use crate::connections::topology;
use crate::daemon::Daemon;
use crate::datapath::Hook;
use crate::datapath::attachment::Attachment;
use crate::datapath::sys;
use crate::datapath::tc_chain::{AtTc, Handler};
use crate::error::{Error, Result};
use crate::netlink::link::{Link, Links};
use crate::netlink::tc::Qdiscs;
use crate::reasons::interface::{Found, Problem};

/// How often the interfaces are scanned.
const INTERVAL: Duration = Duration::from_secs(1);
/// How soon after an event.
const SOON: Duration = Duration::from_millis(20);
/// The next scan waits for this many times the duration of the last one. So with very many
/// interfaces, scans take at most a tenth of the daemon's time.
const APART: u32 = 10;

/// The scan that goes on, and what the last one has found.
pub(in crate::daemon) struct Scans {
    running: Option<Scan>,
    /// Something changed at TC, and there was no scan since.
    pub(in crate::daemon) must_scan: bool,
    ended_at: Instant,
    took: Duration,
    /// Interfaces whose packets are the stack's, with the reason.
    pub(super) found: BTreeMap<u32, Found>,
}

/// A scan, which goes on over as many turns as it takes.
struct Scan {
    /// As they were at its start.
    qdiscs: Qdiscs,
    /// Where the attachments are in their list, by interface.
    attached: HashMap<u32, usize>,
    /// Ports that carry frames of VLAN devices.
    vlan_ports: HashSet<u32>,
    /// The interfaces that are still to be scanned have this index, or a larger one.
    next: u32,
    found: BTreeMap<u32, Found>,
    /// What it has taken so far.
    took: Duration,
}

impl Scans {
    pub(super) fn new() -> Self {
        Self {
            running: None,
            must_scan: false,
            ended_at: Instant::now(),
            took: Duration::ZERO,
            found: BTreeMap::new(),
        }
    }

    /// Ends the scan that runs, and asks for another.
    pub(super) fn restart(&mut self) {
        self.running = None;
        self.must_scan = true;
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// How long the daemon may sleep before it asks again whether a scan is due.
    pub(in crate::daemon) fn wait(&self) -> Option<Duration> {
        self.must_scan.then_some(SOON)
    }

    /// Whether one is due: once a while, and soon after an event.
    fn is_due(&self) -> bool {
        !self.is_running() && self.ended_at.elapsed() >= wait_for_scan(self.must_scan, self.took)
    }
}

/// How long after the last scan, which took so long, the next one begins.
fn wait_for_scan(after_event: bool, last_took: Duration) -> Duration {
    let wait = if after_event { SOON } else { INTERVAL };
    wait.max(last_took * APART)
}

impl Scan {
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

impl Interfaces {
    fn start_scan(&mut self, links: &Links, started: Instant) -> Result<()> {
        self.scans.running = Some(Scan {
            qdiscs: Qdiscs::read()?,
            attached: self.positions(),
            vlan_ports: topology::ports_of_vlans(links),
            next: 0,
            found: BTreeMap::new(),
            took: started.elapsed(),
        });
        Ok(())
    }

    /// Goes on with the scan, if there is one, until this time; what it has taken, if it ends.
    fn go_on_scanning(&mut self, links: &Links, until: Instant) -> Result<Option<Duration>> {
        let started = Instant::now();
        // After an error, the next scan begins anew.
        let Some(mut scan) = self.scans.running.take() else {
            return Ok(None);
        };
        while let Some((&index, link)) = links.range(scan.next..).next() {
            scan.next = index + 1;
            self.scan_link(&mut scan, link)?;
            if Instant::now() >= until {
                scan.took += started.elapsed();
                self.scans.running = Some(scan);
                return Ok(None);
            }
        }
        self.find_shapers(&scan.qdiscs);
        self.scans.found = scan.found;
        Ok(Some(scan.took + started.elapsed()))
    }

    fn scan_link(&mut self, scan: &mut Scan, link: &Link) -> Result<()> {
        let index = link.index;
        let own = scan.attached.get(&index).copied();
        let is_on_ours = link.vlan.is_some_and(|vlan| scan.attached.contains_key(&vlan.port));
        if own.is_none() && !is_on_ours {
            return Ok(());
        }
        let mut at_tc = AtTc::read(index, &mut scan.qdiscs)?;
        let has_moved = match own {
            Some(at) => self.keep_in_place(at, &at_tc, &mut scan.qdiscs)?,
            None => false,
        };
        if has_moved {
            at_tc = AtTc::read(index, &mut scan.qdiscs)?;
        }
        if let Some(found) = self.reason_by_scan(scan, link, &at_tc)? {
            scan.found.insert(index, found);
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
    fn reason_by_scan(&self, scan: &Scan, link: &Link, at_tc: &AtTc) -> Result<Option<Found>> {
        let (own, port) = scan.attachments(&self.attachments, link);
        let Some(any) = own.or(port) else {
            return Ok(None);
        };
        if let Some(error) = own.and_then(Attachment::off) {
            let detail = Some(error.to_owned());
            return Ok(Some(Found { problem: Problem::XdpRefused, detail }));
        }
        let has_vlans = scan.vlan_ports.contains(&link.index);
        if own.is_some() && self.hook == Hook::Xdp && has_vlans && hides_tags(link)? {
            return Ok(Some(Problem::TagsRemoved.into()));
        }
        if own.is_some_and(|own| !own.is_in_place(at_tc) && own.interface_exists()) {
            return Ok(Some(Problem::ProgramOff.into()));
        }
        let is_foreign = |handler: &&Handler| !any.is_ours(handler.program());
        let (blind, problem) = match self.hook {
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
}

impl Daemon<'_> {
    /// A whole scan, at once.
    pub(in crate::daemon) fn scan(&mut self) -> Result<()> {
        self.start_scan()?;
        while self.interfaces.scans.is_running() {
            self.go_on_scanning(Instant::now() + INTERVAL)?;
        }
        Ok(())
    }

    /// Starts a scan if one is due.
    pub(in crate::daemon) fn start_due_scan(&mut self) -> Result<()> {
        if self.interfaces.scans.is_due() { self.start_scan() } else { Ok(()) }
    }

    fn start_scan(&mut self) -> Result<()> {
        let started = Instant::now();
        self.interfaces.scans.must_scan = false;
        self.interfaces.scans.running = None;
        self.follow_mtus()?;
        self.interfaces.start_scan(&self.monitor.network().links, started)
    }

    /// Goes on with the scan, if there is one, until this time. At its end, the daemon acts on it.
    pub(in crate::daemon) fn go_on_scanning(&mut self, until: Instant) -> Result<()> {
        let links = &self.monitor.network().links;
        let Some(took) = self.interfaces.go_on_scanning(links, until)? else {
            return Ok(());
        };
        let started = Instant::now();
        self.update_devices()?;
        let scans = &mut self.interfaces.scans;
        scans.ended_at = Instant::now();
        scans.took = took + started.elapsed();
        Ok(())
    }
}

/// Whether the driver takes off tags: to XDP, the packets of VLAN devices look like the port's own.
pub(super) fn hides_tags(link: &Link) -> Result<bool> {
    sys::strips_tags(&link.name)
        .map_err(|error| Error::system(format!("reading the settings of {}", link.name), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_61_after_a_long_scan_there_is_time_to_forward() {
        let [short, long] = [1, 1_500].map(Duration::from_millis);
        assert_eq!(wait_for_scan(false, short), INTERVAL);
        assert_eq!(wait_for_scan(true, short), SOON);
        for after_event in [false, true] {
            assert!(wait_for_scan(after_event, long) >= 10 * long);
        }
    }
}
