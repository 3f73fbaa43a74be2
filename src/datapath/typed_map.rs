// SPDX-License-Identifier: GPL-2.0-only
//! A BPF map whose keys and values have types.

use std::collections::{HashMap, TryReserveError};
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::time::Instant;

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, Object};

use super::libbpf_error;
use super::sys::{self, Batch, Mapped, Then};
use crate::abi::Pod;
use crate::error::{Error, Result};

const FIRST_BATCH: usize = 512;

/// A map of the loaded object.
pub struct TypedMap<K, V> {
    map: MapHandle,
    name: &'static str,
    types: PhantomData<(K, V)>,
}

/// A walk through a hash map, which may take many calls of [`TypedMap::walk`].
#[derive(Default)]
pub struct Cursor {
    position: Option<u64>,
    room: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Cursor {
    /// Whether the next step of the walk is its first.
    pub fn is_at_start(&self) -> bool {
        self.position.is_none()
    }
}

/// What an insert came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The entry is new.
    New,
    /// There was an entry with this key; it stays as it was.
    Exists,
    /// The map is full.
    Full,
}

impl<K: Pod, V: Pod> TypedMap<K, V> {
    /// The object's map of this name; its key and value must have the types' sizes.
    pub fn new(object: &Object, name: &'static str) -> Result<Self> {
        let map = object
            .maps()
            .find(|map| map.name() == name)
            .ok_or_else(|| Error::refused(format!("the object has no map {name}")))?;
        let map = MapHandle::try_from(&map)
            .map_err(|error| libbpf_error(format!("opening the map {name}"), &error))?;
        Self::of(map, name)
    }

    /// The same by a descriptor.
    pub fn of(map: MapHandle, name: &'static str) -> Result<Self> {
        let sizes = (map.key_size() as usize, map.value_size() as usize);
        if sizes != (size_of::<K>(), size_of::<V>()) {
            return Err(Error::refused(format!(
                "the object's map {name} has keys and values of {sizes:?} bytes instead of {:?}",
                (size_of::<K>(), size_of::<V>())
            )));
        }
        Ok(Self { map, name, types: PhantomData })
    }

    /// How many entries the map can have.
    pub fn room(&self) -> u32 {
        self.map.max_entries()
    }

    fn failed(&self, doing: &str, error: &libbpf_rs::Error) -> Error {
        libbpf_error(format!("{doing} the map {}", self.name), error)
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let bytes = self
            .map
            .lookup(key.bytes(), MapFlags::ANY)
            .map_err(|error| self.failed("reading", &error))?;
        Ok(bytes.and_then(|bytes| V::from_bytes(&bytes)))
    }

    /// Sets the value of a key, whether it is there or not.
    pub fn set(&self, key: &K, value: &V) -> Result<()> {
        self.map
            .update(key.bytes(), value.bytes(), MapFlags::ANY)
            .map_err(|error| self.failed("writing", &error))
    }

