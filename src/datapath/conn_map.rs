// SPDX-License-Identifier: GPL-2.0-only
//! The offloaded connections: two entries each, added and removed, never updated. Most are in
//! cells; those that find no free one are in `conn_map`.

use std::time::Instant;

use libbpf_rs::Object;

use super::cells::{self, Cells, Room};
use super::map_names;
use super::overflow::Overflow;
use super::translations::Translations;
use super::typed_map::{Cursor, Inserted, TypedMap};
use crate::abi::{
    self, bpfw_cell, bpfw_conn, bpfw_rest, bpfw_settings, bpfw_translation, bpfw_tuple,
};
use crate::clock::Jiffies;
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
    /// From then on, if ever, its packets go to the stack.
    pub pass_from: Option<Jiffies>,
    /// Conntrack's mark, which rules and routes may use.
    pub mark: u32,
    /// When the stack saw the last packet, or a time after that.
    pub seen: Jiffies,
    /// A silence in jiffies after which the next packet goes to the stack.
    pub idle_limit: u32,
}

/// One direction of a connection, as it is inserted.
struct Entry {
    tuple: bpfw_tuple,
    conn: bpfw_conn,
    /// Of IPv6 that is translated: what the entry has no room for.
    translation: Option<bpfw_translation>,
}

impl Connection {
    fn entry(&self, reply: bool, number: u32, settings: &bpfw_settings) -> Entry {
        let (tuple, other) =
            if reply { (self.reply, self.original) } else { (self.original, self.reply) };
        let translation = Translation::new(tuple, other);
        let tuple = bpfw_tuple::from(tuple);
        let encoded = translation.encode();
        let apart = (translation.is_some() && tuple.is_ipv6()).then_some(encoded);
        // The express lane does not look there.
        let idle = if apart.is_some() { 0 } else { self.express_idle() };
        let cell = bpfw_cell::of(&tuple, encoded.rewrite, idle);
        let cell = bpfw_cell {
            // Generation 0, and a number that the memory's next owner will not have.
            hop_word: u64::from(number) << 32,
            seal: seal(cells::hash(&tuple, settings), &cell, apart.as_ref()),
            last_seen: self.seen.before(1).low(),
            ..cell
        };
        let flags = [
            (reply, abi::BPFW_REST_REPLY),
            (self.assured, abi::BPFW_REST_ASSURED),
            (apart.is_some(), abi::BPFW_REST_NAT6),
        ];
        let flags = flags.into_iter().filter(|(set, _)| *set);
        let flags = flags.fold(0, |all, (_, flag)| all | flag as u16);
        let rest = bpfw_rest {
            passed_up: self.seen.0,
            // 0 means "never", and would come up once in 2^32 jiffies.
            flags,
            pass_from: self.pass_from.map_or(0, |at| at.low().max(1)),
            idle_limit: self.idle_limit,
            id: self.id,
            mark: self.mark,
            ..Default::default()
        };
        Entry { tuple, conn: bpfw_conn { cell, rest }, translation: apart }
    }

    /// The express lane does not read the rest, and would miss when conntrack must see a packet.
    fn express_idle(&self) -> u16 {
        let most = u16::try_from(self.idle_limit).unwrap_or(u16::MAX);
        if self.pass_from.is_none() { most } else { 0 }
    }
}

/// See `struct bpfw_cell`: what shows that tuple and rewrite belong together. As `take_snapshot` in
/// bpf/connection.h. IPv6 has its idle limit in place of a rewrite. Where it is translated, a number is
/// added that is never 0. So its seal is never an untranslated one's.
fn seal(hash: u64, cell: &bpfw_cell, translation: Option<&bpfw_translation>) -> u32 {
    if cell.head.is_ipv6() {
        let plain = upper(seal_step(hash.wrapping_add(cell.head.idle.into()), 0));
        let words = translation.map(bpfw_translation::words);
        let seal = words.map(|words| upper(seal_step(words.into_iter().fold(hash, seal_step), 0)));
        return plain.wrapping_add(seal.map_or(0, |seal| seal | 1));
    }
    let [first, second, third] = cell.rewrite.words();
    let seal = seal_step(seal_step(hash.wrapping_add(first), second), third);
    upper(seal_step(seal, 0))
}

fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}

fn seal_step(seal: u64, word: u64) -> u64 {
    seal.wrapping_mul(abi::BPFW_FACTOR as u64).wrapping_add(word)
}

/// What came of offloading a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// Both directions are there.
    Added,
    /// One of its tuples was there already.
    Exists,
    /// There is no room.
    Full,
}

/// The maps `conn_cells`, `conn_rests`, `conn_map` and `translation_map`, of which no other daemon knows.
pub struct ConnMap {
    cells: Cells,
    /// By the tuple's hash.
    map: TypedMap<u64, bpfw_conn>,
    /// How many are in `map`.
    overflow: Overflow,
    translations: Translations,
    /// How many may be in both.
    capacity: usize,
    /// Of the last entries that were added.
    number: u32,
}

/// A walk through all entries, which may take many calls of [`ConnMap::walk_batch`].
#[derive(Default)]
pub struct Walk {
    next_cell: usize,
    cursor: Cursor,
}

impl ConnMap {
    /// The object's maps.
    pub fn new(object: &Object) -> Result<Self> {
        let map: TypedMap<_, _> = TypedMap::new(object, map_names::CONN_MAP)?;
        let capacity = map.room() as usize;
        let cells = Cells::new(object)?;
        let overflow = Overflow::new(cells.number());
        let translations = Translations::new(object)?;
        Ok(Self { cells, map, overflow, translations, capacity, number: 0 })
    }

    /// Adds both directions of a connection, or none.
    pub fn add(&mut self, connection: &Connection) -> Result<Added> {
        Ok(self.add_all([connection])?[0])
    }

