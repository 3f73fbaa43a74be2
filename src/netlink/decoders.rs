// SPDX-License-Identifier: GPL-2.0-only
//! The decoders of this directory as functions of bytes, for the tests that feed them garbage.

use super::network::{Changes, Network};
use super::rule::RuleFacts;
pub use super::socket::{Message, messages};
use super::tc::{self, Filter};
use super::xfrm;

/// Applies an event of route netlink.
pub fn apply(network: &mut Network, message: &Message<'_>) -> Changes {
    network.apply(message)
}

/// What the rule of one message selects by.
pub fn rule(payload: &[u8]) -> RuleFacts {
    let mut facts = RuleFacts::default();
    facts.add(payload);
    facts
}

/// The filter of one message.
pub fn filter(message: &Message<'_>) -> Option<Filter> {
    tc::parse_filter(message, false)
}

/// The kind of the qdisc of one message, if it stands there.
pub fn qdisc(message: &Message<'_>, ifindex: u32, parent: u32) -> Option<String> {
    tc::parse_qdisc(message, ifindex, parent)
}

/// Whether the IPsec policy of one message may apply to forwarded packets.
pub fn policy_covers_forwarding(payload: &[u8]) -> bool {
    xfrm::covers_forwarding(payload)
}

/// Whether the default policies of one message block forwarded packets.
pub fn defaults_block_forwarding(payload: &[u8]) -> bool {
    xfrm::blocks_forwarding(payload)
}
