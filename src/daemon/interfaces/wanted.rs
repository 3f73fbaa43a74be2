// SPDX-License-Identifier: GPL-2.0-only
//! Which interfaces the user's words stand for, as the machine's interfaces are now.
//!
//! A word is a name, a pattern (`br-*`), or what patterns leave out (`!docker0`). A port's name stands for what
//! the port carries: the bridge or bond that it is part of, and the VLAN devices on it.

use std::collections::{BTreeMap, BTreeSet};

use wildmatch::WildMatch;

use crate::datapath::Hook;
use crate::error::{Error, Result};
use crate::netlink::link::{Link, Links};
use crate::reasons::interface::{Found, Problem};

/// Patterns match no more interfaces than this: each one costs some 10 ms at the start, and time every second.
const MOST_BY_PATTERN: usize = 1024;
/// Masters may have masters (`MAX_NEST_DEV` of the kernel).
const DEEPEST: u32 = 8;

/// Masters that take the frames of their ports, and have the routes themselves.
const CARRIERS: [&str; 4] = ["bridge", "bond", "team", "batadv"];

/// The user's words for interfaces.
#[derive(Debug)]
pub(in crate::daemon) struct Wanted {
    names: Vec<String>,
    patterns: Vec<WildMatch>,
    exceptions: Vec<WildMatch>,
    /// Interfaces with these names need not exist at the start, or be of use.
    pub(in crate::daemon) may_come_later: bool,
}

/// Why no program could do anything at an interface.
pub(super) type Unfit<'a> = dyn Fn(&Link) -> Option<Problem> + 'a;

/// An interface to attach to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// Its place in the order of the user's words.
    pub(super) order: usize,
    /// The ports that the user named, and it stands for.
    pub(super) ports: BTreeSet<String>,
}

/// What the words stand for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    /// Interfaces to attach to, by index.
    pub(super) attach: BTreeMap<u32, Target>,
    /// Those that stay with the stack, by name.
    pub(super) left: BTreeMap<String, Found>,
    /// So many more match a pattern than are used.
    pub(super) beyond: usize,
}

impl Wanted {
    /// What the user's words say. Names that need not exist at the start `may_come_later`.
    pub(in crate::daemon) fn new(words: &[String], may_come_later: bool) -> Self {
        let is_pattern = |word: &&String| word.contains(['*', '?']);
        let (exceptions, wanted): (Vec<&String>, Vec<&String>) =
            words.iter().partition(|word| word.starts_with('!'));
        let (patterns, names): (Vec<&String>, Vec<&String>) =
            wanted.into_iter().partition(is_pattern);
        Self {
            names: names.into_iter().cloned().collect(),
            patterns: patterns.into_iter().map(|word| WildMatch::new(word)).collect(),
            exceptions: exceptions.into_iter().map(|word| WildMatch::new(&word[1..])).collect(),
            may_come_later,
        }
    }

    /// An error if a name has no interface, or none that can be used, as at the start. Patterns may match
    /// nothing yet.
    pub(super) fn require_names(&self, links: &Links, unfit: &Unfit<'_>) -> Result<()> {
        for name in &self.names {
            let Some(link) = links.values().find(|link| link.name == *name) else {
                let mut known: Vec<&str> = links.values().map(|link| link.name.as_str()).collect();
                known.sort_unstable();
                return Err(Error::refused(format!("there is no interface {name}"))
                    .with_advice(format!("there are {}", known.join(", "))));
            };
            if let Some(problem) = unfit(link) {
                let reason = problem.reason();
                let error = Error::refused(format!("{name}: {}", reason.words));
                return Err(match reason.advice {
                    Some(advice) => error.with_advice(advice),
                    None => error,
                });
            }
        }
        Ok(())
    }

    /// How many interfaces there may be at most.
    pub(in crate::daemon) fn most(&self) -> usize {
        if self.patterns.is_empty() { self.names.len() } else { MOST_BY_PATTERN }
    }

