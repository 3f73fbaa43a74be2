// SPDX-License-Identifier: GPL-2.0-only
//! Interfaces come and go. What the user named stays wanted: a new interface of that name, with another index
//! or of another kind, is attached to again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Interfaces;
use super::fit::why_unfit;
use super::state::InterfaceState;
use super::wanted::{Targets, Wanted};
use crate::datapath::Hook;
use crate::datapath::attachment::{Attachment, Interface};
use crate::error::{Error, Result};
use crate::netlink::link::{self, Links};
use crate::netlink::link_layer::LinkLayer;
use crate::netlink::tc::Qdiscs;
use crate::reasons::interface::{Found, Problem};

/// How long after a failure the daemon tries again to attach.
const RETRY: Duration = Duration::from_secs(1);

/// An interface that could not be attached to.
pub(super) struct Failure {
    error: String,
    name: String,
    retry_at: Instant,
}

/// The interfaces to attach to at the start. An error if one that was named does not exist, or is of no use,
/// unless it may come later.
pub(in crate::daemon) fn first_interfaces(
    wanted: &Wanted,
    links: &Links,
    hook: Hook,
) -> Result<Vec<Interface>> {
    let unfit = |link: &_| why_unfit(link, hook);
    if !wanted.may_come_later {
        wanted.require_names(links, &unfit)?;
    }
    Ok(interfaces(&wanted.targets(links, hook, &unfit), links))
}

pub(super) fn interfaces(targets: &Targets, links: &Links) -> Vec<Interface> {
    let found = targets.attach.keys().filter_map(|index| links.get(index));
    let mut interfaces: Vec<Interface> = found
        .map(|link| Interface {
            index: link.index,
            name: link.name.clone(),
            kind: link.kind.clone(),
            mtu: link.mtu,
            depth: link::depth(links, link.index),
            headerless: LinkLayer::of(link).is_headerless(),
            stacked_with: link::stacked_with(links, link.index)
                .map(|other| (other.index, other.name.clone()))
                .collect(),
        })
        .collect();
    // The kernel attaches no XDP below an interface that has some.
    interfaces.sort_by_key(|interface| {
        let order = targets.attach.get(&interface.index).map(|target| target.order);
        (interface.depth, order)
    });
    interfaces
}

impl Targets {
    /// What becomes of names that are not attached to.
    pub(super) fn states(
        &self,
        links: &Links,
        has_seen: &dyn Fn(&str) -> bool,
    ) -> BTreeMap<String, InterfaceState> {
        let mut states = BTreeMap::new();
        for (index, target) in &self.attach {
            let Some(carrier) = links.get(index) else { continue };
            for port in &target.ports {
                let state = states.entry(port.clone()).or_insert(InterfaceState::Port(Vec::new()));
                if let InterfaceState::Port(carriers) = state {
                    carriers.push(carrier.name.clone());
                }
            }
        }
        for (name, found) in &self.left {
            let state = match found.problem {
                Problem::Missing if has_seen(name) => InterfaceState::Gone,
                Problem::Missing => InterfaceState::Missing,
                _ => InterfaceState::LeftToStack(found.clone()),
            };
            states.entry(name.clone()).or_insert(state);
        }
        states
    }
}

impl Interfaces {
    /// Leaves interfaces that are gone or not wanted any longer, and lines up those that have come.
    pub(in crate::daemon) fn follow_links(&mut self, links: &Links) {
        let hook = self.hook;
        let targets = self.wanted.targets(links, hook, &|link| why_unfit(link, hook));
        let before = self.attachments.len();
        self.attachments.retain(|ours| {
            let index = ours.ifindex();
            let stays = targets.attach.contains_key(&index) && ours.fits(links.get(&index));
            if !stays {
                self.claims.release(index);
            }
            stays
        });
        if self.attachments.len() != before {
            // A running scan knows attachments by their places in the list.
            self.scans.restart();
        }
        self.failures.retain(|index, _| targets.attach.contains_key(index));
        if !self.is_starting {
            self.unattached.retain(|waits| targets.attach.contains_key(&waits.index));
            let now = Instant::now();
            let new = interfaces(&targets, links).into_iter().filter(|interface| {
                let waits = self.failures.get(&interface.index).is_some_and(|it| it.retry_at > now);
                !waits && !self.is_attached(interface.index) && !self.is_waiting(interface.index)
            });
            let new: Vec<Interface> = new.collect();
            self.unattached.extend(new);
        }
        self.must_follow_links = false;
        self.report_beyond(targets.beyond);
        self.targets = targets;
    }

