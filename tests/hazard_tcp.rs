// SPDX-License-Identifier: GPL-2.0-only
//! TCP connections of which conntrack has seen next to nothing. It never calls invalid what comes
//! back to the stack in the end, or in between.

mod support;

use bpfw::conntrack::events::{Event, Events};
use bpfw::flow::family::Families;
use std::net::Shutdown;
use std::time::{Duration, Instant};
use support::conntrack::{entry, is_in_state, time_left, update};
use support::daemon::Daemon;
use support::lab::{Lab, SERVER};
use support::maps::Maps;
use support::packet::tcp;
use support::router::*;
use support::rules::{INVALID, snat_rules};
use support::segments::{End, Segments};
use support::tcp::{Direction, Path, TcpPair, reset};
use support::wait::{becomes_true, eventually};

on_both_hooks!(
    hazard_01_bulk_both_ways_then_half_close,
    hazard_01_every_way_to_close,
    hazard_01_segments_out_of_the_usual,
    hazard_01_window_scaling,
    hazard_01_connections_of_a_moment,
    hazard_01_an_idle_hour,
    hazard_01_picked_up_in_the_middle,
    hazard_01_segments_by_the_stack_amid_bulk,
    hazard_25_gibibytes_then_rst,
    hazard_25_a_rst_after_the_offload_is_believed,
    hazard_25_an_ignored_rst_leaves_no_entry_for_days,
    hazard_25_a_late_refresh_leaves_no_entry_for_days,
);

/// A lab whose firewall drops what conntrack calls invalid.
fn strict_lab(hook: &str, test: &str) -> Lab {
    let lab = lab(hook, test, &snat_rules());
    lab.nft(INVALID);
    lab
}

fn open(lab: &Lab, daemon: &Daemon, port: u16, scale: Option<u8>) -> Segments {
    let mut segments = Segments::open(lab, port, scale);
    wait_until_known(daemon, &segments);
    prove(&mut segments);
    segments
}

/// The stack sends the first segments of each direction. Then there is time for the daemon to make
/// conntrack forget what they acknowledge.
fn prove(segments: &mut Segments) {
    segments.exchange();
    std::thread::sleep(Duration::from_millis(300));
}

fn wait_until_known(daemon: &Daemon, segments: &Segments) {
    let maps = Maps::of(daemon.pid());
    eventually(LIMIT, "the connection is offloaded", || maps.has_connection(segments.original()));
}

/// Moves both directions ahead by 4 GiB, on the fast path.
fn move_on(lab: &Lab, segments: &mut Segments) {
    let before = lab.stack_packets();
    for _ in 0..4 {
        for end in [End::Client, End::Server] {
            segments.advance(end, 1 << 30);
            segments.data(end, b"much later");
        }
    }
    assert_eq!(lab.stack_packets(), before, "all of it takes the fast path");
}

fn tcp_path() -> Path {
    Path::direct(at(SERVER, 5001))
}

fn hazard_01_bulk_both_ways_then_half_close(hook: &str, test: &str) {
    let lab = strict_lab(hook, test);
    let daemon = start(&lab, hook, &[]);
    for (direction, first, port) in [(Direction::ToClient, 0, 5001), (Direction::ToServer, 1, 5002)]
    {
        let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, port)));
        wait_until_tcp_fast(&lab, &pair);
        let before = forwarded(&daemon);
        pair.transfer(Direction::ToServer, 128 << 20, 1);
        pair.transfer(Direction::ToClient, 128 << 20, 2);
        assert!(forwarded(&daemon) > before + 1000, "bulk takes the fast path");
        let own = pair.client.local_addr().unwrap().port();
        let ends = [&pair.client, &pair.server];
        ends[first].shutdown(Shutdown::Write).unwrap();
        // The other side has not finished yet.
        let time = pair.transfer(direction, 16 << 20, 3);
        println!("{hook}: 16 MiB {direction:?} in {time:?} after the first FIN");
        ends[1 - first].shutdown(Shutdown::Write).unwrap();
        eventually(LIMIT, "conntrack saw the end", || is_in_state(&lab, own, "TIME_WAIT"));
    }
    assert_eq!(lab.invalid_packets(), 0);
}

