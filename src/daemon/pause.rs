// SPDX-License-Identifier: GPL-2.0-only
//! Whether the fast path forwards, and why not: one state machine. docs/architecture.md draws it.
//! `resume.rs` begins pauses and works towards their ends; `bump` in `network.rs` ends them.

use std::time::{Duration, Instant};

use crate::connections::Resync;
use crate::datapath::state::Change;
use crate::reasons::pause::Pause;

/// How long a pause lasts at least before the daemon changes what running programs rely on: none of
/// them runs as long.
const GRACE: Duration = Duration::from_secs(1);

/// The state of the fast path as a whole. `R` is a comparison with conntrack's table.
pub(super) enum FastPath<R = Resync> {
    Forwarding,
    /// The stack gets all packets.
    Paused(Paused<R>),
}

/// A pause, from the last packet on the fast path to the next.
pub(super) struct Paused<R = Resync> {
    /// The latest of its reasons.
    pub(super) reason: Pause,
    /// The programs see no generation since then, or since a moment earlier.
    pub(super) since: Instant,
    step: Step<R>,
    /// What may have changed unnoticed, and so needs new proofs or new look-ups at the end.
    doubted: Change,
}

/// What the daemon is about during a pause.
pub(super) enum Step<R = Resync> {
    /// Events were lost or are too old: the daemon throws away what is queued. The kernel reports no
    /// further loss until the queue was empty (netlink(7), ENOBUFS). Before `from`, the daemon does
    /// nothing at all.
    Discard { from: Instant },
    /// The daemon compares the connections with conntrack's table.
    Compare(R),
    /// The connections are right; the daemon reads the events that came since.
    CatchUp,
    /// Nothing was lost, but so many events wait that a deletion among them would come late.
    Behind,
    /// Programs that began before the pause may still run. After them, the daemon empties the next
    /// hops, and sets the period if another one is due.
    Drain { period: Option<u32> },
    /// The device maps change. The pause ends with the next generation.
    Devices,
}

impl<R> FastPath<R> {
    /// The first pause: nothing was compared yet.
    pub(super) fn starting(resync: R, now: Instant) -> Self {
        let doubted = Change::Policy;
        let step = Step::Compare(resync);
        Self::Paused(Paused { reason: Pause::Start, since: now, step, doubted })
    }

    /// Begins a pause, or gives the present one another reason and step.
    pub(super) fn pause(&mut self, reason: Pause, step: Step<R>, doubted: Change, now: Instant) {
        let (since, before) = match self {
            Self::Forwarding => (now, Change::Topology),
            Self::Paused(paused) => (paused.since, paused.doubted),
        };
        let doubted = before.max(doubted);
        *self = Self::Paused(Paused { reason, since, step, doubted });
    }

    /// The same for a change of the device maps. A longer pause covers it as well.
    pub(super) fn pause_for_devices(&mut self, now: Instant) {
        if matches!(self, Self::Forwarding) {
            self.pause(Pause::Interfaces, Step::Devices, Change::Topology, now);
        }
    }

    /// Goes on to the next step of this pause.
    pub(super) fn go_on(&mut self, next: Step<R>) {
        if let Self::Paused(paused) = self {
            paused.step = next;
        }
    }

    /// Even more is in doubt than the pause began with.
    pub(super) fn doubt(&mut self, change: Change) {
        if let Self::Paused(paused) = self {
            paused.doubted = paused.doubted.max(change);
        }
    }

    /// Ends the pause; the pause that was, if there was one.
    pub(super) fn forward(&mut self) -> Option<Paused<R>> {
        match std::mem::replace(self, Self::Forwarding) {
            Self::Forwarding => None,
            Self::Paused(paused) => Some(paused),
        }
    }

    /// What the daemon is about, if the fast path pauses.
    pub(super) fn step(&mut self) -> Option<&mut Step<R>> {
        match self {
            Self::Forwarding => None,
            Self::Paused(paused) => Some(&mut paused.step),
        }
    }

