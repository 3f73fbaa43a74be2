// SPDX-License-Identifier: GPL-2.0-only
//! The map of offloaded connections: two entries each, inserted and deleted, never updated.

use std::time::Instant;

use libbpf_rs::Object;

use super::typed_map::{Cursor, Inserted, TypedMap};
use crate::abi::{self, Pod, bpfw_conn, bpfw_rewrite, bpfw_tuple};
use crate::error::Result;
use crate::flow::translation::Translation;
use crate::flow::tuple::Tuple;

/// A connection as the daemon hands it to the datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The tuple of the original direction.
    pub original: Tuple,
    /// The tuple of the reply direction.
    pub reply: Tuple,
    /// Conntrack's id.
    pub id: u32,
    /// Conntrack's ASSURED bit.
    pub assured: bool,
    /// jiffies64 from which its packets go to the stack, 0 for never.
    pub pass_from: u64,
    /// The generation of the topology in which the stack forwarded a packet of it.
    pub since: u32,
    /// The bits of conntrack's mark that packets are routed by.
    pub mark: u32,
    /// jiffies64 of the last packet that the stack saw, or a time after it.
    pub seen: u64,
    /// A silence in jiffies after which the next packet goes to the stack.
    pub idle_limit: u32,
}

impl Connection {
    fn entry(&self, reply: bool) -> (bpfw_tuple, bpfw_conn) {
        let (tuple, other) =
            if reply { (self.reply, self.original) } else { (self.original, self.reply) };
        let mut rewrite = Translation::new(tuple, other).rewrite();
        let tuple = bpfw_tuple::from(tuple);
        for (set, flag) in [(reply, abi::BPFW_CONN_REPLY), (self.assured, abi::BPFW_CONN_ASSURED)] {
            rewrite.flags |= if set { flag as u16 } else { 0 };
        }
        let seal = seal(&tuple, &rewrite);
        let conn = bpfw_conn {
            tuple,
            rewrite,
            seal,
            // Generation 0, and a number that the memory's next owner will not have.
            hop_word: u64::from(self.id ^ u32::from(reply)),
            // 0 is "never", and comes up once in 2^32 jiffies.
            pass_from: if self.pass_from == 0 { 0 } else { (self.pass_from as u32).max(1) },
            id: self.id,
            since: self.since,
            passed_up: self.seen,
            idle_limit: self.idle_limit,
            mark: self.mark,
            mark_seal: seal_step(seal, self.mark.into()) as u32,
            ..Default::default()
        };
        (tuple, conn)
    }
}

/// See `struct bpfw_conn`: what makes tuple and rewrite recognisable as belonging together.
fn seal(tuple: &bpfw_tuple, rewrite: &bpfw_rewrite) -> u64 {
    tuple.bytes().chunks_exact(8).chain(rewrite.bytes().chunks_exact(8)).fold(0, |seal, bytes| {
        let mut word = [0; 8];
        word.copy_from_slice(bytes);
        seal_step(seal, u64::from_ne_bytes(word))
    })
}

fn seal_step(seal: u64, word: u64) -> u64 {
    seal.wrapping_mul(abi::BPFW_SEAL_FACTOR as u64).wrapping_add(word)
}

/// What came of offloading a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// Both directions are in the map.
    Added,
    /// One of its tuples is there already.
    Exists,
    /// There is no room.
    Full,
}

/// The map `conn_map`.
pub struct ConnMap {
    map: TypedMap<bpfw_tuple, bpfw_conn>,
}

impl ConnMap {
    /// The object's map.
    pub fn new(object: &Object) -> Result<Self> {
        Ok(Self { map: TypedMap::new(object, "conn_map")? })
    }

    /// Adds both directions, or none.
    pub fn add(&self, connection: &Connection) -> Result<Added> {
        let (first, value) = connection.entry(false);
        match self.map.insert(&first, &value)? {
            Inserted::New => {}
            Inserted::Exists => return Ok(Added::Exists),
            Inserted::Full => return Ok(Added::Full),
        }
        let (second, value) = connection.entry(true);
        let added = match self.map.insert(&second, &value) {
            Ok(Inserted::New) => return Ok(Added::Added),
            Ok(Inserted::Exists) => Ok(Added::Exists),
            Ok(Inserted::Full) => Ok(Added::Full),
            Err(error) => Err(error),
        };
        self.map.remove(&first)?;
        added
    }

    /// The entry of one direction.
    pub fn get(&self, tuple: &bpfw_tuple) -> Result<Option<bpfw_conn>> {
        self.map.get(tuple)
    }

    /// Removes a connection by its two tuples; says whether it was there.
    pub fn remove(&self, tuple: &bpfw_tuple, other: &bpfw_tuple) -> Result<bool> {
        let first = self.map.remove(tuple)?;
        let second = self.map.remove(other)?;
        Ok(first || second)
    }

    /// Removes what stands under these tuples.
    pub fn remove_all(&self, tuples: &[bpfw_tuple]) -> Result<()> {
        self.map.remove_all(tuples)
    }

    /// One batch of a walk through all entries, see [`TypedMap::walk`].
    pub fn walk_batch(&self, cursor: &mut Cursor, mut each: impl FnMut(bpfw_conn)) -> Result<bool> {
        self.map.walk(cursor, Instant::now(), |_, conn| each(conn))
    }
}
