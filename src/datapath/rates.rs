// SPDX-License-Identifier: GPL-2.0-only
//! How much each entry forwards, from one reading of a daemon's maps to the next. An entry never moves, so what is
//! known of it stands under its cell's number, and one that is silent costs one comparison.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::reader::Reader;
use crate::abi::{bpfw_cell, bpfw_conn, bpfw_tuple};
use crate::error::Result;

/// What the last readings have found.
pub struct Rates {
    known: Vec<Known>,
    /// Of entries that are in no cell, by their key.
    others: HashMap<u64, Known>,
    /// When each part of the cells was read.
    read_at: Vec<Option<Instant>>,
    next: usize,
}

/// An entry as it was.
#[derive(Clone, Copy, Default)]
struct Known {
    seal: u32,
    volume: u64,
    bytes: u64,
}

/// An entry that has forwarded something.
#[derive(Clone, Copy)]
pub struct Traffic {
    /// As it is now.
    pub conn: bpfw_conn,
    /// The tuple of its connection's other direction.
    pub other: bpfw_tuple,
    /// Bytes a second.
    pub rate: u64,
}

impl Rates {
    /// Nothing was read yet. Each reading takes one of so many parts.
    pub fn new(reader: &Reader, parts: usize) -> Self {
        Self {
            known: vec![Known::default(); reader.cells.len()],
            others: HashMap::new(),
            read_at: vec![None; parts],
            next: 0,
        }
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.read_at.len()
    }

    /// Reads the next part: its number, and its entries with traffic since its last reading; none at the first.
    pub fn read(&mut self, reader: &Reader) -> Result<(usize, Vec<Traffic>)> {
        let part = self.next;
        self.next = (part + 1) % self.parts();
        let now = Instant::now();
        let elapsed = self.read_at[part].replace(now).map(|before| now - before);
        let mut grown = Vec::new();
        for number in self.cells_of(part) {
            let Some(cell) = reader.cells.get(number) else { break };
            let known = &mut self.known[number];
            if cell.head.protocol == 0 || known.is(&cell) {
                continue;
            }
            // In this order: bytes that move to the rest meanwhile are missing, rather than there twice.
            let rest = reader.rests.get(number).unwrap_or_default();
            let cell = reader.cells.get(number).unwrap_or(cell);
            grown.extend(known.follow(bpfw_conn { cell, rest }));
        }
        if part == 0 {
            self.read_others(reader, &mut grown)?;
        }
        let Some(elapsed) = elapsed else { return Ok((part, Vec::new())) };
        let rate = |(conn, bytes)| {
            let other = reader.reverse(&conn)?;
            Ok(Traffic { conn, other, rate: a_second(bytes, elapsed) })
        };
        Ok((part, grown.into_iter().map(rate).collect::<Result<_>>()?))
    }

    fn cells_of(&self, part: usize) -> Range<usize> {
        let size = self.known.len().div_ceil(self.parts());
        part * size..((part + 1) * size).min(self.known.len())
    }

    /// Entries that are in no cell: few, if any.
    fn read_others(&mut self, reader: &Reader, grown: &mut Vec<(bpfw_conn, u64)>) -> Result<()> {
        let mut others = HashMap::new();
        reader.others(|key, conn| {
            let mut known = self.others.get(&key).copied().unwrap_or_default();
            grown.extend(known.follow(conn));
            others.insert(key, known);
        })?;
        self.others = others;
        Ok(())
    }
}

impl Known {
    fn is(&self, cell: &bpfw_cell) -> bool {
        (self.seal, self.volume) == (cell.seal, cell.volume)
    }

    /// What has come since; an entry that was not there before began with nothing.
    fn follow(&mut self, conn: bpfw_conn) -> Option<(bpfw_conn, u64)> {
        let (_, bytes) = conn.volume();
        let before = if self.seal == conn.cell.seal { self.bytes } else { 0 };
        *self = Self { seal: conn.cell.seal, volume: conn.cell.volume, bytes };
        // Fewer bytes: another offload of the same connection.
        let grown = bytes.saturating_sub(before);
        (grown > 0).then_some((conn, grown))
    }
}

fn a_second(bytes: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000 / elapsed.as_micros().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::bpfw_rest;

    fn conn(seal: u32, bytes: u64, moved: u64) -> bpfw_conn {
        bpfw_conn {
            cell: bpfw_cell { seal, volume: 1 << 32 | bytes, ..Default::default() },
            rest: bpfw_rest { bytes: moved, ..Default::default() },
        }
    }

    #[test]
    fn growth_is_what_has_come_since() {
        let mut known = Known::default();
        let mut grown = |conn: bpfw_conn| known.follow(conn).map(|(_, bytes)| bytes);
        assert_eq!(grown(conn(7, 100, 0)), Some(100));
        assert_eq!(grown(conn(7, 150, 0)), Some(50));
        assert_eq!(grown(conn(7, 10, 200)), Some(60), "bytes have moved to the rest");
        assert_eq!(grown(conn(7, 20, 0)), None, "offloaded again");
        assert_eq!(grown(conn(7, 25, 0)), Some(5));
        assert_eq!(grown(conn(8, 9, 0)), Some(9), "another connection");
        assert!(known.is(&conn(8, 9, 0).cell) && !known.is(&conn(8, 10, 0).cell));
    }

    #[test]
    fn a_rate_is_for_a_second() {
        let rates = [(500, 500), (1000, 1000), (7, 0)];
        let rates = rates.map(|(bytes, ms)| a_second(bytes, Duration::from_millis(ms)));
        assert_eq!(rates, [1000, 1000, 7_000_000]);
    }
}
