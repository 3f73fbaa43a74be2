// SPDX-License-Identifier: GPL-2.0-only
//! What conntrack had told at some time, and how much of it is still to be read.

use std::time::{Duration, Instant};

/// The events that waited at a certain time. They are read in order, so they are handled once as many
/// bytes have been read, or nothing was left to read.
#[derive(Clone, Copy)]
pub(super) struct Backlog {
    marked_at: Instant,
    bytes: u64,
}

impl Backlog {
    /// The events that wait now, of which no more than so many bytes must be read.
    pub(super) fn of(bytes: u64) -> Self {
        Self { marked_at: Instant::now(), bytes }
    }

    /// So many bytes of events were read and handled.
    pub(super) fn handled(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// There was nothing more to read.
    pub(super) fn emptied(&mut self) {
        self.bytes = 0;
    }

    /// Whether all of them were handled.
    pub(super) fn is_handled(&self) -> bool {
        self.bytes == 0
    }

    /// How long ago they waited.
    pub(super) fn age(&self) -> Duration {
        self.marked_at.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_30_what_waited_is_handled_when_as_much_was_read() {
        let mut backlog = Backlog::of(100);
        backlog.handled(99);
        assert!(!backlog.is_handled());
        // What came later may be among it.
        backlog.handled(300);
        assert!(backlog.is_handled());
        let mut backlog = Backlog::of(100);
        backlog.emptied();
        assert!(backlog.is_handled());
        assert!(Backlog::of(0).is_handled());
    }
}
