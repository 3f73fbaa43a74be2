// SPDX-License-Identifier: GPL-2.0-only
//! How many cells there are. They take memory from the start, whether they are used or not.

use crate::abi::bpfw_cell;

/// For each connection: two that it takes, and two that stay free.
const EACH: u64 = 4;
/// One in so many bytes of memory is for cells, at most.
const SHARE: u64 = 64;
/// A megabyte, and what no machine needs more of.
const FEW: u64 = 8192;
const MANY: u64 = 1 << 24;

/// So many that even with all connections nearly every one finds a free cell, but no more than a
/// share of the machine's memory, in bytes. A power of two.
pub fn cells_number(max_connections: u32, memory: u64) -> u32 {
    let affordable = memory / SHARE / size_of::<bpfw_cell>() as u64;
    let most = ((affordable + 1).next_power_of_two() / 2).clamp(FEW / 8, MANY);
    let wanted = (u64::from(max_connections) * EACH).next_power_of_two();
    u32::try_from(wanted.max(FEW).min(most)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn mebibytes(max_connections: u32, memory: u64) -> f64 {
        let bytes =
            u64::from(cells_number(max_connections, memory)) * size_of::<bpfw_cell>() as u64;
        bytes as f64 / MIB as f64
    }

    #[test]
    fn four_for_each_connection_up_to_the_next_power_of_two() {
        for (connections, cells) in [(2048, 8192), (2049, 16_384), (262_144, 1 << 20)] {
            assert_eq!(cells_number(connections, 1 << 40), cells);
        }
    }

    #[test]
    fn there_are_bounds() {
        assert_eq!(mebibytes(1, 1 << 40), 1.0);
        assert_eq!(mebibytes(u32::MAX, 1 << 40), 2048.0);
        assert_eq!(mebibytes(u32::MAX, 0), 0.125);
    }

    #[test]
    fn a_sixty_fourth_of_the_memory_at_most() {
        for (memory, most) in [(128, 2.0), (255, 2.0), (256, 4.0), (512, 8.0), (24 << 10, 256.0)] {
            assert_eq!(mebibytes(16_777_216, memory * MIB), most, "{memory}");
        }
    }
}
