// SPDX-License-Identifier: GPL-2.0-only
//! Each verdict of the datapath, on each hook that has it: one test a verdict.

mod support;

use bpfw::abi::{self, bpfw_tuple, bpfw_verdict};
use bpfw::clock::Jiffies;
use bpfw::datapath::state::Change;
use bpfw::datapath::typed_map::TypedMap;
use bpfw::datapath::{Hook, map_names};
use bpfw::flow::tuple::Protocol;
use bpfw::reasons::packet::VERDICTS;
use std::net::SocketAddrV4;
use support::datapath::{Datapath, HOOKS, Input, egress, egresses, links, on_hook, on_hook_with};
use support::flow::{DMZ, Flow, LAN, PROTOCOLS, WAN};
use support::packet::tcp;

/// Declares a test for each verdict, named after the function that it calls on each hook, and
/// the list of all of them.
macro_rules! verdicts {
    ($($case:ident: $verdict:ident on $hooks:expr;)*) => {
        const TESTED: &[(bpfw_verdict, &[Hook])] = &[$((abi::$verdict, $hooks)),*];
        $(
            #[test]
            fn $case() {
                for hook in $hooks {
                    on_hook(stringify!($case), *hook, |datapath| {
                        cases::$case(datapath, abi::$verdict);
                    });
                }
            }
        )*
    };
}

const BOTH: &[Hook] = &HOOKS;
const XDP: &[Hook] = &[Hook::Xdp];
const TC: &[Hook] = &[Hook::Tc];

verdicts! {
    forwarded: BPFW_FORWARDED on BOTH;
    pause: BPFW_PASS_PAUSED on BOTH;
    no_beat_yet: BPFW_PASS_HEARTBEAT on BOTH;
    short: BPFW_PASS_SHORT on BOTH;
    tags: BPFW_PASS_TAGS on BOTH;
    not_ip: BPFW_PASS_NOT_IP on BOTH;
    link: BPFW_PASS_LINK on BOTH;
    mac: BPFW_PASS_MAC on BOTH;
    ip_header: BPFW_PASS_IP_HEADER on BOTH;
    ip_options: BPFW_PASS_IP_OPTIONS on BOTH;
    fragment: BPFW_PASS_FRAGMENT on BOTH;
    protocol: BPFW_PASS_PROTOCOL on BOTH;
    l4_header: BPFW_PASS_L4_HEADER on BOTH;
    unknown: BPFW_PASS_UNKNOWN on BOTH;
    refused: BPFW_PASS_REFUSED on BOTH;
    hazard_28_reused: BPFW_PASS_REUSED on BOTH;
    finished: BPFW_PASS_FINISHED on BOTH;
    unassured: BPFW_PASS_UNASSURED on BOTH;
    idle: BPFW_PASS_IDLE on BOTH;
    ingress: BPFW_PASS_INGRESS on BOTH;
    tcp_flags: BPFW_PASS_TCP_FLAGS on BOTH;
    ttl: BPFW_PASS_TTL on BOTH;
    too_big: BPFW_PASS_TOO_BIG on BOTH;
    partial_sum: BPFW_PASS_PARTIAL_SUM on XDP;
    no_route: BPFW_PASS_NO_ROUTE on BOTH;
    no_neighbor: BPFW_PASS_NO_NEIGHBOR on BOTH;
    no_egress: BPFW_PASS_EGRESS on BOTH;
    unproven: BPFW_PASS_UNPROVEN on BOTH;
    hops_full: BPFW_PASS_HOPS_FULL on BOTH;
    resize: BPFW_PASS_RESIZE on TC;
    same_link: BPFW_PASS_SAME_LINK on BOTH;
}

/// Verdicts that no test run can lead to, and why.
const UNREACHABLE: &[(bpfw_verdict, &[Hook], &str)] = &[
    (abi::BPFW_DROP_ERROR, BOTH, "a helper would have to fail after all checks of its arguments"),
    (abi::BPFW_PASS_PARTIAL_SUM, TC, "the kernel's helpers handle partial checksums"),
    (abi::BPFW_PASS_RESIZE, XDP, "a test run always has headroom, and shrinking does not fail"),
];

#[test]
fn every_verdict_is_tested_or_unreachable() {
    for reason in VERDICTS {
        for hook in HOOKS {
            let has = |(other, hooks): (bpfw_verdict, &[Hook])| {
                usize::from(other == reason.number && hooks.contains(&hook))
            };
            let tested: usize = TESTED.iter().map(|(other, hooks)| has((*other, hooks))).sum();
            let not: usize = UNREACHABLE.iter().map(|(other, hooks, _)| has((*other, hooks))).sum();
            assert_eq!(tested + not, 1, "{} on {}", reason.name, hook.name());
        }
    }
}

