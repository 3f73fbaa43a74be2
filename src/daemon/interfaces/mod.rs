// SPDX-License-Identifier: GPL-2.0-only
//! The interfaces: those that were named, and VLAN devices on them. Here the daemon attaches to them,
//! decides what becomes of their packets, and tells the datapath and the user.

mod drivers;
mod fit;
pub(super) mod follow;
mod mtu;
pub(super) mod preview;
mod review;
mod scan;
mod shapers;
mod stamps;
mod state;
mod tell;
mod unseen;
pub(super) mod wanted;

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::config::XdpModes;
use crate::connections::topology::{self, View};
use crate::datapath::Hook;
use crate::datapath::attachment::{Attachment, Interface, Kind, Programs, Transmitting};
use crate::datapath::devices;
use crate::datapath::instance_lock::Claims;
use crate::datapath::object::LoadedObject;
use crate::datapath::state::Change;
use crate::error::Result;
use crate::netlink::drivers::Drivers;
use crate::netlink::monitor::Network;
use crate::reasons::interface::{Found, Problem};

use super::Daemon;
use super::policy::Policy;
use drivers::DriverWatch;
use follow::Failure;
use review::{LeftOut, Named, Review, States};
use scan::Scans;
use stamps::Stamps;
use state::By;
use unseen::Unseen;
use wanted::{Targets, Wanted};

/// All interfaces, and what is known of them.
pub(super) struct Interfaces {
    hook: Hook,
    xdp_modes: XdpModes,
    programs: Programs,
    attachments: Vec<Attachment>,
    /// Those that are still to be attached to, in this order.
    unattached: VecDeque<Interface>,
    /// Not all of the first ones are attached yet.
    is_starting: bool,
    /// The first ones have been attached, or the user's words have changed, since links were followed last.
    must_follow_links: bool,
    claims: Claims,
    wanted: Wanted,
    /// What is wanted as of the last change of links.
    targets: Targets,
    /// By index: those that could not be attached to.
    failures: BTreeMap<u32, Failure>,
    maps: devices::Devices,
    /// What the device maps hold, if that is known.
    devices: Option<topology::Devices>,
    pub(super) scans: Scans,
    drivers: DriverWatch,
    unseen: Unseen,
    stamps: Stamps,
    /// What users should know of an interface that is used.
    notices: BTreeMap<(u32, Problem), Found>,
    /// By name, as the user was told.
    states: States,
    /// How many interfaces the device maps have no room for, as the user was told.
    without_room: usize,
}

impl Interfaces {
    /// None is attached to yet.
    pub(super) fn new(
        object: &LoadedObject<'_>,
        (hook, xdp_modes): (Hook, XdpModes),
        drivers: Drivers,
        (wanted, first): (Wanted, Vec<Interface>),
        claims: Claims,
    ) -> Result<Self> {
        Ok(Self {
            hook,
            xdp_modes,
            programs: object.programs(hook)?,
            attachments: Vec::new(),
            unattached: first.into(),
            is_starting: !wanted.may_come_later,
            must_follow_links: false,
            claims,
            wanted,
            targets: Targets::default(),
            failures: BTreeMap::new(),
            maps: devices::Devices::new(object.object())?,
            devices: None,
            scans: Scans::new(),
            drivers: DriverWatch::new(drivers),
            unseen: Unseen::new(object.object(), hook)?,
            stamps: Stamps::default(),
            notices: BTreeMap::new(),
            states: States::new(),
            without_room: 0,
        })
    }

    /// Other words of the user. Links are followed at once, or if something fails before, with the next tick.
    pub(super) fn set_wanted(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        self.must_follow_links = true;
    }

    /// How to attach XDP from here on.
    pub(super) fn set_xdp_modes(&mut self, modes: XdpModes) {
        self.xdp_modes = modes;
    }

    /// Whether programs are attached in a way that these modes do not ask for.
    pub(super) fn are_attached_by_others(&self, modes: &XdpModes) -> bool {
        self.attachments.iter().any(|ours| ours.mode() != modes.of(ours.name()))
    }

    /// All that is attached, to be taken off.
    pub(super) fn take_attachments(&mut self) -> Vec<Attachment> {
        std::mem::take(&mut self.attachments)
    }

    /// How many interfaces are still to be attached to.
    pub(super) fn unattached(&self) -> usize {
        self.unattached.len()
    }

    /// Whether there is something to do at once.
    pub(super) fn is_busy(&self) -> bool {
        self.scans.is_running() || !self.unattached.is_empty()
    }

    /// Whether packets of this interface or of its VLAN devices meet our programs.
    pub(super) fn is_attached(&self, index: u32) -> bool {
        self.attachments.iter().any(|ours| ours.ifindex() == index)
    }

    /// Where the attachments are in their list, by interface.
    fn positions(&self) -> HashMap<u32, usize> {
        self.attachments.iter().enumerate().map(|(at, ours)| (ours.ifindex(), at)).collect()
    }