    /// The same with many, in a few calls of the kernel. After an error none of them is there, unless
    /// the kernel refuses to remove it, too.
    pub fn add_all<'a>(
        &mut self,
        connections: impl IntoIterator<Item = &'a Connection>,
    ) -> Result<Vec<Added>> {
        let mut new = Vec::new();
        let mut take_places = |connection: &'a Connection| {
            let added = self.take_places(connection)?;
            if added == Added::Added {
                new.push(connection);
            }
            Ok(added)
        };
        let added: Result<Vec<_>> = connections.into_iter().map(&mut take_places).collect();
        let filled = self.cells.fill();
        let result = added.and_then(|added| filled.map(|()| added));
        if result.is_err() {
            for connection in new {
                // The first error is the one to tell.
                let _ = self.remove(&connection.original.into(), &connection.reply.into());
            }
        }
        result
    }

    /// Adds both directions to `conn_map`, or takes their cells.
    fn take_places(&mut self, connection: &Connection) -> Result<Added> {
        // Never 0, because a hop word of 0 means that the connection is finished.
        self.number = self.number.wrapping_add(2).max(2);
        let first = connection.entry(false, self.number, self.cells.settings());
        match self.insert(&first)? {
            Inserted::New => {}
            Inserted::Exists => return Ok(Added::Exists),
            Inserted::Full => return Ok(Added::Full),
        }
        let second = connection.entry(true, self.number + 1, self.cells.settings());
        let added = match self.insert(&second) {
            Ok(Inserted::New) => return Ok(Added::Added),
            Ok(Inserted::Exists) => Ok(Added::Exists),
            Ok(Inserted::Full) => Ok(Added::Full),
            Err(error) => Err(error),
        };
        // Only a cell that is filled can be freed.
        let filled = self.cells.fill();
        self.remove_one(&first.tuple)?;
        filled?;
        added
    }

    fn insert(&mut self, entry: &Entry) -> Result<Inserted> {
        let room = self.cells.room_for(&entry.tuple)?;
        if room == Room::Exists || self.get_from_overflow(&entry.tuple)?.is_some() {
            return Ok(Inserted::Exists);
        }
        if self.len() >= self.capacity {
            return Ok(Inserted::Full);
        }
        let Some(translation) = &entry.translation else {
            return self.insert_into(room, entry);
        };
        // Before the entry, which would be of no use without.
        let hash = self.cells.hash_of(&entry.tuple);
        if !self.translations.add(hash, translation)? {
            return Ok(Inserted::Full);
        }
        let inserted = self.insert_into(room, entry);
        if !matches!(inserted, Ok(Inserted::New)) {
            self.translations.remove(hash)?;
        }
        inserted
    }

    fn insert_into(&mut self, room: Room, entry: &Entry) -> Result<Inserted> {
        let Entry { tuple, conn, .. } = entry;
        if let Room::Free(number) = room {
            self.cells.reserve(number, conn);
            return Ok(Inserted::New);
        }
        match self.map.insert(&self.cells.hash_of(tuple), conn)? {
            Inserted::New => {
                self.overflow.add(self.cells.first_of(tuple));
                Ok(Inserted::New)
            }
            // Another tuple with this hash is there: this one stays with the stack.
            Inserted::Exists | Inserted::Full => Ok(Inserted::Full),
        }
    }

    /// How many entries there are, two for each connection.
    pub fn len(&self) -> usize {
        self.cells.taken() + self.overflow.total()
    }

    /// How many entries there can be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many of these are in cells.
    pub fn in_cells(&self) -> usize {
        self.cells.taken()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of one direction.
    pub fn get(&self, tuple: &bpfw_tuple) -> Result<Option<bpfw_conn>> {
        match self.cells.get(tuple)? {
            None => self.get_from_overflow(tuple),
            found => Ok(found),
        }
    }

    /// The tuple of an entry's other direction.
    pub fn reverse(&self, conn: &bpfw_conn) -> Result<bpfw_tuple> {
        self.translations.reverse(conn, self.cells.settings())
    }

    /// How packets of the connection's first sender come in.
    pub fn original(&self, conn: &bpfw_conn) -> Result<bpfw_tuple> {
        if conn.is_reply() { self.reverse(conn) } else { Ok(conn.tuple()) }
    }

    /// Whether there is an entry with this tuple and conntrack's id.
    pub fn has(&self, tuple: &bpfw_tuple, id: u32) -> Result<bool> {
        let overflow = || self.get_from_overflow(tuple).map(|conn| conn.map(|conn| conn.rest.id));
        Ok(self.cells.id(tuple)? == Some(id) || overflow()? == Some(id))
    }

    /// Whether there may be an entry with this tuple, as far as is known without asking the kernel.
    pub fn may_have(&self, tuple: &bpfw_tuple) -> bool {
        self.cells.may_have(tuple) || self.overflow.may_have(self.cells.first_of(tuple))
    }

    fn get_from_overflow(&self, tuple: &bpfw_tuple) -> Result<Option<bpfw_conn>> {
        if !self.overflow.may_have(self.cells.first_of(tuple)) {
            return Ok(None);
        }
        let conn = self.map.get(&self.cells.hash_of(tuple))?;
        Ok(conn.filter(|conn| conn.tuple() == *tuple))
    }

    /// The lower half of the time of this tuple's last packet that conntrack was told of. 0 if of
    /// none; `None` if the tuple is in no cell.
    pub fn refreshed(&self, tuple: &bpfw_tuple) -> Option<u32> {
        self.cells.refreshed(tuple)
    }

    /// Conntrack is told of a packet of this time. Of an entry of `conn_map` that is not remembered.
    pub fn set_refreshed(&mut self, tuple: &bpfw_tuple, low: u32) {
        self.cells.set_refreshed(tuple, low);
    }

    /// The daemon does not know whether conntrack was told of a packet.
    pub fn forget_refreshes(&mut self) {
        self.cells.forget_refreshes();
    }

    /// Removes a connection by its two tuples; says whether it was there.
    pub fn remove(&mut self, tuple: &bpfw_tuple, other: &bpfw_tuple) -> Result<bool> {
        let (first, second) = (self.remove_one(tuple), self.remove_one(other));
        Ok(first? || second?)
    }

    fn remove_one(&mut self, tuple: &bpfw_tuple) -> Result<bool> {
        let removed = self.remove_from_overflow(tuple)? || self.cells.free(&[*tuple])? > 0;
        self.remove_translation(tuple)?;
        Ok(removed)
    }

    /// After the entry. Until then its packets go up, which is no harm.
    fn remove_translation(&mut self, tuple: &bpfw_tuple) -> Result<()> {
        if !tuple.is_ipv6() {
            return Ok(());
        }
        self.translations.remove(self.cells.hash_of(tuple))
    }

    fn remove_from_overflow(&mut self, tuple: &bpfw_tuple) -> Result<bool> {
        if self.get_from_overflow(tuple)?.is_none() {
            return Ok(false);
        }
        let removed = self.map.remove(&self.cells.hash_of(tuple))?;
        if removed {
            self.overflow.remove(self.cells.first_of(tuple));
        }
        Ok(removed)
    }

    /// Removes what stands under these tuples.
    pub fn remove_all(&mut self, tuples: &[bpfw_tuple]) -> Result<()> {
        let (mut in_cells, mut result) = (Vec::with_capacity(tuples.len()), Ok(()));
        for tuple in tuples {
            match self.remove_from_overflow(tuple) {
                Ok(true) => {}
                Ok(false) => in_cells.push(*tuple),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result = result.and(self.cells.free(&in_cells).map(drop));
        for tuple in tuples {
            result = result.and(self.remove_translation(tuple));
        }
        result
    }

    /// One slice of a walk through all entries; `true` if it was the last. Entries that come or go
    /// meanwhile may be missed, in `conn_map` also seen twice; all others are seen once.
    pub fn walk_batch(&self, walk: &mut Walk, mut each: impl FnMut(bpfw_conn)) -> Result<bool> {
        if !self.cells.walk(&mut walk.next_cell, &mut each)? {
            return Ok(false);
        }
        let complete = self.overflow.total() == 0
            || self.map.walk(&mut walk.cursor, Instant::now(), |_, conn| each(conn))?;
        if complete {
            *walk = Walk::default();
        }
        Ok(complete)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::flow::tuple::Protocol;

    #[test]
    fn a_translated_entry_of_ipv6_never_has_the_seal_of_an_untranslated_one() {
        let settings = bpfw_settings { seed: 0x5eed, ..Default::default() };
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address and a port");
        for port in 0..1000 {
            let source = at(&format!("[2001:db8::1]:{port}"));
            let original = Tuple::new(Protocol::Udp, source, at("[2001:db8::2]:53"));
            let tuple = bpfw_tuple::from(original);
            let hash = cells::hash(&tuple, &settings);
            let translation = Translation::new(original, original.invert()).encode();
            let cell = bpfw_cell::of(&tuple, translation.rewrite, 0);
            let (without, with) = (seal(hash, &cell, None), seal(hash, &cell, Some(&translation)));
            assert_eq!(with.wrapping_sub(without) & 1, 1, "{without:x} and {with:x}");
        }
    }

    #[test]
    fn the_express_lane_gets_no_longer_limit_and_none_where_it_must_not_look() {
        let at = |text: &str| text.parse().expect("an address and a port");
        let original = Tuple {
            protocol: Protocol::Udp,
            source: at("192.0.2.2:1000"),
            destination: at("198.51.100.2:53"),
        };
        let idle = |idle_limit, pass_from: Option<Jiffies>| {
            let reply = original.invert();
            let connection = Connection {
                original,
                reply,
                id: 1,
                assured: pass_from.is_none(),
                pass_from,
                mark: 0,
                seen: Jiffies(1),
                idle_limit,
            };
            connection.express_idle()
        };
        let limits = [15, 7500, 65_536, u32::MAX];
        assert_eq!(limits.map(|limit| idle(limit, None)), [15, 7500, 65_535, 65_535]);
        assert_eq!(idle(7500, Some(Jiffies(500))), 0);
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod order_tests;