    /// Sets the values of keys, whether they are there or not, in one call.
    pub fn set_all<'a>(&self, entries: impl IntoIterator<Item = (K, &'a V)>) -> Result<()>
    where
        V: 'a,
    {
        let (mut keys, mut values, mut number) = (Vec::new(), Vec::new(), 0);
        for (key, value) in entries {
            keys.extend_from_slice(key.bytes());
            values.extend_from_slice(value.bytes());
            number += 1;
        }
        self.map
            .update_batch(&keys, &values, number, MapFlags::ANY, MapFlags::ANY)
            .map_err(|error| self.failed("writing", &error))
    }

    /// Adds a key that must not be there.
    pub fn insert(&self, key: &K, value: &V) -> Result<Inserted> {
        match self.map.update(key.bytes(), value.bytes(), MapFlags::NO_EXIST) {
            Ok(()) => Ok(Inserted::New),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Inserted::Exists),
            // E2BIG: max_entries are taken. ENOMEM: the kernel has no memory left for it.
            Err(error) if is_full(&error) => Ok(Inserted::Full),
            Err(error) => Err(self.failed("writing", &error)),
        }
    }

    /// Removes a key; `false` if it was not there.
    pub fn remove(&self, key: &K) -> Result<bool> {
        match self.map.delete(key.bytes()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("deleting from", &error)),
        }
    }

    /// Goes on with a walk until it ends (`true`) or time is up. Entries that come or go during
    /// the walk may be missed or seen twice; all others are seen once.
    pub fn walk(
        &self,
        cursor: &mut Cursor,
        until: Instant,
        each: impl FnMut(K, V),
    ) -> Result<bool> {
        self.go_on(cursor, until, Then::Stay, each)
    }

    /// The same, and takes the entries out of the map.
    pub fn take(
        &self,
        cursor: &mut Cursor,
        until: Instant,
        each: impl FnMut(K, V),
    ) -> Result<bool> {
        self.go_on(cursor, until, Then::Go, each)
    }

    fn go_on(
        &self,
        cursor: &mut Cursor,
        until: Instant,
        then: Then,
        mut each: impl FnMut(K, V),
    ) -> Result<bool> {
        loop {
            let (count, last) = self.next_batch(cursor, then)?;
            let keys = cursor.keys.chunks_exact(size_of::<K>());
            let values = cursor.values.chunks_exact(size_of::<V>());
            for (key, value) in keys.zip(values).take(count) {
                if let (Some(key), Some(value)) = (K::from_bytes(key), V::from_bytes(value)) {
                    each(key, value);
                }
            }
            if last {
                cursor.position = None;
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    fn next_batch(&self, cursor: &mut Cursor, then: Then) -> Result<(usize, bool)> {
        loop {
            let room = cursor.room.max(FIRST_BATCH);
            self.make_room(cursor, room)?;
            let batch = Batch {
                position: &mut cursor.position,
                keys: &mut cursor.keys,
                values: &mut cursor.values,
                room: room as u32,
            };
            match sys::next_batch(&self.map, batch, then) {
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOSPC) => {
                    cursor.room = room * 2;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::system(format!("walking the map {}", self.name), error));
                }
                Ok(answer) => return Ok(answer),
            }
        }
    }

    fn make_room(&self, cursor: &mut Cursor, room: usize) -> Result<()> {
        let grow =
            |buffer: &mut Vec<u8>, size: usize| -> std::result::Result<(), TryReserveError> {
                buffer.try_reserve(size.saturating_sub(buffer.len()))?;
                buffer.resize(size, 0);
                Ok(())
            };
        cursor.room = room;
        grow(&mut cursor.keys, room * size_of::<K>())
            .and_then(|()| grow(&mut cursor.values, room * size_of::<V>()))
            .map_err(|error| {
                Error::system(format!("walking the map {}", self.name), io::Error::other(error))
            })
    }

    /// All entries, for small maps.
    pub fn entries(&self) -> Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        let forever = Instant::now() + std::time::Duration::from_secs(3600);
        self.walk(&mut Cursor::default(), forever, |key, value| entries.push((key, value)))?;
        Ok(entries)
    }

    /// Makes the map hold exactly these entries; those that are right already are not touched.
    pub fn replace_all(&self, wanted: &[(K, V)]) -> Result<()> {
        let mut now = HashMap::new();
        for (key, value) in self.entries()? {
            now.insert(key.bytes().to_vec(), value);
        }
        for (key, value) in wanted {
            let known = now.remove(key.bytes());
            if known.is_none_or(|known| known.bytes() != value.bytes()) {
                self.set(key, value)?;
            }
        }
        for key in now.keys().filter_map(|bytes| K::from_bytes(bytes)) {
            self.remove(&key)?;
        }
        Ok(())
    }
}

impl<V: Pod> TypedMap<u32, V> {
    /// Values of an array that can be mapped: of `number` from `first` on, those with the given
    /// indices.
    pub fn read_mapped(
        &self,
        first: usize,
        number: usize,
        wanted: impl Iterator<Item = usize>,
        each: impl FnMut(V),
    ) -> Result<()> {
        sys::read_mapped(self.map.as_fd(), first, number, wanted, each)
            .map_err(|error| Error::system(format!("reading the map {}", self.name), error))
    }

    /// All values of an array that can be mapped, to be read in any order.
    pub fn map_all(&self) -> Result<Mapped<V>> {
        Mapped::new(self.map.as_fd(), self.room() as usize)
            .map_err(|error| Error::system(format!("reading the map {}", self.name), error))
    }
}

fn is_full(error: &libbpf_rs::Error) -> bool {
    matches!(error.kind(), ErrorKind::TooBig | ErrorKind::OutOfMemory)
}
