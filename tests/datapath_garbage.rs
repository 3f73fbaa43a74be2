// SPDX-License-Identifier: GPL-2.0-only
//! Frames that nobody sends: they pass unchanged, whatever they look like, or leave as routing and
//! translation want it. Frames of 14 to 2,000 bytes get to a program. The kernel promises that
//! there are no shorter ones, which is tested, too.

mod support;

use bpfw::flow::tuple::Protocol;
use libbpf_rs::Program;
use libbpf_rs::query::ProgInfoIter;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::os::fd::AsFd;
use support::checksum;
use support::datapath::{Datapath, Input, on_both_hooks};
use support::flow::{Flow, LAN, PROTOCOLS};
use support::packet::tcp;
use support::view::{TcpView, View};

/// The longest frame of these tests.
const LONGEST: usize = 2000;
/// An Ethernet header, the shortest frame that the kernel lets a program see.
const SHORTEST: usize = 14;
/// Behind Ethernet and IPv4.
const L4: usize = 34;
/// What the tests' own program answers when the kernel does not cut the frame.
const REFUSED_CUT: i32 = 98;
/// Where the IPv4 header is.
const IP: std::ops::Range<usize> = SHORTEST..L4;

/// The same bytes in each run.
fn random() -> TestRng {
    TestRng::deterministic_rng(RngAlgorithm::ChaCha)
}

/// Passed as it was. A test run on TC takes no cut IP headers, so the frame is cut on the way.
fn expect_passed(datapath: &Datapath<'_>, frame: &[u8]) {
    let longer = [frame, &[0; 60]].concat();
    let input = Input { cut: Some(frame.len() as u32), ..Input::new(LAN, &longer) };
    let outcome = datapath.run_uncounted(input).expect("a test run");
    assert_eq!(outcome.action, datapath.pass(), "{frame:02x?}");
    assert_eq!(outcome.frame, frame);
}

fn add_connections(datapath: &mut Datapath<'_>) {
    datapath.prepare_cuts();
    for flow in PROTOCOLS.into_iter().flat_map(Flow::of_each_family) {
        datapath.add(&flow);
    }
}

#[test]
fn random_bytes() {
    on_both_hooks("random", |datapath| {
        add_connections(datapath);
        let mut random = random();
        for length in SHORTEST..=LONGEST {
            let mut frame = vec![0; length];
            random.fill_bytes(&mut frame);
            expect_passed(datapath, &frame);
        }
    });
}

/// Random bytes, but with so much of the headers right that the parsers get far.
#[test]
fn random_bytes_behind_good_headers() {
    on_both_hooks("random-headers", |datapath| {
        add_connections(datapath);
        let mut random = random();
        let good = Flow::snat(Protocol::Udp).incoming(false).build();
        for length in SHORTEST..=LONGEST {
            let mut frame = vec![0; length];
            random.fill_bytes(&mut frame);
            // Up to the ethertype, the version, the lengths, the fragment field, the TTL.
            let right = [14, 15, 18, 22, 23][length % 5].min(length);
            frame[..right].copy_from_slice(&good[..right]);
            expect_passed(datapath, &frame);
        }
    });
}

#[test]
fn truncated_packets() {
    on_both_hooks("truncated", |datapath| {
        add_connections(datapath);
        for protocol in PROTOCOLS {
            let packet = Flow::snat(protocol).incoming(false).payload(&[0x5a; 1000]);
            for packet in [packet.clone(), packet.vlan(7, 0, 0x8100)] {
                let whole = packet.build();
                for length in SHORTEST..whole.len() {
                    expect_passed(datapath, &whole[..length]);
                }
            }
        }
    });
}

/// The frame that the stack would send for one that is forwarded whatever its payload and checksum
/// are. The checksum field is left as it came.
fn translated(flow: &Flow, frame: &[u8]) -> Vec<u8> {
    let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let mut expected = frame[..SHORTEST + length].to_vec();
    let good = flow.outgoing(false).build();
    // Ethernet; the addresses, and behind the IPv4 header the ports.
    expected[..SHORTEST].copy_from_slice(&good[..SHORTEST]);
    expected[26..L4 + 4].copy_from_slice(&good[26..L4 + 4]);
    expected[22] -= 1;
    let sum = checksum::ipv4_header(&expected[IP]);
    expected[24..26].copy_from_slice(&sum.to_be_bytes());
    expected
}

/// What a receiver sums up: 0xffff or 0 if the checksum is right, and the same on each side of a
/// translation whatever it is.
fn l4_sum(frame: &[u8]) -> u16 {
    let segment = &frame[L4..SHORTEST + usize::from(u16::from_be_bytes([frame[16], frame[17]]))];
    let pseudo = [&frame[26..L4], &[0, frame[23]], &(segment.len() as u16).to_be_bytes()].concat();
    checksum::sum(&[&pseudo, segment].concat()) % 0xffff
}

/// Whether conntrack would call it a packet of an established connection, were its checksum right.
fn is_plain(packet: &View) -> bool {
    let tcp = |view: &TcpView| view.flags & (tcp::SYN | tcp::FIN | tcp::RST | tcp::ACK) == tcp::ACK;
    packet.ip_checksum_right
        && packet.ip_options.is_empty()
        && packet.ttl > 0
        && packet.fragment_offset == 0
        && !packet.mf
        && packet.tcp.as_ref().is_none_or(tcp)
}

