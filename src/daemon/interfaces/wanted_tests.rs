// SPDX-License-Identifier: GPL-2.0-only

use super::*;
use crate::netlink::link::Vlan;

fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.into(), ethernet: true, mac: Some([2; 6]), ..Link::default() }
}

fn kind(index: u32, name: &str, kind: &str) -> Link {
    Link { kind: Some(kind.into()), ..link(index, name) }
}

fn port(link: Link, master: u32, kind: &str) -> Link {
    Link { master: Some(master), master_kind: Some(kind.into()), ..link }
}

fn vlan(index: u32, name: &str, port: u32) -> Link {
    let vlan = Vlan { port, id: 7, protocol: 0x8100, has_egress_qos: false };
    Link { vlan: Some(vlan), lower: Some(port), ..kind(index, name, "vlan") }
}

fn wanted(words: &[&str]) -> Wanted {
    Wanted::new(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), false)
}

/// The interfaces to attach to, and the ports that they stand for.
fn attached(hook: Hook, words: &[&str], links: &[Link]) -> Vec<(u32, Vec<String>)> {
    let targets = wanted(words).targets(&table(links), hook, &fits);
    let ports = |target: Target| target.ports.into_iter().collect();
    targets.attach.into_iter().map(|(index, target)| (index, ports(target))).collect()
}

fn left(hook: Hook, words: &[&str], links: &[Link]) -> Vec<(String, Problem)> {
    let left = wanted(words).targets(&table(links), hook, &fits).left;
    left.into_iter().map(|(name, found)| (name, found.problem)).collect()
}

fn table(links: &[Link]) -> Links {
    links.iter().map(|link| (link.index, link.clone())).collect()
}

/// A router as OpenWrt has it, with a bond beside: br-lan over two ports, br-guest over a VLAN of each.
fn router() -> Vec<Link> {
    vec![
        port(link(1, "lan1"), 10, "bridge"),
        port(link(2, "lan2"), 10, "bridge"),
        link(3, "wan"),
        vlan(4, "wan.7", 3),
        port(vlan(5, "lan1.20", 1), 11, "bridge"),
        vlan(6, "lan2.30", 2),
        kind(10, "br-lan", "bridge"),
        kind(11, "br-guest", "bridge"),
        vlan(12, "br-lan.40", 10),
        port(link(20, "eth1"), 21, "bond"),
        port(kind(21, "bond0", "bond"), 11, "bridge"),
    ]
}

fn fits(_: &Link) -> Option<Problem> {
    None
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn hazard_50_a_port_stands_for_the_bridge_that_it_is_part_of() {
    let found = attached(Hook::Tc, &["lan2", "wan"], &router());
    assert_eq!(found, [(3, none()), (6, vec!["lan2".into()]), (10, vec!["lan2".into()])]);
}

#[test]
fn hazard_50_a_port_stands_for_the_bridge_over_its_vlan_device() {
    let found = attached(Hook::Tc, &["lan1"], &router());
    assert_eq!(found, [(10, vec!["lan1".into()]), (11, vec!["lan1".into()])]);
}

#[test]
fn hazard_50_the_slave_of_a_bond_in_a_bridge_stands_for_the_bridge() {
    assert_eq!(attached(Hook::Tc, &["eth1"], &router()), [(11, vec!["eth1".into()])]);
    assert_eq!(attached(Hook::Tc, &["bond0"], &router()), [(11, vec!["bond0".into()])]);
}

#[test]
fn hazard_50_two_ports_of_a_bridge_are_one_interface() {
    let found = attached(Hook::Tc, &["lan1", "lan2", "br-lan"], &router());
    let ports: Vec<String> = vec!["lan1".into(), "lan2".into()];
    assert_eq!(found.iter().find(|(index, _)| *index == 10), Some(&(10, ports)));
}

#[test]
fn hazard_49_a_vrfs_port_is_an_interface() {
    let links = [port(link(1, "lan1"), 9, "vrf"), kind(9, "red", "vrf")];
    for hook in [Hook::Tc, Hook::Xdp] {
        assert_eq!(attached(hook, &["lan1"], &links), [(1, none())]);
    }
}

#[test]
fn hazard_49_a_master_of_an_unknown_kind_keeps_its_ports() {
    let links = [port(link(1, "lan1"), 9, "openvswitch"), kind(9, "ovs-system", "openvswitch")];
    for hook in [Hook::Tc, Hook::Xdp] {
        assert_eq!(attached(hook, &["lan1"], &links), []);
        assert_eq!(left(hook, &["lan1"], &links), [("lan1".into(), Problem::UnknownMaster)]);
    }
}

#[test]
fn hazard_50_xdp_takes_no_ports_of_bridges() {
    let names = ["lan2", "eth1", "wan", "br-guest"];
    assert_eq!(attached(Hook::Xdp, &names, &router()), [(2, none()), (3, none()), (11, none())]);
    assert_eq!(left(Hook::Xdp, &names, &router()), [("eth1".into(), Problem::Port)]);
}

#[test]
fn hazard_41_names_without_an_interface_stay_wanted() {
    let words = wanted(&["lan1", "ppp0"]);
    assert!(words.require_names(&table(&router()), &fits).is_err());
    let left = words.targets(&table(&router()), Hook::Tc, &fits).left;
    assert_eq!(left.get("ppp0"), Some(&Problem::Missing.into()));
}

#[test]
fn what_is_unfit_is_an_error_by_name_and_left_by_pattern() {
    let unfit = |link: &Link| (link.name == "lan2").then_some(Problem::TunnelAnswers);
    assert!(wanted(&["lan2"]).require_names(&table(&router()), &unfit).is_err());
    let left = wanted(&["lan*"]).targets(&table(&router()), Hook::Tc, &unfit).left;
    assert_eq!(left, [("lan2".into(), Problem::TunnelAnswers.into())].into());
}

#[test]
fn patterns_take_what_matches_and_may_match_nothing() {
    assert_eq!(
        attached(Hook::Tc, &["br-*"], &router()),
        [(10, none()), (11, none()), (12, none())]
    );
    assert_eq!(attached(Hook::Tc, &["br-*", "!*-guest", "!*.??"], &router()), [(10, none())]);
    let words = wanted(&["docker?"]);
    assert!(words.require_names(&table(&router()), &fits).is_ok());
    assert_eq!(words.targets(&table(&router()), Hook::Tc, &fits), Targets::default());
}

#[test]
fn patterns_are_bounded() {
    let links: Vec<Link> = (1..=1030).map(|index| link(index, &format!("v{index}"))).collect();
    let targets = wanted(&["v*"]).targets(&table(&links), Hook::Tc, &fits);
    assert_eq!((targets.attach.len(), targets.beyond), (MOST_BY_PATTERN, 6));
}
