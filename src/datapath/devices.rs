// SPDX-License-Identifier: GPL-2.0-only
//! The device maps: where frames come in, and how packets leave.

use libbpf_rs::Object;

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
            link_map: TypedMap::new(object, "link_map")?,
            egress_map: TypedMap::new(object, "egress_map")?,
        })
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
