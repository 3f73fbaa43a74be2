// SPDX-License-Identifier: GPL-2.0-only
//! Which tuples may be in `conn_map`. Few are. Without this count, a single one would mean a system
//! call for each tuple that comes or goes, nearly always in vain.

/// Entries of `conn_map`, counted by the first of the cells that had no room for them.
pub struct Overflow {
    by_first: Vec<u8>,
    total: usize,
}

impl Overflow {
    /// None yet, for so many cells.
    pub fn new(cells: usize) -> Self {
        Self { by_first: vec![0; cells], total: 0 }
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Whether a tuple with this first cell may be one of them.
    pub fn may_have(&self, first: usize) -> bool {
        self.by_first[first] > 0
    }

    /// A tuple with this first cell has come.
    pub fn add(&mut self, first: usize) {
        self.by_first[first] = self.by_first[first].saturating_add(1);
        self.total += 1;
    }

    /// A tuple with this first cell has gone. Where there were too many to count, some may always be.
    pub fn remove(&mut self, first: usize) {
        if self.by_first[first] < u8::MAX {
            self.by_first[first] -= 1;
        }
        self.total -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_overflows_until_as_many_are_gone_as_came() {
        let mut overflow = Overflow::new(4);
        [1, 1, 3].into_iter().for_each(|first| overflow.add(first));
        overflow.remove(1);
        assert_eq!([0, 1, 2, 3].map(|first| overflow.may_have(first)), [false, true, false, true]);
        overflow.remove(1);
        assert!(!overflow.may_have(1));
        assert_eq!(overflow.total(), 1);
    }

    #[test]
    fn a_crowd_of_one_cell_is_never_taken_for_gone() {
        let mut overflow = Overflow::new(1);
        (0..300).for_each(|_| overflow.add(0));
        (0..299).for_each(|_| overflow.remove(0));
        assert!(overflow.may_have(0));
        assert_eq!(overflow.total(), 1);
    }
}