    /// Forgets what the device maps hold, so that they are written anew.
    pub(super) fn distrust_maps(&mut self) {
        self.devices = None;
    }

    /// Decides about all interfaces, and tells the user what has changed; what the device maps should hold.
    fn review(&mut self, network: &Network, policy: &Policy) -> topology::Devices {
        let transmitting = self.drivers.ask(self.hook, &self.attachments);
        let left_out = LeftOut {
            found: &self.scans.found,
            chain_at: &|link| policy.rules.chain_at(link).map(ToString::to_string),
        };
        let devices = self.devices_for(network, policy, &left_out, &transmitting);
        let review = Review {
            hook: self.hook,
            links: &network.links,
            left_out,
            notices: &self.notices,
            devices: &devices,
        };
        let mut states = review.states(&self.named(&transmitting));
        states.extend(self.other_states(&network.links));
        review::keep_until_attached(&mut states, &self.states);
        for line in review::report(&self.states, &states) {
            line.log();
        }
        self.states = states;
        self.report_room(&devices);
        devices
    }

    fn devices_for(
        &self,
        network: &Network,
        policy: &Policy,
        left_out: &LeftOut<'_>,
        transmitting: &[Transmitting],
    ) -> topology::Devices {
        let positions = self.positions();
        // Generic XDP hands the sk_buff over, which every driver sends.
        let all_generic = self.attachments.iter().all(|ours| ours.kind() == Kind::XdpGeneric);
        let is_trusted = |at: &usize| transmitting.get(*at).is_some_and(|said| said.is_trusted());
        View {
            hook: self.hook,
            links: &network.links,
            attached: &|index| {
                let ours = positions.get(&index).map(|at| &self.attachments[*at]);
                ours.is_some_and(|ours| ours.fits(network.links.get(&index)))
            },
            can_transmit: &|index| all_generic || positions.get(&index).is_some_and(is_trusted),
            route_mtu: &|family, index| network.routes[family].smallest_mtu(index),
            mtu6: &|link| policy.sysctls.ipv6.mtu(&link.name),
            left_out: &|index| {
                network.links.get(&index).is_some_and(|link| left_out.reason(link).is_some())
            },
            room: self.maps.room(),
        }
        .devices()
    }

    /// All that were named.
    fn named(&self, transmitting: &[Transmitting]) -> Vec<Named<'_>> {
        let attached = self.attachments.iter().enumerate().map(|(at, ours)| Named {
            name: ours.name(),
            index: ours.ifindex(),
            by: By::Itself(ours.kind()),
            transmitting: transmitting.get(at).copied(),
        });
        let waiting = self.unattached.iter().map(|interface| Named {
            name: &interface.name,
            index: interface.index,
            by: By::Nobody,
            transmitting: None,
        });
        attached.chain(waiting).collect()
    }

    /// Adds what the user should know of an interface; `true` if that is new.
    fn add_notice(&mut self, index: u32, problem: Problem, detail: String) -> bool {
        let found = Found { problem, detail: Some(detail) };
        self.notices.insert((index, problem), found.clone()) != Some(found)
    }

    /// Removes a notice that does not hold any longer; `true` if there was one.
    fn clear_notice(&mut self, index: u32, problem: Problem) -> bool {
        self.notices.remove(&(index, problem)).is_some()
    }

    fn report_room(&mut self, devices: &topology::Devices) {
        let before = std::mem::replace(&mut self.without_room, devices.without_room);
        match devices.warning(self.maps.room()) {
            Some(warning) if before != devices.without_room => tracing::warn!("{warning}"),
            None if before != 0 => tracing::info!("the maps of interfaces have room for all again"),
            _ => {}
        }
    }

    /// Asks the drivers again, if that is due; `true` if they do something else with redirected frames now.
    pub(super) fn watch_drivers(&mut self) -> bool {
        self.drivers.ask_if_due(self.hook, &self.attachments)
    }

    fn set_devices(&mut self, devices: topology::Devices) -> Result<()> {
        self.devices = None;
        self.maps.set(&devices.links, &devices.egresses)?;
        self.devices = Some(devices);
        Ok(())
    }
}

impl Daemon<'_> {
    /// Decides about all interfaces. The device maps change in a pause: a packet must not see half of the
    /// change.
    pub(super) fn update_devices(&mut self) -> Result<()> {
        let devices = self.interfaces.review(self.monitor.network(), &self.policy);
        if self.interfaces.devices.as_ref() == Some(&devices) {
            return Ok(());
        }
        self.pause_for_devices()?;
        self.interfaces.set_devices(devices)?;
        self.connections.offload.resend_flags();
        // With the others: links that come and go do not bump more often than routes.
        self.generations.ask(Change::Topology);
        Ok(())
    }
}