#[test]
fn hazard_29_a_late_heartbeat_revives_nothing() {
    for hook in HOOKS {
        on_hook_with("late", hook, 1, |datapath| {
            let flow = Flow::snat(Protocol::Udp);
            datapath.add(&flow);
            std::thread::sleep(std::time::Duration::from_millis(100));
            let frame = flow.incoming(false).build();
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_HEARTBEAT);
            assert!(!datapath.object.beat().expect("a run"), "it comes too late");
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_HEARTBEAT);
            datapath.state.begin_anew().expect("a new beginning");
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_PAUSED);
            assert!(datapath.object.beat().expect("a run"), "the first cannot be late");
        });
    }
}

/// What leads to each verdict.
mod cases {
    use super::*;

    type Run<'a, 'b> = &'a mut Datapath<'b>;

    /// For connections of both protocols: changes the first packet, expects the verdict.
    fn expect(
        datapath: &Datapath<'_>,
        verdict: bpfw_verdict,
        change: impl Fn(support::packet::Packet) -> support::packet::Packet,
    ) {
        for protocol in PROTOCOLS {
            let flow = Flow::snat(protocol);
            datapath.add(&flow);
            let frame = change(flow.incoming(false)).build();
            datapath.expect_passed(Input::new(LAN, &frame), verdict);
            datapath.remove(&flow);
        }
    }

    pub fn forwarded(datapath: Run<'_, '_>, _: bpfw_verdict) {
        for protocol in PROTOCOLS {
            let flow = Flow::snat(protocol);
            datapath.add(&flow);
            datapath.expect_flow(&flow, false);
            datapath.expect_flow(&flow, true);
        }
    }

    pub fn pause(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        datapath.state.pause().expect("a pause");
        expect(datapath, verdict, |packet| packet);
        datapath.state.bump(Change::Topology).expect("bump");
        ended_ones_rest(datapath, verdict);
        datapath.state.bump(Change::Topology).expect("bump");
        forwarded(datapath, abi::BPFW_FORWARDED);
    }

    /// Their hop words are 0, and there is a next hop in the first slot.
    fn ended_ones_rest(datapath: &mut Datapath<'_>, verdict: bpfw_verdict) {
        let flow = Flow::plain(Protocol::Tcp);
        datapath.add(&flow);
        datapath.expect_flow(&flow, false);
        let fin = flow.incoming(false).flags(tcp::FIN | tcp::ACK).build();
        datapath.expect_passed(Input::new(LAN, &fin), abi::BPFW_PASS_TCP_FLAGS);
        let fresh = Flow::plain(Protocol::Udp);
        datapath.add(&fresh);
        datapath.state.pause().expect("a pause");
        for flow in [flow, fresh] {
            let frame = flow.incoming(false).payload(&[7; 32]).build();
            datapath.expect_passed(Input::new(LAN, &frame), verdict);
            datapath.remove(&flow);
        }
    }

    pub fn no_beat_yet(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let beat =
            TypedMap::<u32, u64>::new(datapath.object.object(), map_names::BEAT).expect("map");
        beat.set(&0, &0).expect("no beat");
        expect(datapath, verdict, |packet| packet);
        datapath.object.beat().expect("beat");
        forwarded(datapath, abi::BPFW_FORWARDED);
    }

    pub fn short(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        // A TC test run refuses cut IPv4 headers, except behind a tag, which it does not look at.
        if datapath.hook == Hook::Xdp {
            for length in 14..34 {
                expect(datapath, verdict, |packet| packet.truncate(length));
            }
        }
        let mut with_tag = links();
        with_tag.push(support::datapath::link(LAN, LAN, 5, 0x8100));
        datapath.devices.set(&with_tag, &egresses()).expect("devices");
        for length in 15..38 {
            expect(datapath, verdict, |packet| packet.vlan(5, 0, 0x8100).truncate(length));
        }
    }

    pub fn tags(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        for (outer, inner) in [(0x8100, 0x8100), (0x88a8, 0x8100), (0x8100, 0x88a8)] {
            expect(datapath, verdict, |packet| packet.vlan(5, 0, outer).vlan(6, 0, inner));
        }
    }

    pub fn not_ip(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        // ARP, PPPoE, MPLS, LLC.
        for ethertype in [0x0806_u16, 0x8864, 0x8847, 0x0040] {
            let flow = Flow::snat(Protocol::Udp);
            let mut frame = flow.incoming(false).payload(&[0; 64]).build();
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            datapath.expect_passed(Input::new(LAN, &frame), verdict);
        }
    }

