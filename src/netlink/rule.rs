// SPDX-License-Identifier: GPL-2.0-only
//! What policy rules select by (ip-rule(8), linux/fib_rules.h).

use super::attribute::{attributes, u32_at};
use super::request::Request;
use super::rtnetlink::RTM_GETRULE;
use super::socket::Socket;
use crate::error::Result;
use crate::flow::family::{Families, Family, PerFamily};

/// struct fib_rule_hdr.
const HEADER: usize = 12;
const TOS_IN_HEADER: usize = 3;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_FLOW: u16 = 11;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_PAD: u16 = 18;
const FRA_L3MDEV: u16 = 19;
const FRA_UID_RANGE: u16 = 20;
const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;
const FRA_DSCP: u16 = 25;
const FRA_SPORT_MASK: u16 = 28;
const FRA_DPORT_MASK: u16 = 29;
const FRA_DSCP_MASK: u16 = 30;

/// What the rules of one family look at in a packet, besides addresses and ports. `daemon/policy.rs` judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleFacts {
    /// The bits of the packet's mark that rules select by.
    pub fwmark_bits: u32,
    /// A rule selects by TOS or DSCP.
    pub tos: bool,
    /// A rule selects by interface. What nftables' `fib` asks comes in at the loopback interface
    /// (nft_fib4_eval in nft_fib_ipv4.c).
    pub interfaces: bool,
    /// A rule selects by protocol or ports.
    pub ports: bool,
    /// A rule sets a realm.
    pub realms: bool,
    /// A rule has an attribute that a BPF program's look-up does not ask with. That is a tunnel's
    /// id (FRA_TUN_ID), or any that is newer than this code.
    pub unknown: bool,
}

/// The rules of this network namespace.
pub(super) fn dump(socket: &mut Socket, families: Families) -> Result<PerFamily<RuleFacts>> {
    let mut header = [0; HEADER];
    header[0] = families.number();
    let request = Request::new(RTM_GETRULE, &header);
    socket.dump("reading the policy rules", request, PerFamily::default, |all, message| {
        add(all, message.payload);
    })
}

/// Adds one rule to those of its family.
pub(super) fn add(all: &mut PerFamily<RuleFacts>, rule: &[u8]) {
    // Multicast routing has rules, too, under numbers of its own.
    if let Some(family) = rule.first().and_then(|number| Family::from_number(*number)) {
        all[family].add(rule);
    }
}

impl RuleFacts {
    fn add(&mut self, rule: &[u8]) {
        self.tos |= rule.get(TOS_IN_HEADER).is_some_and(|&tos| tos != 0);
        let (mut mark, mut mask) = (None, None);
        for (kind, value) in attributes(rule.get(HEADER..).unwrap_or_default()) {
            // What is cut off may be anything.
            match kind {
                FRA_FWMARK => mark = Some(u32_at(value, 0).unwrap_or(u32::MAX)),
                FRA_FWMASK => mask = Some(u32_at(value, 0).unwrap_or(u32::MAX)),
                FRA_DSCP | FRA_DSCP_MASK => self.tos = true,
                FRA_IIFNAME | FRA_OIFNAME => self.interfaces = true,
                FRA_FLOW => self.realms = true,
                // Look-ups heed these, but not all that the kernel asks of the way back does.
                FRA_IP_PROTO | FRA_SPORT_RANGE | FRA_DPORT_RANGE | FRA_SPORT_MASK
                | FRA_DPORT_MASK => self.ports = true,
                // Look-ups heed these: they are the same for all packets of a connection's direction.
                // A forwarded packet's user is the root of the network namespace.
                FRA_DST | FRA_SRC | FRA_L3MDEV | FRA_UID_RANGE => {}
                // These select nothing.
                FRA_GOTO
                | FRA_PRIORITY
                | FRA_SUPPRESS_IFGROUP
                | FRA_SUPPRESS_PREFIXLEN
                | FRA_TABLE
                | FRA_PAD
                | FRA_PROTOCOL => {}
                _ => self.unknown = true,
            }
        }
        self.fwmark_bits |= match (mark, mask) {
            // `fwmark 0/0xff` has a mask only.
            (_, Some(mask)) => mask,
            (None | Some(0), None) => 0,
            (Some(_), None) => u32::MAX,
        };
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, Emitable};
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::route::RouteRealm;
    use netlink_packet_route::rule::{RuleAttribute, RuleMessage};

