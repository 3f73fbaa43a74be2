// SPDX-License-Identifier: GPL-2.0-only
//! What the daemon tells the datapath about itself: the topology's generation, the heartbeat.

use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::Object;

use super::map_names;
use super::sys;
use super::typed_map::TypedMap;
use crate::abi::{self, Pod, bpfw_generation};
use crate::clock::Jiffies;
use crate::error::{Error, Result};

const SET_GENERATION: &str = "bpfw_set_generation";
/// Jiffies are shifted by so much that there is only one period.
pub const NO_PERIODS: u32 = 63;

/// What has changed with a new generation of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Routes, neighbors or devices: packets may have to go another way.
    Topology,
    /// Whatever decides whether the stack forwards packets, too: each direction needs a new proof.
    Policy,
}

/// A generation of the topology or of the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u32);

/// The last generation of the topology. There must be room for the number of a period above it.
/// With 50 changes a second it comes after a year. A period that becomes longer takes up to some
/// millions more away ([`State::set_period`]). The first generation follows the last one. By then,
/// no entry has an old sum any more, because entries without a look-up for so long have gone.
const LAST: Generation = Generation(0xf000_0000);

impl Generation {
    /// The first of the topology.
    const FIRST: Self = Self(abi::BPFW_FIRST_GENERATION);

    /// The topology's generation so many steps after this one.
    fn after(self, steps: u32) -> Self {
        let next = self.0.checked_add(steps).map(Self);
        next.filter(|next| (Self::FIRST..=LAST).contains(next)).unwrap_or(Self::FIRST)
    }

    /// The policy's generation so many steps after this one: it has no values of a meaning of their own.
    fn policy_after(self, steps: u32) -> Self {
        Self(self.0.wrapping_add(steps))
    }
}

/// The generation, as the datapath sees it.
pub struct State {
    set_generation: OwnedFd,
    beat_map: TypedMap<u32, u64>,
    topology: Generation,
    policy: Generation,
    /// How far jiffies are shifted for the number of a period.
    period: u32,
}

impl State {
    /// The object's state: in a pause.
    pub fn new(object: &Object) -> Result<Self> {
        let program = object
            .progs_mut()
            .find(|program| program.name() == SET_GENERATION)
            .ok_or_else(|| Error::refused(format!("the object has no program {SET_GENERATION}")))?;
        let set_generation = program
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::system("duplicating a program's descriptor", error))?;
        Ok(Self {
            set_generation,
            beat_map: TypedMap::new(object, map_names::BEAT)?,
            topology: Generation::default(),
            policy: Generation::default(),
            period: NO_PERIODS,
        })
    }

    /// Sets how far jiffies are shifted for the number of a period, as of the next [`State::bump`].
    /// Only in a pause, and when no program still runs that began before it: none has seen a later
    /// time than `now`.
    pub fn set_period(&mut self, shift: u32, now: Jiffies) {
        // No sum of a generation and the number of a period may come twice. So the least sum to
        // come must exceed the largest that has come yet, with the largest stagger (period_of in
        // bpf/proof.h).
        let last = now.after(u64::from(u16::MAX)).0 >> self.period;
        let difference = last.saturating_sub(now.0 >> shift) as u32;
        // Before the first bump there is nothing to grow from.
        if self.topology != Generation::default() {
            self.topology = self.topology.after(difference);
        }
        self.policy = self.policy.policy_after(difference).policy_after(1);
        self.period = shift;
    }

    /// How far jiffies are shifted for the number of a period.
    pub fn period(&self) -> u32 {
        self.period
    }

    /// All packets go to the stack until the next [`State::bump`].
    pub fn pause(&self) -> Result<()> {
        self.write(Generation(abi::BPFW_PAUSED))
    }

    /// As [`State::pause`]; the next heartbeat is the first, and so cannot be late.
    pub fn begin_anew(&self) -> Result<()> {
        self.pause()?;
        self.beat_map.set(&0, &0)
    }

    /// All connections look their next hop up again, one write for all of them.
    pub fn bump(&mut self, change: Change) -> Result<()> {
        self.topology = self.topology.after(1);
        if change == Change::Policy {
            self.policy = self.policy.policy_after(1);
        }
        self.write(self.topology)
    }

    fn write(&self, topology: Generation) -> Result<()> {
        let (current, policy, period) = (topology.0, self.policy.0, self.period);
        let generation = bpfw_generation { current, policy, period, reserved: 0 };
        let mut context = generation.bytes().to_vec();
        sys::run_syscall(self.set_generation.as_fd(), &mut context)
            .map(drop)
            .map_err(|error| Error::system("writing the generation", error))
    }

    /// The generation of the last [`State::bump`], also in a pause; 0 before the first.
    pub fn generation(&self) -> Generation {
        self.topology
    }

    /// The time of the last heartbeat, 0 before the first.
    pub fn last_beat(&self) -> Result<Jiffies> {
        Ok(Jiffies(self.beat_map.get(&0)?.unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_stay_between_the_first_and_the_last() {
        assert_eq!(Generation::default().after(1), Generation::FIRST);
        assert_eq!(Generation::FIRST.after(1), Generation(abi::BPFW_FIRST_GENERATION + 1));
        assert_eq!(Generation(LAST.0 - 7).after(7), LAST);
        for steps in [1, 0x0fff_ffff, u32::MAX] {
            assert_eq!(LAST.after(steps), Generation::FIRST);
        }
    }
}
