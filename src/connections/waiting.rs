// SPDX-License-Identifier: GPL-2.0-only
//! Connections that have just come and are not offloaded yet. Admitting one takes many times as long as
//! reading its event, and can wait. A deletion cannot: the daemon reads all events first, and admits what
//! is left of these.

use std::collections::{BTreeMap, HashMap};

use super::source::Source;
use crate::conntrack::entry::Entry;
use crate::flow::tuple::Tuple;

/// As many as the daemon admits in some tenths of a second. A connection that finds no room here is
/// signaled by its next packet.
const LIMIT: usize = 16_384;

/// The last that conntrack has said of each of them, in the order in which they came.
#[derive(Default)]
pub(super) struct Waiting {
    entries: BTreeMap<u64, (Entry, Source)>,
    /// Their numbers in `entries`, by their original tuples.
    numbers: HashMap<Tuple, u64>,
    next: u64,
}

impl Waiting {
    /// Adds a connection, or replaces what was known of it. `false` if there is no room.
    pub(super) fn put(&mut self, entry: Entry, source: Source) -> bool {
        if let Some(number) = self.numbers.get(&entry.original) {
            self.entries.insert(*number, (entry, source));
            return true;
        }
        if self.entries.len() >= LIMIT {
            return false;
        }
        self.next += 1;
        self.numbers.insert(entry.original, self.next);
        self.entries.insert(self.next, (entry, source));
        true
    }

    /// Takes out the one that has waited for longest.
    pub(super) fn take(&mut self) -> Option<(Entry, Source)> {
        let (_, (entry, source)) = self.entries.pop_first()?;
        self.numbers.remove(&entry.original);
        Some((entry, source))
    }

    /// Its entry is gone.
    pub(super) fn forget(&mut self, original: &Tuple) {
        if let Some(number) = self.numbers.remove(original) {
            self.entries.remove(&number);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tuple::Protocol;
    use std::net::{Ipv4Addr, SocketAddrV4};

    fn entry(number: u32, id: u32) -> Entry {
        let at = |bits: u32| SocketAddrV4::new(Ipv4Addr::from(bits), 7);
        let original = Tuple::new(Protocol::Udp, at(number), at(u32::MAX));
        Entry {
            original,
            reply: original.invert(),
            id,
            status: None,
            tcp_state: None,
            tcp_flags: [0; 2],
            mark: 0,
            zone: 0,
            has_helper: false,
            has_seqadj: false,
            has_synproxy: false,
            timeout: None,
        }
    }

    fn ids(waiting: &mut Waiting) -> Vec<u32> {
        std::iter::from_fn(|| waiting.take()).map(|(entry, _)| entry.id).collect()
    }

    #[test]
    fn they_come_out_in_order_with_what_was_said_last() {
        let mut waiting = Waiting::default();
        for (number, id) in [(1, 10), (2, 20), (3, 30), (1, 11)] {
            assert!(waiting.put(entry(number, id), Source::Event));
        }
        assert_eq!(ids(&mut waiting), [11, 20, 30]);
        assert_eq!(waiting.numbers.len(), 0);
    }

    #[test]
    fn hazard_04_what_has_ended_waits_no_longer() {
        let mut waiting = Waiting::default();
        for (number, id) in [(1, 10), (2, 20)] {
            waiting.put(entry(number, id), Source::Event);
        }
        waiting.forget(&entry(1, 10).original);
        // The same tuple again is another connection.
        waiting.put(entry(1, 11), Source::Event);
        assert_eq!(ids(&mut waiting), [20, 11]);
    }

    #[test]
    fn hazard_30_there_is_a_limit() {
        let mut waiting = Waiting::default();
        let number = |number: usize| u32::try_from(number).expect("a small number");
        assert!((0..LIMIT).all(|each| waiting.put(entry(number(each), 1), Source::Event)));
        assert!(!waiting.put(entry(number(LIMIT), 1), Source::Event), "there is no room");
        assert!(waiting.put(entry(0, 2), Source::Event), "what waits is replaced all the same");
        assert_eq!((waiting.len(), waiting.numbers.len()), (LIMIT, LIMIT));
    }
}
