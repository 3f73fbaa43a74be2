// SPDX-License-Identifier: GPL-2.0-only
//! When the next generation is due. It makes all packets look up again, or prove themselves anew, so
//! it must not come too often.

use std::time::{Duration, Instant};

use crate::datapath::state::Change;

/// The shortest time between two generations, however fast the topology changes.
const INTERVAL: Duration = Duration::from_millis(20);
/// Sets may change many times a second, by programs that ban or resolve names. All connections
/// would have to prove themselves as often. With an interval, this is less than a second.
const ELEMENTS_INTERVAL: Duration = Duration::from_millis(800);

/// What the next generation is for, and when the last ones began.
pub(super) struct Generations {
    due: Option<Change>,
    /// Elements of nftables' sets changed, and nothing else of the ruleset.
    elements_changed: bool,
    began_at: Instant,
    policy_changed_at: Instant,
}

impl Generations {
    /// None is due.
    pub(super) fn new(now: Instant) -> Self {
        Self { due: None, elements_changed: false, began_at: now, policy_changed_at: now }
    }

    /// Something changed: another generation is due.
    pub(super) fn ask(&mut self, change: Change) {
        self.due = self.due.max(Some(change));
    }

    /// Elements of sets changed, which can wait.
    pub(super) fn ask_for_elements(&mut self) {
        self.elements_changed = true;
    }

    /// What the next generation is for, if it may begin now.
    pub(super) fn ready(&mut self, now: Instant) -> Option<Change> {
        if self.elements_changed && now.duration_since(self.policy_changed_at) >= ELEMENTS_INTERVAL
        {
            self.elements_changed = false;
            self.ask(Change::Policy);
        }
        self.due.filter(|_| now.duration_since(self.began_at) >= INTERVAL)
    }

    /// The next generation begins, for this change and for all that was due.
    pub(super) fn begin(&mut self, change: Change, now: Instant) -> Change {
        let change = self.due.take().map_or(change, |due| due.max(change));
        self.began_at = now;
        if change == Change::Policy {
            self.policy_changed_at = now;
            self.elements_changed = false;
        }
        change
    }

    /// How long to wait at most before [`Self::ready`] is asked again.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let elements = self
            .elements_changed
            .then(|| ELEMENTS_INTERVAL.saturating_sub(now.duration_since(self.policy_changed_at)));
        let due = self.due.map(|_| INTERVAL);
        due.into_iter().chain(elements).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_30_generations_keep_their_distance() {
        let start = Instant::now();
        let mut generations = Generations::new(start);
        assert_eq!((generations.ready(start + INTERVAL), generations.wait(start)), (None, None));
        generations.ask(Change::Policy);
        generations.ask(Change::Topology);
        assert_eq!((generations.ready(start), generations.wait(start)), (None, Some(INTERVAL)));
        let later = start + INTERVAL;
        assert_eq!(generations.ready(later), Some(Change::Policy));
        assert_eq!(generations.begin(Change::Topology, later), Change::Policy);
        assert_eq!(generations.ready(later + INTERVAL), None);
    }

    #[test]
    fn elements_of_sets_wait_longer() {
        let start = Instant::now();
        let mut generations = Generations::new(start);
        generations.ask_for_elements();
        assert_eq!(generations.wait(start), Some(ELEMENTS_INTERVAL));
        assert_eq!(generations.ready(start + ELEMENTS_INTERVAL / 2), None);
        assert_eq!(generations.ready(start + ELEMENTS_INTERVAL), Some(Change::Policy));
        // Another change of policy covers them.
        let mut generations = Generations::new(start);
        generations.ask_for_elements();
        generations.begin(Change::Policy, start);
        assert_eq!(generations.ready(start + ELEMENTS_INTERVAL), None);
    }
}
