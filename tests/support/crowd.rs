// SPDX-License-Identifier: GPL-2.0-only
//! Many offloaded connections at once, without as many sockets.

use super::capture::Capture;
use super::daemon::Daemon;
use super::lab::{CLIENT_MAC, Lab, ROUTER_LAN_MAC, ROUTER_WAN_MAC, SERVER_MAC};
use super::maps::Maps;
use super::packet::Packet;
use super::router::*;
use super::wait::eventually;
use bpfw::flow::tuple::{Protocol, Tuple};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Where all of them go.
pub const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 7), 9);
/// So many events at once do not fill the daemon's queue.
const BATCH: usize = 5_000;
/// Until packets are sent again whose connections have not come.
const AGAIN: Duration = Duration::from_millis(500);

/// Where connection `number` comes from: one of some hosts in the LAN.
pub fn source(number: u32) -> SocketAddrV4 {
    let host = u8::try_from(10 + number / 10_000).expect("some hosts");
    at(Ipv4Addr::new(192, 0, 2, host), 10_000 + (number % 10_000) as u16)
}

/// Its tuple.
pub fn tuple(number: u32) -> Tuple {
    Tuple::new(Protocol::Udp, source(number), SERVICE)
}

/// A packet of it from the LAN.
pub fn frame(number: u32) -> Vec<u8> {
    Packet::udp(source(number), SERVICE).mac(CLIENT_MAC, ROUTER_LAN_MAC).build()
}

/// The answer to it.
pub fn answer(number: u32) -> Vec<u8> {
    Packet::udp(SERVICE, source(number)).mac(SERVER_MAC, ROUTER_WAN_MAC).build()
}

/// Conntrack's word for entries that have seen both directions: the next packet makes them streams.
const ANSWERED: &str = "SEEN_REPLY";
/// And for streams, which no packet changes.
pub const STREAM: &str = "SEEN_REPLY,ASSURED";

/// Entries of conntrack with this status.
pub fn insert(lab: &Lab, numbers: Range<u32>, status: &str) {
    let mut lines = String::new();
    for number in numbers {
        let (from, to) = (source(number), SERVICE);
        lines += &format!(
            "-I -p udp -s {} -d {} --sport {} --dport {} -r {} -q {} --reply-port-src {} \
             --reply-port-dst {} -t 600 -u {status}\n",
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

/// Makes so many connections, which their first packets bring to the fast path.
pub fn offload(lab: &Lab, lan: &Capture, daemon: &Daemon, number: u32) {
    insert(lab, 0..number, ANSWERED);
    let maps = Maps::of(daemon.pid());
    let numbers: Vec<u32> = (0..number).collect();
    for batch in numbers.chunks(BATCH) {
        let (mut missing, mut sent) = (batch.to_vec(), None::<Instant>);
        eventually(LIMIT, "the batch is offloaded", || {
            missing.retain(|number| !maps.has_connection(tuple(*number)));
            // A signal may be lost, and comes again with the next packet.
            if sent.is_none_or(|sent| sent.elapsed() > AGAIN) {
                missing.iter().for_each(|number| lan.send_frame(&frame(*number)));
                sent = Some(Instant::now());
            }
            missing.is_empty()
        });
    }
}