    pub fn link(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        expect(datapath, verdict, |packet| packet.vlan(5, 0, 0x8100));
        let without_lan: Vec<_> =
            links().into_iter().filter(|(key, _)| key.ifindex != LAN.ifindex()).collect();
        datapath.devices.set(&without_lan, &egresses()).expect("devices");
        expect(datapath, verdict, |packet| packet);
    }

    pub fn mac(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        // Broadcast, multicast, VRRP, another router, and each byte of ours on its own.
        let mut macs =
            vec![[0xff; 6], [0x01, 0x00, 0x5e, 0, 0, 1], [0, 0, 0x5e, 0, 1, 1], WAN.router_mac];
        macs.extend((0..6).map(|at| {
            let mut mac = LAN.router_mac;
            mac[at] ^= 0x80;
            mac
        }));
        for mac in macs {
            expect(datapath, verdict, |packet| packet.mac(LAN.host_mac, mac));
        }
    }

    pub fn ip_header(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        expect(datapath, verdict, |packet| packet.bad_ip_checksum());
        for words in 0..5 {
            expect(datapath, verdict, |packet| packet.header_words(words));
        }
        for length in [0, 19, 1000, 65535] {
            expect(datapath, verdict, |packet| packet.total_length(length));
        }
        // One byte is missing, and version 5.
        let flow = Flow::snat(Protocol::Udp);
        let mut frame = flow.incoming(false).payload(b"abc").build();
        datapath.expect_passed(Input::new(LAN, &frame[..frame.len() - 1]), verdict);
        frame[14] = 0x55;
        datapath.expect_passed(Input::new(LAN, &frame), verdict);
    }

    pub fn ip_options(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        expect(datapath, verdict, |packet| packet.ip_options(&[1, 1, 1, 0]));
        expect(datapath, verdict, |packet| packet.ip_options(&[0; 40]));
    }

    pub fn fragment(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        for (offset, more) in [(0, true), (1, true), (1, false), (0x1fff, false)] {
            expect(datapath, verdict, |packet| packet.payload(&[0; 64]).fragment(offset, more));
        }
    }

    pub fn protocol(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let flow = Flow::snat(Protocol::Udp);
        datapath.add(&flow);
        // ICMP, IGMP, IPIP, GRE, ESP, ICMPv6, SCTP, UDP-Lite.
        for number in [1_u8, 2, 4, 47, 50, 58, 132, 136] {
            let mut frame = flow.incoming(false).payload(&[0; 32]).build();
            frame[23] = number;
            let sum = support::checksum::ipv4_header(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            datapath.expect_passed(Input::new(LAN, &frame), verdict);
        }
    }

    pub fn l4_header(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        // The packet ends within the header, although the frame does not.
        for length in 20..28 {
            expect(datapath, verdict, |packet| packet.total_length(length));
        }
        let [tcp, udp] = PROTOCOLS.map(Flow::snat);
        for length in 28..40 {
            let frame = tcp.incoming(false).total_length(length).build();
            datapath.expect_passed(Input::new(LAN, &frame), verdict);
        }
        for length in [0, 7, 12, 65535] {
            let frame = udp.incoming(false).payload(b"abc").udp_length(length).build();
            datapath.expect_passed(Input::new(LAN, &frame), verdict);
        }
        for words in [0, 4, 6, 15] {
            let mut frame = tcp.incoming(false).payload(b"abc").build();
            frame[46] = words << 4;
            datapath.expect_passed(Input::new(LAN, &frame), verdict);
        }
    }

    pub fn unknown(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let flow = Flow::snat(Protocol::Tcp);
        datapath.add(&flow);
        // Each value of the tuple on its own, and the other protocol.
        let (src, dst) = flow.before;
        for ends in [
            (LAN.at(src.port() + 1), dst),
            (src, WAN.at(dst.port() + 1)),
            (support::flow::HOST2.at(src.port()), dst),
            (src, DMZ.at(dst.port())),
            (dst, src),
        ] {
            let frame = Flow { before: ends, ..flow }.incoming(false).build();
            datapath.expect_passed(Input::new(LAN, &frame), verdict);
        }
        let frame = Flow::snat(Protocol::Udp).incoming(false).build();
        datapath.expect_passed(Input::new(LAN, &frame), verdict);
    }

    pub fn refused(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let flow = Flow::snat(Protocol::Tcp);
        let tuple = bpfw_tuple::from(flow.tuple(false));
        let frame = flow.incoming(false).build();
        let refuse =
            |until| datapath.signals.borrow().refuse(&tuple, Jiffies(until), 1).expect("refusing");
        refuse(datapath.now() + 1_000_000);
        datapath.expect_passed(Input::new(LAN, &frame), verdict);
        assert!(datapath.take_signals().is_empty(), "refused, but signalled");
        // A refusal that is over says no more.
        refuse(datapath.now() - 1);
        datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_UNKNOWN);
        assert_eq!(datapath.take_signals(), [tuple]);
    }

