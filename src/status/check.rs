// SPDX-License-Identifier: GPL-2.0-only
//! What would become of a start: the answer to `bpfw check`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cause, Interface, Warning};
use crate::datapath::probe::Feature;

/// A start that would succeed, as far as that can be foreseen.
#[derive(Clone, Debug)]
pub struct Check {
    /// The hook's word on the command line.
    pub hook: &'static str,
    /// How many programs the kernel's verifier has accepted.
    pub programs: usize,
    /// The kernel's release.
    pub release: String,
    /// What it has, and what not.
    pub features: Vec<Feature>,
    /// The interfaces as they would be; those with problems come first.
    pub interfaces: Vec<Interface>,
    /// Programs and filters of others at TC that would get an interface's packets before bpfw.
    pub before: BTreeMap<String, BTreeSet<String>>,
    /// Why no connection of an address family would be offloaded, by the family's name.
    pub forbidden: BTreeMap<String, Cause>,
    /// `nf_conntrack_events`; a kernel without such events has none.
    pub events: Option<u8>,
    /// How many connections could be offloaded.
    pub connections: u32,
    /// Bytes of memory that they take from the start.
    pub memory: u64,
    /// Rules that would not meet offloaded packets.
    pub warnings: Vec<Warning>,
}
