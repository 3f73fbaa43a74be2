// SPDX-License-Identifier: GPL-2.0-only
//! The device maps: where frames come in, and how packets leave.

use libbpf_rs::Object;

use super::map_names;
use super::typed_map::TypedMap;
use crate::abi::{bpfw_egress, bpfw_link, bpfw_link_key};
use crate::error::Result;

/// The maps `link_map` and `egress_map`.
pub struct Devices {
    link_map: TypedMap<bpfw_link_key, bpfw_link>,
    egress_map: TypedMap<u32, bpfw_egress>,
}

impl Devices {
    /// The object's maps.
    pub fn new(object: &Object) -> Result<Self> {
        Ok(Self {
            link_map: TypedMap::new(object, map_names::LINK_MAP)?,
            egress_map: TypedMap::new(object, map_names::EGRESS_MAP)?,
        })
    }

    /// How many entries either map can have.
    pub fn room(&self) -> usize {
        self.link_map.room().min(self.egress_map.room()) as usize
    }

    /// What the datapath has counted for each L3 interface, since the interface was last set.
    pub fn counted(&self) -> Result<Vec<(u32, bpfw_egress)>> {
        self.egress_map.entries()
    }

    /// Makes the maps hold exactly this.
    pub fn set(
        &self,
        links: &[(bpfw_link_key, bpfw_link)],
        egresses: &[(u32, bpfw_egress)],
    ) -> Result<()> {
        self.link_map.replace_all(links)?;
        self.egress_map.replace_all(egresses)
    }
}