    fn is_waiting(&self, index: u32) -> bool {
        self.unattached.iter().any(|interface| interface.index == index)
    }

    /// Whether links must be followed without an event, also because a failure was some time ago.
    pub(in crate::daemon) fn must_follow(&self) -> bool {
        let now = Instant::now();
        self.must_follow_links || self.failures.values().any(|failure| failure.retry_at <= now)
    }

    /// Attaches to the interfaces that wait, until this time, and to one at least. At the start all or none:
    /// with an error the daemon ends, and what is attached already goes with it.
    pub(in crate::daemon) fn attach_until(&mut self, until: Instant) -> Result<()> {
        if self.unattached.is_empty() {
            return Ok(());
        }
        let mut qdiscs = match Qdiscs::read() {
            Err(error) if !self.is_starting => {
                self.put_off(&error);
                return Ok(());
            }
            read => read?,
        };
        while let Some(interface) = self.unattached.pop_front() {
            let attached = self.attach(&interface, &mut qdiscs);
            match attached {
                Ok(attachment) => {
                    self.failures.remove(&interface.index);
                    self.attachments.push(attachment);
                }
                Err(error) if self.is_starting => return Err(error),
                Err(error) => self.note_failure(&interface, error.to_string()),
            }
            if Instant::now() >= until {
                break;
            }
        }
        // The last ones do not wait for the next scan.
        self.scans.must_scan |= self.unattached.is_empty();
        if self.is_starting && self.unattached.is_empty() {
            // Interfaces that came and went meanwhile are not in the line.
            (self.is_starting, self.must_follow_links) = (false, true);
        }
        Ok(())
    }

    fn attach(&mut self, interface: &Interface, qdiscs: &mut Qdiscs) -> Result<Attachment> {
        self.claims.claim(interface)?;
        let mode = self.xdp_modes.of(&interface.name);
        let attached = Attachment::attach(&self.programs, interface, mode, qdiscs);
        if attached.is_err() {
            self.claims.release(interface.index);
        }
        attached
    }

    /// None that waits can be attached to now. That is no reason to end.
    fn put_off(&mut self, error: &Error) {
        for interface in std::mem::take(&mut self.unattached) {
            self.note_failure(&interface, error.to_string());
        }
        self.scans.must_scan = true;
    }

    fn note_failure(&mut self, interface: &Interface, error: String) {
        let retry_at = Instant::now() + RETRY;
        let name = interface.name.clone();
        self.failures.insert(interface.index, Failure { error, name, retry_at });
    }

    /// What becomes of names that are not attached to, though not by the state of an attachment.
    pub(super) fn other_states(&self, links: &Links) -> BTreeMap<String, InterfaceState> {
        let mut states = self.targets.states(links, &|name| self.has_seen(name));
        for Failure { error, name, .. } in self.failures.values() {
            let found = Found { problem: Problem::NotAttached, detail: Some(error.clone()) };
            states.insert(name.clone(), InterfaceState::LeftToStack(found));
        }
        states
    }

    fn has_seen(&self, name: &str) -> bool {
        self.states.get(name).is_some_and(|state| *state != InterfaceState::Missing)
    }

    fn report_beyond(&self, beyond: usize) {
        if beyond != 0 && beyond != self.targets.beyond {
            tracing::warn!("{beyond} more interfaces match the patterns than bpfw attaches to");
        }
    }
}
