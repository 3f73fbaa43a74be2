// SPDX-License-Identifier: GPL-2.0-only
//! The express lane forwards nothing that the full lane would not, and nothing in another way. A
//! connection's first packet takes the full lane, because there is no next hop yet.

mod support;

use bpfw::abi::{
    BPFW_FORWARDED, BPFW_PASS_FINISHED, BPFW_PASS_IDLE, BPFW_PASS_LINK, BPFW_PASS_TCP_FLAGS,
    BPFW_PASS_UNASSURED, BPFW_VOLUME_FULL,
};
use bpfw::datapath::Hook;
use bpfw::flow::tuple::Protocol;
use std::time::Duration;
use support::datapath::{Datapath, Input, name, on_both_hooks, on_hook};
use support::flow::{DMZ, Flow, LAN, PROTOCOLS, Side, WAN};
use support::packet::{Packet, tcp};

const DIRECTIONS: [bool; 2] = [false, true];
/// Enough for frames that the express lane takes.
const PAYLOAD: &[u8; 32] = &[0x5a; 32];
const IPV4: usize = 14;
const L4: usize = 34;

/// Where each bit has a meaning of its own: the version and the header's length, flags of fragments, the data
/// offset and flags of TCP.
fn flags(l4: usize) -> [usize; 4] {
    [IPV4, IPV4 + 6, l4 + 12, l4 + 13]
}

const ALL: &[u8] = &[0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff];
const SOME: &[u8] = &[0x01, 0x80, 0xff];

/// Both directions know their next hop afterwards.
fn warm_up(datapath: &Datapath<'_>, flow: &Flow) {
    datapath.add(flow);
    for reply in DIRECTIONS {
        datapath.expect_flow(flow, reply);
    }
}

/// The frame has the same fate as a connection's first and as a later one; `true` if it is sent.
#[track_caller]
fn expect_alike(datapath: &Datapath<'_>, flow: &Flow, side: Side, frame: &[u8]) -> bool {
    let input = Input::new(side, frame);
    datapath.add(flow);
    let full = datapath.run(input);
    datapath.remove(flow);
    warm_up(datapath, flow);
    let express = datapath.run(input);
    datapath.remove(flow);
    // The reasons may differ: without a next hop others come first.
    let reasons = [name(full.verdict), name(express.verdict)];
    assert_eq!(express.action, full.action, "{reasons:?} for {frame:02x?}");
    assert_eq!(express.frame, full.frame, "{reasons:?} for {frame:02x?}");
    assert_eq!(express.priority, full.priority, "{reasons:?} for {frame:02x?}");
    full.action == datapath.redirect()
}

/// One of each family. Translated packets of IPv6 always take the full lane.
fn with_an_express_lane(protocol: Protocol) -> [Flow; 2] {
    [Flow::snat(protocol), Flow::ipv6(protocol)]
}

/// Frames that differ from the flow's plain ones as `change` says, in both directions, with and
/// without translation; returns how many were sent.
fn expect_changed_alike(
    datapath: &Datapath<'_>,
    protocol: Protocol,
    change: impl Fn(Packet) -> Packet,
) -> usize {
    let mut sent = 0;
    for flow in with_an_express_lane(protocol).into_iter().chain([Flow::plain(protocol)]) {
        for reply in DIRECTIONS {
            let frame = change(flow.incoming(reply).payload(PAYLOAD)).build();
            sent += usize::from(expect_alike(datapath, &flow, flow.ingress(reply), &frame));
        }
    }
    sent
}

/// Makes the IPv4 header's checksum right again.
fn fix_ip_checksum(frame: &mut [u8]) {
    frame[IPV4 + 10..IPV4 + 12].fill(0);
    let words = frame[IPV4..L4].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = !(((folded & 0xffff) + (folded >> 16)) as u16);
    frame[IPV4 + 10..IPV4 + 12].copy_from_slice(&check.to_be_bytes());
}

