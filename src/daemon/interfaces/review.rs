// SPDX-License-Identifier: GPL-2.0-only
//! The states of all interfaces, from what is known of them. No I/O.

use std::collections::{BTreeMap, HashSet};

use super::state::{By, Facts, InterfaceState, Line};
use crate::abi;
use crate::connections::topology::Devices;
use crate::datapath::Hook;
use crate::datapath::attachment::Transmitting;
use crate::netlink::link::{Link, Links};
use crate::reasons::interface::{Found, Problem};

/// The states by name.
pub(super) type States = BTreeMap<String, InterfaceState>;

/// An interface that was named.
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) index: u32,
    pub(super) by: By,
    pub(super) transmitting: Option<Transmitting>,
}

/// Why the fast path must not touch packets of an interface.
pub(super) struct LeftOut<'a> {
    /// What the last scan has found, by interface.
    pub(super) found: &'a BTreeMap<u32, Found>,
    /// The chain of the firewall at this interface, if there is one.
    pub(super) chain_at: &'a dyn Fn(&Link) -> Option<String>,
}

impl LeftOut<'_> {
    pub(super) fn reason(&self, link: &Link) -> Option<Found> {
        self.found.get(&link.index).cloned().or_else(|| {
            let detail = Some((self.chain_at)(link)?);
            Some(Found { problem: Problem::NetdevChain, detail })
        })
    }
}

/// What the states depend on.
pub(super) struct Review<'a> {
    pub(super) hook: Hook,
    pub(super) links: &'a Links,
    pub(super) left_out: LeftOut<'a>,
    /// What users should know of interfaces that are used.
    pub(super) notices: &'a BTreeMap<(u32, Problem), Found>,
    /// What the device maps should hold.
    pub(super) devices: &'a Devices,
}

impl Review<'_> {
    /// The states of the interfaces that were named, and of the VLAN devices on them.
    pub(super) fn states(&self, named: &[Named<'_>]) -> States {
        let ingresses: HashSet<u32> =
            self.devices.links.iter().map(|(_, link)| link.ifindex).collect();
        let leaves = |flags: u32| flags & abi::BPFW_EGRESS_REDIRECT != 0;
        let egresses = self.devices.egresses.iter().filter(|(_, egress)| leaves(egress.flags));
        let egresses: HashSet<u32> = egresses.map(|(index, _)| *index).collect();
        let state = |by, index, transmitting| {
            Facts {
                hook: self.hook,
                by,
                link: self.links.get(&index),
                left_out: self.reason_to_leave_out(index),
                has_ingress: ingresses.contains(&index),
                has_egress: egresses.contains(&index),
                transmitting,
                notices: self.notices_of(index),
            }
            .state()
        };
        let ports: HashSet<u32> =
            named.iter().filter(|one| one.by != By::Nobody).map(|one| one.index).collect();
        // VLAN devices share the fate of a port that is left out.
        let is_on_port = |link: &&Link| {
            let port = link.vlan.map(|vlan| vlan.port).filter(|port| ports.contains(port));
            port.is_some_and(|port| self.reason_to_leave_out(port).is_none())
        };
        let vlans = self.links.values().filter(is_on_port);
        let vlans = vlans.map(|link| (link.name.clone(), state(By::Port, link.index, None)));
        let named = named
            .iter()
            .map(|one| (one.name.to_owned(), state(one.by, one.index, one.transmitting)));
        // A VLAN device may have been named itself, which counts more.
        vlans.chain(named).collect()
    }

    fn reason_to_leave_out(&self, index: u32) -> Option<Found> {
        self.left_out.reason(self.links.get(&index)?)
    }

    fn notices_of(&self, index: u32) -> Vec<Found> {
        let from = self.notices.range((index, Problem::ALL[0])..);
        let of_this = from.take_while(|((other, _), _)| *other == index);
        of_this.map(|(_, found)| found.clone()).collect()
    }
}

/// Users hear that an interface is back when it forwards, not while it waits.
pub(super) fn keep_until_attached(states: &mut States, before: &States) {
    for (name, state) in states {
        if let (InterfaceState::Waiting, Some(before)) = (&state, before.get(name)) {
            state.clone_from(before);
        }
    }
}

