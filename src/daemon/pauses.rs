// SPDX-License-Identifier: GPL-2.0-only
//! The pauses that have ended: how many for which reason, and how long they took.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::reasons::pause::Pause;
use crate::status::{LastPause, Pauses, PausesOfReason};

/// All pauses since the start.
#[derive(Debug, Default)]
pub(super) struct PauseHistory {
    by_reason: BTreeMap<Pause, (u64, Duration)>,
    last: Option<Ended>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    reason: Pause,
    length: Duration,
    at: Instant,
}

impl PauseHistory {
    /// A pause ends that began then.
    pub(super) fn note(&mut self, reason: Pause, since: Instant, now: Instant) {
        let length = now.saturating_duration_since(since);
        let (count, total) = self.by_reason.entry(reason).or_default();
        *count += 1;
        *total += length;
        self.last = Some(Ended { reason, length, at: now });
    }

    /// What the daemon tells of them.
    pub(super) fn tell(&self, now: Instant) -> Pauses {
        let total = |(_, length): &(u64, Duration)| milliseconds(*length);
        let by_reason = self.by_reason.iter().map(|(reason, both)| {
            let name = reason.reason().name.to_owned();
            (name, PausesOfReason { count: both.0, ms: total(both) })
        });
        Pauses {
            count: self.by_reason.values().map(|(count, _)| count).sum(),
            ms: self.by_reason.values().map(total).sum(),
            by_reason: by_reason.collect(),
            last: self.last.map(|last| LastPause {
                reason: last.reason.reason().into(),
                ms: milliseconds(last.length),
                ago_ms: milliseconds(now.saturating_duration_since(last.at)),
            }),
        }
    }
}

/// Milliseconds, as far as a number tells.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_add_up_by_reason() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut history = PauseHistory::default();
        assert_eq!(history.tell(start), Pauses::default());
        history.note(Pause::Start, start, at(70));
        history.note(Pause::EventsLost, at(100), at(400));
        history.note(Pause::EventsLost, at(500), at(700));
        let told = history.tell(at(1_700));
        assert_eq!((told.count, told.ms), (3, 570));
        let lost = told.by_reason.get("events-lost");
        assert_eq!(lost, Some(&PausesOfReason { count: 2, ms: 500 }));
        let last = told.last.expect("one ended");
        assert_eq!((&*last.reason.name, last.ms, last.ago_ms), ("events-lost", 200, 1_000));
    }
}
