// SPDX-License-Identifier: GPL-2.0-only
//! The map of cells, an array. A connection's entry is in the cell that the hash of its tuple leads
//! to, or in one of the next few. bpf/conn_table.h says why, and looks in the same places. A second
//! array has the rest of each entry, which few packets need.
//!
//! The kernel writes an array's values in place, in no order that programs could count on. A
//! half-written cell is harmless. A program uses a cell only if both its tuple and its seal match,
//! and a fresh one has no cached next hop yet. The rest is there before the cell is filled, and
//! stays when it is freed.

use std::ops::Range;

use libbpf_rs::Object;

use super::map_names;
use super::typed_map::TypedMap;
use crate::abi::{self, bpfw_cell, bpfw_conn, bpfw_rest, bpfw_settings, bpfw_tuple};
use crate::error::{Error, Result};

/// How many cells a walk reads in one slice.
const SLICE: usize = 1024;
/// This many slices of free cells count as one slice. They take well under a millisecond.
const MOST_SLICES: usize = 512;
/// From this many taken cells in a slice on, mapping them all is faster than reading one by one.
const DENSE: usize = 18;

/// The maps `conn_cells` and `conn_rests`, and which cells are taken.
pub struct Cells {
    map: TypedMap<u32, bpfw_cell>,
    rests: TypedMap<u32, bpfw_rest>,
    settings: bpfw_settings,
    /// By cell: the tag of the tuple that is in it, 0 for a free cell. Tags within reach of one
    /// tuple are distinct.
    tags: Vec<u32>,
    /// By cell, while it is taken: the lower half of the time of the last packet that conntrack was
    /// told of. 0 if of none yet.
    refreshed: Vec<u32>,
    taken: usize,
    /// Cells that are taken, but not filled yet.
    reserved: Vec<(u32, bpfw_conn)>,
}

#[derive(Clone, Copy)]
struct Place {
    first: usize,
    tag: u32,
}

/// What the object was loaded with.
pub fn loaded_settings(object: &Object) -> Result<bpfw_settings> {
    let settings: TypedMap<u32, bpfw_settings> = TypedMap::new(object, map_names::SETTINGS)?;
    Ok(settings.get(&0)?.unwrap_or_default())
}

/// As `ipv4_hash` in bpf/ipv4.h and `ipv6_hash` in bpf/ipv6.h.
pub fn hash(tuple: &bpfw_tuple, settings: &bpfw_settings) -> u64 {
    let [first, ports, more @ ..] = tuple.words();
    let hash = if tuple.is_ipv6() {
        [first].into_iter().chain(more).fold(settings.seed, hash_step)
    } else {
        let hash = (first ^ settings.seed).wrapping_mul(abi::BPFW_FACTOR as u64);
        hash ^ hash >> 32
    };
    hash.wrapping_add(ports.to_le()).wrapping_mul(settings.seed)
}

/// Both halves of the sum, multiplied: as `hash_step` in bpf/ipv6.h.
fn hash_step(hash: u64, word: u64) -> u64 {
    let sum = hash.wrapping_add(word);
    u64::from(sum as u32).wrapping_mul(sum >> 32)
}

/// The first of the cells that a tuple may be in, as in bpf/conn_table.h, and the tuple's tag. A
/// tag is never 0. Tuples with different first cells within reach of each other have different
/// tags, so only tuples with the same first cell can collide.
fn place(tuple: &bpfw_tuple, settings: &bpfw_settings) -> Place {
    let hash = hash(tuple, settings);
    let first = ((hash ^ hash >> 13) >> 32) as u32 & settings.first_mask;
    let tag = (hash as u32 | abi::BPFW_PROBES) & !(abi::BPFW_PROBES - 1);
    Place { first: first as usize, tag: tag | (first % abi::BPFW_PROBES) }
}

/// The numbers of the cells that a tuple may be in.
pub fn cells_of(tuple: &bpfw_tuple, settings: &bpfw_settings) -> Range<u32> {
    let first = place(tuple, settings).first as u32;
    first..first + abi::BPFW_PROBES
}

