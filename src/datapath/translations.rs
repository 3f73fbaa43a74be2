// SPDX-License-Identifier: GPL-2.0-only
//! What becomes of the packets of translated IPv6 connections. An entry has no room for it. So it stands in
//! a map of its own, by the hash of the tuple that packets come in with.

use std::collections::HashSet;

use libbpf_rs::Object;

use super::cells;
use super::map_names;
use super::typed_map::{Inserted, TypedMap};
use crate::abi::{bpfw_conn, bpfw_settings, bpfw_translation, bpfw_tuple};
use crate::error::Result;

/// The map `translation_map`, of which no other daemon knows.
pub struct Translations {
    map: TypedMap<u64, bpfw_translation>,
    /// The keys. Without them the kernel would have to be asked for each tuple of IPv6 that goes.
    hashes: HashSet<u64>,
}

impl Translations {
    /// The object's map.
    pub fn new(object: &Object) -> Result<Self> {
        let map = TypedMap::new(object, map_names::TRANSLATION_MAP)?;
        Ok(Self { map, hashes: HashSet::new() })
    }

    /// Adds that of the tuple with this hash; `false` if there is no room.
    pub fn add(&mut self, hash: u64, translation: &bpfw_translation) -> Result<bool> {
        // Left over from a tuple whose entry went as another one's (`Cells::free`).
        self.remove(hash)?;
        let added = self.map.insert(&hash, translation)? == Inserted::New;
        if added {
            self.hashes.insert(hash);
        }
        Ok(added)
    }

    /// Removes that of the tuple with this hash, if there is one.
    pub fn remove(&mut self, hash: u64) -> Result<()> {
        if self.hashes.contains(&hash) {
            self.map.remove(&hash)?;
            self.hashes.remove(&hash);
        }
        Ok(())
    }

    /// The tuple of this connection's other direction.
    pub fn reverse(&self, conn: &bpfw_conn, settings: &bpfw_settings) -> Result<bpfw_tuple> {
        reverse(&self.map, conn, settings)
    }
}

/// The tuple of this connection's other direction. Where its translation has just gone, so has the other
/// direction: then it is a tuple that nothing is under.
pub fn reverse(
    map: &TypedMap<u64, bpfw_translation>,
    conn: &bpfw_conn,
    settings: &bpfw_settings,
) -> Result<bpfw_tuple> {
    if let Some(tuple) = conn.reverse() {
        return Ok(tuple);
    }
    let tuple = conn.tuple();
    let found = map.get(&cells::hash(&tuple, settings))?;
    Ok(found.map_or_else(|| tuple.turned_around(), |translation| translation.reverse(&tuple)))
}
