// SPDX-License-Identifier: GPL-2.0-only
//! Conntrack: its events, its entries, and the little that bpfw changes in them.
//!
//! libnetfilter_conntrack encodes the messages; the sockets are our own, so that many updates fit in
//! one send, our own updates are recognised by their port, and no read blocks for long. Nothing here knows BPF or routing.

mod decode;
#[doc(hidden)]
pub mod decoders;
pub mod dump;
pub mod entry;
pub mod events;
mod ffi;
mod filter;
pub mod requests;
mod socket;
pub mod sysctl;
mod template;
