// SPDX-License-Identifier: GPL-2.0-only
//! When the XDP program last ran for an interface's frames.

use libbpf_rs::Object;

use super::Hook;
use super::map_names;
use super::typed_map::TypedMap;
use crate::abi;
use crate::error::Result;

/// The map `seen_map`, which only the hook xdp has.
pub struct Seen {
    map: Option<TypedMap<u32, u32>>,
}

impl Seen {
    /// The object's map.
    pub fn new(object: &Object, hook: Hook) -> Result<Self> {
        let map = match hook {
            Hook::Xdp => Some(TypedMap::new(object, map_names::SEEN_MAP)?),
            Hook::Tc => None,
        };
        Ok(Self { map })
    }

    /// When a frame of this interface last took the full lane, in jiffies (the lower half), 0 before
    /// the first. Interfaces whose indices differ by a multiple of [`abi::BPFW_SEEN_SLOTS`] share it.
    /// `None` at the hook tc.
    pub fn last(&self, ifindex: u32) -> Result<Option<u32>> {
        let slot = ifindex & (abi::BPFW_SEEN_SLOTS - 1);
        self.map.as_ref().map_or(Ok(None), |map| map.get(&slot))
    }
}
