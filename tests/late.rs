// SPDX-License-Identifier: GPL-2.0-only
//! A daemon that is stopped for longer than the heartbeat's limit. From then on the fast path
//! forwards nothing, not even in the moment when the daemon goes on.

mod support;

use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use support::capture::{Capture, Frame};
use support::lab::{CLIENT, SERVER, SERVER_MAC, show};
use support::outlaw::{Outlaw, allow_for_a_moment, conntrack};
use support::packet::Mac;
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::steady::{Steady, expect_frame, goes_to, is_udp, last_of};
use support::udp::{UdpClient, udp_echo};
use support::wait::eventually;

on_both_hooks!(
    hazard_17_a_stopped_daemon_forwards_nothing_stale,
    hazard_29_a_starved_daemon_revives_nothing,
);

/// How long the daemon stands still: seconds, or more if BPFW_PAUSE says so.
fn pause() -> Duration {
    let seconds = std::env::var("BPFW_PAUSE").ok().and_then(|value| value.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

fn hazard_17_a_stopped_daemon_forwards_nothing_stale(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    allow_for_a_moment(&lab);
    let ends = echo(&lab, 40000);
    let outlaw = Outlaw::new(lab, daemon, ends);
    let stopped = Instant::now();
    outlaw.daemon.signal(Signal::SIGSTOP);
    conntrack(&outlaw.lab, &["-D", "-p", "udp", "--sport", "40000"]);
    let last = last_of(&outlaw.capture, stopped, is_udp);
    println!("{hook}: the last packet {last:?} after the stop");
    let later = outlaw.capture.next(pause(), |frame| !frame.outgoing && is_udp(frame));
    assert_eq!(later, None, "it stays so");
    let mark = outlaw.daemon.mark();
    outlaw.daemon.signal(Signal::SIGCONT);
    assert_eq!(last_of(&outlaw.capture, Instant::now(), is_udp), Duration::ZERO);
    outlaw.daemon.wait_for_line_after(mark, "forwarding", LIMIT);
    outlaw.lab.nft("delete table ip beginning");
    let forwarded_before = forwarded(&outlaw.daemon);
    eventually(LIMIT, "the fast path is back", || {
        forwarded(&outlaw.daemon) > forwarded_before + 10
    });
}

/// The route changes each time while the daemon stands still, in another moment of its work.
fn hazard_29_a_starved_daemon_revives_nothing(hook: &str, test: &str) {
    const OTHER_MAC: Mac = [2, 0, 0, 0, 2, 77];
    let lab = lab(hook, test, &no_nat_rules());
    lab.static_neighbours();
    let service = at("203.0.113.7".parse().expect("an address"), 7);
    lab.server.ip("addr add 203.0.113.7/32 dev lo\n");
    lab.router.ip(&format!(
        "neigh add 198.51.100.77 lladdr {} dev wan0 nud permanent\nroute add default via {SERVER}\n",
        show(OTHER_MAC)
    ));
    let daemon = start(&lab, hook, &["--interval", "10"]);
    let _server = udp_echo(&lab.server, service);
    let client = UdpClient::open(&lab.client, at(CLIENT, 40000), service);
    wait_until_fast(&lab, &client);
    let _stream = Steady::start(&client);
    let wan = Capture::open(&lab.server, "eth0");
    let old = |frame: &Frame| goes_to(frame, SERVER_MAC);
    for round in 0..4_u32 {
        let before = forwarded(&daemon);
        eventually(LIMIT, "the fast path goes the old way", || forwarded(&daemon) > before + 10);
        std::thread::sleep(Duration::from_micros(u64::from(round) * 3_700));
        daemon.signal(Signal::SIGSTOP);
        std::thread::sleep(Duration::from_millis(1_100));
        lab.router.ip("route replace default via 198.51.100.77\n");
        // What was sent before is read here.
        last_of(&wan, Instant::now(), old);
        daemon.signal(Signal::SIGCONT);
        assert_eq!(last_of(&wan, Instant::now(), old), Duration::ZERO);
        expect_frame(&wan, "packets go the new way", |frame| goes_to(frame, OTHER_MAC));
        lab.router.ip(&format!("route replace default via {SERVER}\n"));
        expect_frame(&wan, "packets go the old way again", old);
    }
}
