// SPDX-License-Identifier: GPL-2.0-only
//! The BPF maps of a running daemon, read from outside.

use bpfw::abi::{Pod, bpfw_conn, bpfw_generation, bpfw_hop, bpfw_tuple, bpfw_verdict};
use bpfw::flow::tuple::Tuple;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};

/// Maps that a process holds open.
pub struct Maps(Vec<MapHandle>);

impl Maps {
    /// Finds them by the ids that /proc tells.
    pub fn of(pid: u32) -> Self {
        let directory = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the daemon runs");
        let ids = directory.filter_map(|file| {
            let text = fs::read_to_string(file.ok()?.path()).ok()?;
            let id = text.lines().find_map(|line| line.strip_prefix("map_id:"))?.trim();
            id.parse().ok()
        });
        Self(ids.filter_map(|id| MapHandle::from_map_id(id).ok()).collect())
    }

    fn named(&self, name: &str) -> &MapHandle {
        let found = self.0.iter().find(|map| map.name() == name);
        found.unwrap_or_else(|| panic!("the daemon has no map {name}"))
    }

    /// The entries of `conn_map`.
    pub fn connections(&self) -> Vec<bpfw_conn> {
        let map = self.named("conn_map");
        let value = |key: Vec<u8>| map.lookup(&key, MapFlags::ANY).ok().flatten();
        map.keys().filter_map(value).filter_map(|bytes| bpfw_conn::from_bytes(&bytes)).collect()
    }

    /// This direction of a connection, if it is in `conn_map`.
    pub fn connection(&self, tuple: Tuple) -> Option<bpfw_conn> {
        let key = bpfw_tuple::from(tuple);
        let entry = self.named("conn_map").lookup(key.bytes(), MapFlags::ANY);
        entry.ok().flatten().and_then(|bytes| bpfw_conn::from_bytes(&bytes))
    }

    /// Whether this direction of a connection is in `conn_map`.
    pub fn has_connection(&self, tuple: Tuple) -> bool {
        self.connection(tuple).is_some()
    }

    /// A next hop, by the slot that connections name.
    pub fn hop(&self, slot: u32) -> bpfw_hop {
        let index = self.named("hop_index");
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

    /// The topology's generation; 0 at rest.
    pub fn generation(&self) -> u32 {
        let value = self.named(".data.topology").lookup(&[0; 4], MapFlags::ANY);
        let value = value.expect("readable").expect("the only one");
        bpfw_generation::from_bytes(&value).expect("a generation").current
    }

    /// Packets with this verdict, over all CPUs.
    pub fn packets(&self, verdict: bpfw_verdict) -> u64 {
        let values = self.named("counter_map").lookup_percpu(verdict.bytes(), MapFlags::ANY);
        let values = values.expect("readable").expect("a verdict");
        values.iter().filter_map(|value| u64::from_bytes(value)).sum()
    }

    /// How many keys a map has.
    pub fn len(&self, name: &str) -> usize {
        self.named(name).keys().count()
    }
}
