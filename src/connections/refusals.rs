// SPDX-License-Identifier: GPL-2.0-only
//! How often connections were refused, and why.

use std::collections::BTreeMap;

use crate::reasons::connection::Refusal;

/// Refusals by reason. A connection counts each time that it is looked at.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: BTreeMap<Refusal, u64>,
}

impl Refusals {
    /// Counts one. Warns of the first for want of room, because the user can change that.
    pub(super) fn note(&mut self, refusal: Refusal) {
        let count = self.counts.entry(refusal).or_default();
        *count = count.wrapping_add(1);
        if *count == 1 && refusal == Refusal::Full {
            tracing::warn!("{}: further ones stay with the stack", refusal.reason().line());
        }
    }

    /// All reasons that there were, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        self.counts.iter().map(|(refusal, count)| (*refusal, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_by_itself() {
        let mut refusals = Refusals::default();
        for refusal in [Refusal::Zone, Refusal::Full, Refusal::Zone] {
            refusals.note(refusal);
        }
        assert_eq!(refusals.iter().collect::<Vec<_>>(), [(Refusal::Zone, 2), (Refusal::Full, 1)]);
    }
}
