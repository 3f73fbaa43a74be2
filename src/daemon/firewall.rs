// SPDX-License-Identifier: GPL-2.0-only
//! What the firewall's rules mean for the fast path: interfaces whose packets must all go by the
//! stack, and what the user must know. `network.rs` reads the events.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::firewall::statements::Kind;
use crate::firewall::walk::{self, Findings};
use crate::flow::family::{Families, Family, PerFamily};
use crate::netlink::firewall::Firewall;
use crate::netlink::link::Link;
use crate::netlink::ruleset::Chain;
use crate::status::Warning;

/// The firewall, and what was found in it.
pub(super) struct Rules {
    pub(super) firewall: Firewall,
    findings: PerFamily<Findings>,
    /// Those at the ingress or egress of interfaces.
    device_chains: Vec<Chain>,
    /// That iptables-legacy is in use was said.
    said_legacy: bool,
}

impl Rules {
    /// None is read yet.
    pub(super) fn open() -> Result<Self> {
        Ok(Self {
            firewall: Firewall::open()?,
            findings: PerFamily::default(),
            device_chains: Vec::new(),
            said_legacy: false,
        })
    }

    /// Reads the ruleset if it has changed; true if other interfaces may be left out now.
    pub(super) fn read(&mut self) -> Result<bool> {
        let Some(ruleset) = self.firewall.read()? else {
            return Ok(false);
        };
        let (chains, rules) = (ruleset.chains.len(), ruleset.rules.len());
        tracing::debug!("the firewall has {chains} chains and {rules} rules");
        let mut findings = PerFamily::default();
        for family in Families::FORWARDED.iter() {
            let of_family = walk::find(&ruleset, family);
            for (kind, found) in &of_family {
                // With copies nothing is offloaded, and that is said.
                let is_known = is_among(*kind, &self.findings) || is_among(*kind, &findings);
                if *kind != Kind::Copy && !is_known {
                    tracing::warn!(
                        "rules do not see offloaded packets: {kind}, in {} {}. --offload-mark keeps \
                         connections away from the fast path",
                        found.table,
                        found.chain
                    );
                }
            }
            findings[family] = of_family;
        }
        self.findings = findings;
        let chains = ruleset.chains.into_iter().filter(Chain::is_at_device).collect();
        Ok(std::mem::replace(&mut self.device_chains, chains) != self.device_chains)
    }

    /// The chain that packets of this interface must not get around. Those at the ingress come
    /// after both of our hooks. Those at the egress do not see what XDP redirects, nor, for they
    /// skip it (`nf_skip_egress` in the kernel's net/core/dev.c), what TC does.
    pub(super) fn chain_at(&self, link: &Link) -> Option<&Chain> {
        self.device_chains.iter().find(|chain| {
            let mut devices = chain.hook.iter().flat_map(|hook| &hook.devices);
            devices.any(|device| device.is(&link.name))
        })
    }

    /// What of the rules decides whether connections are offloaded, for each family.
    pub(super) fn what_decides(&self) -> PerFamily<(bool, bool)> {
        let mut all = PerFamily::default();
        for family in Families::FORWARDED.iter() {
            all[family] = (self.marks_packets(family), self.copies_packets(family));
        }
        all
    }

    /// Whether rules mark packets of established connections. Those of iptables-legacy are not read:
    /// its table for that is enough.
    pub(super) fn marks_packets(&self, family: Family) -> bool {
        let has_legacy_mangle = || legacy_tables(family).iter().any(|table| table == "mangle");
        self.findings[family].contains_key(&Kind::Mark) || has_legacy_mangle()
    }

    /// Whether rules send copies of packets of established connections.
    pub(super) fn copies_packets(&self, family: Family) -> bool {
        self.findings[family].contains_key(&Kind::Copy)
    }

    /// What offloaded packets do not meet, for those who ask.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        let all = Families::FORWARDED.iter().flat_map(|family| &self.findings[family]);
        let by_kind: BTreeMap<_, _> = all.filter(|(kind, _)| **kind != Kind::Copy).collect();
        let found = by_kind.into_iter().map(|(kind, found)| Warning {
            what: kind.to_string(),
            chain: Some(format!("{} {}", found.table, found.chain)),
        });
        let legacy = Warning { what: "rules of iptables-legacy".to_owned(), chain: None };
        found.chain(self.said_legacy.then_some(legacy)).collect()
    }

    /// Says once that iptables-legacy is in use: nothing is known of its rules.
    pub(super) fn report_legacy(&mut self) {
        let tables: Vec<_> = Families::FORWARDED.iter().flat_map(legacy_tables).collect();
        if self.said_legacy || tables.is_empty() {
            return;
        }
        self.said_legacy = true;
        tracing::warn!(
            "rules of iptables-legacy (tables {}) are not read: they do not see offloaded packets, \
             and copies that they send (TEE) count as the packets themselves. Use iptables-nft",
            tables.join(", ")
        );
    }
}

/// Whether such a statement was found for packets of any family.
fn is_among(kind: Kind, findings: &PerFamily<Findings>) -> bool {
    Family::ALL.into_iter().any(|family| findings[family].contains_key(&kind))
}

/// The tables of iptables-legacy, or of ip6tables-legacy, that are in use in this network namespace.
fn legacy_tables(family: Family) -> Vec<String> {
    let list = match family {
        Family::Ipv4 => "/proc/self/net/ip_tables_names",
        Family::Ipv6 => "/proc/self/net/ip6_tables_names",
    };
    let tables = std::fs::read_to_string(list).unwrap_or_default();
    tables.lines().map(str::to_owned).collect()
}
