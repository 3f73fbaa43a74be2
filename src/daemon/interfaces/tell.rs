// SPDX-License-Identifier: GPL-2.0-only
//! What the daemon tells of its interfaces.

use std::collections::HashMap;

use super::Interfaces;
use super::review::States;
use super::state::{Attached, InterfaceState};
use crate::datapath::attachment::Kind;
use crate::netlink::link::Links;
use crate::reasons::interface::Problem;
use crate::status::{Cause, Interface};

impl Interfaces {
    /// Whether packets of any interface are forwarded.
    pub(in crate::daemon) fn is_any_used(&self) -> bool {
        self.states.values().any(|state| matches!(state, InterfaceState::Attached(_)))
    }

    /// Up to so many interfaces, those with problems first; and how many there are besides.
    pub(in crate::daemon) fn tell(&self, links: &Links, most: usize) -> (Vec<Interface>, usize) {
        (tell(&self.states, links, most), self.states.len().saturating_sub(most))
    }
}

/// Up to so many interfaces, those with problems first.
pub(super) fn tell(states: &States, links: &Links, most: usize) -> Vec<Interface> {
    let (fine, not): (Vec<_>, Vec<_>) = states.iter().partition(|(_, state)| state.is_fine());
    let kinds: HashMap<&str, &str> = links
        .values()
        .filter_map(|link| Some((link.name.as_str(), link.kind.as_deref()?)))
        .collect();
    let told = not.into_iter().chain(fine).take(most).map(|(name, state)| Interface {
        device: name.clone(),
        kind: kinds.get(name.as_str()).map(|kind| (*kind).to_owned()),
        ..state.tell()
    });
    told.collect()
}

impl InterfaceState {
    fn is_fine(&self) -> bool {
        matches!(self, Self::Port(_) | Self::Attached(Attached { no_egress: None, .. }))
    }

    fn tell(&self) -> Interface {
        match self {
            Self::Waiting => Interface::default(),
            Self::Port(stands_for) => Interface {
                stands_for: stands_for.clone(),
                forwards_from: true,
                forwards_to: true,
                ..Interface::default()
            },
            Self::Gone => left(Problem::Gone.reason().into()),
            Self::Missing => left(Problem::Missing.reason().into()),
            Self::LeftToStack(found) => left(found.into()),
            Self::Attached(attached) => attached.tell(),
        }
    }
}

fn left(reason: Cause) -> Interface {
    Interface { reason: Some(reason), ..Interface::default() }
}

impl Attached {
    fn tell(&self) -> Interface {
        let (attached, mode) = self.mode.map(names).unzip();
        Interface {
            attached: attached.map(str::to_owned),
            mode: mode.flatten().map(str::to_owned),
            forwards_from: true,
            forwards_to: self.no_egress.is_none(),
            reason: self.no_egress.map(|problem| problem.reason().into()),
            notices: self.notices.iter().map(Cause::from).collect(),
            ..Interface::default()
        }
    }
}

/// How a program is attached, and the mode of XDP.
fn names(kind: Kind) -> (&'static str, Option<&'static str>) {
    match kind {
        Kind::XdpNative => ("xdp", Some("native")),
        Kind::XdpGeneric => ("xdp", Some("generic")),
        Kind::Tcx => ("tcx", None),
        Kind::Clsact => ("clsact", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons::interface::Found;

    #[test]
    fn each_state_is_told() {
        let detail = Some("netdev guard ban".to_owned());
        let chain = Found { problem: Problem::NetdevChain, detail };
        let left = InterfaceState::LeftToStack(chain).tell();
        assert!(!left.is_used() && left.attached.is_none());
        let reason = left.reason.expect("a reason");
        assert_eq!(
            (&*reason.name, reason.detail.as_deref()),
            ("netdev-chain", Some("netdev guard ban"))
        );
        let mut attached = Attached {
            mode: Some(Kind::XdpNative),
            no_egress: None,
            transmitting: None,
            notices: Vec::new(),
        };
        let told = InterfaceState::Attached(attached.clone()).tell();
        assert!(told.is_used() && told.reason.is_none());
        assert_eq!((told.attached.as_deref(), told.mode.as_deref()), (Some("xdp"), Some("native")));
        attached.no_egress = Some(Problem::Down);
        let told = InterfaceState::Attached(attached).tell();
        assert!(told.forwards_from && !told.forwards_to);
        assert_eq!(told.reason.expect("a reason").name, "down");
        assert_eq!(InterfaceState::Gone.tell().reason.expect("a reason").name, "gone");
        assert_eq!(InterfaceState::Waiting.tell(), Interface::default());
    }
}
