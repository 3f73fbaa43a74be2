// SPDX-License-Identifier: GPL-2.0-only
//! Storms of conntrack events: deletions are heeded first, and connections that nothing is known
//! against stay on the fast path.

mod support;

use bpfw::abi;
use bpfw::conntrack::requests::Requests;
use bpfw::flow::tuple::{Protocol, Tuple};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::capture::{Capture, Frame};
use support::crowd;
use support::lab::{CLIENT, Lab, ROUTER_WAN, SERVER};
use support::maps::Maps;
use support::outlaw::{Outlaw, allow_for_a_moment, conntrack};
use support::router::*;
use support::rules::no_nat_rules;
use support::steady::last_of;
use support::wait::eventually;

on_both_hooks!(
    hazard_30_a_storm_of_events_stops_nobody,
    hazard_30_deletions_come_before_new_connections,
);

/// Offloaded connections beside that which is deleted.
const CROWD: u32 = 1_000;
/// The storm is about so many others, with the router itself, which are never offloaded.
const STORM: u32 = 20_000;
/// Events that are asked for by one call.
const GUST: usize = 200;
const STEP: Duration = Duration::from_millis(1);

/// Events a second, which a daemon that is built for debugging reads on a busy machine.
fn strength() -> f64 {
    let number = std::env::var("BPFW_STORM").ok().and_then(|value| value.parse().ok());
    number.unwrap_or(10_000.0)
}

/// Ends the storm, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Of the storm.
fn tuple(number: u32) -> Tuple {
    Tuple { destination: at(ROUTER_WAN, 9).into(), ..crowd::tuple(number) }
}

/// Makes conntrack's entries of the storm.
fn prepare(lab: &Lab) {
    let (mut lines, to) = (String::new(), ROUTER_WAN);
    for number in 0..STORM {
        let from = tuple(number).source;
        lines += &format!(
            "-I -p udp -s {} -d {to} --sport {} --dport 9 -r {to} -q {} --reply-port-src 9 \
             --reply-port-dst {} -t 600 -u SEEN_REPLY,ASSURED\n",
            from.ip(),
            from.port(),
            from.ip(),
            from.port()
        );
    }
    lab.router.run_with_input(&["conntrack", "-R", "-"], &lines);
}

/// Changes nothing of these entries, again and again, of which conntrack sends an event each time.
fn storm(lab: &Lab, ends: &AtomicBool, sent: &AtomicU64) {
    let mut requests = lab.router.enter(Requests::open).expect("sockets to conntrack");
    let mut numbers = (0..STORM).cycle();
    let (started, strength) = (Instant::now(), strength());
    while !ends.load(Ordering::Relaxed) {
        for number in numbers.by_ref().take(GUST) {
            requests.queue_update(&tuple(number), None, false).expect("queued");
        }
        requests.flush().expect("sent");
        let sent = sent.fetch_add(GUST as u64, Ordering::Relaxed) as f64;
        while sent > started.elapsed().as_secs_f64() * strength {
            std::thread::sleep(STEP);
        }
    }
}

/// The stream that is deleted.
fn stream() -> Tuple {
    Tuple::new(Protocol::Udp, at(CLIENT, 40000), ECHO)
}

/// Deletes the stream from conntrack, and says when it was gone.
fn delete(lab: &Lab) -> Instant {
    let mut requests = lab.router.enter(Requests::open).expect("sockets to conntrack");
    std::thread::scope(|scope| {
        scope.spawn(|| conntrack(lab, &["-D", "-p", "udp", "--sport", "40000"]));
        while requests.get(&stream()).expect("an answer").is_some() {
            std::thread::sleep(Duration::from_micros(200));
        }
        Instant::now()
    })
}

/// Of the connection that is deleted.
fn is_of_the_stream(frame: &Frame) -> bool {
    frame.view().is_some_and(|view| view.src == at(CLIENT, 40000) && view.protocol == 17)
}

