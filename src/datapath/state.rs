// SPDX-License-Identifier: GPL-2.0-only
//! What the daemon tells the datapath about itself: the topology's generation, the heartbeat.

use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::Object;

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

/// The last generation: there must be room for the number of a period above it. With 50 changes a
/// second it comes after a year. A period that becomes longer takes up to some millions more
/// away ([`State::set_period`]). After the last generation comes the first one: by then, no entry
/// has an old sum any more, because entries that nobody looks up for so long have gone.
const LAST: u32 = 0xf000_0000;

/// The generation so many steps after this one.
fn after(generation: u32, steps: u32) -> u32 {
    match generation.checked_add(steps) {
        Some(next @ abi::BPFW_FIRST_GENERATION..=LAST) => next,
        _ => abi::BPFW_FIRST_GENERATION,
    }
}

/// The generation, as the datapath sees it.
pub struct State {
    set_generation: OwnedFd,
    beat_map: TypedMap<u32, u64>,
    generation: bpfw_generation,
}

impl State {
    /// The object's state: at rest.
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
            beat_map: TypedMap::new(object, ".data.beat")?,
            generation: bpfw_generation { period: NO_PERIODS, ..Default::default() },
        })
    }

    /// Sets how far jiffies are shifted for the number of a period, as of the next
    /// [`State::bump`]. Only at rest, and when no program still runs that began before: none has
    /// seen a later time than `now`.
    pub fn set_period(&mut self, shift: u32, now: Jiffies) {
        // Sums of a generation and the number of a period must not come twice: the largest that has
        // come yet, with the largest stagger (period_of in bpf/proof.h), and the least to come.
        let last = now.after(u64::from(u16::MAX)).0 >> self.generation.period;
        let difference = last.saturating_sub(now.0 >> shift) as u32;
        let generation = &mut self.generation;
        // Before the first bump there is nothing to grow from.
        if generation.current != 0 {
            generation.current = after(generation.current, difference);
        }
        generation.policy = generation.policy.wrapping_add(difference).wrapping_add(1);
        generation.period = shift;
    }

    /// How far jiffies are shifted for the number of a period.
    pub fn period(&self) -> u32 {
        self.generation.period
    }

    /// All packets go to the stack until the next [`State::bump`].
    pub fn rest(&self) -> Result<()> {
        self.write(bpfw_generation { current: abi::BPFW_PAUSED, ..self.generation })
    }

    /// As [`State::rest`]; the next heartbeat is the first, and so cannot be late.
    pub fn begin_anew(&self) -> Result<()> {
        self.rest()?;
        self.beat_map.set(&0, &0)
    }

    /// All connections look their next hop up again, one write for all of them.
    pub fn bump(&mut self, change: Change) -> Result<()> {
        let generation = &mut self.generation;
        generation.current = after(generation.current, 1);
        if change == Change::Policy {
            generation.policy = generation.policy.wrapping_add(1);
        }
        self.write(self.generation)
    }

    fn write(&self, generation: bpfw_generation) -> Result<()> {
        let mut context = generation.bytes().to_vec();
        sys::run_syscall(self.set_generation.as_fd(), &mut context)
            .map(drop)
            .map_err(|error| Error::system("writing the generation", error))
    }

    /// The generation of the last [`State::bump`], also at rest; 0 before the first.
    pub fn generation(&self) -> u32 {
        self.generation.current
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
        assert_eq!(after(0, 1), abi::BPFW_FIRST_GENERATION);
        assert_eq!(after(abi::BPFW_FIRST_GENERATION, 1), abi::BPFW_FIRST_GENERATION + 1);
        assert_eq!(after(LAST - 7, 7), LAST);
        for steps in [1, 0x0fff_ffff, u32::MAX] {
            assert_eq!(after(LAST, steps), abi::BPFW_FIRST_GENERATION);
        }
    }
}