    /// Whether the daemon's everyday work goes on, and a new generation makes packets fast.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self, Self::Forwarding | Self::Paused(Paused { step: Step::Devices, .. }))
    }

    /// Whether nothing is in doubt: a heartbeat means that all events are handled.
    pub(super) fn is_sure(&self) -> bool {
        self.is_settled() || matches!(self, Self::Paused(Paused { step: Step::Drain { .. }, .. }))
    }

    /// Whether the daemon compares everything, and reads events up to the comparison's end.
    pub(super) fn compares(&self) -> bool {
        let Self::Paused(Paused { step, .. }) = self else { return false };
        matches!(step, Step::Discard { .. } | Step::Compare(_) | Step::CatchUp)
    }

    /// Whether events are to be thrown away.
    pub(super) fn must_discard(&self) -> bool {
        matches!(self, Self::Paused(Paused { step: Step::Discard { .. }, .. }))
    }

    /// How long the daemon itself has to wait, if so, before it tries again after an error.
    pub(super) fn retry_in(&self, now: Instant) -> Option<Duration> {
        let Self::Paused(Paused { step: Step::Discard { from }, .. }) = self else { return None };
        Some(from.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Whether no program runs any longer that began before the pause.
    pub(super) fn is_drained(&self, now: Instant) -> bool {
        matches!(self, Self::Paused(paused) if now.duration_since(paused.since) >= GRACE)
    }

    /// Whether there is something to do at once.
    pub(super) fn is_urgent(&self, now: Instant) -> bool {
        let Self::Paused(paused) = self else { return false };
        match paused.step {
            // A turn that begins with a tick has no news of conntrack: another one must follow.
            Step::Drain { .. } => self.is_drained(now),
            Step::Discard { .. } | Step::Compare(_) | Step::CatchUp | Step::Behind => true,
            Step::Devices => false,
        }
    }
}

impl<R> Paused<R> {
    /// What may have changed unnoticed.
    pub(super) fn doubted(&self) -> Change {
        self.doubted
    }

    /// Whether users hear of its end. They have not heard of the beginning of the others.
    pub(super) fn is_announced(&self) -> bool {
        !matches!(self.step, Step::Behind | Step::Devices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Machine = FastPath<()>;

    fn reason(machine: &Machine) -> Option<(Pause, Instant)> {
        match machine {
            FastPath::Forwarding => None,
            FastPath::Paused(paused) => Some((paused.reason, paused.since)),
        }
    }

    #[test]
    fn a_pause_has_its_latest_reason_and_its_first_moment() {
        let start = Instant::now();
        let mut machine = Machine::starting((), start);
        let later = start + GRACE;
        let discard = || Step::Discard { from: later };
        machine.pause(Pause::EventsLost, discard(), Change::Topology, later);
        assert_eq!(reason(&machine), Some((Pause::EventsLost, start)));
        machine.go_on(Step::Compare(()));
        machine.pause_for_devices(later);
        assert_eq!(reason(&machine), Some((Pause::EventsLost, start)), "it is covered");
        machine.go_on(Step::CatchUp);
        let ended = machine.forward().expect("a pause");
        assert_eq!(ended.doubted(), Change::Policy, "as at the start");
        assert!(reason(&machine).is_none() && machine.forward().is_none());
        machine.pause(Pause::EventsLost, discard(), Change::Topology, later);
        assert_eq!(reason(&machine), Some((Pause::EventsLost, later)));
        assert_eq!(machine.forward().expect("a pause").doubted(), Change::Topology);
    }

    #[test]
    fn hazard_29_a_heartbeat_means_something_only_without_doubt() {
        let now = Instant::now();
        let mut machine = Machine::Forwarding;
        assert!(machine.is_sure() && machine.is_settled() && !machine.is_urgent(now));
        machine.pause_for_devices(now);
        assert!(machine.is_sure() && machine.is_settled() && !machine.is_urgent(now));
        for step in [Step::Discard { from: now }, Step::Compare(()), Step::CatchUp, Step::Behind] {
            let (discards, behind) =
                (matches!(step, Step::Discard { .. }), matches!(step, Step::Behind));
            machine.pause(Pause::Late, step, Change::Policy, now);
            assert!(!machine.is_sure() && !machine.is_settled() && machine.is_urgent(now));
            assert_eq!((machine.must_discard(), machine.compares()), (discards, !behind));
        }
        let mut machine = Machine::Forwarding;
        machine.pause(Pause::Period, Step::Drain { period: None }, Change::Topology, now);
        assert!(machine.is_sure() && !machine.is_settled() && !machine.compares());
        assert!(!machine.is_urgent(now) && machine.is_urgent(now + GRACE));
    }

    #[test]
    fn after_an_error_the_daemon_itself_waits() {
        let now = Instant::now();
        let mut machine = Machine::Forwarding;
        machine.pause(Pause::Error, Step::Discard { from: now + GRACE }, Change::Policy, now);
        assert_eq!(machine.retry_in(now), Some(GRACE));
        assert_eq!(machine.retry_in(now + GRACE), None);
        machine.go_on(Step::Compare(()));
        assert_eq!(machine.retry_in(now), None);
    }
}
