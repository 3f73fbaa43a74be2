// SPDX-License-Identifier: GPL-2.0-only
//! Statements of the firewall that look at each packet of an established connection: they do not
//! see those that the fast path forwards.
//!
//! The walk follows the rules as such a packet would. It leaves out rules for other packets only
//! (new connections, SYNs, ICMP, fragments). It ends at a rule that accepts all packets of an
//! established connection.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::register_state::{Registers, STATE_ESTABLISHED, Truth};
use super::statements::{Kind, differs_by_packet, kinds, matches_packet};
use crate::flow::family::Family;
use crate::netlink::expression::{Expression, Verdict};
use crate::netlink::ruleset::{Chain, ChainHook, Object, Place, Rule, Ruleset, Table};

/// The kernel allows 16 chains within each other (NFT_JUMP_STACK_SIZE).
const DEEPEST: usize = 16;

/// The chain where the first statement of a kind was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its table.
    pub table: Table,
    /// Its name.
    pub chain: String,
}

/// What was found, each kind once.
pub type Findings = BTreeMap<Kind, Found>;

/// Looks for such statements on the way of packets of this family.
pub fn find(ruleset: &Ruleset, family: Family) -> Findings {
    let mut walk = Walk::new(ruleset, family);
    for chain in ruleset.chains.iter().filter(|chain| sees_forwarded(chain, family)) {
        walk.chain(&chain.table, &chain.name, 0);
    }
    walk.findings
}

/// Translation rules are asked for a connection's first packet only.
fn sees_forwarded(chain: &Chain, family: Family) -> bool {
    let is_asked = |hook: &ChainHook| hook.place == Place::Forwarding && hook.kind != "nat";
    chain.table.is_for(family) && chain.hook.as_ref().is_some_and(is_asked)
}

/// A chain's table and name.
type Name<'a> = (&'a Table, &'a str);

/// How a chain or rule ends for packets of established connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// All are accepted or dropped.
    Decided,
    /// Some, if any, go on behind it.
    GoesOn,
}

struct Walk<'a> {
    family: Family,
    chains: HashMap<Name<'a>, Vec<&'a Rule>>,
    /// Chains that no rule names: if any, a verdict map leads there.
    unnamed: Vec<Name<'a>>,
    objects: &'a [Object],
    /// Rules of chains without a hook, by table, until they were looked at for the maps there.
    regular: HashMap<&'a Table, Vec<&'a Rule>>,
    walked: HashMap<Name<'a>, Fate>,
    findings: Findings,
}

impl<'a> Walk<'a> {
    fn new(ruleset: &'a Ruleset, family: Family) -> Self {
        let mut chains = HashMap::<_, Vec<_>>::new();
        for rule in &ruleset.rules {
            chains.entry((&rule.table, rule.chain.as_str())).or_default().push(rule);
        }
        let named: HashSet<_> = ruleset.rules.iter().flat_map(named).collect();
        let others = ruleset.chains.iter().filter(|chain| chain.hook.is_none());
        let mut regular = HashMap::<_, Vec<_>>::new();
        for chain in others.clone() {
            let rules = chains.get(&(&chain.table, chain.name.as_str()));
            regular.entry(&chain.table).or_default().extend(rules.into_iter().flatten().copied());
        }
        Self {
            family,
            chains,
            unnamed: others
                .map(|chain| (&chain.table, chain.name.as_str()))
                .filter(|name| !named.contains(name))
                .collect(),
            objects: &ruleset.objects,
            regular,
            walked: HashMap::new(),
            findings: Findings::new(),
        }
    }

    fn chain(&mut self, table: &'a Table, name: &'a str, depth: usize) -> Fate {
        let key = (table, name);
        if let Some(fate) = self.walked.get(&key) {
            return *fate;
        }
        // For chains that lead to themselves, which the kernel does not allow.
        self.walked.insert(key, Fate::GoesOn);
        if depth >= DEEPEST {
            return Fate::GoesOn;
        }
        let rules = self.chains.get(&key).cloned().unwrap_or_default();
        let fate = rules.into_iter().find_map(|rule| self.rule(rule, depth));
        let fate = fate.unwrap_or(Fate::GoesOn);
        self.walked.insert(key, fate);
        fate
    }

    /// What the rule does with all packets; `None` if they go on to the next one.
    fn rule(&mut self, rule: &'a Rule, depth: usize) -> Option<Fate> {
        let judged = Judged::judge(rule, self.objects, self.family)?;
        judged.kinds.iter().for_each(|kind| self.note(*kind, rule));
        if judged.asks_map {
            self.look_behind_maps(&rule.table);
        }
        let fate = match judged.end {
            End::None => None,
            End::Return => Some(Fate::GoesOn),
            End::Decided => Some(Fate::Decided),
            End::Map => {
                let unnamed = self.unnamed.clone().into_iter();
                for (table, name) in unnamed.filter(|(table, _)| **table == rule.table) {
                    self.chain(table, name, depth + 1);
                }
                None
            }
            End::Jump(chain) => {
                let fate = self.chain(&rule.table, chain, depth + 1);
                (fate == Fate::Decided).then_some(fate)
            }
            End::Goto(chain) => Some(self.chain(&rule.table, chain, depth + 1)),
        };
        fate.filter(|_| judged.for_all)
    }

    fn note(&mut self, kind: Kind, rule: &Rule) {
        let found = || Found { table: rule.table.clone(), chain: rule.chain.clone() };
        self.findings.entry(kind).or_insert_with(found);
    }

