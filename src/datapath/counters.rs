// SPDX-License-Identifier: GPL-2.0-only
//! How many packets had which verdict.

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object};

use super::libbpf_error;
use crate::abi::{self, Pod, bpfw_testimony, bpfw_verdict};
use crate::error::{Error, Result};

/// The verdicts with their names for people, in the order of their numbers.
pub const VERDICTS: [(bpfw_verdict, &str); abi::BPFW_VERDICTS as usize - 1] = [
    (abi::BPFW_FORWARDED, "forwarded"),
    (abi::BPFW_DROP_ERROR, "dropped: a helper failed"),
    (abi::BPFW_PASS_REST, "passed: the fast path rests"),
    (abi::BPFW_PASS_HEARTBEAT, "passed: the daemon is late"),
    (abi::BPFW_PASS_SHORT, "passed: short frame"),
    (abi::BPFW_PASS_TAGS, "passed: several VLAN tags"),
    (abi::BPFW_PASS_NOT_IPV4, "passed: not IPv4"),
    (abi::BPFW_PASS_LINK, "passed: no interface for this tag"),
    (abi::BPFW_PASS_MAC, "passed: sent to another MAC address"),
    (abi::BPFW_PASS_IP_HEADER, "passed: bad IPv4 header"),
    (abi::BPFW_PASS_IP_OPTIONS, "passed: IPv4 options"),
    (abi::BPFW_PASS_FRAGMENT, "passed: fragment"),
    (abi::BPFW_PASS_PROTOCOL, "passed: neither TCP nor UDP"),
    (abi::BPFW_PASS_L4_HEADER, "passed: bad TCP or UDP header"),
    (abi::BPFW_PASS_UNKNOWN, "passed: connection not offloaded"),
    (abi::BPFW_PASS_REFUSED, "passed: connection refused"),
    (abi::BPFW_PASS_REUSED, "passed: connection just replaced"),
    (abi::BPFW_PASS_FINISHED, "passed: connection finished"),
    (abi::BPFW_PASS_UNASSURED, "passed: UDP not assured yet"),
    (abi::BPFW_PASS_IDLE, "passed: after a long silence"),
    (abi::BPFW_PASS_INGRESS, "passed: wrong ingress"),
    (abi::BPFW_PASS_TCP_FLAGS, "passed: TCP flags"),
    (abi::BPFW_PASS_TTL, "passed: TTL expires"),
    (abi::BPFW_PASS_TOO_BIG, "passed: larger than the MTU"),
    (abi::BPFW_PASS_PARTIAL_SUM, "passed: partial checksum"),
    (abi::BPFW_PASS_NO_ROUTE, "passed: no route"),
    (abi::BPFW_PASS_NO_NEIGHBOR, "passed: neighbor not resolved"),
    (abi::BPFW_PASS_EGRESS, "passed: egress cannot be redirected to"),
    (abi::BPFW_PASS_UNPROVEN, "passed: the stack must send one first"),
    (abi::BPFW_PASS_HOPS_FULL, "passed: next hops full"),
    (abi::BPFW_PASS_RESIZE, "passed: frame cannot be resized"),
    (abi::BPFW_PASS_SAME_LINK, "passed: out by the interface it came in at"),
];

/// What the way out made of packets with a stamp, with names for people.
pub const TESTIMONIES: [(bpfw_testimony, &str); 3] = [
    (abi::BPFW_PROVEN, "proved that the stack forwards them"),
    (abi::BPFW_STAMP_OLD, "proved nothing: something changed on their way"),
    (abi::BPFW_NO_TESTIMONY, "proved nothing: not of a connection in the table"),
];

/// The variable with the counters.
pub const COUNTERS: &str = ".data.counters";
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
        let counters = self
            .map
            .lookup(&[0; 4], MapFlags::ANY)
            .map_err(|error| libbpf_error(format!("reading the map {COUNTERS}"), &error))?;
        Ok(sum(&counters.unwrap_or_default(), verdict))
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
