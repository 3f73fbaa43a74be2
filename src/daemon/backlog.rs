// SPDX-License-Identifier: GPL-2.0-only
//! The events of conntrack that waited at a certain time, and how many of them are still to be read.

use std::time::{Duration, Instant};

use crate::error::Result;

/// How long an event of conntrack's may wait, after a read has left it, before the fast path
/// pauses.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

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

/// The events of conntrack that wait.
pub(super) struct Backlogs {
    /// What waited at the last heartbeat, or when a pause began or a step of it ended.
    pub(super) pending: Backlog,
    /// If the last read has left some: what it left, or what waited when all of that was handled.
    behind: Option<Backlog>,
}

impl Backlogs {
    /// Nothing waits.
    pub(super) fn empty() -> Self {
        Self { pending: Backlog::of(0), behind: None }
    }

    /// So many bytes of events were read and handled.
    pub(super) fn handled(&mut self, bytes: u64) {
        self.pending.handled(bytes);
        self.behind.iter_mut().for_each(|behind| behind.handled(bytes));
    }

    /// There was nothing more to read.
    pub(super) fn emptied(&mut self) {
        self.pending.emptied();
        self.behind = None;
    }

    /// A read left some events; `true` if they have been waiting for too long. `waiting` asks how many
    /// bytes wait now.
    pub(super) fn left_over(&mut self, waiting: impl FnOnce() -> Result<u64>) -> Result<bool> {
        if let Some(behind) = self.behind.filter(|behind| !behind.is_handled()) {
            return Ok(behind.age() >= PATIENCE);
        }
        self.behind = Some(Backlog::of(waiting()?));
        Ok(false)
    }

    /// The last read left something.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// What the last read left does not count any longer.
    pub(super) fn forgive(&mut self) {
        self.behind = None;
    }

    /// Events have been waiting for so long that there is no time for anything else.
    pub(super) fn is_pressed(&self) -> bool {
        self.behind.is_some_and(|behind| behind.age() > PATIENCE / 2)
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
        // Later events may be among them.
        backlog.handled(300);
        assert!(backlog.is_handled());
        let mut backlog = Backlog::of(100);
        backlog.emptied();
        assert!(backlog.is_handled());
        assert!(Backlog::of(0).is_handled());
    }

    #[test]
    fn hazard_30_what_a_read_leaves_is_late_until_it_is_handled() {
        let mut backlogs = Backlogs::empty();
        let is_late = |backlogs: &mut Backlogs| backlogs.left_over(|| Ok(100)).unwrap();
        assert!(!is_late(&mut backlogs) && backlogs.is_behind() && !backlogs.is_pressed());
        std::thread::sleep(PATIENCE);
        assert!(is_late(&mut backlogs) && backlogs.is_pressed());
        // Events that come meanwhile are another backlog, which has as much time.
        backlogs.handled(100);
        assert!(!is_late(&mut backlogs) && !backlogs.is_pressed());
        backlogs.emptied();
        assert!(!backlogs.is_behind() && backlogs.pending.is_handled());
    }
}
