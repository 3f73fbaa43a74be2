// SPDX-License-Identifier: GPL-2.0-only
//! Floods of packets and storms of changes. The daemon's work stays bounded, its heart beats on,
//! and the connections that are on the fast path stay there.

mod support;

use bpfw::abi;
use bpfw::flow::tuple::{Protocol, Tuple};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use support::capture::Capture;
use support::crowd;
use support::daemon::Daemon;
use support::lab::{
    CLIENT, CLIENT_MAC, Lab, ROUTER_LAN_MAC, ROUTER_WAN_MAC, SERVER, SERVER_MAC, show,
};
use support::maps::Maps;
use support::packet::{Mac, Packet};
use support::router::*;
use support::rules::no_nat_rules;
use support::steady::goes_to;
use support::udp::{UdpClient, udp_echo};
use support::wait::eventually;

on_both_hooks!(
    hazard_16_a_flood_takes_nothing_from_the_fast_path,
    hazard_30_storms_of_changes_are_bounded,
    hazard_55_all_whose_route_moves_prove_themselves_anew,
);

const CROWD: u32 = 1_000;
/// Those of them that rules drop where their route moves.
const DROPPED: u32 = 100;

/// So many of the flood's tuples are tracked: the kernel's table holds more.
const TRACKED: u32 = 50_000;

/// Packets of the flood from each side: a hundred thousand in all, or what BPFW_FLOOD says.
fn flood_size() -> u32 {
    let size = std::env::var("BPFW_FLOOD").ok().and_then(|value| value.parse().ok());
    size.unwrap_or(100_000_u32) / 2
}

/// Resident memory in KiB, and CPU time in ticks of 10 ms.
fn cost(daemon: &Daemon) -> (u64, u64) {
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/{}/{file}", daemon.pid())).expect("it runs")
    };
    let status = read("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("its memory");
    let memory = line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let stat = read("stat");
    let times = stat.split_whitespace().skip(13).take(2);
    (memory.expect("a number"), times.filter_map(|word| word.parse::<u64>().ok()).sum())
}

/// Says what the daemon needed since `before`, and that its heart never missed.
fn report(what: &str, daemon: &Daemon, before: (u64, u64), started: Instant) {
    let (after, time) = (cost(daemon), started.elapsed());
    let (grown, ticks) = (after.0.saturating_sub(before.0), after.1 - before.1);
    println!("{what}: {time:?}, {ticks}0 ms of CPU, {grown} KiB more memory");
    assert!(grown < 32 << 10, "its memory grows by {grown} KiB");
    let late = Maps::of(daemon.pid()).packets(abi::BPFW_PASS_HEARTBEAT);
    assert_eq!(late, 0, "packets that saw a late heartbeat");
}

/// Sends packets with `tuples` random addresses and ports.
fn flood(capture: &Capture, macs: (Mac, Mac), to: SocketAddrV4, tuples: u32) {
    for number in 0..flood_size() {
        let bits = (number % tuples).wrapping_mul(0x9e37_79b1);
        let from = SocketAddrV4::new(Ipv4Addr::from(0x0a00_0000 | bits >> 8), bits as u16 | 1024);
        capture.send_frame(&Packet::udp(from, to).mac(macs.0, macs.1).build());
    }
}

/// How long a new connection takes to the fast path after its first answer.
fn offload_one_more(lab: &Lab, maps: &Maps) -> Duration {
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    let from = at(CLIENT, PORT.fetch_add(1, Ordering::Relaxed));
    let client = UdpClient::open(&lab.client, from, ECHO);
    assert!(client.echoes(0, LIMIT));
    let replied = Instant::now();
    let tuple = Tuple::new(Protocol::Udp, from, ECHO);
    eventually(LIMIT, "a new connection is offloaded", || maps.has_connection(tuple));
    replied.elapsed()
}

fn hazard_16_a_flood_takes_nothing_from_the_fast_path(hook: &str, test: &str) {
    let lab = lab(hook, test, &no_nat_rules());
    lab.static_neighbours();
    lab.router.ip(&format!("route add default via {SERVER}\n"));
    // A full table is the kernel's to deal with: it ends new connections early.
    lab.nft(
        "table ip raw {
            chain prerouting {
                type filter hook prerouting priority -300; policy accept;
                iifname wan0 ip saddr 10.0.0.0/8 notrack
            }
        }",
    );
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let _server = udp_echo(&lab.server, ECHO);
    let (lan, wan) = (Capture::open(&lab.client, "eth0"), Capture::open(&lab.server, "eth0"));
    crowd::offload(&lab, &lan, &daemon, CROWD);
    let maps = Maps::of(daemon.pid());
    let (before, started) = (cost(&daemon), Instant::now());
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let sides = [
            scope.spawn(|| flood(&lan, (CLIENT_MAC, ROUTER_LAN_MAC), crowd::SERVICE, TRACKED)),
            scope.spawn(|| flood(&wan, (SERVER_MAC, ROUTER_WAN_MAC), at(CLIENT, 9), u32::MAX)),
        ];
        while sides.iter().any(|side| !side.is_finished()) {
            times.push(offload_one_more(&lab, &maps));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    report(&format!("{hook}, flood of {}", flood_size() * 2), &daemon, before, started);
    println!("{hook}: {} new ones offloaded within {:?}", times.len(), times.iter().max());
    assert!(!times.is_empty());
    assert!(maps.packets(abi::BPFW_PASS_UNKNOWN) > u64::from(flood_size()), "there was a flood");
    let left = (0..CROWD).filter(|number| !maps.has_connection(crowd::tuple(*number))).count();
    assert_eq!(left, 0, "connections that have left the fast path");
}