fn hazard_01_every_way_to_close(hook: &str, test: &str) {
    let lab = strict_lab(hook, test);
    let daemon = start(&lab, hook, &[]);
    let (client, server) = (End::Client, End::Server);
    for (port, ends) in [(41001, [client, server]), (41002, [server, client])] {
        let mut one = open(&lab, &daemon, port, Some(7));
        move_on(&lab, &mut one);
        one.finish(ends[0]);
        one.acknowledge(ends[1]);
        one.data(ends[1], b"not finished yet");
        one.acknowledge(ends[0]);
        one.finish(ends[1]);
        one.acknowledge(ends[0]);
        eventually(LIMIT, "the end is seen", || is_in_state(&lab, port, "TIME_WAIT"));
    }
    let mut both = open(&lab, &daemon, 41003, Some(7));
    move_on(&lab, &mut both);
    // Each sends its FIN before it has seen the other's.
    let acknowledged = both.acknowledge(server).tcp.unwrap().ack;
    both.finish(client);
    both.send(server, |fin| fin.flags(tcp::FIN | tcp::ACK).ack(acknowledged));
    both.acknowledge(client);
    both.acknowledge(server);
    eventually(LIMIT, "the end is seen", || is_in_state(&lab, 41003, "TIME_WAIT"));
    for (port, end) in [(41004, client), (41005, server)] {
        let mut one = open(&lab, &daemon, port, Some(7));
        move_on(&lab, &mut one);
        one.send(end, |rst| rst.flags(tcp::RST | tcp::ACK));
        eventually(LIMIT, "the reset is seen", || is_in_state(&lab, port, "CLOSE "));
    }
    assert_eq!(lab.invalid_packets(), 0);
    wait_until_offloaded(&daemon, 0);
}

/// Old, empty and early segments: each of them once on the fast path and once seen by conntrack.
fn hazard_01_segments_out_of_the_usual(hook: &str, test: &str) {
    let lab = strict_lab(hook, test);
    let daemon = start(&lab, hook, &[]);
    let mut one = open(&lab, &daemon, 41001, Some(7));
    let old = one.data(End::Client, b"to be repeated").tcp.unwrap();
    move_on(&lab, &mut one);
    for ttl in [64, 1] {
        for end in [End::Client, End::Server] {
            let now = one.acknowledge(end).tcp.unwrap();
            let sequences = [old.seq, now.seq - 1, now.seq, now.seq + 100_000];
            for seq in sequences {
                for payload in [&b""[..], b"x", b"to be repeated"] {
                    let change =
                        |packet: support::packet::Packet| packet.seq(seq).payload(payload).ttl(ttl);
                    one.send_only(end, change);
                }
            }
            one.send_only(end, |packet| packet.window(0).ttl(ttl));
            one.send_only(end, |packet| packet.ack(old.ack).ttl(ttl));
        }
    }
    one.exchange();
    assert_eq!(Maps::of(daemon.pid()).packets(bpfw::abi::BPFW_PASS_TTL), 28);
    one.finish(End::Client);
    one.finish(End::Server);
    one.acknowledge(End::Client);
    eventually(LIMIT, "the end is seen", || is_in_state(&lab, 41001, "TIME_WAIT"));
    assert_eq!(lab.invalid_packets(), 0);
}

fn hazard_01_window_scaling(hook: &str, test: &str) {
    let lab = strict_lab(hook, test);
    let daemon = start(&lab, hook, &[]);
    for (port, scale) in [(41001, None), (41002, Some(0)), (41003, Some(14))] {
        let mut one = open(&lab, &daemon, port, scale);
        for window in [0, 1, u16::MAX] {
            for end in [End::Client, End::Server] {
                one.send(end, |packet| packet.window(window));
                one.advance(end, 1 << 30);
                one.send(end, |packet| packet.payload(&[0; 1400]).window(window));
                one.send_only(end, |packet| packet.window(window).ttl(1));
            }
        }
        one.exchange();
        one.finish(End::Server);
        one.finish(End::Client);
        one.acknowledge(End::Server);
        eventually(LIMIT, "the end is seen", || is_in_state(&lab, port, "TIME_WAIT"));
    }
    assert_eq!(lab.invalid_packets(), 0);
}

/// What ends within the millisecond in which the daemon hears of it.
fn hazard_01_connections_of_a_moment(hook: &str, test: &str) {
    const NUMBER: u16 = 200;
    let lab = strict_lab(hook, test);
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    for port in 41000..41000 + NUMBER {
        let mut one = Segments::open(&lab, port, Some(7));
        for _ in 0..port % 8 {
            one.exchange();
        }
        one.finish(End::Client);
        one.finish(End::Server);
        one.acknowledge(End::Client);
    }
    let fast = forwarded(&daemon);
    println!("{hook}: {NUMBER} connections, {fast} packets took the fast path");
    assert!(fast > 0);
    assert_eq!(lab.invalid_packets(), 0);
}

