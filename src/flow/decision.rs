// SPDX-License-Identifier: GPL-2.0-only
//! Whether a connection may be offloaded: guard clauses on plain facts, one reason each.

use std::fmt;
use std::net::Ipv4Addr;

use super::state::{Status, TcpState};
use super::tuple::{Protocol, Tuple};

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
    pub covered: bool,
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

/// Why a connection stays with the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Refusal {
    /// Conntrack does not know the connection.
    NotTracked = 1,
    /// The user asked for connections with another mark.
    Mark,
    /// Routing rules go by marks, and it has none that they could go by.
    RouteMark,
    /// Its first packet has not left the machine yet.
    Unconfirmed,
    /// The entry is on its way out, or not a connection's.
    Dying,
    /// It belongs to a conntrack zone, which packets do not show.
    Zone,
    /// A helper, a SYN proxy or a sequence adjustment must see each packet.
    Watched,
    /// Its timeout is fixed: packets must not refresh it.
    FixedTimeout,
    /// A policy gives it another timeout than the sysctls that it would be refreshed by.
    OwnTimeout,
    /// The kernel's flow table or hardware forwards it.
    FlowTable,
    /// One of its ends is this machine.
    Local,
    /// An address is not a host's: multicast, broadcast, loopback.
    NotUnicast,
    /// Its tuples differ where its status bits say that the kernel does not translate.
    NotTranslated,
    /// No answer was seen: the policy may not have allowed it.
    NoReply,
    /// TCP is opening or closing.
    NotEstablished,
    /// Its timeout is none that packets leave: another program has set it, or it is nearly over.
    OddTimeout,
    /// Routing rules go by firewall marks that bpfw does not look at.
    PolicyRouting,
    /// Routing rules or routes go by the type of service, which may differ from packet to packet.
    TypeOfService,
    /// A routing rule has an attribute that look-ups do not ask with.
    UnknownRule,
    /// Routes or rules give packets realms, which firewall rules and filters of queueing disciplines
    /// may ask for. A packet that was forwarded past routing has none.
    Realms,
    /// Routes spread packets over next hops by more than their addresses.
    Multipath,
    /// The kernel compares forwarded packets with learned path MTUs.
    PathMtu,
    /// The kernel takes gateways from ICMP redirects.
    Redirects,
    /// Rules send copies of packets (nft's `dup`, iptables' TEE): who gets them wants all. A copy may
    /// leave where its packet is dropped.
    Copies,
    /// An IPsec policy may cover its packets.
    Ipsec,
    /// There are policies for timeouts, and its own does not tell whether it has one.
    TimeoutUnclear,
    /// There is no room for more connections.
    Full,
}

impl Refusal {
    /// Whether the reason stays for the connection's life, as far as one can tell.
    pub fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::Zone
                | Self::Watched
                | Self::FixedTimeout
                | Self::OwnTimeout
                | Self::FlowTable
                | Self::Local
                | Self::NotUnicast
                | Self::NotTranslated
                | Self::Ipsec
                | Self::Full
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTracked => "not tracked",
            Self::Mark => "another mark",
            Self::RouteMark => "no mark to be routed by",
            Self::Unconfirmed => "not confirmed",
            Self::Dying => "dying",
            Self::Zone => "in a zone",
            Self::Watched => "helper, SYN proxy or sequence adjustment",
            Self::FixedTimeout => "fixed timeout",
            Self::OwnTimeout => "timeout of its own",
            Self::FlowTable => "in the kernel's flow table",
            Self::Local => "local",
            Self::NotUnicast => "not unicast",
            Self::NotTranslated => "tuples differ without NAT",
            Self::NoReply => "no reply yet",
            Self::NotEstablished => "TCP not established",
            Self::OddTimeout => "timeout set by another program, nearly over, or below 3 s",
            Self::PolicyRouting => "routing rules by mark",
            Self::TypeOfService => "routing rules or routes by type of service",
            Self::UnknownRule => "a routing rule by what look-ups do not know",
            Self::Realms => "routes or routing rules with realms",
            Self::Multipath => "routes over several next hops, by more than addresses",
            Self::PathMtu => "net.ipv4.ip_forward_use_pmtu is set",
            Self::Redirects => {
                "ICMP redirects are accepted (net.ipv4.conf.all.accept_redirects is set)"
            }
            Self::Copies => "rules send copies of packets",
            Self::Ipsec => "IPsec policies",
            Self::TimeoutUnclear => "timeout not clear yet",
            Self::Full => "too many connections",
        })
    }
}

/// Decides on one connection; `is_local` knows the machine's own addresses.
pub fn decide(facts: &Facts, is_local: impl Fn(Ipv4Addr) -> bool) -> Decision {
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
    } else if is_local(*facts.original.source.ip()) || is_local(*facts.reply.source.ip()) {
        // The reply's source is whom the original direction reaches after all translation.
        Refusal::Local
    } else if !is_host(facts.original) || !is_host(facts.reply) {
        Refusal::NotUnicast
    } else if !is_translated_as_it_differs(facts) {
        Refusal::NotTranslated
    } else if facts.covered {
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

/// Whether the kernel makes the difference between both tuples. It translates by status bits, not by
/// tuples (`nf_nat_packet` in net/netfilter/nf_nat_core.c): SRC_NAT covers the original direction's
/// source and the reply direction's destination, DST_NAT the other two. A program can add an entry
/// whose tuples differ without these bits; the kernel forwards its packets as they are.
fn is_translated_as_it_differs(facts: &Facts) -> bool {
    let Facts { original, reply, status, .. } = facts;
    let source_stays = original.source == reply.destination;
    let destination_stays = original.destination == reply.source;
    (source_stays || status.contains(Status::SRC_NAT))
        && (destination_stays || status.contains(Status::DST_NAT))
}

fn is_host(tuple: Tuple) -> bool {
    [tuple.source.ip(), tuple.destination.ip()].iter().all(|address| {
        !(address.is_multicast()
            || address.is_broadcast()
            || address.is_loopback()
            || address.is_unspecified())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(protocol: Protocol) -> Facts {
        let original = Tuple {
            protocol,
            source: "192.0.2.2:1000".parse().unwrap(),
            destination: "198.51.100.2:53".parse().unwrap(),
        };
        Facts {
            original,
            reply: original.invert(),
            status: Status::CONFIRMED | Status::SEEN_REPLY | Status::ASSURED,
            tcp_state: Some(TcpState::Established),
            watched: false,
            zone: 0,
            mark_wanted: true,
            unmarked: false,
            covered: false,
        }
    }

    fn nobody(_: Ipv4Addr) -> bool {
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
            (|f| f.original.destination = "224.0.0.1:53".parse().unwrap(), Refusal::NotUnicast),
            (|f| f.covered = true, Refusal::Ipsec),
            (|f| f.status = Status::CONFIRMED, Refusal::NoReply),
            (|f| f.tcp_state = Some(TcpState::FinWait), Refusal::NotEstablished),
        ];
        for (number, (change, refusal)) in cases.into_iter().enumerate() {
            let mut facts = facts(Protocol::Tcp);
            change(&mut facts);
            assert_eq!(decide(&facts, nobody), Decision::Refuse(refusal), "case {number}");
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
        for other in ["203.0.113.9:1000", "192.0.2.2:53", "203.0.113.9:53"] {
            for (source, destination) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                for bits in BITS {
                    let mut facts = facts(Protocol::Udp);
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
        for address in ["192.0.2.2", "198.51.100.2"] {
            let own: Ipv4Addr = address.parse().unwrap();
            assert_eq!(decide(&facts(Protocol::Udp), |address| address == own), local);
        }
    }
}
