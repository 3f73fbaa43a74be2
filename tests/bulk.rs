// SPDX-License-Identifier: GPL-2.0-only
//! Gibibytes over one TCP connection through SNAT, compared by hash, and a RST at the end.

mod support;

use support::conntrack::is_in_state;
use support::lab::{Lab, Offloads, SERVER};
use support::router::*;
use support::rules::{INVALID, snat_rules};
use support::tcp::{Direction, Path, TcpPair, reset};
use support::wait::eventually;

on_both_hooks!(
    hazard_12_default_offloads_keep_the_content,
    hazard_25_gibibytes_arrive_as_they_were_sent,
);

/// More than 2 GiB where segments are aggregated, which is quick; `BPFW_BULK_GIB` says otherwise.
fn gibibytes(hook: &str) -> u64 {
    let asked = std::env::var("BPFW_BULK_GIB").ok();
    let asked = asked.map(|number| number.parse().expect("BPFW_BULK_GIB is a number"));
    asked.unwrap_or(if hook == "tc" { 3 } else { 1 })
}

fn hazard_25_gibibytes_arrive_as_they_were_sent(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.nft(INVALID);
    let daemon = start(&lab, hook, &[]);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    wait_until_tcp_fast(&lab, &pair);
    let before = (lab.stack_packets(), forwarded(&daemon));
    let number = gibibytes(hook);
    let time = pair.transfer(Direction::ToServer, number << 30, 42);
    let (stack, fast) = (lab.stack_packets() - before.0, forwarded(&daemon) - before.1);
    let share = 100.0 * fast as f64 / (fast + stack) as f64;
    println!(
        "{hook}: {number} GiB in {time:?}; {fast} packets fast, {stack} by the stack ({share:.3} %)"
    );
    assert!(stack * 100 <= fast, "{stack} of {fast} packets went by the stack");
    let port = pair.client.local_addr().unwrap().port();
    reset(pair.client);
    eventually(LIMIT, "the reset is seen", || is_in_state(&lab, port, "CLOSE "));
    assert_eq!(lab.invalid_packets(), 0);
}

/// The hosts leave checksums and splitting to their NICs: TC forwards such packets as they are, XDP
/// passes up what it cannot finish. Both ways, compared by hash.
fn hazard_12_default_offloads_keep_the_content(hook: &str, test: &str) {
    const BYTES: u64 = 32 << 20;
    const PACKET: u64 = 1500;
    let lab = Lab::new(test, Offloads::Default);
    lab.nft(&snat_rules());
    lab.nft(INVALID);
    lab.route_server_via_router();
    let daemon = start(&lab, hook, &[]);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    pair.exchange();
    if hook == "tc" {
        wait_until_tcp_fast(&lab, &pair);
    }
    let before = (lab.stack_packets(), forwarded(&daemon));
    for (direction, seed) in [(Direction::ToServer, 1), (Direction::ToClient, 2)] {
        pair.transfer(direction, BYTES, seed);
    }
    let (stack, fast) = (lab.stack_packets() - before.0, forwarded(&daemon) - before.1);
    println!("{hook}: {} MiB each way; {fast} packets fast, {stack} by the stack", BYTES >> 20);
    if hook == "tc" {
        assert!(stack * 50 <= fast, "{stack} of {fast} packets went by the stack");
        assert!(2 * BYTES > fast * 2 * PACKET, "{fast} packets: they are no longer aggregated");
    }
    assert_eq!(lab.invalid_packets(), 0);
}