/// Keep-alive probes (a sequence number that was acknowledged already) and pauses.
fn hazard_01_an_idle_hour(hook: &str, test: &str) {
    let lab = strict_lab(hook, test);
    // Short rounds of refreshing: the pause is longer than several of them.
    lab.router.sysctl("net/netfilter/nf_conntrack_udp_timeout", "4");
    let daemon = start(&lab, hook, &[]);
    let mut one = open(&lab, &daemon, 41001, Some(7));
    for number in 0..400_u32 {
        let (from, to) =
            if number % 2 == 0 { (End::Client, End::Server) } else { (End::Server, End::Client) };
        let next = one.acknowledge(from).tcp.unwrap().seq;
        one.send(from, |probe| probe.seq(next.wrapping_sub(1)));
        one.acknowledge(to);
        if number % 100 == 0 {
            // Now and then one that conntrack sees, and the pause in which the daemon reacts.
            one.send_only(from, |probe| probe.seq(next.wrapping_sub(1)).ttl(1));
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    std::thread::sleep(Duration::from_secs(4));
    move_on(&lab, &mut one);
    one.finish(End::Client);
    one.finish(End::Server);
    one.acknowledge(End::Client);
    eventually(LIMIT, "the end is seen", || is_in_state(&lab, 41001, "TIME_WAIT"));
    assert_eq!(lab.invalid_packets(), 0);
}

/// Conntrack itself met this connection in its middle, and bpfw found it in conntrack's table.
fn hazard_01_picked_up_in_the_middle(hook: &str, test: &str) {
    let lab = strict_lab(hook, test);
    let mut one = Segments::open(&lab, 41001, Some(7));
    let pair = TcpPair::open(&lab.client, &lab.server, tcp_path());
    pair.transfer(Direction::ToServer, 1 << 20, 1);
    assert!(lab.conntrack(&["-F"]).status.success());
    // The first to speak must be the inner side: the others' packets are translated.
    pair.exchange();
    one.exchange();
    let daemon = start(&lab, hook, &[]);
    wait_until_tcp_fast(&lab, &pair);
    // What stands in the table only is offloaded by its next packet.
    one.exchange();
    wait_until_known(&daemon, &one);
    move_on(&lab, &mut one);
    one.finish(End::Server);
    one.finish(End::Client);
    one.acknowledge(End::Server);
    eventually(LIMIT, "its end is seen", || is_in_state(&lab, 41001, "TIME_WAIT"));
    pair.transfer(Direction::ToServer, 64 << 20, 2);
    pair.transfer(Direction::ToClient, 64 << 20, 3);
    let port = pair.client.local_addr().unwrap().port();
    reset(pair.client);
    eventually(LIMIT, "the reset is seen", || {
        entry(&lab, port).is_none_or(|entry| entry.contains("CLOSE "))
    });
    assert_eq!(lab.invalid_packets(), 0);
}

/// Rests, expired TTLs and packets that are too big, while data flows.
fn hazard_01_segments_by_the_stack_amid_bulk(hook: &str, test: &str) {
    let lab = strict_lab(hook, test);
    let daemon = start(&lab, hook, &[]);
    let pair = TcpPair::open(&lab.client, &lab.server, tcp_path());
    wait_until_tcp_fast(&lab, &pair);
    let port = pair.client.local_addr().unwrap().port();
    let maps = Maps::of(daemon.pid());
    std::thread::scope(|scope| {
        let bulk = scope.spawn(|| pair.transfer(Direction::ToServer, 256 << 20, 1));
        let mut disturbed = 0;
        while !bulk.is_finished() {
            // A changed MTU makes the fast path pause; the smaller one is too small for segments.
            // The stack tells the client so, which must forget it for the fast path to see any.
            for mtu in [1400, 1500] {
                lab.router.ip(&format!("link set wan0 mtu {mtu}\n"));
                std::thread::sleep(Duration::from_millis(50));
                lab.client.ip("route flush cache\n");
                pair.client.set_ttl(1).unwrap();
                std::thread::sleep(Duration::from_millis(5));
                pair.client.set_ttl(64).unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
            disturbed += 1;
        }
        println!("{hook}: 256 MiB in {:?}, disturbed {disturbed} times", bulk.join().unwrap());
    });
    for (verdict, name) in [
        (bpfw::abi::BPFW_PASS_TOO_BIG, "too big for the fast path"),
        (bpfw::abi::BPFW_PASS_TTL, "at their TTL's end"),
    ] {
        let packets = maps.packets(verdict);
        println!("{hook}: {packets} packets {name}");
        assert!(packets > 0);
    }
    wait_until_tcp_fast(&lab, &pair);
    pair.transfer(Direction::ToClient, 64 << 20, 2);
    reset(pair.client);
    eventually(LIMIT, "the reset is seen", || {
        entry(&lab, port).is_none_or(|entry| entry.contains("CLOSE "))
    });
    assert_eq!(lab.invalid_packets(), 0);
}

/// No socket's port.
const NOBODY: u32 = u32::MAX;

/// Lets conntrack see an acknowledgement of either side, and waits until bpfw has made it forget
/// what it has seen.
fn refresh_conntracks_memory(lab: &Lab, segments: &mut Segments) {
    let mut events = lab.router.enter(|| Events::open(Families::Ipv4, 1 << 20, NOBODY).unwrap());
    for end in [End::Client, End::Server] {
        let seen = Instant::now();
        segments.show_conntrack(end);
        eventually(LIMIT, "the flags are sent again", || {
            let mut sent = false;
            let mut note = |event| {
                if let Event::Edit { entry, .. } = event {
                    sent |= entry.original == segments.original() && entry.is_liberal();
                }
            };
            events.read(Instant::now(), &mut note).unwrap();
            sent
        });
        println!("flags sent {:?} after a segment that the stack saw", seen.elapsed());
    }
}

/// Conntrack compares a RST's sequence number with what it has seen acknowledged: a comparison
/// that turns around at 2 GiB.
fn hazard_25_gibibytes_then_rst(hook: &str, test: &str) {
    let lab = strict_lab(hook, test);
    let daemon = start(&lab, hook, &[]);
    for (port, gibibytes) in [(41001, 1), (41002, 2), (41003, 3)] {
        let mut one = open(&lab, &daemon, port, Some(7));
        one.exchange();
        refresh_conntracks_memory(&lab, &mut one);
        for _ in 0..gibibytes {
            for end in [End::Client, End::Server] {
                one.advance(end, 1 << 30);
                one.data(end, b"a gibibyte later");
            }
        }
        one.send(End::Client, |rst| rst.flags(tcp::RST | tcp::ACK));
        eventually(LIMIT, "the reset is seen", || is_in_state(&lab, port, "CLOSE "));
    }
    assert_eq!(lab.invalid_packets(), 0);
    wait_until_offloaded(&daemon, 0);
}

/// Its mark takes a connection back to the stack, whose conntrack has missed most of it.
fn hazard_25_a_rst_after_the_offload_is_believed(hook: &str, test: &str) {
    let lab = strict_lab(hook, test);
    let daemon = start(&lab, hook, &["--offload-mark", "0/0x10"]);
    for port in 41001..41004 {
        let mut one = open(&lab, &daemon, port, Some(7));
        refresh_conntracks_memory(&lab, &mut one);
        // Of a packet with IP options, the daemon does not hear.
        one.send(End::Server, |packet| packet.ip_options(&[1; 4]));
        for end in [End::Client, End::Server] {
            one.advance(end, 1 << 20);
            one.data(end, b"a mebibyte later");
        }
        update(&lab, one.original(), "-m 0x10");
        wait_until_offloaded(&daemon, 0);
        one.data(End::Server, b"by the stack");
        one.send(End::Client, |rst| rst.flags(tcp::RST | tcp::ACK));
        eventually(LIMIT, "the reset is seen", || is_in_state(&lab, port, "CLOSE "));
    }
    assert_eq!(lab.invalid_packets(), 0);
}

/// A packet with IP options goes to the stack before bpfw knows whose it is. What conntrack has
/// seen acknowledged by it makes a RST invalid 3 GiB later.
fn hazard_25_an_ignored_rst_leaves_no_entry_for_days(hook: &str, test: &str) {
    const NO_OPERATION: [u8; 4] = [1; 4];
    let lab = strict_lab(hook, test);
    let daemon = start(&lab, hook, &[]);
    // A round of the sweep may come between, by chance, and make conntrack forget.
    let ignored = (41001..41010).any(|port| {
        let mut one = open(&lab, &daemon, port, Some(7));
        refresh_conntracks_memory(&lab, &mut one);
        one.send(End::Server, |packet| packet.ip_options(&NO_OPERATION));
        for _ in 0..3 {
            one.advance(End::Client, 1 << 30);
            one.data(End::Client, b"a gibibyte later");
        }
        assert!(time_left(&lab, port) > 300);
        one.send_only(End::Client, |rst| rst.flags(tcp::RST | tcp::ACK));
        eventually(LIMIT, "the timeout is cut", || time_left(&lab, port) <= 300);
        is_in_state(&lab, port, "ESTABLISHED")
    });
    assert!(ignored && lab.invalid_packets() == 1, "conntrack believes each of them");
}

/// A refresh can be on its way when the RST comes: the closed entry gets an open one's timeout.
fn hazard_25_a_late_refresh_leaves_no_entry_for_days(hook: &str, test: &str) {
    let lab = strict_lab(hook, test);
    // As long as can be between the RST and the time when the daemon hears of it.
    let daemon = start(&lab, hook, &["--interval", "1000"]);
    let cut = (41001..41010).any(|port| {
        let mut one = open(&lab, &daemon, port, Some(7));
        one.exchange();
        one.send(End::Client, |rst| rst.flags(tcp::RST | tcp::ACK));
        update(&lab, one.original(), "-t 400000");
        assert!(is_in_state(&lab, port, "CLOSE "));
        becomes_true(Duration::from_secs(3), || time_left(&lab, port) <= 300)
    });
    assert!(cut, "each of them stays for days");
}
