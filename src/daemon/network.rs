// SPDX-License-Identifier: GPL-2.0-only
//! Changes of the network and of policies, and what follows from them for all connections.

use std::time::Instant;

use super::policy::Policy;
use super::{Daemon, SLICE};
use crate::connections::topology;
use crate::datapath::state::Change;
use crate::error::Result;
use crate::flow::family::{Families, Family};
use crate::netlink::firewall::Changed;
use crate::netlink::monitor::Changes;
use crate::netlink::routing_sysctls::RoutingSysctls;
use crate::reasons::pause::Pause;

impl Daemon<'_> {
    /// Before conntrack's events: a connection must not be judged by former policies.
    pub(super) fn read_firewall(&mut self) -> Result<()> {
        // Before the ruleset, which takes its time: what a new rule drops must not be forwarded any longer.
        if let Some(changed) = self.policy.rules.firewall.read_events(Instant::now() + SLICE)? {
            match changed {
                Changed::Rules => self.generations.ask(Change::Policy),
                Changed::Elements => self.generations.ask_for_elements(),
            }
            self.follow_topology()?;
        }
        self.read_rules()
    }

    pub(super) fn read_rules(&mut self) -> Result<()> {
        let rules = &mut self.policy.rules;
        let before = rules.what_decides();
        let chains_changed = rules.read()?;
        let changed = rules.what_decides() != before;
        let timeout_policies = rules.firewall.has_timeout_policies();
        if changed {
            self.check_policies()?;
        }
        self.connections.offload.set_timeout_policies(timeout_policies);
        if chains_changed { self.update_devices() } else { Ok(()) }
    }

    pub(super) fn read_network(&mut self) -> Result<()> {
        // First of all: what a new IPsec policy covers must not leave in clear any longer.
        if self.policy.xfrm.read(Instant::now() + SLICE)? {
            self.generations.ask(Change::Policy);
            self.check_policies()?;
        }
        let changes = self.monitor.read(Instant::now() + SLICE)?;
        let network = self.monitor.network();
        if changes.addresses {
            self.connections.offload.set_local_addresses(&network.local_addresses);
        }
        let change = match changes {
            Changes { policy: true, .. } => Some(Change::Policy),
            Changes { routing: true, .. } if Policy::has_foreign_rules(network) => {
                Some(Change::Policy)
            }
            Changes { forwarding: true, .. } => Some(Change::Topology),
            _ => None,
        };
        if changes.links {
            self.interfaces.follow_links(&self.monitor.network().links);
            if self.follow_mtus()? {
                self.scan()?;
            } else {
                self.update_devices()?;
            }
        }
        if changes.forwarding {
            self.check_policies()?;
        }
        self.interfaces.scans.must_scan |= changes.tc;
        if let Some(change) = change {
            self.generations.ask(change);
        }
        Ok(())
    }

    /// Begins the next generation and the next scan if they are due.
    pub(super) fn follow_topology(&mut self) -> Result<()> {
        if self.interfaces.scans.must_scan {
            self.start_due_scan()?;
        }
        match self.generations.ready(Instant::now()) {
            Some(change) => self.bump(change),
            None => Ok(()),
        }
    }

    /// Begins the next generation: all connections look up again.
    pub(super) fn bump(&mut self, change: Change) -> Result<()> {
        // Any other pause ends with a bump anyway.
        if !self.fast_path.is_settled() {
            return Ok(());
        }
        let change = self.generations.begin(change, Instant::now());
        self.datapath.state.bump(change)?;
        self.end_pause();
        Ok(())
    }

    /// Pauses if other connections may be offloaded now.
    pub(super) fn check_policies(&mut self) -> Result<()> {
        if self.forbid_by_policy()? {
            self.distrust(Pause::Policy, None, Change::Policy)?;
        }
        Ok(())
    }

    /// They change without an event.
    pub(super) fn check_routing_sysctls(&mut self) -> Result<()> {
        let interfaces = &self.interfaces;
        let attached = |index| interfaces.is_attached(index);
        let names: Vec<_> = topology::named(&self.monitor.network().links, &attached).collect();
        let sysctls = RoutingSysctls::read(Families::FORWARDED, &names)?;
        if self.policy.sysctls == sysctls {
            return Ok(());
        }
        self.policy.sysctls = sysctls;
        self.monitor.doubt_mtus();
        self.generations.ask(Change::Policy);
        self.update_devices()?;
        self.check_policies()
    }

    /// Some kinds of policy are not looked at packet by packet: with them nothing is offloaded, or
    /// not the connections that they cover. `true` if that takes a resync.
    pub(super) fn forbid_by_policy(&mut self) -> Result<bool> {
        let mut changed = false;
        for family in Families::FORWARDED.iter() {
            changed |= self.forbid_family_by_policy(family);
        }
        let selectors = &self.policy.xfrm.policies().selectors;
        let offload = &mut self.connections.offload;
        let covers_more = offload.set_ipsec_selectors(selectors, Instant::now() + SLICE)?;
        Ok(changed || covers_more)
    }

    fn forbid_family_by_policy(&mut self, family: Family) -> bool {
        let network = self.monitor.network();
        let refusal = self.policy.refusal(network, family);
        let by_marks = network.rules[family].fwmark_bits != 0 && self.policy.route_mark != 0;
        let offload = &mut self.connections.offload;
        let other_marks = offload.require_route_mark(family, by_marks);
        let changed = offload.forbid(family, refusal);
        let of_family = if family == Family::Ipv4 { "" } else { " of IPv6" };
        match refusal {
            Some(refusal) if changed => {
                tracing::warn!("nothing{of_family} is offloaded: {}", refusal.reason().line());
            }
            None if changed => {
                tracing::info!("nothing stands against offloading{of_family} any more");
            }
            _ => {}
        }
        changed || other_marks
    }
}