/// Packets that went to the stack because the fast path as a whole was not sure of itself.
fn paused(maps: &Maps) -> u64 {
    maps.packets(abi::BPFW_PASS_PAUSED) + maps.packets(abi::BPFW_PASS_HEARTBEAT)
}

fn hazard_30_a_storm_of_events_stops_nobody(hook: &str, test: &str) {
    let lab = lab(hook, test, &no_nat_rules());
    lab.static_neighbours();
    lab.router.ip(&format!("route add default via {SERVER}\n"));
    let daemon = start(&lab, hook, &["--log-level", "info", "--max-connections", "16000"]);
    let lan = Capture::open(&lab.client, "eth0");
    crowd::offload(&lab, &lan, &daemon, CROWD);
    prepare(&lab);
    allow_for_a_moment(&lab);
    let ends = echo(&lab, 40000);
    let outlaw = Outlaw::new(lab, daemon, ends);
    let maps = Maps::of(outlaw.daemon.pid());
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| storm(&outlaw.lab, &over, &sent));
        let _end = End(&over);
        eventually(LIMIT, "the storm is there", || sent.load(Ordering::Relaxed) > 2_000);
        let (before, fast) = (paused(&maps), maps.packets(abi::BPFW_FORWARDED));
        for _ in 0..2 {
            (0..CROWD).for_each(|number| lan.send_frame(&crowd::frame(number)));
            std::thread::sleep(Duration::from_millis(300));
        }
        let fast = maps.packets(abi::BPFW_FORWARDED) - fast;
        let stopped = paused(&maps) - before;
        println!("{hook}: {fast} packets forwarded, {stopped} not because of the storm");
        let deleted = delete(&outlaw.lab);
        // The one before is full of frames of all that time, which would be read as if they came now.
        let capture = Capture::open(&outlaw.lab.server, "eth0");
        let last = last_of(&capture, deleted, is_of_the_stream);
        println!("{hook}, in a storm: the last packet {last:?} after the deletion");
        // A busy machine may stop the daemon for a moment.
        assert!(stopped * 10 <= fast, "the storm has sent {stopped} packets to the stack");
        assert!(last < Duration::from_millis(100), "the deletion counts late");
    });
    let number = sent.load(Ordering::Relaxed) as f64;
    println!("{hook}: {:.0} events a second", number / started.elapsed().as_secs_f64());
}

/// A deletion is the last of many events, all others are about connections that are not offloaded yet. When it
/// is heeded, few of these are.
fn hazard_30_deletions_come_before_new_connections(hook: &str, test: &str) {
    const NEW: u32 = 8_000;
    let lab = lab(hook, test, &no_nat_rules());
    // The timeout of the crowd's entries, which must be a usual one.
    lab.router.sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", "600");
    // The heartbeat is not late when the daemon goes on.
    let daemon = start(&lab, hook, &["--interval", "1000", "--log-level", "info"]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let maps = Maps::of(daemon.pid());
    assert_eq!(maps.entries(), 2);
    crowd::insert(&lab, 0..NEW, crowd::STREAM);
    daemon.signal(Signal::SIGSTOP);
    let mut requests = lab.router.enter(Requests::open).expect("sockets to conntrack");
    for number in 0..NEW {
        requests.queue_update(&crowd::tuple(number), None, false).expect("queued");
    }
    requests.flush().expect("sent");
    delete(&lab);
    daemon.signal(Signal::SIGCONT);
    eventually(LIMIT, "the deletion is heeded", || !maps.has_connection(stream()));
    daemon.signal(Signal::SIGSTOP);
    let before = maps.entries() / 2;
    println!(
        "{hook}: {before} of {NEW} new connections were offloaded before the deletion counted"
    );
    assert!(before < NEW as usize / 2, "{before} new connections were offloaded first");
    daemon.signal(Signal::SIGCONT);
    eventually(LIMIT, "the new ones are offloaded", || maps.entries() / 2 == NEW as usize);
}