/// Passed as it was, or forwarded as it should be; true if forwarded.
fn expect_lawful(datapath: &Datapath<'_>, flow: &Flow, frame: &[u8]) -> bool {
    let outcome = datapath.run_uncounted(Input::new(LAN, frame)).expect("a test run");
    // A FIN or RST among the noise ends the connection.
    if datapath.entry(flow, false).rest.finished != 0 {
        datapath.remove(flow);
        datapath.add(flow);
    }
    if outcome.action == datapath.pass() {
        assert_eq!(outcome.frame, frame);
        return false;
    }
    assert_eq!(outcome.action, datapath.redirect(), "{frame:02x?}");
    // A data offset that leads out of the segment cannot be parsed.
    assert!(View::parse(&outcome.frame).is_some_and(|packet| is_plain(&packet)), "{frame:02x?}");
    let (mut expected, field) = (translated(flow, frame), l4_field(flow.protocol));
    if flow.protocol == Protocol::Udp {
        let length = usize::from(u16::from_be_bytes([frame[L4 + 4], frame[L4 + 5]]));
        assert!((8..=outcome.frame.len() - L4).contains(&length), "{frame:02x?}");
    }
    let without = frame[field..field + 2] == [0; 2] && flow.protocol == Protocol::Udp;
    let sum = &outcome.frame[field..field + 2];
    assert_eq!(sum == [0; 2], without || sum == [0; 2] && flow.protocol == Protocol::Tcp);
    expected[field..field + 2].copy_from_slice(sum);
    assert_eq!(outcome.frame, expected, "{frame:02x?}");
    assert!(without || l4_sum(&outcome.frame) == l4_sum(frame), "{frame:02x?}");
    true
}

/// Where the checksum of TCP or UDP is.
fn l4_field(protocol: Protocol) -> usize {
    if protocol == Protocol::Tcp { L4 + 16 } else { L4 + 6 }
}

/// A frame of `length` bytes that starts as a packet of an offloaded connection, good up to
/// `noise`. By its IPv4 header, the packet fills the frame, or most of it.
fn half_plausible(flow: &Flow, length: usize, noise: usize, random: &mut TestRng) -> Vec<u8> {
    let mut frame = vec![0; length];
    random.fill_bytes(&mut frame);
    let good = flow.incoming(false).build();
    let noise = noise.min(good.len()).min(length);
    frame[..noise].copy_from_slice(&good[..noise]);
    let room = length - SHORTEST;
    let padding = if random.next_u32() % 4 == 0 { random.next_u32() as usize % room } else { 0 };
    frame[16..18].copy_from_slice(&((room - padding) as u16).to_be_bytes());
    let sum = checksum::ipv4_header(&frame[IP]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The start of an offloaded connection's packet, then noise. It begins at the ports, behind them,
/// behind TCP's numbers or UDP's length, behind the flags, or behind all headers.
#[test]
fn noise_behind_the_start_of_a_good_packet() {
    on_both_hooks("half-plausible", |datapath| {
        add_connections(datapath);
        let mut random = random();
        for flow in PROTOCOLS.map(Flow::snat) {
            let (mut forwarded, mut all) = (0, 0);
            for length in L4..=LONGEST {
                for noise in [L4, L4 + 4, [L4 + 6, L4 + 12, L4 + 14, L4 + 20][length % 4]] {
                    let frame = half_plausible(&flow, length, noise, &mut random);
                    forwarded += usize::from(expect_lawful(datapath, &flow, &frame));
                    all += 1;
                }
            }
            let (hook, protocol) = (datapath.hook.name(), flow.protocol);
            println!("{hook}, {protocol:?}: {forwarded} of {all} frames forwarded");
            assert!(forwarded > 0 && forwarded < all);
        }
    });
}

/// A program never sees less than an Ethernet header. The kernel's test run refuses shorter frames
/// (bpf_test_init), and so do the helpers that shorten a frame (bpf_xdp_adjust_tail,
/// bpf_skb_change_tail). Were it otherwise one day, this test would find out what bpfw does then.
#[test]
fn no_frame_is_shorter_than_its_ethernet_header() {
    on_both_hooks("short", |datapath| {
        add_connections(datapath);
        let good = Flow::snat(Protocol::Udp).incoming(false).payload(&[1; 40]).build();
        for length in 0..SHORTEST {
            let error = datapath.run_uncounted(Input::new(LAN, &good[..length])).unwrap_err();
            assert_eq!(error.kind(), libbpf_rs::ErrorKind::InvalidInput, "{length}: {error}");
            let input = Input { cut: Some(length as u32), ..Input::new(LAN, &good) };
            let outcome = datapath.run_uncounted(input).expect("a test run");
            assert_eq!((outcome.action, outcome.frame.len()), (REFUSED_CUT, good.len()));
        }
        expect_passed(datapath, &good[..SHORTEST]);
    });
}

/// How much work the programs are for the verifier, which gives up at a million instructions.
#[test]
fn the_verifier_has_an_end() {
    on_both_hooks("verifier", |datapath| {
        for program in datapath.object.object().progs() {
            let id = Program::id_from_fd(program.as_fd()).expect("the program's id");
            let info = ProgInfoIter::default().find(|info| info.id == id).expect("its info");
            let (name, verified) = (program.name().to_string_lossy(), info.verified_insns);
            println!("{}, {name}: {verified} instructions verified", datapath.hook.name());
            assert!(verified > 0);
        }
    });
}

/// A few bytes of a good packet are changed.
#[test]
fn damaged_packets() {
    on_both_hooks("damaged", |datapath| {
        add_connections(datapath);
        let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
        let changes = proptest::collection::vec((0..60_usize, any::<u8>()), 1..4);
        let each = (any::<bool>(), changes);
        TestRunner::new(config)
            .run(&each, |(tcp, changes)| {
                let flow = Flow::snat(if tcp { Protocol::Tcp } else { Protocol::Udp });
                let mut frame = flow.incoming(false).payload(&[1; 40]).build();
                for (at, byte) in changes {
                    frame[at] = byte;
                }
                expect_lawful(datapath, &flow, &frame);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
    });
}