/// Bumps since `before`, once the fast path is awake.
fn bumps(maps: &Maps, before: u32) -> u32 {
    eventually(LIMIT, "the fast path is awake", || maps.generation() != 0);
    maps.generation() - before
}

fn hazard_30_storms_of_changes_are_bounded(hook: &str, test: &str) {
    let lab = lab(hook, test, &no_nat_rules());
    lab.static_neighbours();
    lab.router.ip("link add dmz0 type veth peer name dmz1\nlink set dmz1 up\n");
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let maps = Maps::of(daemon.pid());
    let routes = "route add 203.0.113.0/24 via 198.51.100.2\nroute del 203.0.113.0/24\n";
    let neighbors = "neigh replace 192.0.2.99 lladdr 02:00:00:00:09:01 dev lan0 nud reachable\n\
                     neigh replace 192.0.2.99 lladdr 02:00:00:00:09:02 dev lan0 nud stale\n";
    let links = "link set dmz0 up\nlink set dmz0 down\n";
    for (what, lines, times) in
        [("routes", routes, 3_000), ("neighbors", neighbors, 3_000), ("links", links, 300)]
    {
        let (before, started, generation) = (cost(&daemon), Instant::now(), maps.generation());
        let fast = forwarded(&daemon);
        std::thread::scope(|scope| {
            let storm = scope.spawn(|| lab.router.ip(&lines.repeat(times)));
            while !storm.is_finished() {
                assert!(client.echoes(1, LIMIT));
            }
        });
        let (bumps, time) = (bumps(&maps, generation), started.elapsed());
        report(&format!("{hook}, storm of {what}, {bumps} bumps"), &daemon, before, started);
        assert!(u128::from(bumps) <= time.as_millis() / 20 + 2, "{bumps} in {time:?}");
        assert!(bumps > 0 && forwarded(&daemon) > fast, "the fast path goes on in between");
        eventually(LIMIT, "and afterwards", || echo_is_fast(&lab, &client, 2));
    }
}

/// Another gateway for all connections at once: none takes the new way fast before the stack has, and
/// all are fast again.
fn hazard_55_all_whose_route_moves_prove_themselves_anew(hook: &str, test: &str) {
    const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
    const OTHER_MAC: Mac = [2, 0, 0, 0, 2, 77];
    let lab = lab(hook, test, &no_nat_rules());
    lab.static_neighbours();
    lab.router.ip(&format!(
        "neigh add {OTHER} lladdr {} dev wan0 nud permanent\nroute add default via {SERVER}\n",
        show(OTHER_MAC)
    ));
    // What goes to the other gateway for the first service is what rules drop.
    lab.nft(&format!(
        "table ip gateway {{
            chain c {{
                type filter hook forward priority -10; policy accept;
                udp sport 10000-10099 rt nexthop {OTHER} drop
            }}
        }}"
    ));
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let (lan, wan) = (Capture::open(&lab.client, "eth0"), Capture::open(&lab.server, "eth0"));
    crowd::offload(&lab, &lan, &daemon, CROWD);
    let maps = Maps::of(daemon.pid());
    let send_all = || (0..CROWD).for_each(|number| lan.send_frame(&crowd::frame(number)));
    let fast = |what: &str, expected: u64| {
        eventually(LIMIT, what, || {
            let before = maps.packets(abi::BPFW_FORWARDED);
            send_all();
            std::thread::sleep(Duration::from_millis(20));
            maps.packets(abi::BPFW_FORWARDED) - before == expected
        });
    };
    fast("all are fast", u64::from(CROWD));
    let (asked, started) = (maps.packets(abi::BPFW_PASS_UNPROVEN), Instant::now());
    lab.router.ip(&format!("route replace default via {OTHER}\n"));
    fast("all but those that the rules drop are fast again", u64::from(CROWD - DROPPED));
    let asked = maps.packets(abi::BPFW_PASS_UNPROVEN) - asked;
    println!("{hook}: {CROWD} fast again after {:?}, {asked} packets asked", started.elapsed());
    assert!(asked >= u64::from(CROWD), "each asked anew");
    // Nothing of the old way is on its way any more.
    wan.collect(Duration::from_millis(100), |_| false);
    send_all();
    let came = wan.collect(Duration::from_millis(300), |frame| goes_to(frame, OTHER_MAC));
    assert_eq!(came.len(), (CROWD - DROPPED) as usize, "none that the rules drop");
}
