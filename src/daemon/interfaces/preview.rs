// SPDX-License-Identifier: GPL-2.0-only
//! What would become of interfaces that nothing is attached to yet, decided by the same code.

use std::collections::{BTreeMap, BTreeSet};

use super::fit::why_unfit;
use super::follow::interfaces;
use super::review::{LeftOut, Named, Review};
use super::scan::hides_tags;
use super::state::{By, InterfaceState};
use super::tell::tell;
use super::wanted::Wanted;
use crate::config::XdpModes;
use crate::connections::topology::{View, ports_of_vlans};
use crate::daemon::policy::Policy;
use crate::datapath::interface::{Interface, Kind};
use crate::datapath::tc_chain::AtTc;
use crate::datapath::{Hook, foresee, instance_lock};
use crate::error::Result;
use crate::netlink::drivers::Drivers;
use crate::netlink::link::Link;
use crate::netlink::monitor::Network;
use crate::netlink::tc::Qdiscs;
use crate::reasons::interface::{Found, Problem};
use crate::status;

/// What the answer depends on.
pub(in crate::daemon) struct Preview<'a> {
    pub(in crate::daemon) hook: Hook,
    pub(in crate::daemon) modes: &'a XdpModes,
    pub(in crate::daemon) network: &'a Network,
    pub(in crate::daemon) policy: &'a Policy,
    pub(in crate::daemon) drivers: &'a mut Drivers,
    /// How many interfaces the device maps have room for.
    pub(in crate::daemon) room: usize,
}

/// What is found at an interface.
struct Site {
    kind: Kind,
    transmits: bool,
    left_out: Option<Found>,
    /// Programs and filters at TC that get the packets before bpfw.
    before: BTreeSet<String>,
}

/// The interfaces as they would be; and by name, the programs and filters that get the packets before bpfw.
pub(in crate::daemon) type Foreseen = (Vec<status::Interface>, BTreeMap<String, BTreeSet<String>>);

impl Preview<'_> {
    /// All interfaces that the words stand for. An error if the daemon would not start.
    pub(in crate::daemon) fn interfaces(&mut self, wanted: &Wanted) -> Result<Foreseen> {
        let (hook, links) = (self.hook, &self.network.links);
        let targets = wanted.targets(links, hook, &|link| why_unfit(link, hook));
        let (first, mut qdiscs) = (interfaces(&targets, links), Qdiscs::read()?);
        let mut sites = BTreeMap::new();
        let mut failed = BTreeMap::new();
        for interface in &first {
            match self.site(interface, &mut qdiscs) {
                Ok(site) => {
                    sites.insert(interface.index, site);
                }
                // The daemon tries again.
                Err(error) if wanted.may_come_later => {
                    let detail = Some(error.to_string());
                    let found = Found { problem: Problem::NotAttached, detail };
                    failed.insert(interface.name.clone(), InterfaceState::LeftToStack(found));
                }
                Err(error) => return Err(error),
            }
        }
        let mut states = self.states(&first, &sites);
        states.extend(targets.states(links, &|_| false));
        states.extend(failed);
        let before = first.iter().filter_map(|interface| {
            let site = sites.remove(&interface.index)?;
            (!site.before.is_empty()).then(|| (interface.name.clone(), site.before))
        });
        Ok((tell(&states, links, usize::MAX), before.collect()))
    }

    fn site(&mut self, interface: &Interface, qdiscs: &mut Qdiscs) -> Result<Site> {
        instance_lock::refuse_claimed(interface)?;
        let others = foresee::others_at(interface.index, qdiscs)?;
        let kind = foresee::kind(
            self.hook,
            self.modes.of(&interface.name),
            interface,
            &others,
            self.drivers,
        )?;
        Ok(Site {
            kind,
            transmits: foresee::transmits(interface, self.drivers),
            left_out: self.left_out(interface.index, &others)?,
            before: match self.hook {
                Hook::Xdp => BTreeSet::new(),
                Hook::Tc => others.ingress.iter().map(ToString::to_string).collect(),
            },
        })
    }

    /// Why the stack would get all of its packets. At TC, bpfw goes behind all others.
    fn left_out(&self, index: u32, others: &AtTc) -> Result<Option<Found>> {
        let Some(link) = self.network.links.get(&index).filter(|_| self.hook == Hook::Xdp) else {
            return Ok(None);
        };
        if ports_of_vlans(&self.network.links).contains(&index) && hides_tags(link)? {
            return Ok(Some(Problem::TagsRemoved.into()));
        }
        let hidden = others.ingress.iter().chain(&others.egress).next();
        Ok(hidden.map(|handler| Found {
            problem: Problem::HiddenByXdp,
            detail: Some(handler.to_string()),
        }))
    }

    fn states(&self, first: &[Interface], sites: &BTreeMap<u32, Site>) -> super::States {
        let links = &self.network.links;
        let left = sites.iter().filter_map(|(index, site)| Some((*index, site.left_out.clone()?)));
        let found: BTreeMap<u32, Found> = left.collect();
        let left_out = LeftOut {
            found: &found,
            chain_at: &|link| self.policy.rules.chain_at(link).map(ToString::to_string),
        };
        let attached: BTreeSet<u32> = sites.keys().copied().collect();
        let all_generic = sites.values().all(|site| site.kind == Kind::XdpGeneric);
        let transmits = |index: u32| sites.get(&index).is_some_and(|site| site.transmits);
        let is_left = |link: &Link| left_out.reason(link).is_some();
        let devices = View {
            hook: self.hook,
            links,
            attached: &|index| attached.contains(&index),
            can_transmit: &|index| all_generic || transmits(index),
            route_mtu: &|_, _| None,
            mtu6: &|_| None,
            left_out: &|index| links.get(&index).is_some_and(is_left),
            room: self.room,
        }
        .devices();
        let named = first.iter().filter_map(|interface| {
            let by = By::Itself(sites.get(&interface.index)?.kind);
            let Interface { name, index, .. } = interface;
            Some(Named { name, index: *index, by, transmitting: None })
        });
        let named: Vec<_> = named.collect();
        let notices = BTreeMap::new();
        Review { hook: self.hook, links, left_out, notices: &notices, devices: &devices }
            .states(&named)
    }
}
