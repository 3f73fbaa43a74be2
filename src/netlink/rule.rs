// SPDX-License-Identifier: GPL-2.0-only
//! What IPv4 policy rules select by (ip-rule(8), linux/fib_rules.h).

use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::RuleMessage;

use super::attribute::{attributes, u32_at};
use super::rtnetlink::{AF_INET, RTM_GETRULE};
use super::socket::Socket;
use crate::error::Result;

const HEADER: usize = 12;
const TOS_IN_HEADER: usize = 3;
const FRA_FWMARK: u16 = 10;
const FRA_FWMASK: u16 = 16;
const FRA_DSCP: u16 = 25;
const FRA_DSCP_MASK: u16 = 30;

/// What the rules look at in a packet, besides addresses, ports and interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleFacts {
    /// A rule selects by the packet's mark.
    pub fwmark: bool,
    /// A rule selects by TOS or DSCP.
    pub tos: bool,
}

impl RuleFacts {
    /// The rules of this network namespace.
    pub(super) fn dump(socket: &mut Socket) -> Result<Self> {
        let mut request = RuleMessage::default();
        request.header.family = AddressFamily::Inet;
        let doing = "reading the policy rules";
        socket.dump(doing, RTM_GETRULE, &request, Self::default, |facts, message| {
            facts.add(message.payload);
        })
    }

    /// Whether routes may be chosen by mark.
    pub fn has_fwmark_rules(&self) -> bool {
        self.fwmark
    }

    fn add(&mut self, rule: &[u8]) {
        if rule.first() != Some(&AF_INET) {
            return;
        }
        self.tos |= rule.get(TOS_IN_HEADER).is_some_and(|&tos| tos != 0);
        for (kind, value) in attributes(rule.get(HEADER..).unwrap_or_default()) {
            match kind {
                // `fwmark 0/0xff` has a mask only.
                FRA_FWMARK | FRA_FWMASK => self.fwmark |= u32_at(value, 0) != Some(0),
                FRA_DSCP | FRA_DSCP_MASK => self.tos = true,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, Emitable};
    use netlink_packet_route::rule::RuleAttribute;

    use super::*;

    fn facts(tos: u8, attributes: Vec<RuleAttribute>) -> RuleFacts {
        let mut rule = RuleMessage::default();
        rule.header.family = AddressFamily::Inet;
        rule.header.tos = tos;
        rule.attributes = attributes;
        let mut payload = vec![0; rule.buffer_len()];
        rule.emit(&mut payload);
        let mut facts = RuleFacts::default();
        facts.add(&payload);
        facts
    }

    #[test]
    fn marks_and_tos_are_found() {
        let none = RuleFacts::default();
        assert_eq!(facts(0, vec![RuleAttribute::Priority(9)]), none);
        assert_eq!(facts(16, vec![]), RuleFacts { tos: true, ..none });
        let dscp = RuleAttribute::Other(DefaultNla::new(FRA_DSCP, vec![0]));
        assert_eq!(facts(0, vec![dscp]), RuleFacts { tos: true, ..none });
        for attribute in [RuleAttribute::FwMark(1), RuleAttribute::FwMask(255)] {
            assert!(facts(0, vec![attribute]).has_fwmark_rules());
        }
    }

    #[test]
    fn cut_rules_do_no_harm() {
        let mut facts = RuleFacts::default();
        for length in 0..HEADER {
            facts.add(&[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..length]);
        }
        assert_eq!(facts, RuleFacts::default());
    }
}