/// What users hear when these states follow those. A VLAN device that is gone is no news.
pub(super) fn report(before: &States, now: &States) -> Vec<Line> {
    now.iter().flat_map(|(name, state)| state.report(name, before.get(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::state::Attached;
    use super::*;
    use crate::abi::{bpfw_egress, bpfw_link, bpfw_link_key};
    use crate::datapath::attachment::Kind;
    use crate::netlink::link::Vlan;

    fn link(index: u32, name: &str, port: Option<u32>) -> (u32, Link) {
        let vlan = |port| Vlan { port, id: 10, protocol: 0x8100, has_egress_qos: false };
        let link = Link {
            index,
            name: name.into(),
            up: true,
            running: true,
            mac: Some([2, 0, 0, 0, 0, 1]),
            ethernet: true,
            mtu: 1500,
            vlan: port.map(vlan),
            ..Link::default()
        };
        (index, link)
    }

    /// The device maps with these interfaces.
    fn devices(indexes: &[u32]) -> Devices {
        let egress = bpfw_egress { flags: abi::BPFW_EGRESS_REDIRECT, ..Default::default() };
        let way_in = |ifindex| bpfw_link { ifindex, ..Default::default() };
        let key = |ifindex| bpfw_link_key { ifindex, ..Default::default() };
        Devices {
            links: indexes.iter().map(|&index| (key(index), way_in(index))).collect(),
            egresses: indexes.iter().map(|&index| (index, egress)).collect(),
            without_room: 0,
        }
    }

    fn named(name: &'static str, index: u32) -> Named<'static> {
        Named { name, index, by: By::Itself(Kind::Tcx), transmitting: None }
    }

    /// lan0, wan0, and the VLAN device lan0.10; those of `found` are left out.
    fn states(links: &Links, found: &BTreeMap<u32, Found>, named: &[Named<'_>]) -> States {
        let kept: Vec<u32> =
            links.keys().copied().filter(|index| !found.contains_key(index)).collect();
        Review {
            hook: Hook::Tc,
            links,
            left_out: LeftOut {
                found,
                chain_at: &|link| (link.name == "wan0").then(|| "chain ban".into()),
            },
            notices: &BTreeMap::from([((1, Problem::StampLost), Problem::StampLost.into())]),
            devices: &devices(&kept),
        }
        .states(named)
    }

    fn links() -> Links {
        [link(1, "lan0", None), link(2, "wan0", None), link(5, "lan0.10", Some(1))].into()
    }

    #[test]
    fn all_that_were_named_and_their_vlans_have_a_state() {
        let names = [named("lan0", 1), named("wan0", 2), named("lan9", 9)];
        let states = states(&links(), &BTreeMap::new(), &names);
        let used = |mode, notices| {
            let (no_egress, transmitting) = (None, None);
            InterfaceState::Attached(Attached { mode, no_egress, transmitting, notices })
        };
        let chain = Found { problem: Problem::NetdevChain, detail: Some("chain ban".into()) };
        let expected = [
            ("lan0", used(Some(Kind::Tcx), vec![Problem::StampLost.into()])),
            ("lan0.10", used(None, vec![])),
            ("lan9", InterfaceState::Gone),
            ("wan0", InterfaceState::LeftToStack(chain)),
        ];
        assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state)).into());
    }

    #[test]
    fn vlans_of_a_port_that_is_left_out_are_not_told_one_by_one() {
        let found = BTreeMap::from([(1, Problem::ProgramOff.into())]);
        let before = states(&links(), &BTreeMap::new(), &[named("lan0", 1)]);
        let now = states(&links(), &found, &[named("lan0", 1)]);
        let lines = report(&before, &now);
        let [Line::Warn(line)] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.starts_with("packets of lan0 stay with the stack: bpfw's program is off"));
        let lines = report(&now, &before);
        assert!(matches!(&lines[0], Line::Info(line) if line.contains("forwarded again")));
    }

    #[test]
    fn a_vlan_that_was_named_counts_for_itself() {
        let waits = Named { by: By::Nobody, ..named("lan0.10", 5) };
        let states = states(&links(), &BTreeMap::new(), &[named("lan0", 1), waits]);
        assert_eq!(states.get("lan0.10"), Some(&InterfaceState::Waiting));
    }
}
