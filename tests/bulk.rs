// SPDX-License-Identifier: GPL-2.0-only
//! A gibibyte over one TCP connection through SNAT, compared by hash.

mod support;

use support::lab::SERVER;
use support::router::*;
use support::rules::snat_rules;
use support::tcp::{Direction, Path, TcpPair};

on_both_hooks!(hazard_01_a_gibibyte_arrives_as_it_was_sent);

fn hazard_01_a_gibibyte_arrives_as_it_was_sent(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    wait_until_tcp_fast(&lab, &pair);
    let before = (lab.stack_packets(), forwarded(&daemon));
    let time = pair.transfer(Direction::ToServer, 1 << 30, 42);
    let (stack, fast) = (lab.stack_packets() - before.0, forwarded(&daemon) - before.1);
    let share = 100.0 * fast as f64 / (fast + stack) as f64;
    println!("{hook}: 1 GiB in {time:?}; {fast} packets fast, {stack} by the stack ({share:.3} %)");
    assert!(stack * 100 <= fast, "{stack} of {fast} packets went by the stack");
    let rules = lab.router.sh("nft list chain ip rules forward");
    assert!(rules.contains("invalid counter packets 0 "), "{rules}");
}