    /// What the words stand for, as the interfaces are now.
    pub(super) fn targets(&self, links: &Links, hook: Hook, unfit: &Unfit<'_>) -> Targets {
        let mut targets = Targets::default();
        for name in &self.names {
            match links.values().find(|link| link.name == *name) {
                Some(link) => targets.add(links, hook, unfit, link),
                None => {
                    targets.left.insert(name.clone(), Problem::Missing.into());
                }
            }
        }
        let matches =
            |link: &&Link| self.is_matched(&link.name) && !self.names.contains(&link.name);
        for link in links.values().filter(matches) {
            if targets.attach.len() < MOST_BY_PATTERN {
                targets.add(links, hook, unfit, link);
            } else {
                targets.beyond += 1;
            }
        }
        targets
    }

    fn is_matched(&self, name: &str) -> bool {
        let matches = |pattern: &WildMatch| pattern.matches(name);
        self.patterns.iter().any(matches) && !self.exceptions.iter().any(matches)
    }
}

impl Targets {
    fn add(&mut self, links: &Links, hook: Hook, unfit: &Unfit<'_>, link: &Link) {
        if let Some(problem) = unfit(link) {
            self.left.insert(link.name.clone(), problem.into());
            return;
        }
        let mut carried = BTreeSet::new();
        let known = match hook {
            Hook::Tc => carried_by(links, link, DEEPEST, &mut carried),
            Hook::Xdp => carried_by_frames(links, link, &mut carried),
        };
        if let Err(found) = known {
            self.left.insert(link.name.clone(), found);
        }
        for index in carried {
            let order = self.attach.len();
            let new = || Target { order, ports: BTreeSet::new() };
            let target = self.attach.entry(index).or_insert_with(new);
            if index != link.index {
                target.ports.insert(link.name.clone());
            }
        }
    }
}

/// Where the packets of a port come in at TC: at the port itself if it has routes, else at its master. VLAN
/// devices take their frames first.
fn carried_by(
    links: &Links,
    link: &Link,
    limit: u32,
    carried: &mut BTreeSet<u32>,
) -> std::result::Result<(), Found> {
    let master = master(links, link)?;
    match master {
        Some(master) if limit > 0 => carried_by(links, master, limit - 1, carried)?,
        _ => {
            carried.insert(link.index);
        }
    }
    for vlan in vlans_on(links, link) {
        match self::master(links, vlan) {
            Ok(Some(upper)) if limit > 0 => carried_by(links, upper, limit - 1, carried)?,
            // The program at the port knows its VLAN devices by their tags.
            Ok(None) if master.is_some() => {
                carried.insert(vlan.index);
            }
            _ => {}
        }
    }
    Ok(())
}

/// XDP sees the frames of a port, and of the VLAN devices on it.
fn carried_by_frames(
    links: &Links,
    link: &Link,
    carried: &mut BTreeSet<u32>,
) -> std::result::Result<(), Found> {
    let is_port = |link: &Link| !matches!(master(links, link), Ok(None));
    if is_port(link) && vlans_on(links, link).all(is_port) {
        return Err(master(links, link).err().unwrap_or_else(|| Problem::Port.into()));
    }
    carried.insert(link.index);
    Ok(())
}

fn vlans_on<'a>(links: &'a Links, port: &'a Link) -> impl Iterator<Item = &'a Link> {
    let is_on = |link: &&Link| link.vlan.is_some_and(|vlan| vlan.port == port.index);
    links.values().filter(is_on)
}

/// The interface that takes this one's frames, if there is one.
fn master<'a>(links: &'a Links, link: &Link) -> std::result::Result<Option<&'a Link>, Found> {
    let Some(index) = link.master.filter(|_| !link.is_routed()) else {
        return Ok(None);
    };
    match link.master_kind.as_deref() {
        Some(kind) if CARRIERS.contains(&kind) => Ok(links.get(&index)),
        kind => Err(Found {
            problem: Problem::UnknownMaster,
            detail: Some(kind.unwrap_or("of no known kind").to_owned()),
        }),
    }
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
