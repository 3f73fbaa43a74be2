// SPDX-License-Identifier: GPL-2.0-only
//! A hundred thousand offloaded connections follow a routing change as one does: by one write. The
//! period in which they prove themselves follows their number.

mod support;

use std::net::Ipv4Addr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use support::capture::Capture;
use support::crowd;
use support::daemon::Daemon;
use support::lab::{Lab, SERVER, SERVER_MAC, show};
use support::maps::Maps;
use support::packet::Mac;
use support::router::*;
use support::rules::no_nat_rules;
use support::steady::{expect_frame, goes_to, last_of};
use support::wait::eventually;

on_both_hooks!(
    hazard_07_many_connections_move_by_one_write,
    hazard_67_the_period_follows_the_number_of_connections,
);

const CONNECTIONS: u32 = 100_000;
/// Each 200th connection is looked at.
const SAMPLE: usize = 200;
const PACE: Duration = Duration::from_micros(200);
/// Another gateway, of which only the MAC address exists.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const OTHER_MAC: Mac = [2, 0, 0, 0, 2, 77];

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
    let daemon = start(&lab, hook, &["--log-level", "info", "--max-connections", "200000"]);
    let lan = Capture::open(&lab.client, "eth0");
    let started = Instant::now();
    crowd::offload(&lab, &lan, &daemon, CONNECTIONS);
    let all = Maps::of(daemon.pid()).entries() / 2;
    println!("{hook}: {all} connections offloaded in {:?}", started.elapsed());
    assert!(all > CONNECTIONS as usize / 100 * 99, "{all} connections");
    let frames: Vec<_> = (0..CONNECTIONS).step_by(SAMPLE).map(crowd::frame).collect();
    // The stack must see one packet more of a connection that has not taken the fast path yet.
    frames.iter().for_each(|frame| lan.send_frame(frame));
    let before = Maps::of(daemon.pid()).generation();
    let last = follow(&lab, &lan, &frames);
    let writes = Maps::of(daemon.pid()).generation().wrapping_sub(before);
    assert_eq!(writes, 1, "the daemon's writes for all of them");
    println!("{hook}: the last packet the old way {last:?} after the change");
    assert_eq!(Maps::of(daemon.pid()).entries() / 2, all, "none was offloaded anew");
    // A busy machine makes the daemon late now and then, and the stack forwards for a moment.
    eventually(LIMIT, "all of the sample is on the fast path", || {
        let (stack, wan) = (lab.stack_packets(), Capture::open(&lab.server, "eth0"));
        frames.iter().for_each(|frame| lan.send_frame(frame));
        let moved = wan.collect(Duration::from_millis(500), |frame| goes_to(frame, OTHER_MAC));
        assert_eq!(moved.len(), frames.len(), "each of the sample has moved");
        lab.stack_packets() == stack
    });
}

/// With more than a hundred thousand, the running daemon doubles the period; with few, it goes back.
fn hazard_67_the_period_follows_the_number_of_connections(hook: &str, test: &str) {
    let lab = lab(hook, test, &no_nat_rules());
    lab.static_neighbours();
    lab.router.ip(&format!("route add default via {SERVER}\n"));
    let options = ["--log-level", "info", "--max-connections", "200000", "lan0", "wan0"];
    let daemon = Daemon::start(&lab.router, &[&[hook][..], &options].concat());
    daemon.wait_for_line("forwarding", LIMIT);
    let maps = Maps::of(daemon.pid());
    let few = maps.period();
    let (_server, client) = echo(&lab, 40000);
    let mut number = 0;
    let mut wait_for_period = |period: u32| {
        eventually(LIMIT, "the period follows", || {
            number += 1;
            assert!(client.echoes(number, LIMIT), "echo {number} is lost");
            maps.period() == period && maps.generation() != 0
        });
        let (before, started) = (forwarded(&daemon), Instant::now());
        wait_until_fast(&lab, &client);
        assert!(forwarded(&daemon) > before);
        println!("{hook}: fast {:?} after the period became 2^{period} ticks", started.elapsed());
    };
    let lan = Capture::open(&lab.client, "eth0");
    crowd::offload(&lab, &lan, &daemon, CONNECTIONS + 500);
    wait_for_period(few + 1);
    lab.conntrack(&["-D", "-d", &crowd::SERVICE.ip().to_string()]);
    wait_for_period(few);
    assert!(daemon.stop(LIMIT).success());
}
