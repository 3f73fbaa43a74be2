// SPDX-License-Identifier: GPL-2.0-only
//! Policies that are not looked at packet by packet. With some of them nothing is offloaded.

use crate::flow::family::{Families, Family, PerFamily};
use crate::netlink::monitor::Network;
use crate::netlink::routing_sysctls::RoutingSysctls;
use crate::netlink::xfrm::{Policies, Xfrm};
use crate::reasons::connection::Refusal;

use super::firewall::Rules;

/// What decides about forwarding besides the network itself.
pub(super) struct Policy {
    pub(super) xfrm: Xfrm,
    pub(super) rules: Rules,
    pub(super) sysctls: PerFamily<RoutingSysctls>,
    /// The bits of conntrack's mark that look-ups heed.
    pub(super) route_mark: u32,
}

impl Policy {
    /// Why nothing of this family is offloaded in this network, if so.
    pub(super) fn refusal(&self, network: &Network, family: Family) -> Option<Refusal> {
        Inputs {
            family,
            network,
            ipsec: self.xfrm.policies(),
            sysctls: &self.sysctls[family],
            route_mark: self.route_mark,
            marks_packets: &|| self.rules.marks_packets(family),
            copies_packets: self.rules.copies_packets(family),
        }
        .refusal()
    }

    /// The kernel may ask for the way back otherwise than a packet's look-up does. Then a change of routes may
    /// concern what a proof does not hold. rp_filter asks without the mark (`__fib_validate_source` in
    /// fib_frontend.c), nftables' `fib` also without ports (`nft_fib4_eval` in nft_fib_ipv4.c). Both take any next
    /// hop of several.
    pub(super) fn has_foreign_rules(network: &Network) -> bool {
        Families::FORWARDED.iter().any(|family| {
            let rules = &network.rules[family];
            let by_more = rules.fwmark_bits != 0 || rules.interfaces || rules.ports;
            by_more || network.has_multipath(family)
        })
    }
}

/// What the decision depends on.
struct Inputs<'a> {
    family: Family,
    network: &'a Network,
    ipsec: &'a Policies,
    sysctls: &'a RoutingSysctls,
    route_mark: u32,
    /// Whether rules mark packets of established connections; asked only if that matters.
    marks_packets: &'a dyn Fn() -> bool,
    copies_packets: bool,
}

impl Inputs<'_> {
    fn refusal(&self) -> Option<Refusal> {
        let (rules, routes) = (&self.network.rules[self.family], &self.network.routes[self.family]);
        let (sysctls, ipsec, groups) = (self.sysctls, self.ipsec, &self.network.groups);
        // Without anybody who marks forwarded packets, look-ups agree with the stack (Tailscale,
        // wg-quick), and where they do not, there is no proof.
        let unknown_marks = rules.fwmark_bits & !self.route_mark != 0 && (self.marks_packets)();
        let by_more = self.network.has_multipath(self.family) && !sysctls.spreads_by_address;
        let reasons = [
            (ipsec.blocked_by_default || ipsec.selectors.are_too_many(), Refusal::Ipsec),
            (unknown_marks, Refusal::PolicyRouting),
            (rules.tos || routes.any_by_tos(), Refusal::TypeOfService),
            (rules.unknown, Refusal::UnknownRule),
            (rules.realms || routes.any_with_realm(), Refusal::Realms),
            (by_more || groups.any_resilient(), Refusal::Multipath),
            (sysctls.forwards_by_path_mtu, Refusal::PathMtu),
            (sysctls.accepts_redirects, Refusal::Redirects),
            (self.copies_packets, Refusal::Copies),
        ];
        reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Router {
        network: Network,
        ipsec: Policies,
        sysctls: RoutingSysctls,
        route_mark: u32,
        marks_packets: bool,
        copies_packets: bool,
    }

    impl Router {
        fn refusal(&self) -> Option<Refusal> {
            self.refusal_of(Family::Ipv4)
        }

        fn refusal_of(&self, family: Family) -> Option<Refusal> {
            Inputs {
                family,
                network: &self.network,
                ipsec: &self.ipsec,
                sysctls: &self.sysctls,
                route_mark: self.route_mark,
                marks_packets: &|| self.marks_packets,
                copies_packets: self.copies_packets,
            }
            .refusal()
        }
    }

    #[test]
    fn hazard_14_rules_by_marks_matter_only_with_marked_packets() {
        let mut router = Router::default();
        assert_eq!(router.refusal(), None);
        router.marks_packets = true;
        assert_eq!(router.refusal(), None, "no rule goes by marks");
        router.network.rules.ipv4.fwmark_bits = 0x3f00;
        assert_eq!(router.refusal(), Some(Refusal::PolicyRouting));
        assert!(Policy::has_foreign_rules(&router.network));
        assert_eq!(router.refusal_of(Family::Ipv6), None, "it has rules of its own");
        router.route_mark = 0xff00;
        assert_eq!(router.refusal(), None, "look-ups know these bits");
        router.route_mark = 0x0f00;
        assert_eq!(router.refusal(), Some(Refusal::PolicyRouting));
        router.marks_packets = false;
        assert_eq!(router.refusal(), None, "as with Tailscale and wg-quick");
    }

    #[test]
    fn hazard_58_the_weightier_reason_is_told() {
        let mut router = Router { copies_packets: true, ..Router::default() };
        assert_eq!(router.refusal(), Some(Refusal::Copies));
        router.sysctls.accepts_redirects = true;
        assert_eq!(router.refusal(), Some(Refusal::Redirects));
        router.network.rules.ipv6.tos = true;
        assert_eq!(router.refusal(), Some(Refusal::Redirects), "a rule of IPv6");
        assert_eq!(router.refusal_of(Family::Ipv6), Some(Refusal::TypeOfService));
        router.network.rules.ipv4.tos = true;
        assert_eq!(router.refusal(), Some(Refusal::TypeOfService));
        router.ipsec.blocked_by_default = true;
        assert_eq!(router.refusal(), Some(Refusal::Ipsec));
    }
}
