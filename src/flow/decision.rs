// SPDX-License-Identifier: GPL-2.0-only
//! Whether a connection may be offloaded: guard clauses on plain facts, one reason each.

use std::net::IpAddr;

use super::state::{Status, TcpState};
use super::tuple::{Protocol, Tuple};
use crate::reasons::connection::Refusal;

/// What must be known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// How its first sender's packets come in.
    pub original: Tuple,
    /// How the answers come in.
    pub reply: Tuple,
    /// Conntrack's status bits.
    pub status: Status,
    /// Conntrack's TCP state, if it was told.
    pub tcp_state: Option<TcpState>,
    /// A helper reads along, or a SYN proxy or a sequence adjustment changes TCP's numbers.
    pub watched: bool,
    /// The zone.
    pub zone: u16,
    /// The user asked for connections with this one's mark.
    pub mark_wanted: bool,
    /// There are routing rules by mark, and this one's mark does not say what they make of it.
    pub unmarked: bool,
    /// An IPsec policy may cover it.
    pub ipsec: bool,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Forward it.
    Offload {
        /// Conntrack's ASSURED bit.
        assured: bool,
    },
    /// Leave it to the stack.
    Refuse(Refusal),
    /// The facts do not suffice: ask conntrack for all it knows.
    Ask,
}

/// Decides on one connection; `is_local` knows the machine's own addresses.
pub fn decide(facts: &Facts, is_local: impl Fn(IpAddr) -> bool) -> Decision {
    let status = facts.status;
    let assured = status.contains(Status::ASSURED);
    let refusal = if !facts.mark_wanted {
        Refusal::Mark
    } else if facts.unmarked {
        Refusal::RouteMark
    } else if !status.contains(Status::CONFIRMED) {
        Refusal::Unconfirmed
    } else if status.intersects(Status::DYING | Status::TEMPLATE | Status::UNTRACKED) {
        Refusal::Dying
    } else if facts.zone != 0 {
        Refusal::Zone
    } else if facts.watched || status.intersects(Status::SEQ_ADJUST | Status::HELPER) {
        Refusal::Watched
    } else if status.contains(Status::FIXED_TIMEOUT) {
        Refusal::FixedTimeout
    } else if status.intersects(Status::OFFLOAD | Status::HW_OFFLOAD) {
        Refusal::FlowTable
    } else if is_local(facts.original.source.ip()) || is_local(facts.reply.source.ip()) {
        // The reply's source is whom the original direction reaches after all translation.
        Refusal::Local
    } else if !is_host(facts.original) || !is_host(facts.reply) {
        Refusal::NotUnicast
    } else if !is_translated_as_it_differs(facts) {
        Refusal::NotTranslated
    } else if facts.ipsec {
        Refusal::Ipsec
    } else if !status.contains(Status::SEEN_REPLY) {
        Refusal::NoReply
    } else {
        return decide_on_state(facts, assured);
    };
    Decision::Refuse(refusal)
}

fn decide_on_state(facts: &Facts, assured: bool) -> Decision {
    match (facts.original.protocol, facts.tcp_state) {
        (Protocol::Udp, _) => Decision::Offload { assured },
        (Protocol::Tcp, None) => Decision::Ask,
        (Protocol::Tcp, Some(TcpState::Established)) if assured => Decision::Offload { assured },
        (Protocol::Tcp, Some(_)) => Decision::Refuse(Refusal::NotEstablished),
    }
}

/// Whether the kernel makes the difference between both tuples. It translates by status bits, not
/// by tuples (`nf_nat_packet` in net/netfilter/nf_nat_core.c). SRC_NAT covers the original
/// direction's source and the reply direction's destination. DST_NAT covers the other two. A
/// program can add an entry whose tuples differ without these bits; the kernel forwards its packets
/// as they are.
fn is_translated_as_it_differs(facts: &Facts) -> bool {
    let Facts { original, reply, status, .. } = facts;
    let source_stays = original.source == reply.destination;
    let destination_stays = original.destination == reply.source;
    (source_stays || status.contains(Status::SRC_NAT))
        && (destination_stays || status.contains(Status::DST_NAT))
}

