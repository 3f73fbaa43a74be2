// SPDX-License-Identifier: GPL-2.0-only
//! Frames that nobody sends: they pass, unchanged, whatever they look like.

mod support;

use bpfw::datapath::Hook;
use bpfw::flow::tuple::Protocol;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::datapath::{Datapath, Input, on_both_hooks};
use support::flow::{Flow, LAN, PROTOCOLS};

/// The longest frame of these tests.
const LONGEST: usize = 2000;

/// The same bytes in each run.
fn random() -> TestRng {
    TestRng::deterministic_rng(RngAlgorithm::ChaCha)
}

/// Passed as it was; or refused by the kernel's test run, which takes no cut IP headers on TC.
fn expect_passed(datapath: &Datapath<'_>, frame: &[u8]) {
    match datapath.run_uncounted(Input::new(LAN, frame)) {
        Ok(outcome) => {
            assert_eq!(outcome.action, datapath.pass(), "{frame:02x?}");
            assert_eq!(outcome.frame, frame);
        }
        Err(error) => {
            assert_eq!(error.kind(), libbpf_rs::ErrorKind::InvalidInput);
            assert!(datapath.hook == Hook::Tc && frame.len() < 60, "{error}: {frame:02x?}");
        }
    }
}

fn add_connections(datapath: &Datapath<'_>) {
    for flow in PROTOCOLS.map(Flow::snat) {
        datapath.add(&flow);
    }
}

#[test]
fn random_bytes() {
    on_both_hooks("random", |datapath| {
        add_connections(datapath);
        let mut random = random();
        for length in 14..=LONGEST {
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
        for length in 14..=LONGEST {
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
                for length in 14..whole.len() {
                    expect_passed(datapath, &whole[..length]);
                }
            }
        }
    });
}

/// A few bytes of a good packet are changed: it passes unchanged, or is forwarded; nothing else.
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
                let outcome = datapath.run_uncounted(Input::new(LAN, &frame)).unwrap();
                if outcome.action == datapath.pass() {
                    prop_assert_eq!(outcome.frame, frame);
                } else {
                    prop_assert_eq!(outcome.action, datapath.redirect());
                    prop_assert!(support::checksum::sum(&outcome.frame[14..34]) == 0xffff);
                }
                // A damaged flag may have ended the connection.
                if datapath.entry(&flow, false).finished != 0 {
                    datapath.remove(&flow);
                    datapath.add(&flow);
                }
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
    });
}
