// SPDX-License-Identifier: GPL-2.0-only
//! What every way through the router must show: both protocols, fast and intact.

use super::daemon::Daemon;
use super::lab::Lab;
use super::netns::Namespace;
use super::router::*;
use super::tcp::{Direction, Path, TcpPair};
use super::udp::UdpClient;

const BYTES: u64 = 4 << 20;

/// Where the connections are opened, and where they lead.
pub struct Ends<'a> {
    pub client: &'a Namespace,
    pub server: &'a Namespace,
}

/// UDP echoes, then TCP both ways, all on the fast path and intact.
pub fn try_both_protocols(lab: &Lab, hook: &str, udp: UdpClient, tcp: Path, ends: Ends<'_>) {
    let daemon = start(lab, hook, &[]);
    try_with(lab, &daemon, udp, tcp, ends);
    assert!(daemon.stop(LIMIT).success());
}

/// The same with a daemon that runs.
pub fn try_with(lab: &Lab, daemon: &Daemon, udp: UdpClient, tcp: Path, ends: Ends<'_>) {
    wait_until_fast(lab, &udp);
    let before = lab.stack_packets();
    assert_eq!(udp.count_echoes(0..50, LIMIT), 50);
    assert_eq!(lab.stack_packets(), before, "all 50 took the fast path");

    let pair = TcpPair::open(ends.client, ends.server, tcp);
    wait_until_tcp_fast(lab, &pair);
    transfer(lab, daemon, &pair);
}

/// Much TCP both ways, intact, and nearly all of it on the fast path.
pub fn transfer(lab: &Lab, daemon: &Daemon, pair: &TcpPair) {
    let (before, counted) = (lab.stack_packets(), forwarded(daemon));
    for (direction, seed) in [(Direction::ToServer, 1), (Direction::ToClient, 2)] {
        pair.transfer(direction, BYTES, seed);
    }
    let (stack, fast) = (lab.stack_packets() - before, forwarded(daemon) - counted);
    println!("{fast} packets on the fast path, {stack} by the stack");
    assert!(stack * 50 <= fast, "{stack} of {fast} packets went by the stack");
}