#[test]
fn each_byte_of_the_headers_counts_alike() {
    on_both_hooks("lanes-bytes", |datapath| {
        let mut sent = 0;
        for flow in PROTOCOLS.into_iter().flat_map(with_an_express_lane) {
            for reply in DIRECTIONS {
                let plain = flow.incoming(reply).payload(PAYLOAD).build();
                for at in 0..flow.l4() + 20 {
                    for &bits in if flags(flow.l4()).contains(&at) { ALL } else { SOME } {
                        let mut frame = plain.clone();
                        frame[at] ^= bits;
                        if !flow.ipv6 && (IPV4..L4).contains(&at) && at / 2 != (IPV4 + 10) / 2 {
                            fix_ip_checksum(&mut frame);
                        }
                        sent +=
                            usize::from(expect_alike(datapath, &flow, flow.ingress(reply), &frame));
                    }
                }
            }
        }
        // Source MAC addresses, TOS, id, TTL, sequence numbers and the like change nothing.
        assert!(sent > 200, "{sent} sent");
    });
}

#[test]
fn lengths_count_alike() {
    on_both_hooks("lanes-lengths", |datapath| {
        for protocol in PROTOCOLS {
            let flow = Flow::snat(protocol);
            let plain = flow.incoming(false).payload(PAYLOAD).build();
            // The kernel runs no program on a shorter sk_buff of IPv4.
            for length in L4..plain.len() {
                expect_alike(datapath, &flow, LAN, &plain[..length]);
            }
            for length in (0..100).chain([1000, 65535]) {
                expect_changed_alike(datapath, protocol, |packet| packet.total_length(length));
                expect_changed_alike(datapath, protocol, |packet| packet.udp_length(length));
            }
            for length in [0, 1, 11, 12, 13, 1459, 1460, 1461, 1472, 1473] {
                let payload = vec![0x33; length];
                expect_changed_alike(datapath, protocol, |packet| packet.payload(&payload));
            }
            let padded = expect_changed_alike(datapath, protocol, |packet| packet.pad_to(100));
            assert_eq!(padded, 6, "padding is cut");
        }
    });
}

#[test]
fn header_fields_count_alike() {
    on_both_hooks("lanes-fields", |datapath| {
        for byte in 0..=u8::MAX {
            expect_changed_alike(datapath, Protocol::Tcp, |p| p.flags(byte));
        }
        for protocol in PROTOCOLS {
            for byte in 0..=u8::MAX {
                assert_eq!(expect_changed_alike(datapath, protocol, |p| p.tos(byte)), 6);
                let sent = expect_changed_alike(datapath, protocol, |p| p.ttl(byte));
                assert_eq!(sent, if byte > 1 { 6 } else { 0 }, "TTL {byte}");
            }
            for words in 0..16 {
                expect_changed_alike(datapath, protocol, |p| p.header_words(words));
            }
            for (offset, more) in [(0, true), (1, false), (185, true), (8191, false)] {
                let sent = expect_changed_alike(datapath, protocol, |p| p.fragment(offset, more));
                assert_eq!(sent, 2, "a fragment; IPv6 has another header for that");
            }
            for change in [
                Packet::bad_ip_checksum,
                Packet::bad_l4_checksum,
                Packet::zero_l4_checksum,
                Packet::partial_l4_checksum,
            ] {
                expect_changed_alike(datapath, protocol, change);
            }
            assert_eq!(expect_changed_alike(datapath, protocol, |p| p.vlan(7, 0, 0x8100)), 0);
        }
    });
}

#[test]
fn the_ingress_counts_alike() {
    on_both_hooks("lanes-ingress", |datapath| {
        for protocol in PROTOCOLS {
            for (flow, side) in Flow::of_each_family(protocol)
                .into_iter()
                .flat_map(|flow| [WAN, DMZ].map(|side| (flow, side)))
            {
                // With the right MAC address, and with that of the interface it belongs to.
                for mac in [side.router_mac, LAN.router_mac] {
                    let forged = flow.incoming(false).payload(PAYLOAD).mac(side.host_mac, mac);
                    assert!(!expect_alike(datapath, &flow, side, &forged.build()));
                }
            }
        }
    });
}

