// SPDX-License-Identifier: GPL-2.0-only
//! How many cells there are. They take memory from the start, whether they are used or not.
//! What happens if the kernel has not enough: `load_error` in `object.rs`.

use crate::abi::bpfw_conn;

/// For each connection: two that it takes, and two that stay free.
const EACH: u64 = 4;
/// One in so many bytes of memory is for cells, at most.
const SHARE: u64 = 32;
/// About a megabyte.
const FEW: u64 = 8192;
/// What no machine needs more of.
const MANY: u64 = 1 << 24;

/// The number of cells, a power of two. Even with all connections, nearly every one finds a free
/// cell. All cells take at most a share of the machine's memory (in bytes), unless that is too
/// small for any use.
pub fn cells_number(max_connections: u32, memory: u64) -> u32 {
    let affordable = memory / SHARE / size_of::<bpfw_conn>() as u64;
    let most = ((affordable + 1).next_power_of_two() / 2).clamp(FEW / 8, MANY);
    let wanted = (u64::from(max_connections) * EACH).next_power_of_two();
    u32::try_from(wanted.max(FEW).min(most)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn four_for_each_connection_up_to_the_next_power_of_two() {
        for (connections, cells) in [(2048, 8192), (2049, 16_384), (262_144, 1 << 20)] {
            assert_eq!(cells_number(connections, 1 << 40), cells);
        }
    }

    #[test]
    fn there_are_bounds() {
        assert_eq!(cells_number(1, 1 << 40), 8192);
        assert_eq!(cells_number(u32::MAX, 1 << 40), 1 << 24);
        assert_eq!(cells_number(u32::MAX, 0), 1024);
    }

    #[test]
    fn a_thirty_second_of_the_memory_at_most() {
        for (memory, cells) in [(60, 1 << 14), (119, 1 << 14), (120, 1 << 15), (24 << 10, 1 << 22)]
        {
            assert_eq!(cells_number(16_777_216, memory * MIB), cells, "{memory}");
            assert!(u64::from(cells) * size_of::<bpfw_conn>() as u64 * 32 <= memory * MIB);
        }
    }
}
