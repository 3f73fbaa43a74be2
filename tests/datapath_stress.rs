// SPDX-License-Identifier: GPL-2.0-only
//! Connections come and go while packets run: each packet gets its own connection's translation
//! or none. The kernel reuses a deleted entry's memory at once, also while a program reads it.
//! It takes an interrupt at the right moment to see that; `reused` in datapath_verdicts.rs makes
//! the same state by hand.

mod support;

use bpfw::abi::{bpfw_rest, bpfw_tuple};
use bpfw::datapath::Hook;
use bpfw::datapath::conn_map::{Added, ConnMap, Connection};
use bpfw::flow::tuple::Protocol;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::datapath::{Datapath, Input, on_hook};
use support::flow::{DMZ, Flow, LAN, WAN};

const TIME: Duration = Duration::from_secs(2);
const FLOWS: u16 = 6;

/// Connections whose tuples differ in a port, and whose ways and translations differ in all.
fn flows(ipv6: bool) -> Vec<Flow> {
    (0..FLOWS)
        .map(|i| {
            let source = SocketAddrV4::new([10, 9, i as u8, 3].into(), 7000 + 11 * i);
            let far = if i % 2 == 0 { WAN } else { DMZ };
            let (before, after) = ((LAN.at(40000 + i), WAN.at(443)), (source, far.at(53 + i)));
            // Numbers whose first bit, which the datapath flips for replies, is free.
            let id = 1000 + 2 * u32::from(i);
            Flow { ipv6, far, id, ..Flow::new(Protocol::Udp, before, after) }
        })
        .collect()
}

/// Deletes each connection and adds the next one, which is likely to get its memory.
fn churn(connections: &mut ConnMap, flows: &[Flow], stop: &AtomicBool) -> u64 {
    let mut rounds = 0;
    for index in (0..flows.len()).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (old, new) = (&flows[index], &flows[(index + 1) % flows.len()]);
        let tuples = [false, true].map(|reply| bpfw_tuple::from(old.tuple(reply)));
        connections.remove(&tuples[0], &tuples[1]).expect("removing");
        let added = connections.add(&new.connection()).expect("adding");
        assert_eq!(added, Added::Added);
        rounds += 1;
        // Time for a proof and a few packets.
        std::thread::sleep(Duration::from_micros(200));
    }
    rounds
}

/// Runs frames until time is up; returns how many were forwarded.
fn run_frames(datapath: &Datapath<'_>, flows: &[Flow]) -> u64 {
    let frames: Vec<_> = flows
        .iter()
        .map(|flow| [flow.incoming(false), flow.outgoing(false)].map(|p| p.payload(b"x").build()))
        .collect();
    let (end, mut forwarded) = (Instant::now() + TIME, 0);
    while Instant::now() < end {
        for ([before, after], flow) in frames.iter().zip(flows) {
            // Each connection is there for so short a time that its proof has to follow at once.
            for _ in 0..4 {
                let outcome = datapath.run_uncounted(Input::new(LAN, before)).expect("a test run");
                if outcome.action == datapath.redirect() {
                    assert_eq!(&outcome.frame, after);
                    forwarded += 1;
                    break;
                }
                assert_eq!(outcome.action, datapath.pass());
                assert_eq!(&outcome.frame, before);
                // As the stack does: the proof may meet another connection in the entry by now.
                let Connection { id, mark, .. } = flow.connection();
                let rest = bpfw_rest { id, mark, way_back: LAN.ifindex(), ..Default::default() };
                datapath.prove_with(flow, false, &rest);
            }
        }
    }
    forwarded
}

/// Sets its flag when it goes, also in a panic: the other thread must end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn stress(datapath: &mut Datapath<'_>) {
    for ipv6 in [false, true] {
        stress_with(datapath, &flows(ipv6));
    }
}

fn stress_with(datapath: &Datapath<'_>, flows: &[Flow]) {
    let mut connections = ConnMap::new(datapath.object.object()).expect("connections");
    let stop = AtomicBool::new(false);
    let (forwarded, rounds) = std::thread::scope(|scope| {
        let churner = scope.spawn(|| churn(&mut connections, flows, &stop));
        let stopping = Stop(&stop);
        let forwarded = run_frames(datapath, flows);
        drop(stopping);
        (forwarded, churner.join().expect("no panic"))
    });
    eprintln!("{forwarded} packets forwarded in {rounds} changes");
    assert!(forwarded > 100 && rounds > 100, "{forwarded} packets, {rounds} changes: no stress");
}

#[test]
fn hazard_28_xdp_never_mixes_connections() {
    on_hook("stress", Hook::Xdp, stress);
}

#[test]
fn hazard_28_tc_never_mixes_connections() {
    on_hook("stress", Hook::Tc, stress);
}
