// SPDX-License-Identifier: GPL-2.0-only
//! What the kernel says about links, addresses, neighbors, routes, rules and TC (rtnetlink(7)),
//! and about the firewall.
//!
//! All of it, and conntrack, shares one type of socket (`socket`) and one builder of requests
//! (`request`). One walk goes over a datagram's messages (`message`), another one over their
//! attributes (`attribute`). `exchange` and `dump` wait for the kernel's answers; `failure` reads
//! why it refuses.
//!
//! [`monitor::Monitor`] keeps a picture of the network up to date, and says what a change means for
//! forwarding. [`tc`] is asked when the daemon attaches to an interface or leaves it.
//! [`xfrm::Xfrm`] follows the IPsec policies, [`firewall::Firewall`] the nftables ruleset.
//! [`drivers::Drivers`] says what drivers can do, [`features`] which of their settings are fixed.

mod address;
pub(crate) mod attribute;
#[doc(hidden)]
pub mod decoders;
pub mod drivers;
pub(crate) mod dump;
mod exchange;
pub mod expression;
pub(crate) mod failure;
pub mod features;
pub mod firewall;
mod generic;
pub mod link;
pub mod link_layer;
pub(crate) mod message;
pub mod monitor;
pub mod neighbor;
pub mod network;
pub mod nexthop;
pub(crate) mod request;
pub mod route;
mod route_message;
pub mod route_query;
pub mod routing_sysctls;
mod rtnetlink;
pub mod rule;
pub mod ruleset;
pub(crate) mod socket;
pub mod tc;
pub mod xfrm;
mod xfrm_selector;
