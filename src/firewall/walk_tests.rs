// SPDX-License-Identifier: GPL-2.0-only
use super::*;
use crate::firewall::register_state::NFT_CT_STATE;
use crate::netlink::expression::Field;

const ESTABLISHED: Expression = Expression::XtState { states: STATE_ESTABLISHED, inverted: false };

fn table() -> Table {
    Table { family: 2, name: "t".into() }
}

fn chain(name: &str, place: Option<Place>) -> Chain {
    let hook = |place| ChainHook { place, kind: "filter".into(), devices: Vec::new() };
    Chain { table: table(), name: name.into(), hook: place.map(hook) }
}

fn rule(chain: &str, expressions: Vec<Expression>) -> Rule {
    Rule { table: table(), chain: chain.into(), expressions }
}

fn jump(to: &str) -> Expression {
    Expression::Verdict(Verdict::Jump(to.into()))
}

fn limit() -> Expression {
    Expression::Other("limit".into())
}

/// The chains with what is found in a ruleset whose chain `base` is at the forward hook.
fn found(rules: Vec<Rule>) -> Vec<String> {
    let mut chains = vec![chain("base", Some(Place::Forwarding))];
    for rule in &rules {
        if chains.iter().all(|chain| chain.name != rule.chain) {
            chains.push(chain(&rule.chain, None));
        }
    }
    let ruleset = Ruleset { chains, rules, objects: Vec::new() };
    find(&ruleset, Family::Ipv4).into_values().map(|found| found.chain).collect()
}

#[test]
fn hazard_27_a_chain_that_decides_ends_its_callers() {
    let accept = || Expression::Verdict(Verdict::Accept);
    let calling = |states: Expression| {
        vec![
            rule("base", vec![states, jump("accepts")]),
            rule("base", vec![limit()]),
            rule("accepts", vec![accept()]),
        ]
    };
    assert!(found(calling(ESTABLISHED)).is_empty());
    let some = Expression::XtMatch("mark".into());
    assert_eq!(found(calling(some)), ["base"]);
}

#[test]
fn hazard_27_chains_that_only_maps_lead_to_are_looked_at() {
    let map = Expression::Lookup { set: "ports".into(), register: 1, into: Some(0) };
    let rules = |map| vec![rule("base", vec![map]), rule("mapped", vec![limit()])];
    assert_eq!(found(rules(map)), ["mapped"]);
    assert!(found(rules(jump("other"))).is_empty(), "nothing leads there");
}

/// What stops offloading is found wherever a map may lead: to a chain that a rule for other packets names,
/// and by a connection's state.
#[test]
fn hazard_64_copies_behind_any_map_are_found() {
    let dup = || rule("watch", vec![Expression::Other("dup".into())]);
    let never = vec![Expression::XtState { states: 0, inverted: false }, jump("watch")];
    assert!(found(vec![rule("base", never.clone()), dup()]).is_empty(), "for other packets only");
    let map = || Expression::Lookup { set: "map".into(), register: 1, into: Some(0) };
    let by_state = || Expression::Load { register: 1, field: Field::Ct(NFT_CT_STATE) };
    for asked in [vec![map()], vec![by_state(), map()]] {
        let rules = vec![rule("base", never.clone()), rule("base", asked), dup()];
        assert_eq!(found(rules), ["watch"]);
    }
    let limited = rule("watch", vec![limit()]);
    let rules = vec![rule("base", never), rule("base", vec![by_state(), map()]), limited];
    assert!(found(rules).is_empty(), "of what only gets a warning, no more than is sure");
}

#[test]
fn hazard_27_loops_end() {
    let rules = vec![
        rule("base", vec![jump("one")]),
        rule("one", vec![jump("two")]),
        rule("two", vec![jump("one")]),
        rule("two", vec![limit()]),
    ];
    assert_eq!(found(rules), ["two"]);
    let deep = |number: usize| rule(&number.to_string(), vec![jump(&(number + 1).to_string())]);
    let mut rules: Vec<Rule> = (0..1000).map(deep).collect();
    rules.extend([rule("base", vec![jump("0")]), rule("1000", vec![limit()])]);
    assert!(found(rules).is_empty(), "deeper than the kernel goes");
}

#[test]
fn hazard_27_any_object_that_a_map_may_choose_counts() {
    let rules = vec![rule("base", vec![Expression::Object(None)])];
    let object = |kind| vec![Object { table: table(), kind }];
    let chains = || vec![chain("base", Some(Place::Forwarding))];
    let with =
        |objects| find(&Ruleset { chains: chains(), rules: rules.clone(), objects }, Family::Ipv4);
    assert!(with(object(1)).is_empty(), "counters");
    assert_eq!(with(object(2)).into_keys().collect::<Vec<_>>(), [Kind::Quota]);
}

/// A table of one family is not asked for packets of the other, and one of both is.
#[test]
fn hazard_27_each_family_has_its_tables() {
    for (number, of_ipv4, of_ipv6) in [(1, true, true), (2, true, false), (10, false, true)] {
        let table = Table { family: number, name: "t".into() };
        let chains = vec![Chain { table: table.clone(), ..chain("base", Some(Place::Forwarding)) }];
        let rules = vec![Rule { table, ..rule("base", vec![limit()]) }];
        let ruleset = Ruleset { chains, rules, objects: Vec::new() };
        let found = |family| !find(&ruleset, family).is_empty();
        assert_eq!((found(Family::Ipv4), found(Family::Ipv6)), (of_ipv4, of_ipv6), "{number}");
    }
}
