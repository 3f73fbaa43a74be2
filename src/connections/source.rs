// SPDX-License-Identifier: GPL-2.0-only
//! How connections come to the daemon's attention.

/// How a connection came to our attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// By its own event, which a packet has just caused.
    Event,
    /// By a packet that the datapath has just handed to the stack: it may never send events.
    Signal,
    /// By conntrack's table alone: nobody knows when the stack has seen a packet of it.
    Table,
}
