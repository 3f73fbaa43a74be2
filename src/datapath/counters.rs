// SPDX-License-Identifier: GPL-2.0-only
//! How many packets had which verdict.

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object};

use super::libbpf_error;
use super::map_names::COUNTERS;
use crate::abi::{self, Pod, bpfw_verdict};
use crate::error::{Error, Result};

/// Bytes of one CPU's.
const ROW: usize = abi::BPFW_COUNTERS as usize * size_of::<u64>();

/// Packets by verdict, as each CPU counts them.
pub struct Counters {
    map: MapHandle,
}

impl Counters {
    /// The object's counters.
    pub fn new(object: &Object) -> Result<Self> {
        let map = object
            .maps()
            .find(|map| map.name() == COUNTERS)
            .ok_or_else(|| Error::refused(format!("the object has no map {COUNTERS}")))?;
        let map = MapHandle::try_from(&map)
            .map_err(|error| libbpf_error(format!("opening the map {COUNTERS}"), &error))?;
        Ok(Self { map })
    }

    /// Packets with this verdict since the load, over all CPUs.
    pub fn packets(&self, verdict: bpfw_verdict) -> Result<u64> {
        Ok(sum(&self.read()?, verdict))
    }

    /// All counters of all CPUs, for [`sum`].
    pub fn read(&self) -> Result<Vec<u8>> {
        let counters = self.map.lookup(&[0; 4], MapFlags::ANY);
        let counters = counters
            .map_err(|error| libbpf_error(format!("reading the map {COUNTERS}"), &error))?;
        Ok(counters.unwrap_or_default())
    }
}

/// The sum over all CPUs of what is in the variable.
pub fn sum(counters: &[u8], verdict: bpfw_verdict) -> u64 {
    let at = verdict as usize * size_of::<u64>();
    let packets = |row: &[u8]| u64::from_bytes(&row[at..][..size_of::<u64>()]).unwrap_or_default();
    counters.chunks_exact(ROW).map(packets).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cpus_count_those_beyond_too() {
        let rows = abi::BPFW_COUNTING_CPUS as usize + 1;
        let mut counters = vec![0; rows * ROW];
        for (row, packets) in [(0, 1_u64), (1, 20), (rows - 1, 300)] {
            let at = row * ROW + abi::BPFW_PASS_TTL as usize * size_of::<u64>();
            counters[at..][..size_of::<u64>()].copy_from_slice(packets.bytes());
        }
        assert_eq!(sum(&counters, abi::BPFW_PASS_TTL), 321);
        assert_eq!(sum(&counters, abi::BPFW_PASS_TTL + 1), 0);
        assert_eq!(sum(&counters, abi::BPFW_PASS_TTL - 1), 0);
    }
}
