// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the decision about an interface, and of what users hear.

use super::*;
use crate::netlink::link::Vlan;

fn link() -> Link {
    Link {
        index: 1,
        name: "lan0".into(),
        up: true,
        running: true,
        mac: Some([2, 0, 0, 0, 0, 1]),
        ethernet: true,
        mtu: 1500,
        ..Link::default()
    }
}

/// An interface that can be used in full.
fn facts(hook: Hook, by: By, link: &Link) -> Facts<'_> {
    Facts {
        hook,
        by,
        link: Some(link),
        left_out: None,
        has_ingress: true,
        has_egress: true,
        transmitting: None,
        notices: Vec::new(),
    }
}

fn chain() -> Found {
    Found { problem: Problem::NetdevChain, detail: Some("chain ban".into()) }
}

fn with(by: By, no_egress: Option<Problem>, notices: Vec<Found>) -> InterfaceState {
    let mode = by.mode();
    InterfaceState::Attached(Attached { mode, no_egress, transmitting: None, notices })
}

fn attached(no_egress: Option<Problem>) -> InterfaceState {
    with(NATIVE, no_egress, Vec::new())
}

fn with_notices(notices: Vec<Found>) -> InterfaceState {
    with(NATIVE, None, notices)
}

fn left(problem: Problem) -> InterfaceState {
    InterfaceState::LeftToStack(problem.into())
}

const NATIVE: By = By::Itself(Kind::XdpNative);

#[test]
fn the_weightiest_fact_decides() {
    let port = Link { master: Some(9), ..link() };
    let mut facts = facts(Hook::Xdp, By::Nobody, &port);
    let decide = |facts: &Facts<'_>| {
        let Facts { hook, by, link, has_ingress, has_egress, transmitting, .. } = *facts;
        let (left_out, notices) = (facts.left_out.clone(), Vec::new());
        Facts { hook, by, link, left_out, has_ingress, has_egress, transmitting, notices }.state()
    };
    (facts.left_out, facts.has_ingress, facts.has_egress) = (Some(chain()), false, false);
    assert_eq!(decide(&facts), InterfaceState::Waiting);
    facts.by = NATIVE;
    assert_eq!(decide(&facts), InterfaceState::LeftToStack(chain()));
    facts.left_out = None;
    assert_eq!(decide(&facts), left(Problem::Port));
    let free = link();
    facts.link = Some(&free);
    assert_eq!(decide(&facts), left(Problem::NoRoom));
    facts.has_ingress = true;
    assert_eq!(decide(&facts), attached(Some(Problem::NoTransmit)));
    facts.has_egress = true;
    assert_eq!(decide(&facts), attached(None));
    facts.link = None;
    assert_eq!(decide(&facts), InterfaceState::Gone);
}

#[test]
fn hazard_19_the_reason_for_no_egress_is_the_interfaces_own() {
    let [down, veth, plain] =
        [Link { up: false, ..link() }, Link { kind: Some("veth".into()), ..link() }, link()];
    let vlan = Vlan { port: 2, id: 10, protocol: 0x8100, has_egress_qos: true };
    let vlan = Link { vlan: Some(vlan), ..link() };
    let generic = By::Itself(Kind::XdpGeneric);
    for (by, link, expected) in [
        (NATIVE, &down, Some(Problem::Down)),
        (NATIVE, &veth, Some(Problem::VethPeer)),
        (NATIVE, &vlan, Some(Problem::TagPriorities)),
        (generic, &veth, Some(Problem::GenericTarget)),
        (NATIVE, &plain, Some(Problem::NoTransmit)),
        (By::Port, &plain, None),
    ] {
        let facts = Facts { has_egress: false, ..facts(Hook::Xdp, by, link) };
        assert_eq!(facts.state(), with(by, expected, Vec::new()));
    }
}

#[test]
fn each_change_of_state_is_told_once() {
    let warn = |line: &str| vec![Line::Warn(line.into())];
    let info = |line: &str| vec![Line::Info(line.into())];
    let chain_stays = "packets of lan0 stay with the stack: a chain of nftables at it must see all \
                       packets: chain ban (move its rules to the hook forward)";
    let steps = [
        (InterfaceState::Waiting, vec![]),
        (attached(None), vec![]),
        (InterfaceState::LeftToStack(chain()), warn(chain_stays)),
        (attached(None), info("packets of lan0 are forwarded again")),
        (attached(Some(Problem::Down)), warn("packets to lan0 go by the stack: it is down")),
        (attached(None), info("packets to lan0 take the fast path again")),
        (left(Problem::NoRoom), vec![]),
        (
            InterfaceState::Gone,
            warn("lan0: the interface is gone (bpfw attaches to it when it is back)"),
        ),
        (attached(None), info("packets of lan0 are forwarded again")),
        (
            InterfaceState::Port(vec!["br-lan".into(), "br-lan.7".into()]),
            info("packets of the port lan0 are forwarded at br-lan and br-lan.7"),
        ),
    ];
    let mut before = None;
    for (now, expected) in &steps {
        assert_eq!(now.report("lan0", before), *expected, "{before:?} to {now:?}");
        assert_eq!(now.report("lan0", Some(now)), []);
        before = Some(now);
    }
}

#[test]
fn notices_come_and_go() {
    let shaper = |kind: &str| Found { problem: Problem::Shaper, detail: Some(kind.into()) };
    let [none, tbf, htb] = [vec![], vec![shaper("tbf")], vec![shaper("htb")]].map(with_notices);
    let lines = tbf.report("wan0", Some(&none));
    let [Line::Warn(line)] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.starts_with("wan0: XDP sends packets past its queueing discipline: tbf"));
    let lines = htb.report("wan0", Some(&tbf));
    assert!(matches!(&lines[..], [Line::Warn(line)] if line.contains("htb")), "{lines:?}");
    let lines = none.report("wan0", Some(&htb));
    let solved = "wan0: solved: XDP sends packets past its queueing discipline";
    assert_eq!(lines, [Line::Info(solved.into())]);
}
