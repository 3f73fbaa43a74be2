// SPDX-License-Identifier: GPL-2.0-only
//! At TC, packets leave with the priority that the stack would give them.

mod support;

use nix::sys::socket::{setsockopt, sockopt};
use support::lab::Lab;
use support::live::root_or_skip;
use support::priorities::Priorities;
use support::router::*;
use support::rules::snat_rules;
use support::udp::UdpClient;
use support::wait::eventually;

const SYSCTL: &str = "net/ipv4/ip_forward_update_priority";

/// Each class of rt_tos2priority, and bits beside it.
const TYPES_OF_SERVICE: [i32; 6] = [0x00, 0x08, 0x10, 0x18, 0xe0, 0xfc];

/// The priority that packets of each type of service leave with; `None` if they differ, as they do while
/// the daemon follows the sysctl.
fn priorities(lab: &Lab, client: &UdpClient, egress: &Priorities) -> Vec<Option<u32>> {
    TYPES_OF_SERVICE.map(|tos| priority(lab, client, egress, tos)).to_vec()
}

fn priority(lab: &Lab, client: &UdpClient, egress: &Priorities, tos: i32) -> Option<u32> {
    const PACKETS: u64 = 5;
    setsockopt(client.socket(), sockopt::Ipv4Tos, &tos).expect("a type of service");
    let before = egress.seen();
    assert_eq!(client.count_echoes(0..PACKETS, LIMIT), PACKETS as usize);
    let mut sent = egress.seen();
    for (priority, packets) in before {
        *sent.get_mut(&priority).expect("counters grow") -= packets;
    }
    sent.retain(|_, packets| *packets > 0);
    assert_eq!(sent.values().sum::<u64>(), PACKETS, "{}", lab.conntrack_list());
    let mut sent = sent.into_keys();
    sent.next().filter(|_| sent.next().is_none())
}

#[test]
fn hazard_51_priorities_are_the_stacks() {
    if !root_or_skip("hazard_51_priorities_are_the_stacks") {
        return;
    }
    let lab = lab("tc", "priorities", &snat_rules());
    let egress = Priorities::at_egress(&lab.router, "wan0");
    let (_server, client) = echo(&lab, 40000);
    assert!(client.echoes(0, LIMIT), "neighbors are found");
    let by_stack = ["0", "1"].map(|value| {
        lab.router.sysctl(SYSCTL, value);
        priorities(&lab, &client, &egress)
    });
    assert_ne!(by_stack[0], by_stack[1], "the sysctl makes a difference");
    assert!(by_stack.iter().flatten().all(Option::is_some), "the stack's do not differ");

    lab.router.sysctl(SYSCTL, "0");
    let daemon = start(&lab, "tc", &[]);
    wait_until_fast(&lab, &client);
    let expect = |expected: &[Option<u32>]| {
        // Nothing tells the daemon, so it looks again and again.
        eventually(LIMIT, "the sysctl is followed", || {
            priorities(&lab, &client, &egress) == expected
        });
        // All of it takes the fast path, so that the priorities are not the stack's.
        let (before, fast) = (lab.stack_packets(), forwarded(&daemon));
        assert_eq!(priorities(&lab, &client, &egress), expected);
        assert_eq!(lab.stack_packets(), before);
        assert!(forwarded(&daemon) > fast);
    };
    // At once: the sysctl was so before the start.
    assert_eq!(priorities(&lab, &client, &egress), by_stack[0]);
    for value in [0, 1, 0] {
        lab.router.sysctl(SYSCTL, &value.to_string());
        expect(&by_stack[value]);
    }
}