    use super::*;

    fn facts(tos: u8, attributes: Vec<RuleAttribute>) -> RuleFacts {
        let of_ipv4 = facts_of(AddressFamily::Inet, tos, attributes.clone());
        let of_ipv6 = facts_of(AddressFamily::Inet6, tos, attributes);
        assert_eq!(of_ipv4.ipv4, of_ipv6.ipv6, "both families' rules are read alike");
        assert_eq!((of_ipv4.ipv6, of_ipv6.ipv4), Default::default());
        of_ipv4.ipv4
    }

    fn facts_of(
        family: AddressFamily,
        tos: u8,
        attributes: Vec<RuleAttribute>,
    ) -> PerFamily<RuleFacts> {
        let mut rule = RuleMessage::default();
        rule.header.family = family;
        rule.header.tos = tos;
        rule.attributes = attributes;
        let mut payload = vec![0; rule.buffer_len()];
        rule.emit(&mut payload);
        let mut facts = PerFamily::default();
        add(&mut facts, &payload);
        facts
    }

    #[test]
    fn marks_tos_and_interfaces_are_found() {
        let none = RuleFacts::default();
        assert_eq!(facts(0, vec![RuleAttribute::Priority(9)]), none);
        assert_eq!(facts(16, vec![]), RuleFacts { tos: true, ..none });
        let dscp = RuleAttribute::Other(DefaultNla::new(FRA_DSCP, vec![0]));
        assert_eq!(facts(0, vec![dscp]), RuleFacts { tos: true, ..none });
        for name in [RuleAttribute::Iifname("a".into()), RuleAttribute::Oifname("a".into())] {
            assert_eq!(facts(0, vec![name]), RuleFacts { interfaces: true, ..none });
        }
        for kind in [FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE, FRA_SPORT_MASK, FRA_DPORT_MASK]
        {
            let ports = RuleAttribute::Other(DefaultNla::new(kind, vec![0; 4]));
            assert_eq!(facts(0, vec![ports]), RuleFacts { ports: true, ..none }, "{kind}");
        }
        let realm = RuleAttribute::Realm(RouteRealm { source: 0, destination: 7 });
        assert_eq!(facts(0, vec![realm]), RuleFacts { realms: true, ..none });
        let bits = |attributes| facts(0, attributes).fwmark_bits;
        assert_eq!(bits(vec![RuleAttribute::FwMark(1)]), u32::MAX);
        assert_eq!(bits(vec![RuleAttribute::FwMask(255)]), 255);
        assert_eq!(bits(vec![RuleAttribute::FwMark(1), RuleAttribute::FwMask(3)]), 3);
        let cut = RuleAttribute::Other(DefaultNla::new(FRA_FWMASK, vec![1]));
        assert_eq!(bits(vec![RuleAttribute::FwMark(1), cut]), u32::MAX);
    }

    /// FRA_TUN_ID, FRA_FLOWLABEL with its mask, and all that Linux does not have yet; those that no
    /// kernel has used are among them.
    #[test]
    fn hazard_58_unknown_attributes_of_rules_are_seen() {
        let unknown = |kind| {
            let attribute = RuleAttribute::Other(DefaultNla::new(kind, vec![0; 8]));
            facts(0, vec![attribute]).unknown
        };
        let found: Vec<u16> = (1..=40).filter(|kind| unknown(*kind)).collect();
        assert_eq!(found, [5, 7, 8, 9, 12, 26, 27, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40]);
    }

    #[test]
    fn cut_rules_do_no_harm() {
        let mut facts = PerFamily::default();
        for length in 0..HEADER {
            add(&mut facts, &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..length]);
        }
        assert_eq!(facts, PerFamily::default());
    }
}
