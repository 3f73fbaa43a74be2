// SPDX-License-Identifier: GPL-2.0-only
//! The BPF maps of a running daemon, read from outside.

use bpfw::abi::{
    self, Pod, bpfw_cell, bpfw_conn, bpfw_generation, bpfw_hop, bpfw_rest, bpfw_settings,
    bpfw_tuple, bpfw_verdict,
};
use bpfw::datapath::cells::{cells_of, hash};
use bpfw::datapath::counters;
use bpfw::datapath::map_names::{CONN_CELLS, CONN_MAP, CONN_RESTS, COUNTERS, HOP_INDEX, TOPOLOGY};
use bpfw::datapath::sys::read_mapped;
use bpfw::flow::tuple::Tuple;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::cell::OnceCell;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};

/// What 15 characters, all that the kernel keeps, leave of the name of section .rodata.settings.
const SETTINGS: &str = ".rodata.setting";
/// Two megabytes.
const CELLS_AT_ONCE: usize = 16384;

/// Maps that a process holds open.
pub struct Maps {
    all: Vec<MapHandle>,
    /// Read once: they never change.
    settings: OnceCell<bpfw_settings>,
}

impl Maps {
    /// Finds them by the ids that /proc tells.
    pub fn of(pid: u32) -> Self {
        let directory = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the daemon runs");
        let ids = directory.filter_map(|file| {
            let text = fs::read_to_string(file.ok()?.path()).ok()?;
            let id = text.lines().find_map(|line| line.strip_prefix("map_id:"))?.trim();
            id.parse().ok()
        });
        let all = ids.filter_map(|id| MapHandle::from_map_id(id).ok()).collect();
        Self { all, settings: OnceCell::new() }
    }

    fn named(&self, name: &str) -> &MapHandle {
        let found = self.all.iter().find(|map| map.name() == name);
        found.unwrap_or_else(|| panic!("the daemon has no map {name}"))
    }

    /// The offloaded connections' entries.
    pub fn connections(&self) -> Vec<bpfw_conn> {
        let map = self.named(CONN_MAP);
        let spilled = map.keys().filter_map(|key| self.value(map, &key));
        self.taken_cells().chain(spilled).collect()
    }

    /// Cells are many, and most are free.
    fn taken_cells(&self) -> impl Iterator<Item = bpfw_conn> {
        let (cells, rests) = (self.named(CONN_CELLS), self.named(CONN_RESTS));
        let mut taken = Vec::new();
        for first in (0..cells.max_entries() as usize).step_by(CELLS_AT_ONCE) {
            let number = CELLS_AT_ONCE.min(cells.max_entries() as usize - first);
            let (mut found, mut indices, mut index) = (Vec::new(), Vec::new(), 0..);
            let keep = |cell: bpfw_cell| {
                let index = index.next().expect("endless");
                if cell.head.protocol != 0 {
                    found.push(cell);
                    indices.push(index);
                }
            };
            read_mapped(cells.as_fd(), first, number, 0..number, keep).expect("an array");
            let mut found = found.into_iter();
            let both = |rest: bpfw_rest| {
                taken.push(bpfw_conn { cell: found.next().expect("one for each"), rest });
            };
            read_mapped(rests.as_fd(), first, number, indices.into_iter(), both).expect("an array");
        }
        taken.into_iter()
    }

    fn value<V: Pod>(&self, map: &MapHandle, key: &[u8]) -> Option<V> {
        map.lookup(key, MapFlags::ANY).ok().flatten().and_then(|bytes| V::from_bytes(&bytes))
    }

    /// The number of the cell with this tuple, and what is in it.
    fn cell(&self, key: &bpfw_tuple) -> Option<(u32, bpfw_cell)> {
        let cells = self.named(CONN_CELLS);
        cells_of(key, self.settings()).find_map(|number| {
            let cell: bpfw_cell = self.value(cells, number.bytes())?;
            (cell.tuple() == *key).then_some((number, cell))
        })
    }

    /// What is in `conn_map` under this tuple.
    fn spilled(&self, key: &bpfw_tuple) -> Option<bpfw_conn> {
        let conn = self.value(self.named(CONN_MAP), hash(key, self.settings()).bytes());
        conn.filter(|conn: &bpfw_conn| conn.tuple() == *key)
    }

    fn settings(&self) -> &bpfw_settings {
        let read = || self.value(self.named(SETTINGS), &[0; 4]).expect("readable");
        self.settings.get_or_init(read)
    }

    /// This direction of a connection, if it is offloaded.
    pub fn connection(&self, tuple: Tuple) -> Option<bpfw_conn> {
        let key = bpfw_tuple::from(tuple);
        let Some((number, cell)) = self.cell(&key) else {
            return self.spilled(&key);
        };
        let rest = self.value(self.named(CONN_RESTS), number.bytes())?;
        Some(bpfw_conn { cell, rest })
    }

    /// How many entries there are, two for each offloaded connection.
    pub fn entries(&self) -> usize {
        self.taken_cells().count() + self.named(CONN_MAP).keys().count()
    }

    /// Whether this direction of a connection is offloaded.
    pub fn has_connection(&self, tuple: Tuple) -> bool {
        let key = bpfw_tuple::from(tuple);
        self.cell(&key).is_some() || self.spilled(&key).is_some()
    }

    /// A next hop, by the slot that connections name.
    pub fn hop(&self, slot: u32) -> bpfw_hop {
        let index = self.named(HOP_INDEX);
        let is_there = |hop: &Vec<u8>| {
            let known = index.lookup(hop, MapFlags::ANY).expect("readable");
            known.is_some_and(|known| known == slot.to_ne_bytes())
        };
        let hop = index.keys().find(is_there).expect("a slot in use");
        bpfw_hop::from_bytes(&hop).expect("a next hop")
    }

    /// Bytes that the kernel says a map takes.
    pub fn memory(&self, name: &str) -> u64 {
        let path = format!("/proc/self/fdinfo/{}", self.named(name).as_fd().as_raw_fd());
        let text = fs::read_to_string(path).expect("the map is open");
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).expect("its memory");
        line.trim().parse().expect("a number")
    }

    /// The topology's generation; 0 in a pause.
    pub fn generation(&self) -> u32 {
        let current = self.generations().current;
        if current == abi::BPFW_PAUSED { 0 } else { current }
    }

    /// How far jiffies are shifted for the number of a period.
    pub fn period(&self) -> u32 {
        self.generations().period
    }

    fn generations(&self) -> bpfw_generation {
        let value = self.named(TOPOLOGY).lookup(&[0; 4], MapFlags::ANY);
        let value = value.expect("readable").expect("the only one");
        bpfw_generation::from_bytes(&value).expect("a generation")
    }

    /// Packets with this verdict, over all CPUs.
    pub fn packets(&self, verdict: bpfw_verdict) -> u64 {
        let counters = self.named(COUNTERS).lookup(&[0; 4], MapFlags::ANY);
        counters::sum(&counters.expect("readable").expect("the only one"), verdict)
    }
}
