// SPDX-License-Identifier: GPL-2.0-only
//! The nftables ruleset as plain values (linux/netfilter/nf_tables.h, nft(8)): chains, rules and
//! objects. Not the elements of sets, of which there may be millions.

use super::attribute::{attributes, find, text};
use super::expression::{Expression, number};
use crate::flow::family::Family;

/// struct nfgenmsg: family, version, resource.
const HEADER: usize = 4;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_HOOK_DEVS: u16 = 4;
const NFTA_DEVICE_PREFIX: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_OBJ_TABLE: u16 = 1;
const NFTA_OBJ_TYPE: u16 = 3;

const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_NETDEV: u8 = 5;
const NFPROTO_IPV6: u8 = 10;
const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_FORWARD: u32 = 2;
const NF_INET_POST_ROUTING: u32 = 4;
const NF_INET_INGRESS: u32 = 5;
const NF_NETDEV_INGRESS: u32 = 0;
const NF_NETDEV_EGRESS: u32 = 1;
const NFT_OBJECT_CT_TIMEOUT: u32 = 7;

/// All chains, rules and objects of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Of all tables.
    pub chains: Vec<Chain>,
    /// Those of one chain are in its order.
    pub rules: Vec<Rule>,
    /// Quotas, limits, timeout policies and the like that have a name.
    pub objects: Vec<Object>,
}

/// Where a chain, rule or object belongs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// NFPROTO_*
    pub family: u8,
    /// The name, unique within the family.
    pub name: String,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The table that it is in.
    pub table: Table,
    /// The name, unique within the table.
    pub name: String,
    /// Where packets enter; none for a chain that others jump to.
    pub hook: Option<ChainHook>,
}

/// Where a base chain's packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// All forwarded packets of the table's family come by here: prerouting, forward, postrouting.
    Forwarding,
    /// What comes in by certain interfaces, after XDP and TC ingress.
    Ingress,
    /// What leaves by certain interfaces, and before TC egress.
    Egress,
    /// Somewhere else.
    Other,
}

/// How a base chain is hooked in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHook {
    /// Where.
    pub place: Place,
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// The interfaces of an ingress or egress chain.
    pub devices: Vec<Device>,
}

/// The name of an interface, or the beginning of the names of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The name, or how it begins.
    pub name: String,
    /// Whether any may follow.
    pub prefix: bool,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The table that it is in.
    pub table: Table,
    /// The name of its chain.
    pub chain: String,
    /// From left to right.
    pub expressions: Vec<Expression>,
}

/// A stateful object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The table that it is in.
    pub table: Table,
    /// NFT_OBJECT_*
    pub kind: u32,
}

impl Table {
    /// Whether its chains see packets of this address family.
    pub fn is_for(&self, family: Family) -> bool {
        [NFPROTO_INET, family.number()].contains(&self.family)
    }
}

impl Device {
    /// Whether an interface of this name is meant.
    pub fn is(&self, name: &str) -> bool {
        if self.prefix { name.starts_with(&self.name) } else { name == self.name }
    }
}

impl Chain {
    /// Whether it sees what comes in or goes out by certain interfaces.
    pub fn is_at_device(&self) -> bool {
        let place = self.hook.as_ref().map(|hook| hook.place);
        matches!(place, Some(Place::Ingress | Place::Egress))
    }
}

impl Object {
    /// Whether it is a timeout policy for connections.
    pub fn is_timeout_policy(&self) -> bool {
        self.kind == NFT_OBJECT_CT_TIMEOUT
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.family {
            NFPROTO_INET => write!(f, "inet {}", self.name),
            NFPROTO_IPV4 => write!(f, "ip {}", self.name),
            NFPROTO_IPV6 => write!(f, "ip6 {}", self.name),
            NFPROTO_NETDEV => write!(f, "netdev {}", self.name),
            family => write!(f, "family {family} {}", self.name),
        }
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.table, self.name)
    }
}

impl Chain {
    /// Decodes the payload of NFT_MSG_NEWCHAIN.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let bytes = payload.get(HEADER..)?;
        let table = table(payload, NFTA_CHAIN_TABLE)?;
        let kind = || find(bytes, NFTA_CHAIN_TYPE).map(text).unwrap_or_default();
        let hook = find(bytes, NFTA_CHAIN_HOOK).map(|hook| ChainHook {
            place: place(table.family, number(hook, NFTA_HOOK_HOOKNUM)),
            kind: kind(),
            devices: devices(hook),
        });
        Some(Self { name: text(find(bytes, NFTA_CHAIN_NAME)?), table, hook })
    }
}

impl Rule {
    /// Decodes the payload of NFT_MSG_NEWRULE.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let bytes = payload.get(HEADER..)?;
        let expressions = find(bytes, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
        Some(Self {
            table: table(payload, NFTA_RULE_TABLE)?,
            chain: text(find(bytes, NFTA_RULE_CHAIN)?),
            expressions: attributes(expressions).map(|(_, one)| Expression::decode(one)).collect(),
        })
    }
}

impl Object {
    /// Decodes the payload of NFT_MSG_NEWOBJ.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let kind = number(payload.get(HEADER..)?, NFTA_OBJ_TYPE)?;
        Some(Self { table: table(payload, NFTA_OBJ_TABLE)?, kind })
    }
}

fn table(payload: &[u8], attribute: u16) -> Option<Table> {
    let name = text(find(payload.get(HEADER..)?, attribute)?);
    Some(Table { family: *payload.first()?, name })
}

fn place(family: u8, hook: Option<u32>) -> Place {
    match (family, hook) {
        (NFPROTO_INET, Some(NF_INET_INGRESS)) => Place::Ingress,
        (
            NFPROTO_INET | NFPROTO_IPV4 | NFPROTO_IPV6,
            Some(NF_INET_PRE_ROUTING | NF_INET_FORWARD | NF_INET_POST_ROUTING),
        ) => Place::Forwarding,
        (NFPROTO_NETDEV, Some(NF_NETDEV_INGRESS)) => Place::Ingress,
        (NFPROTO_NETDEV, Some(NF_NETDEV_EGRESS)) => Place::Egress,
        _ => Place::Other,
    }
}

/// A single interface is named twice.
fn devices(hook: &[u8]) -> Vec<Device> {
    let device = |(kind, name): (u16, &[u8])| Device {
        name: text(name),
        prefix: kind == NFTA_DEVICE_PREFIX,
    };
    match find(hook, NFTA_HOOK_DEVS) {
        Some(devices) => attributes(devices).map(device).collect(),
        None => find(hook, NFTA_HOOK_DEV).map(|name| device((0, name))).into_iter().collect(),
    }
}

#[cfg(test)]
#[path = "ruleset_tests.rs"]
mod tests;
