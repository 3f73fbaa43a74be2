// SPDX-License-Identifier: GPL-2.0-only
//! What becomes of a packet, and why. The BPF programs count packets by these numbers.

use super::Reason;
use crate::abi;

/// The verdicts, in the order of their numbers.
pub const VERDICTS: [Reason; abi::BPFW_VERDICTS as usize - 1] = [
    Reason::new(abi::BPFW_FORWARDED, "forwarded", "forwarded"),
    Reason::new(abi::BPFW_DROP_ERROR, "drop-error", "a helper failed on a packet already changed")
        .advise("please report it"),
    Reason::new(abi::BPFW_PASS_PAUSED, "paused", "the fast path pauses"),
    Reason::new(abi::BPFW_PASS_HEARTBEAT, "heartbeat", "the daemon is late")
        .advise("see that bpfw is not stopped, and give it priority: nice -n -10"),
    Reason::new(abi::BPFW_PASS_SHORT, "short", "short frame"),
    Reason::new(abi::BPFW_PASS_TAGS, "tags", "several VLAN tags"),
    Reason::new(abi::BPFW_PASS_NOT_IP, "not-ip", "neither IPv4 nor IPv6"),
    Reason::new(abi::BPFW_PASS_LINK, "link", "no interface for this tag")
        .advise("add a VLAN device for the tag, or name the one there is"),
    Reason::new(abi::BPFW_PASS_MAC, "mac", "sent to another MAC address"),
    Reason::new(abi::BPFW_PASS_IP_HEADER, "ip-header", "bad IP header"),
    Reason::new(abi::BPFW_PASS_IP_OPTIONS, "ip-options", "IP options or extension headers"),
    Reason::new(abi::BPFW_PASS_FRAGMENT, "fragment", "fragment")
        .advise("have the firewall clamp TCP's MSS to the path MTU"),
    Reason::new(abi::BPFW_PASS_PROTOCOL, "protocol", "neither TCP nor UDP"),
    Reason::new(abi::BPFW_PASS_L4_HEADER, "l4-header", "bad TCP or UDP header"),
    Reason::new(abi::BPFW_PASS_UNKNOWN, "unknown", "connection not offloaded"),
    Reason::new(abi::BPFW_PASS_REFUSED, "refused", "connection refused by the daemon"),
    Reason::new(abi::BPFW_PASS_REUSED, "reused", "connection just replaced"),
    Reason::new(abi::BPFW_PASS_FINISHED, "finished", "connection finished"),
    Reason::new(abi::BPFW_PASS_UNASSURED, "unassured", "UDP not assured yet"),
    Reason::new(abi::BPFW_PASS_IDLE, "idle", "after a long silence"),
    Reason::new(abi::BPFW_PASS_INGRESS, "ingress", "wrong ingress")
        .advise("compare the routes of both directions: ip route get"),
    Reason::new(abi::BPFW_PASS_TCP_FLAGS, "tcp-flags", "TCP flags"),
    Reason::new(abi::BPFW_PASS_TTL, "ttl", "TTL or hop limit expires"),
    Reason::new(abi::BPFW_PASS_TOO_BIG, "too-big", "larger than the MTU")
        .advise("have the firewall clamp TCP's MSS to the path MTU"),
    Reason::new(abi::BPFW_PASS_PARTIAL_SUM, "partial-sum", "partial checksum")
        .advise("use the hook tc"),
    Reason::new(abi::BPFW_PASS_NO_ROUTE, "no-route", "no route"),
    Reason::new(abi::BPFW_PASS_NO_NEIGHBOR, "no-neighbor", "neighbor not resolved")
        .advise("see whether the next hop answers ARP or neighbor discovery: ip neigh"),
    Reason::new(abi::BPFW_PASS_EGRESS, "egress", "egress cannot be redirected to")
        .advise("name the interface when starting bpfw, or see what it warned of"),
    Reason::new(abi::BPFW_PASS_UNPROVEN, "unproven", "the stack must send one first"),
    Reason::new(abi::BPFW_PASS_HOPS_FULL, "hops-full", "next hops full"),
    Reason::new(abi::BPFW_PASS_RESIZE, "resize", "frame cannot be resized"),
    Reason::new(abi::BPFW_PASS_SAME_LINK, "same-link", "out by the interface it came in at"),
];

/// What the way out makes of packets that carry a stamp, in the order of their numbers.
pub const TESTIMONIES: [Reason; (abi::BPFW_TESTIMONIES - abi::BPFW_VERDICTS) as usize] = [
    Reason::new(abi::BPFW_PROVEN, "proven", "proved that the stack forwards them"),
    Reason::new(abi::BPFW_STAMP_OLD, "stamp-old", "proved nothing: something changed on their way"),
    Reason::new(abi::BPFW_NO_TESTIMONY, "no-testimony", "proved nothing: of no known connection"),
];

/// One line: what became of so many packets.
pub fn summary(reason: &Reason, packets: u64) -> String {
    let words = reason.words;
    match reason.number {
        abi::BPFW_FORWARDED | abi::BPFW_VERDICTS.. => format!("{packets} packets {words}"),
        abi::BPFW_DROP_ERROR => format!("{packets} packets dropped: {words}"),
        _ => format!("{packets} packets passed up: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_became_of_the_packets() {
        let summary = |number: u32, packets| summary(&VERDICTS[number as usize - 1], packets);
        assert_eq!(summary(abi::BPFW_FORWARDED, 7), "7 packets forwarded");
        assert_eq!(summary(abi::BPFW_PASS_TTL, 2), "2 packets passed up: TTL or hop limit expires");
        assert!(summary(abi::BPFW_DROP_ERROR, 1).starts_with("1 packets dropped: "));
        let proven = super::summary(&TESTIMONIES[0], 3);
        assert_eq!(proven, "3 packets proved that the stack forwards them");
    }
}