/// Whether both ends have addresses that packets are forwarded from and to.
fn is_host(tuple: Tuple) -> bool {
    [tuple.source.ip(), tuple.destination.ip()].iter().all(|address| match address {
        IpAddr::V4(address) => {
            !(address.is_multicast()
                || address.is_broadcast()
                || address.is_loopback()
                || address.is_unspecified())
        }
        // The kernel forwards link-local addresses of IPv4, but none of IPv6 (`ip6_forward`).
        IpAddr::V6(address) => {
            !(address.is_multicast()
                || address.is_loopback()
                || address.is_unspecified()
                || address.is_unicast_link_local())
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const ENDS: [&str; 2] = ["192.0.2.2:1000", "198.51.100.2:53"];
    const ENDS6: [&str; 2] = ["[2001:db8:1::2]:1000", "[2001:db8:2::2]:53"];

    fn facts(protocol: Protocol) -> Facts {
        facts_between(protocol, ENDS)
    }

    fn facts_between(protocol: Protocol, ends: [&str; 2]) -> Facts {
        let [source, destination] = ends.map(|end| end.parse().unwrap());
        let original = Tuple { protocol, source, destination };
        Facts {
            original,
            reply: original.invert(),
            status: Status::CONFIRMED | Status::SEEN_REPLY | Status::ASSURED,
            tcp_state: Some(TcpState::Established),
            watched: false,
            zone: 0,
            mark_wanted: true,
            unmarked: false,
            ipsec: false,
        }
    }

    fn nobody(_: IpAddr) -> bool {
        false
    }

    #[test]
    fn established_connections_are_offloaded() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let decision = decide(&facts(protocol), nobody);
            assert_eq!(decision, Decision::Offload { assured: true });
        }
        let mut udp = facts(Protocol::Udp);
        udp.status = Status::CONFIRMED | Status::SEEN_REPLY;
        assert_eq!(decide(&udp, nobody), Decision::Offload { assured: false });
    }

    #[test]
    fn each_guard_has_its_reason() {
        type Change = fn(&mut Facts);
        let cases: [(Change, Refusal); 17] = [
            (|f| f.mark_wanted = false, Refusal::Mark),
            (|f| f.unmarked = true, Refusal::RouteMark),
            (|f| f.status = Status::SEEN_REPLY, Refusal::Unconfirmed),
            (|f| f.status = f.status | Status::DYING, Refusal::Dying),
            (|f| f.status = f.status | Status::TEMPLATE, Refusal::Dying),
            (|f| f.status = f.status | Status::UNTRACKED, Refusal::Dying),
            (|f| f.zone = 1, Refusal::Zone),
            (|f| f.watched = true, Refusal::Watched),
            (|f| f.status = f.status | Status::SEQ_ADJUST, Refusal::Watched),
            (|f| f.status = f.status | Status::HELPER, Refusal::Watched),
            (|f| f.status = f.status | Status::FIXED_TIMEOUT, Refusal::FixedTimeout),
            (|f| f.status = f.status | Status::OFFLOAD, Refusal::FlowTable),
            (|f| f.status = f.status | Status::HW_OFFLOAD, Refusal::FlowTable),
            (|f| f.original.destination.set_ip(multicast(f)), Refusal::NotUnicast),
            (|f| f.ipsec = true, Refusal::Ipsec),
            (|f| f.status = Status::CONFIRMED, Refusal::NoReply),
            (|f| f.tcp_state = Some(TcpState::FinWait), Refusal::NotEstablished),
        ];
        for ends in [ENDS, ENDS6] {
            for (number, (change, refusal)) in cases.into_iter().enumerate() {
                let mut facts = facts_between(Protocol::Tcp, ends);
                change(&mut facts);
                assert_eq!(decide(&facts, nobody), Decision::Refuse(refusal), "case {number}");
            }
        }
    }

    fn multicast(facts: &Facts) -> IpAddr {
        let is_ipv4 = facts.original.source.is_ipv4();
        if is_ipv4 { "224.0.0.1" } else { "ff0e::1" }.parse().unwrap()
    }

    #[test]
    fn hazard_42_what_ipv6_does_not_forward_stays() {
        let cases = [
            ("ff02::1", Refusal::NotUnicast),
            ("ff0e::1", Refusal::NotUnicast),
            ("fe80::1", Refusal::NotUnicast),
            ("febf::1", Refusal::NotUnicast),
            ("::", Refusal::NotUnicast),
            ("::1", Refusal::NotUnicast),
        ];
        for (address, refusal) in cases {
            let address: IpAddr = address.parse().unwrap();
            let mut to = facts_between(Protocol::Udp, ENDS6);
            to.original.destination.set_ip(address);
            to.reply.source.set_ip(address);
            let mut from = facts_between(Protocol::Udp, ENDS6);
            from.original.source.set_ip(address);
            from.reply.destination.set_ip(address);
            for facts in [to, from] {
                assert_eq!(decide(&facts, nobody), Decision::Refuse(refusal), "{facts:?}");
            }
        }
    }

    #[test]
    fn hazard_59_what_differs_needs_its_status_bit() {
        const BITS: [Status; 4] = [
            Status(0),
            Status::SRC_NAT,
            Status::DST_NAT,
            Status(Status::SRC_NAT.0 | Status::DST_NAT.0),
        ];
        // Another address or another port is a difference.
        let others = [
            (ENDS, ["203.0.113.9:1000", "192.0.2.2:53", "203.0.113.9:53"]),
            (ENDS6, ["[2001:db8:9::9]:1000", "[2001:db8:1::2]:54", "[2001:db8:9::9]:54"]),
        ];
        for (ends, other) in others.iter().flat_map(|(ends, all)| all.map(|other| (*ends, other))) {
            for (source, destination) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                for bits in BITS {
                    let mut facts = facts_between(Protocol::Udp, ends);
                    facts.status = facts.status | bits;
                    if source {
                        facts.reply.destination = other.parse().unwrap();
                    }
                    if destination {
                        facts.reply.source = other.parse().unwrap();
                    }
                    let refused = source && !bits.contains(Status::SRC_NAT)
                        || destination && !bits.contains(Status::DST_NAT);
                    let expected = if refused {
                        Decision::Refuse(Refusal::NotTranslated)
                    } else {
                        Decision::Offload { assured: true }
                    };
                    assert_eq!(decide(&facts, nobody), expected, "{facts:?}");
                }
            }
        }
    }

    #[test]
    fn tcp_without_a_state_is_asked_for() {
        let mut tcp = facts(Protocol::Tcp);
        tcp.tcp_state = None;
        assert_eq!(decide(&tcp, nobody), Decision::Ask);
        tcp.zone = 1;
        assert_eq!(decide(&tcp, nobody), Decision::Refuse(Refusal::Zone));
    }

    #[test]
    fn the_machines_own_connections_stay() {
        let local = Decision::Refuse(Refusal::Local);
        for ends in [ENDS, ENDS6] {
            for own in ends.map(|end| end.parse::<SocketAddr>().unwrap().ip()) {
                let facts = facts_between(Protocol::Udp, ends);
                assert_eq!(decide(&facts, |address| address == own), local);
            }
        }
    }
}
