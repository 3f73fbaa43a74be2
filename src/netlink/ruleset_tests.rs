// SPDX-License-Identifier: GPL-2.0-only
use proptest::prelude::*;

use super::super::expression::{Field, Verdict};
use super::*;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nest(kind: u16, members: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind, &members.concat())
}

fn word(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn string(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn payload(family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    [&[family, 0, 0, 0][..], &attributes.concat()].concat()
}

fn chain() -> Vec<u8> {
    let devices = [string(1, "lan0"), attribute(NFTA_DEVICE_PREFIX, b"wan\0")];
    let hook = [word(NFTA_HOOK_HOOKNUM, 0), word(2, 10), nest(NFTA_HOOK_DEVS, &devices)];
    payload(
        NFPROTO_NETDEV,
        &[
            string(NFTA_CHAIN_TABLE, "t"),
            string(NFTA_CHAIN_NAME, "in"),
            nest(NFTA_CHAIN_HOOK, &hook),
            string(NFTA_CHAIN_TYPE, "filter"),
        ],
    )
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nest(1, &[string(1, name), nest(2, data)])
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    nest(kind, &[attribute(1, bytes)])
}

/// `ct state established jump next`, and one of each other kind.
fn rule() -> Vec<u8> {
    let jump = nest(2, &[word(1, -3i32 as u32), string(2, "next")]);
    let mut conntrack = vec![0; 184];
    conntrack[146..148].copy_from_slice(&1u16.to_ne_bytes());
    conntrack[148..150].copy_from_slice(&1u16.to_ne_bytes());
    conntrack[150..152].copy_from_slice(&9u16.to_ne_bytes());
    let expressions = [
        expression("ct", &[word(1, 1), word(2, 0)]),
        expression("bitwise", &[word(1, 1), word(2, 1), value(4, &[2]), value(5, &[0])]),
        expression("cmp", &[word(1, 1), word(2, 1), value(3, &[0])]),
        expression("payload", &[word(5, 1), word(2, 1), word(3, 8), word(4, 1)]),
        expression("exthdr", &[attribute(2, &[2]), word(7, 1)]),
        expression("lookup", &[string(1, "banned"), word(2, 1), word(3, 0)]),
        expression("match", &[string(1, "conntrack"), word(2, 3), attribute(3, &conntrack)]),
        expression("match", &[string(1, "limit"), word(2, 0)]),
        expression("target", &[string(1, "MARK"), word(2, 2)]),
        expression("objref", &[word(1, 2), string(2, "many")]),
        expression("counter", &[]),
        expression("immediate", &[word(1, 0), nest(2, &[jump])]),
    ];
    let table = string(NFTA_RULE_TABLE, "t");
    let chain = string(NFTA_RULE_CHAIN, "c");
    payload(NFPROTO_IPV4, &[table, chain, nest(NFTA_RULE_EXPRESSIONS, &expressions)])
}

fn object() -> Vec<u8> {
    payload(NFPROTO_INET, &[string(NFTA_OBJ_TABLE, "t"), word(NFTA_OBJ_TYPE, 7)])
}

#[test]
fn a_chain_says_where_it_is_hooked_in() {
    let chain = Chain::decode(&chain()).unwrap();
    assert_eq!(chain.to_string(), "netdev t in");
    let hook = chain.hook.unwrap();
    assert_eq!((hook.place, hook.kind.as_str()), (Place::Ingress, "filter"));
    let covered = ["lan0", "lan01", "wan", "wan7", "w"].map(|name| {
        let names = hook.devices.iter().filter(|device| device.is(name));
        names.count()
    });
    assert_eq!(covered, [1, 0, 1, 1, 0]);
}

#[test]
fn a_rule_is_its_expressions() {
    let rule = Rule::decode(&rule()).unwrap();
    assert_eq!((rule.table.to_string().as_str(), rule.chain.as_str()), ("ip t", "c"));
    let field = Field::Payload { base: 1, offset: 8, length: 1 };
    let expected = [
        Expression::Load { register: 1, field: Field::Ct(0) },
        Expression::Bitwise { from: 1, to: 1, mask: vec![2], xor: vec![0] },
        Expression::Compare { register: 1, equal: false, value: vec![0] },
        Expression::Store(field),
        Expression::Store(Field::Option(2)),
        Expression::Lookup { set: "banned".into(), register: 1, into: Some(0) },
        Expression::XtState { states: 9, inverted: true },
        Expression::XtMatch("limit".into()),
        Expression::XtTarget("MARK".into()),
        Expression::Object(Some(2)),
        Expression::Other("counter".into()),
        Expression::Verdict(Verdict::Jump("next".into())),
    ];
    assert_eq!(rule.expressions, expected);
}

#[test]
fn an_object_says_its_kind() {
    let object = Object::decode(&object()).unwrap();
    assert_eq!(object.table.to_string(), "inet t");
    assert!(object.is_timeout_policy());
}

#[test]
fn cut_messages_are_not_understood_as_others() {
    let whole = Rule::decode(&rule()).unwrap();
    let bytes = rule();
    for length in 0..bytes.len() {
        if let Some(cut) = Rule::decode(&bytes[..length]) {
            assert_eq!((&cut.table, &cut.chain), (&whole.table, &whole.chain), "cut to {length}");
            assert!(cut.expressions.is_empty(), "cut to {length}");
        }
        Chain::decode(&chain()[..length.min(chain().len())]);
        Object::decode(&object()[..length.min(object().len())]);
    }
}

proptest! {
    #[test]
    fn garbage_never_crashes(garbage: Vec<u8>, at: usize, with: u8) {
        let mut all = [chain(), rule(), object(), garbage];
        for bytes in &mut all {
            if let Some(at) = at.checked_rem(bytes.len()) {
                bytes[at] = with;
            }
            Chain::decode(bytes);
            Object::decode(bytes);
            Expression::decode(bytes);
            Rule::decode(bytes);
        }
    }
}
