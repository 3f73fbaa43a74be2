// SPDX-License-Identifier: GPL-2.0-only
//! What the daemon tells the datapath about itself: the topology's generation, the heartbeat.

use libbpf_rs::Object;

use super::typed_map::TypedMap;
use crate::abi::bpfw_generation;
use crate::error::Result;

/// What has changed with a new generation of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Neighbors or devices: packets leave by the same interface as before.
    NextHops,
    /// Whatever decides on the interface, too.
    Routing,
}

/// The generation, as the datapath sees it; 0 is rest.
pub struct State {
    generation_map: TypedMap<u32, bpfw_generation>,
    beat_map: TypedMap<u32, u64>,
    generation: u32,
    routing: u32,
}

impl State {
    /// The object's state: at rest.
    pub fn new(object: &Object) -> Result<Self> {
        Ok(Self {
            generation_map: TypedMap::new(object, ".data.topology")?,
            beat_map: TypedMap::new(object, ".data.beat")?,
            generation: 0,
            routing: 0,
        })
    }

    /// All packets go to the stack until the next [`State::bump`].
    pub fn rest(&self) -> Result<()> {
        self.write(0)
    }

    /// As [`State::rest`]; the next heartbeat is the first, and so cannot be late.
    pub fn begin_anew(&self) -> Result<()> {
        self.rest()?;
        self.beat_map.set(&0, &0)
    }

    /// All connections look their next hop up again, one write for all of them.
    pub fn bump(&mut self, change: Change) -> Result<()> {
        self.generation = match self.generation.wrapping_add(1) {
            0 => 1,
            next => next,
        };
        if change == Change::Routing {
            self.routing = self.generation;
        }
        self.write(self.generation)
    }

    fn write(&self, current: u32) -> Result<()> {
        self.generation_map.set(&0, &bpfw_generation { current, routing: self.routing })
    }

    /// The generation of the last [`State::bump`], also at rest; 0 before the first.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// jiffies64 at the last heartbeat, 0 before the first.
    pub fn last_beat(&self) -> Result<u64> {
        Ok(self.beat_map.get(&0)?.unwrap_or(0))
    }
}