/// TC: the frame itself looks like the connection's own.
#[test]
fn a_tag_beside_the_frame_is_another_ingress() {
    on_hook("lanes-tag", Hook::Tc, |datapath| {
        datapath.prepare_tags();
        for protocol in PROTOCOLS {
            let flow = Flow::snat(protocol);
            warm_up(datapath, &flow);
            let frame = flow.incoming(false).payload(PAYLOAD).build();
            let tags = [(0x8100, 7), (0, 0)];
            let tagged = Input { tags, ..Input::new(LAN, &frame) };
            datapath.expect_passed(tagged, BPFW_PASS_LINK);
            datapath.remove(&flow);
        }
    });
}

#[test]
fn an_end_is_seen_by_both_lanes() {
    on_both_hooks("lanes-end", |datapath| {
        for flags in [tcp::FIN | tcp::ACK, tcp::RST, tcp::RST | tcp::ACK] {
            let flow = Flow::snat(Protocol::Tcp);
            warm_up(datapath, &flow);
            let end = flow.incoming(false).payload(PAYLOAD).flags(flags).build();
            datapath.expect_passed(Input::new(LAN, &end), BPFW_PASS_TCP_FLAGS);
            for reply in DIRECTIONS {
                let frame = flow.incoming(reply).payload(PAYLOAD).build();
                datapath.expect_passed(Input::new(flow.ingress(reply), &frame), BPFW_PASS_FINISHED);
            }
            datapath.remove(&flow);
        }
    });
}

#[test]
fn silence_and_streams_count_alike() {
    on_both_hooks("lanes-silence", |datapath| {
        let now = datapath.now();
        let (soon, pause) = (100, Duration::from_millis(1_500));
        let idle = Flow { seen: now, idle_limit: soon, ..Flow::snat(Protocol::Udp) };
        let ends = (LAN.at(50000), WAN.at(53));
        let plain = Flow::new(Protocol::Udp, ends, ends);
        let due = Flow { pass_from: now + u64::from(soon), ..plain };
        warm_up(datapath, &idle);
        warm_up(datapath, &due);
        std::thread::sleep(pause);
        for (flow, verdict) in [(idle, BPFW_PASS_IDLE), (due, BPFW_PASS_UNASSURED)] {
            for reply in DIRECTIONS {
                let frame = flow.incoming(reply).payload(PAYLOAD).build();
                datapath.expect_passed(Input::new(flow.ingress(reply), &frame), verdict);
            }
        }
    });
}

/// The express lane has a limit of its own; a lane shows by who empties a full cell.
#[test]
fn the_limit_of_silence_is_the_same() {
    on_both_hooks("lanes-limit", |datapath| {
        const LIMIT: u32 = 10_000;
        let long_ago = datapath.now() - 1_000_000;
        let flow = Flow { seen: long_ago, idle_limit: LIMIT, ..Flow::snat(Protocol::Udp) };
        warm_up(datapath, &Flow { seen: datapath.now(), ..flow });
        let warm = datapath.entry(&flow, false);
        let after = |silence: u32| {
            let mut entry = warm;
            entry.cell.last_seen = (datapath.now() as u32).wrapping_sub(silence);
            entry.cell.volume = u64::from(BPFW_VOLUME_FULL - 1);
            entry.rest.passed_up = long_ago;
            datapath.overwrite(&entry);
            let outcome = datapath.run_frame(LAN, &flow.incoming(false).payload(PAYLOAD).build());
            (outcome.verdict, datapath.entry(&flow, false).rest.packets == entry.rest.packets)
        };
        let express = !datapath.is_full();
        // A busy machine may need some jiffies between two lines here.
        assert_eq!(after(0), (BPFW_FORWARDED, express));
        assert_eq!(after(LIMIT - 200), (BPFW_FORWARDED, express));
        assert_eq!(after(LIMIT + 1), (BPFW_PASS_IDLE, true));
        // As other CPUs' clocks may make it.
        assert_eq!(after(5_000_u32.wrapping_neg()), (BPFW_FORWARDED, false));
        assert_eq!(after(1 << 30), (BPFW_PASS_IDLE, true));
    });
}