    /// As if the entry's memory had become another connection's between look-up and copy.
    pub fn hazard_28_reused(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let flow = Flow::snat(Protocol::Tcp);
        datapath.add(&flow);
        let right = datapath.entry(&flow, false);
        let mut wrong = [right; 3];
        wrong[0].cell.seal ^= 1 << 20;
        wrong[1].cell.rewrite.src_port.0 ^= 1;
        wrong[2].cell.rewrite.l4_delta ^= 1;
        for entry in wrong {
            datapath.overwrite(&entry);
            let frame = flow.incoming(false).build();
            datapath.expect_passed(Input::new(LAN, &frame), verdict);
            assert_eq!(datapath.entry(&flow, false), entry, "not ours to write to");
        }
        // Of another connection's rest, nothing fits.
        let mut wrong = [right; 2];
        wrong[0].rest.proof ^= 1;
        wrong[1].rest.id ^= 1;
        for entry in wrong {
            datapath.overwrite(&entry);
            let frame = flow.incoming(false).build();
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_UNPROVEN);
            assert_eq!(datapath.entry(&flow, false).hop_slot(), None, "nothing was kept");
        }
        datapath.overwrite(&right);
        datapath.expect_flow(&flow, false);
    }

    pub fn finished(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let flow = Flow::snat(Protocol::Tcp);
        datapath.add(&flow);
        let end = flow.incoming(false).flags(tcp::FIN | tcp::ACK).build();
        datapath.expect_passed(Input::new(LAN, &end), abi::BPFW_PASS_TCP_FLAGS);
        for reply in [false, true] {
            let frame = flow.incoming(reply).build();
            datapath.expect_passed(Input::new(flow.ingress(reply), &frame), verdict);
        }
        // One of these without the other, as another CPU may see them.
        datapath.remove(&flow);
        datapath.add(&flow);
        let alive = datapath.entry(&flow, false);
        for (hop_word, finished) in [(0, 0), (alive.cell.hop_word, 1), (0, 1)] {
            let mut entry = alive;
            entry.cell.hop_word = hop_word;
            entry.rest.finished = finished;
            datapath.overwrite(&entry);
            let frame = flow.incoming(false).build();
            datapath.expect_passed(Input::new(LAN, &frame), verdict);
            assert_ne!(datapath.entry(&flow, false).rest.finished, 0, "the daemon must know");
        }
        datapath.overwrite(&alive);
        datapath.expect_flow(&flow, false);
    }

    pub fn unassured(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let now = datapath.now();
        let waiting = Flow { pass_from: now + 1_000_000, ..Flow::snat(Protocol::Udp) };
        datapath.add(&waiting);
        datapath.expect_flow(&waiting, false);
        datapath.remove(&waiting);
        let due = Flow { pass_from: now - 1, ..waiting };
        datapath.add(&due);
        for reply in [false, true] {
            let frame = due.incoming(reply).build();
            datapath.expect_passed(Input::new(due.ingress(reply), &frame), verdict);
        }
    }

    pub fn idle(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let now = datapath.now();
        let active = Flow { seen: now, idle_limit: 1_000_000, ..Flow::snat(Protocol::Udp) };
        datapath.add(&active);
        datapath.expect_flow(&active, false);
        datapath.remove(&active);
        let idle = Flow { seen: now - 1_000, idle_limit: 900, ..active };
        datapath.add(&idle);
        for reply in [false, true] {
            let frame = idle.incoming(reply).build();
            datapath.expect_passed(Input::new(idle.ingress(reply), &frame), verdict);
            // The stack has seen that it lives.
            datapath.expect_flow(&idle, reply);
        }
    }

    pub fn ingress(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let flow = Flow::snat(Protocol::Udp);
        datapath.add(&flow);
        datapath.expect_flow(&flow, false);
        let forged = flow.incoming(false).mac(WAN.host_mac, WAN.router_mac).build();
        datapath.expect_passed(Input::new(WAN, &forged), verdict);
    }

    pub fn tcp_flags(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        for flags in 0..=u8::MAX {
            let plain = flags & (tcp::SYN | tcp::FIN | tcp::RST | tcp::ACK) == tcp::ACK;
            let flow = Flow::snat(Protocol::Tcp);
            datapath.add(&flow);
            let [before, after] =
                [flow.incoming(false), flow.outgoing(false)].map(|p| p.flags(flags).build());
            if plain {
                datapath.expect_forwarded(Input::new(LAN, &before), &after);
            } else {
                datapath.expect_passed(Input::new(LAN, &before), verdict);
            }
            datapath.remove(&flow);
        }
    }

    pub fn ttl(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        expect(datapath, verdict, |packet| packet.ttl(1));
        expect(datapath, verdict, |packet| packet.ttl(0));
    }

    pub fn too_big(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        expect(datapath, verdict, |packet| packet.payload(&[0; 1473]));
    }

    pub fn partial_sum(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        expect(datapath, verdict, |packet| packet.payload(b"abc").partial_l4_checksum());
        // Also where nothing is translated: the receiver would take it for a wrong checksum.
        let flow = Flow::plain(Protocol::Tcp);
        datapath.add(&flow);
        let frame = flow.incoming(false).partial_l4_checksum().pad_to(60).build();
        datapath.expect_passed(Input::new(LAN, &frame), verdict);
    }

    pub fn no_route(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        for kind in ["unreachable", "prohibit", "blackhole"] {
            datapath.namespace.ip(&format!("route add {kind} {}\n", WAN.host));
            expect(datapath, verdict, |packet| packet);
            datapath.namespace.ip(&format!("route del {kind} {}\n", WAN.host));
        }
        // A destination of the router's own after translation.
        let server = WAN.at(443);
        let flow = Flow::new(Protocol::Udp, (LAN.at(1), server), (LAN.at(1), WAN.router_at(443)));
        datapath.add(&flow);
        datapath.expect_passed(Input::new(LAN, &flow.incoming(false).build()), verdict);
        datapath.namespace.ip("link set wan0 down\n");
        expect(datapath, verdict, |packet| packet);
    }

    pub fn no_neighbor(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        datapath.namespace.ip(&format!("neigh del {} dev {}\n", WAN.host, WAN.device));
        expect(datapath, verdict, |packet| packet);
    }

    pub fn no_egress(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let mut fixed = egresses();
        fixed.retain(|(ifindex, _)| *ifindex != WAN.ifindex());
        datapath.devices.set(&links(), &fixed).expect("devices");
        expect(datapath, verdict, |packet| packet);
        let (ifindex, mut value) = egress(WAN, 0, 0, 1500);
        value.flags = 0;
        fixed.push((ifindex, value));
        datapath.devices.set(&links(), &fixed).expect("devices");
        expect(datapath, verdict, |packet| packet);
    }

    pub fn same_link(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let behind = |protocol| {
            let ends = (LAN.at(40000), SocketAddrV4::new([10, 9, 8, 7].into(), 443));
            let after = (LAN.router_at(61000), ends.1);
            let flow = |after| Flow { far: LAN, ..Flow::new(protocol, ends, after) };
            [flow(ends), flow(after)]
        };
        for protocol in PROTOCOLS {
            let [plain, translated] = behind(protocol);
            datapath.add(&plain);
            datapath.expect_passed(Input::new(LAN, &plain.incoming(false).build()), verdict);
            datapath.remove(&plain);
            datapath.add(&translated);
            datapath.expect_flow(&translated, false);
            datapath.remove(&translated);
        }
    }

    pub fn unproven(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let flow = Flow::snat(Protocol::Udp);
        datapath.add_unproven(&flow);
        for reply in [false, true] {
            let frame = flow.incoming(reply).build();
            datapath.expect_passed(Input::new(flow.ingress(reply), &frame), verdict);
        }
    }

    pub fn hops_full(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let count =
            TypedMap::<u32, u32>::new(datapath.object.object(), map_names::HOP_COUNT).expect("map");
        count.set(&0, &abi::BPFW_HOP_SLOTS).expect("full");
        expect(datapath, verdict, |packet| packet);
        assert_eq!(count.get(&0).expect("reading"), Some(abi::BPFW_HOP_SLOTS), "must not run on");
    }

    pub fn resize(datapath: Run<'_, '_>, verdict: bpfw_verdict) {
        let flow = Flow::snat(Protocol::Tcp);
        datapath.add(&flow);
        // Bytes behind a packet of many segments: nothing that a NIC or GRO makes.
        let frame = flow.incoming(false).payload(&[7; 2000]).pad_to(2100).build();
        datapath.expect_passed(Input { gso_size: 1000, ..Input::new(LAN, &frame) }, verdict);
    }
}
