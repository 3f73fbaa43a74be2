// SPDX-License-Identifier: GPL-2.0-only
//! Which kinds of interface a hook can do something at. What a port stands for: `wanted.rs`.

use std::sync::LazyLock;

use crate::datapath::{Hook, ppp, probe};
use crate::netlink::link::Link;
use crate::netlink::link_layer::LinkLayer;
use crate::reasons::interface::Problem;

/// Tried once: the trial takes a network namespace.
static PPP_LOSES_HEADER: LazyLock<bool> = LazyLock::new(ppp::loses_header);

/// Why no program could do anything at an interface of this kind.
pub(in crate::daemon) fn why_unfit(link: &Link, hook: Hook) -> Option<Problem> {
    match (LinkLayer::of(link), hook) {
        (LinkLayer::Ethernet, Hook::Xdp) => is_bond(link).then_some(Problem::BondAtXdp),
        (LinkLayer::Ethernet, Hook::Tc) => None,
        (LinkLayer::None | LinkLayer::Ppp, Hook::Xdp) => Some(Problem::NoHeaderAtXdp),
        (LinkLayer::None | LinkLayer::Ppp, Hook::Tc) if !probe::can_read_without_header() => {
            Some(Problem::NeedsAlignment)
        }
        (LinkLayer::None, Hook::Tc) => None,
        (LinkLayer::Ppp, Hook::Tc) => (!*PPP_LOSES_HEADER).then_some(Problem::PppKeepsHeader),
        (LinkLayer::Tunnel, _) => Some(Problem::TunnelAnswers),
        (LinkLayer::Unknown, _) => Some(Problem::UnknownLinkLayer),
    }
}

fn is_bond(link: &Link) -> bool {
    matches!(link.kind.as_deref(), Some("bond" | "team"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_50_a_bond_is_refused_at_xdp() {
        for (kind, problem) in [("bond", Some(Problem::BondAtXdp)), ("bridge", None)] {
            let link = Link { ethernet: true, kind: Some(kind.into()), ..Link::default() };
            assert_eq!(why_unfit(&link, Hook::Xdp), problem, "{kind}");
            assert_eq!(why_unfit(&link, Hook::Tc), None, "{kind}");
        }
    }
}
