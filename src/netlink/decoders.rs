// SPDX-License-Identifier: GPL-2.0-only
//! The decoders of this directory as functions of bytes, for the tests that feed them garbage.

pub use super::failure::outcome;
pub use super::message::{Message, messages};
use super::network::{Changes, Network};
use super::rule::{self, RuleFacts};
use super::tc::{self, Filter, Qdisc};
use super::{xfrm, xfrm_selector};
use crate::flow::family::{Families, Family, PerFamily};
use crate::flow::selector::Selector;

/// Applies an event of route netlink.
pub fn apply(network: &mut Network, message: &Message<'_>) -> Changes {
    network.apply(message)
}

/// A network of both families, of which nothing is known yet.
pub fn network() -> Network {
    Network::new(Families::Both)
}

/// As if the routes had just been read.
pub fn routes_were_read(network: &mut Network) {
    Family::ALL.into_iter().for_each(|family| network.routes[family].was_read());
}

/// What the rule of one message selects by.
pub fn rule(payload: &[u8]) -> PerFamily<RuleFacts> {
    let mut facts = PerFamily::default();
    rule::add(&mut facts, payload);
    facts
}

/// The filter of one message.
pub fn filter(message: &Message<'_>) -> Option<Filter> {
    tc::parse_filter(message, false)
}

/// The qdisc of one message.
pub fn qdisc(message: &Message<'_>) -> Option<Qdisc> {
    tc::parse_qdisc(message)
}

/// What the IPsec policy of one message selects of the forwarded packets.
pub fn policy_selector(payload: &[u8]) -> Option<Selector> {
    xfrm_selector::decode(payload, Families::Both)
}

/// Whether the default policies of one message block forwarded packets.
pub fn defaults_block_forwarding(payload: &[u8]) -> bool {
    xfrm::blocks_forwarding(payload)
}
