// SPDX-License-Identifier: GPL-2.0-only
//! The next hops that the datapath has found.

use std::collections::BTreeSet;

use libbpf_rs::Object;

use super::map_names;
use super::typed_map::TypedMap;
use crate::abi::{self, bpfw_hop};
use crate::error::Result;

/// The maps `hop_index` and `hop_count`.
pub struct Hops {
    hop_index: TypedMap<bpfw_hop, u32>,
    hop_count: TypedMap<u32, u32>,
}

impl Hops {
    /// The object's maps.
    pub fn new(object: &Object) -> Result<Self> {
        Ok(Self {
            hop_index: TypedMap::new(object, map_names::HOP_INDEX)?,
            hop_count: TypedMap::new(object, map_names::HOP_COUNT)?,
        })
    }

    /// The next hops in these slots, in no order.
    pub fn in_slots(&self, slots: &BTreeSet<u32>) -> Result<Vec<bpfw_hop>> {
        let known = self.hop_index.entries()?;
        Ok(known.into_iter().filter(|(_, slot)| slots.contains(slot)).map(|(hop, _)| hop).collect())
    }

    /// How many slots are taken.
    pub fn used(&self) -> Result<u32> {
        Ok(self.hop_count.get(&0)?.unwrap_or(0))
    }

    /// Whether so many slots are taken that it is time to empty them.
    pub fn nearly_full(&self) -> Result<bool> {
        Ok(self.used()? >= abi::BPFW_HOP_SLOTS / 8 * 7)
    }

    /// Empties all slots. Only in a pause, and when it has lasted so long that no program still
    /// works with a slot that it found before.
    pub fn clear(&self) -> Result<()> {
        self.hop_index.replace_all(&[])?;
        self.hop_count.set(&0, &0)
    }
}
