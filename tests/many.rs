// SPDX-License-Identifier: GPL-2.0-only
//! A hundred thousand offloaded connections follow a routing change as one does: by one write.

mod support;

use bpfw::flow::tuple::{Protocol, Tuple};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use support::capture::Capture;
use support::daemon::Daemon;
use support::lab::{CLIENT_MAC, Lab, ROUTER_LAN_MAC, SERVER, SERVER_MAC, show};
use support::maps::Maps;
use support::packet::{Mac, Packet};
use support::router::*;
use support::rules::no_nat_rules;
use support::steady::{expect_frame, goes_to, last_of};
use support::wait::eventually;

on_both_hooks!(hazard_07_many_connections_move_by_one_write);

const CONNECTIONS: u32 = 100_000;
/// So many events at once do not fill the daemon's queue.
const BATCH: usize = 5_000;
/// Each 200th connection is looked at.
const SAMPLE: usize = 200;
const PACE: Duration = Duration::from_micros(200);
const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 7), 9);
/// Another gateway, of which only the MAC address exists.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const OTHER_MAC: Mac = [2, 0, 0, 0, 2, 77];

/// Where connection `number` comes from: one of ten hosts in the LAN.
fn source(number: u32) -> SocketAddrV4 {
    let host = u8::try_from(10 + number / 10_000).expect("some hosts");
    at(Ipv4Addr::new(192, 0, 2, host), 10_000 + (number % 10_000) as u16)
}

fn tuple(number: u32) -> Tuple {
    Tuple { protocol: Protocol::Udp, source: source(number), destination: SERVICE }
}

fn frame(number: u32) -> Vec<u8> {
    Packet::udp(source(number), SERVICE).mac(CLIENT_MAC, ROUTER_LAN_MAC).build()
}

/// Entries of conntrack that have seen both directions: the next packet makes them streams.
fn insert(lab: &Lab, numbers: Range<u32>) {
    let mut lines = String::new();
    for number in numbers {
        let (from, to) = (source(number), SERVICE);
        lines += &format!(
            "-I -p udp -s {} -d {} --sport {} --dport {} -r {} -q {} --reply-port-src {} \
             --reply-port-dst {} -t 600 -u SEEN_REPLY\n",
            from.ip(),
            to.ip(),
            from.port(),
            to.port(),
            to.ip(),
            from.ip(),
            to.port(),
            from.port()
        );
    }
    lab.router.run_with_input(&["conntrack", "-R", "-"], &lines);
}

/// Sends each connection's first packet, and waits until the last of a batch is offloaded.
fn offload_all(lan: &Capture, daemon: &Daemon) {
    let maps = Maps::of(daemon.pid());
    let numbers: Vec<u32> = (0..CONNECTIONS).collect();
    for batch in numbers.chunks(BATCH) {
        batch.iter().for_each(|number| lan.send_frame(&frame(*number)));
        let last = tuple(*batch.last().expect("some connections"));
        eventually(LIMIT, "the batch is offloaded", || maps.has_connection(last));
    }
}

/// When the last packet went the old way, while the sample's packets are sent again and again.
fn follow(lab: &Lab, lan: &Capture, frames: &[Vec<u8>]) -> Duration {
    let wan = Capture::open(&lab.server, "eth0");
    std::thread::scope(|scope| {
        // Dropped in any case, so that the thread ends.
        let (running, stopped) = mpsc::channel::<()>();
        scope.spawn(move || {
            for frame in frames.iter().cycle() {
                lan.send_frame(frame);
                if stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        });
        let _running = running;
        expect_frame(&wan, "packets go the old way", |frame| goes_to(frame, SERVER_MAC));
        let since = Instant::now();
        lab.router.ip(&format!("route replace default via {OTHER}\n"));
        last_of(&wan, since, |frame| goes_to(frame, SERVER_MAC))
    })
}

fn hazard_07_many_connections_move_by_one_write(hook: &str, test: &str) {
    let lab = lab(hook, test, &no_nat_rules());
    lab.static_neighbours();
    lab.router.ip(&format!(
        "neigh add {OTHER} lladdr {} dev wan0 nud permanent\nroute add default via {SERVER}\n",
        show(OTHER_MAC)
    ));
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    insert(&lab, 0..CONNECTIONS);
    let lan = Capture::open(&lab.client, "eth0");
    let started = Instant::now();
    offload_all(&lan, &daemon);
    let all = Maps::of(daemon.pid()).len("conn_map") / 2;
    println!("{hook}: {all} connections offloaded in {:?}", started.elapsed());
    assert!(all > CONNECTIONS as usize / 100 * 99, "{all} connections");
    let frames: Vec<_> = (0..CONNECTIONS).step_by(SAMPLE).map(frame).collect();
    // The stack must see one packet more of a connection that has not taken the fast path yet.
    frames.iter().for_each(|frame| lan.send_frame(frame));
    let last = follow(&lab, &lan, &frames);
    println!("{hook}: the last packet the old way {last:?} after the change");
    assert_eq!(Maps::of(daemon.pid()).len("conn_map") / 2, all, "none was offloaded anew");
    let (stack, wan) = (lab.stack_packets(), Capture::open(&lab.server, "eth0"));
    frames.iter().for_each(|frame| lan.send_frame(frame));
    let moved = wan.collect(Duration::from_millis(500), |frame| goes_to(frame, OTHER_MAC));
    assert_eq!(moved.len(), frames.len(), "each of the sample has moved");
    assert_eq!(lab.stack_packets(), stack, "and is on the fast path");
}