/// What may be done with a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// This cell is free.
    Free(u32),
    /// The tuple is in a cell already.
    Exists,
    /// No cell is free, or a tuple with the same tag is there.
    None,
}

impl Cells {
    /// The object's maps.
    pub fn new(object: &Object) -> Result<Self> {
        let map = TypedMap::new(object, map_names::CONN_CELLS)?;
        let rests: TypedMap<_, _> = TypedMap::new(object, map_names::CONN_RESTS)?;
        let settings = loaded_settings(object)?;
        let number = settings.first_mask + abi::BPFW_PROBES;
        if number != map.room() || number != rests.room() {
            return Err(Error::refused(format!(
                "the object has {} cells and {} rests instead of {number}",
                map.room(),
                rests.room()
            )));
        }
        Ok(Self {
            map,
            rests,
            settings,
            tags: vec![0; number as usize],
            refreshed: vec![0; number as usize],
            taken: 0,
            reserved: Vec::new(),
        })
    }

    fn find(&self, place: Place, tag: u32) -> Option<u32> {
        let reach = &self.tags[place.first..][..abi::BPFW_PROBES as usize];
        let index = reach.iter().position(|each| *each == tag)?;
        Some((place.first + index) as u32)
    }

    /// The cell of this tuple, or of another one that has its tag.
    fn cell_of(&self, tuple: &bpfw_tuple) -> Option<u32> {
        let place = place(tuple, &self.settings);
        self.find(place, place.tag)
    }

    /// The entry of a tuple.
    pub fn get(&self, tuple: &bpfw_tuple) -> Result<Option<bpfw_conn>> {
        let Some(number) = self.cell_of(tuple) else {
            return Ok(None);
        };
        let conn = self.read(number)?;
        Ok(conn.filter(|conn| conn.tuple() == *tuple))
    }

    /// Conntrack's id of the entry of a tuple, or of another one that has its tag.
    pub fn id(&self, tuple: &bpfw_tuple) -> Result<Option<u32>> {
        let Some(number) = self.cell_of(tuple) else {
            return Ok(None);
        };
        Ok(self.rests.get(&number)?.map(|rest| rest.id))
    }

    /// The first of the cells that a tuple may be in.
    pub fn first_of(&self, tuple: &bpfw_tuple) -> usize {
        place(tuple, &self.settings).first
    }

    fn read(&self, number: u32) -> Result<Option<bpfw_conn>> {
        let both = self.map.get(&number)?.zip(self.rests.get(&number)?);
        Ok(both.map(|(cell, rest)| bpfw_conn { cell, rest }))
    }

    /// Whether there is a free cell for a tuple.
    pub fn room_for(&self, tuple: &bpfw_tuple) -> Result<Room> {
        let place = place(tuple, &self.settings);
        if self.find(place, place.tag).is_some() {
            return Ok(if self.get(tuple)?.is_some() { Room::Exists } else { Room::None });
        }
        Ok(self.find(place, 0).map_or(Room::None, Room::Free))
    }

    /// Reserves a free cell. The next [`Cells::fill`] fills it.
    pub fn reserve(&mut self, number: u32, conn: &bpfw_conn) {
        self.tags[number as usize] = place(&conn.tuple(), &self.settings).tag;
        self.refreshed[number as usize] = 0;
        self.taken += 1;
        self.reserved.push((number, *conn));
    }

    /// Fills what has been reserved. After an error nothing of it is reserved any more.
    pub fn fill(&mut self) -> Result<()> {
        let reserved = std::mem::take(&mut self.reserved);
        if reserved.is_empty() {
            return Ok(());
        }
        let rests = self.rests.set_all(reserved.iter().map(|(number, conn)| (*number, &conn.rest)));
        if rests.is_err() {
            // No cell has been written yet.
            reserved.iter().for_each(|(number, _)| self.give_back(*number));
            return rests;
        }
        let filled = self.map.set_all(reserved.iter().map(|(number, conn)| (*number, &conn.cell)));
        if filled.is_err() {
            // Some may be filled. The first error is the one to tell.
            let numbers: Vec<u32> = reserved.iter().map(|(number, _)| *number).collect();
            let _ = self.clear(&numbers);
        }
        filled
    }