    /// A verdict map may lead to any chain of its table: the elements are not read. So what decides is looked
    /// for in all of them, whatever else leads there.
    fn look_behind_maps(&mut self, table: &Table) {
        for rule in self.regular.remove(table).unwrap_or_default() {
            let all = rule.expressions.iter().flat_map(|one| kinds(one, table, self.objects));
            let deciding: Vec<_> = all.filter(|kind| kind.decides()).collect();
            deciding.into_iter().for_each(|kind| self.note(kind, rule));
        }
    }
}

/// The chains that a rule leads to by name.
fn named(rule: &Rule) -> impl Iterator<Item = Name<'_>> {
    rule.expressions.iter().filter_map(|expression| match expression {
        Expression::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => {
            Some((&rule.table, chain.as_str()))
        }
        _ => None,
    })
}

/// Where a rule leads.
enum End<'a> {
    None,
    Return,
    Decided,
    Jump(&'a str),
    Goto(&'a str),
    /// To wherever a verdict map says.
    Map,
}

/// What a rule means for packets of established connections.
struct Judged<'a> {
    kinds: Vec<Kind>,
    /// It is for all of them; otherwise it may be for some.
    for_all: bool,
    end: End<'a>,
    /// It asks a verdict map.
    asks_map: bool,
    /// It looks the connection's state up in a set. Its elements are not read: one that accepts is
    /// taken for the usual `established, related`, one that drops for `invalid`.
    state_by_set: bool,
    /// It has read what differs from packet to packet of a connection's direction.
    reads_packet: bool,
    /// Its verdict depends on that.
    by_packet: bool,
}

impl<'a> Judged<'a> {
    /// `None` if it is for none of them.
    fn judge(rule: &'a Rule, objects: &[Object], family: Family) -> Option<Self> {
        let mut judged = Self {
            kinds: Vec::new(),
            for_all: true,
            end: End::None,
            asks_map: false,
            state_by_set: false,
            reads_packet: false,
            by_packet: false,
        };
        let mut registers = Registers::new(family);
        for expression in &rule.expressions {
            match judged.read(expression, &mut registers) {
                Truth::Always => {}
                Truth::Maybe => {
                    judged.for_all = false;
                    judged.by_packet |= judged.reads_packet;
                }
                Truth::Never => return None,
            }
            judged.kinds.extend(kinds(expression, &rule.table, objects));
        }
        Some(judged)
    }

    /// Whether packets get past this expression.
    fn read(&mut self, expression: &'a Expression, registers: &mut Registers) -> Truth {
        match expression {
            Expression::Load { register, field } => {
                self.reads_packet |= differs_by_packet(*field, registers.family());
                registers.load(*register, *field);
                Truth::Always
            }
            Expression::Bitwise { from, to, mask, xor } => {
                registers.mask(*from, *to, mask, xor);
                Truth::Always
            }
            Expression::Compare { register, equal, value } => {
                registers.compare(*register, *equal, value)
            }
            Expression::XtState { states, inverted } => {
                let is_meant = (states & STATE_ESTABLISHED != 0) != *inverted;
                if is_meant { Truth::Always } else { Truth::Never }
            }
            Expression::Lookup { register, into, .. } => {
                self.look_up(*into, registers.is_state(*register));
                if let Some(into) = into {
                    registers.forget(*into);
                }
                if self.state_by_set { Truth::Always } else { Truth::Maybe }
            }
            Expression::Verdict(verdict) => self.decide(verdict),
            Expression::XtTarget(name) if name == "REJECT" => self.decide(&Verdict::Drop),
            Expression::Other(name) if name == "reject" => self.decide(&Verdict::Drop),
            Expression::Other(name) if name == "queue" => self.decide(&Verdict::Accept),
            Expression::Other(name) => {
                // Whichever it may have written.
                registers.forget_all();
                if passes_all(name) { Truth::Always } else { Truth::Maybe }
            }
            Expression::Store(_) | Expression::XtTarget(_) => Truth::Always,
            Expression::XtMatch(name) => {
                self.reads_packet |= matches_packet(name);
                if name == "comment" { Truth::Always } else { Truth::Maybe }
            }
            Expression::Object(_) => Truth::Maybe,
        }
    }

    fn look_up(&mut self, into: Option<u32>, by_state: bool) {
        self.state_by_set |= by_state;
        if into == Some(0) {
            self.asks_map = true;
            self.end = if by_state { End::Decided } else { End::Map };
            // One of its elements may decide.
            if self.reads_packet && !by_state {
                self.kinds.push(Kind::Field);
            }
        }
    }

    fn decide(&mut self, verdict: &'a Verdict) -> Truth {
        self.end = match verdict {
            Verdict::Drop if self.state_by_set => return Truth::Never,
            Verdict::Drop | Verdict::Accept => End::Decided,
            Verdict::Return => End::Return,
            Verdict::Jump(chain) => End::Jump(chain),
            Verdict::Goto(chain) => End::Goto(chain),
        };
        // Of all others, the packet that proves a direction speaks for those behind it.
        if self.by_packet {
            self.kinds.push(Kind::Field);
        }
        Truth::Always
    }
}

/// Expressions of nftables' that end no rule.
fn passes_all(name: &str) -> bool {
    let all = ["counter", "log", "notrack", "last", "immediate", "byteorder", "rt", "fib"];
    let more = ["hash", "numgen", "dup", "flow_offload", "bitwise"];
    all.contains(&name) || more.contains(&name)
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
