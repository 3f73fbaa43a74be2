// SPDX-License-Identifier: GPL-2.0-only
//! Conntrack: its events, its entries, and the little that bpfw changes in them.
//!
//! libnetfilter_conntrack reads and builds the messages. The sockets are [`crate::netlink`]'s. So
//! many updates fit in one send, the port tells our own updates from others, and no read blocks for
//! long. Nothing here knows BPF or routing.

#[doc(hidden)]
pub mod decoders;
pub mod dump;
pub mod entry;
pub mod events;
mod ffi;
mod filter;
mod message;
pub mod requests;
mod shape;
pub mod sysctl;