    fn give_back(&mut self, number: u32) {
        self.tags[number as usize] = 0;
        self.taken -= 1;
    }

    /// Empties cells one by one. A cell that cannot be written may have any content, so it stays
    /// taken.
    fn clear(&mut self, numbers: &[u32]) -> Result<()> {
        let mut result = Ok(());
        for number in numbers {
            match self.map.set(number, &bpfw_cell::default()) {
                Ok(()) => self.give_back(*number),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Frees the cells of these tuples; says how many there were. A tuple that is in no cell may
    /// free another one's cell, once in 2^29 times, if that has the same tag. The stack forwards
    /// that connection then.
    pub fn free(&mut self, tuples: &[bpfw_tuple]) -> Result<usize> {
        let mut numbers: Vec<u32> = tuples.iter().filter_map(|tuple| self.cell_of(tuple)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let free = bpfw_cell::default();
        let all = || numbers.iter().map(|number| (*number, &free));
        if numbers.len() > 1 && self.map.set_all(all()).is_ok() {
            numbers.iter().for_each(|number| self.give_back(*number));
        } else {
            self.clear(&numbers)?;
        }
        Ok(numbers.len())
    }

    /// The hash of a tuple, which is its key in `conn_map`.
    pub fn hash_of(&self, tuple: &bpfw_tuple) -> u64 {
        hash(tuple, &self.settings)
    }

    /// What the object was loaded with.
    pub fn settings(&self) -> &bpfw_settings {
        &self.settings
    }

    /// Whether this tuple is in a cell, or another one that has its tag.
    pub fn may_have(&self, tuple: &bpfw_tuple) -> bool {
        self.cell_of(tuple).is_some()
    }

    /// What [`Cells::set_refreshed`] was given last for this tuple, or for another one that has its tag.
    pub fn refreshed(&self, tuple: &bpfw_tuple) -> Option<u32> {
        self.cell_of(tuple).map(|number| self.refreshed[number as usize])
    }

    /// Conntrack is told of a packet of this tuple, or of another one that has its tag.
    pub fn set_refreshed(&mut self, tuple: &bpfw_tuple, low: u32) {
        if let Some(number) = self.cell_of(tuple) {
            self.refreshed[number as usize] = low;
        }
    }

    /// The daemon does not know whether conntrack was told of a packet.
    pub fn forget_refreshes(&mut self) {
        // New memory takes up room only where something is written.
        self.refreshed = vec![0; self.refreshed.len()];
    }

    /// How many cells there are.
    pub fn number(&self) -> usize {
        self.tags.len()
    }

    /// How many cells are taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The next entries from this cell on; moves it on, and says whether it came to the end.
    pub fn walk(&self, next: &mut usize, mut each: impl FnMut(bpfw_conn)) -> Result<bool> {
        for tags in self.tags[*next..].chunks(SLICE).take(MOST_SLICES) {
            let first = *next;
            *next += tags.len();
            let taken = (0..tags.len()).filter(|index| tags[*index] != 0);
            match taken.clone().count() {
                0 => continue,
                DENSE.. => self.read_all(first, tags.len(), taken, &mut each)?,
                _ => self.read_each(first, taken, &mut each)?,
            }
            break;
        }
        Ok(*next == self.tags.len())
    }

    /// The entries with these numbers, counted from `first`, among the next `number`.
    fn read_all(
        &self,
        first: usize,
        number: usize,
        indices: impl Iterator<Item = usize> + Clone,
        mut each: impl FnMut(bpfw_conn),
    ) -> Result<()> {
        let mut cells = Vec::with_capacity(number);
        self.map.read_mapped(first, number, indices.clone(), |cell| cells.push(cell))?;
        let mut cells = cells.into_iter();
        self.rests.read_mapped(first, number, indices, |rest| {
            if let Some(cell) = cells.next() {
                each(bpfw_conn { cell, rest });
            }
        })
    }

    fn read_each(
        &self,
        first: usize,
        indices: impl Iterator<Item = usize>,
        each: &mut impl FnMut(bpfw_conn),
    ) -> Result<()> {
        for index in indices {
            if let Some(conn) = self.read((first + index) as u32)? {
                each(conn);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tuple::{Protocol, Tuple};

    const NUMBER: u32 = 1 << 15;

    fn tuples(of: impl Fn(u32) -> (String, String)) -> impl Iterator<Item = bpfw_tuple> {
        (0..NUMBER / 2).map(move |number| {
            let (source, destination) = of(number);
            let at = |text: String| text.parse().expect("an address and a port");
            Tuple { protocol: Protocol::Udp, source: at(source), destination: at(destination) }
                .into()
        })
    }

    /// The share that finds no free cell when as many come as fill half of the cells.
    fn share_without(tuples: &[bpfw_tuple], seed: u64) -> f64 {
        let settings = bpfw_settings { seed, first_mask: NUMBER - 1, ..Default::default() };
        let mut taken = vec![false; (NUMBER + abi::BPFW_PROBES) as usize];
        let finds_none = |tuple: &&bpfw_tuple| {
            let found = cells_of(tuple, &settings).find(|cell| !taken[*cell as usize]);
            found.inspect(|cell| taken[*cell as usize] = true).is_none()
        };
        tuples.iter().filter(finds_none).count() as f64 / tuples.len() as f64
    }

    /// Chance would leave 2.7 % without, and the even steps of a multiplication fewer or more.
    #[test]
    fn whatever_differs_in_a_tuple_spreads_it() {
        let host = |n: u32| format!("10.1.{}.{}:4000", n >> 8, n & 255);
        let port = |n: u32| format!("10.0.0.1:{}", 1024 + n);
        let service = || "192.0.2.1:443".to_owned();
        let long = |n: u32| format!("[2001:db8::{n:x}]:4000");
        let net = |n: u32| format!("[2001:db8:0:{n:x}::1]:4000");
        let long_port = |n: u32| format!("[2001:db8::1]:{}", 1024 + n);
        let long_service = || "[2001:db8:ffff::1]:443".to_owned();
        let patterns: [Vec<bpfw_tuple>; 9] = [
            tuples(|n| (long(n), long_service())).collect(),
            tuples(|n| (long_service(), long(n))).collect(),
            tuples(|n| (net(n), long_service())).collect(),
            tuples(|n| (long_service(), net(n))).collect(),
            tuples(|n| (long_port(n), long_service())).collect(),
            tuples(|n| (port(n), service())).collect(),
            tuples(|n| (service(), port(n))).collect(),
            tuples(|n| (host(n), service())).collect(),
            tuples(|n| (service(), host(n))).collect(),
        ];
        // As the daemon takes them: random, and odd.
        let seed = |n: u64| n.wrapping_mul(0xd134_2543_de82_ef95).rotate_left(29) | 1;
        for (seed, tuples) in
            (1..=50).map(seed).flat_map(|seed| patterns.iter().map(move |of| (seed, of)))
        {
            let without = share_without(tuples, seed);
            assert!(without < 0.1, "{without} with the seed {seed:#x}: {}", tuples[1]);
        }
    }

    #[test]
    fn a_tag_tells_the_first_cells_in_reach_apart() {
        let settings = bpfw_settings { seed: 12_345, first_mask: 15, ..Default::default() };
        let tuples = tuples(|n| (format!("10.0.0.1:{}", 1024 + n), "192.0.2.1:443".to_owned()));
        let places: Vec<Place> = tuples.take(1000).map(|tuple| place(&tuple, &settings)).collect();
        for place in &places {
            assert_eq!(place.tag % abi::BPFW_PROBES, place.first as u32 % abi::BPFW_PROBES);
            assert!(place.tag >= abi::BPFW_PROBES);
        }
    }
}
