// SPDX-License-Identifier: GPL-2.0-only
//! Connections that come and go under full load: no packet gets another connection's
//! translation, the daemon forgets none, and its memory does not grow.

mod support;

use std::net::{SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::daemon::Daemon;
use support::lab::{CLIENT, Lab, ROUTER_WAN, SERVER};
use support::router::*;
use support::rules::snat_rules;
use support::wait::eventually;

on_both_hooks!(
    hazard_28_translations_never_mix_while_entries_come_and_go,
    memory_stays_level_while_connections_churn,
);

const FIRST_PORT: u16 = 40000;
const CONNECTIONS: u16 = 32;

/// Ports translate by a fixed rule, so that each packet's translation can be judged by itself:
/// the client's port 400xx becomes 210xx.
fn fixed_ports() -> String {
    let mut map = Vec::new();
    for number in 0..CONNECTIONS {
        let (from, to) = (FIRST_PORT + number, 21000 + number);
        map.push(format!("udp sport {from} oifname wan0 snat to {ROUTER_WAN}:{to}"));
    }
    snat_rules().replace("oifname wan0 masquerade", &map.join("\n"))
}

/// An echo server that checks the number in each datagram against the port it came from.
fn judge(server: &UdpSocket, stop: &AtomicBool) -> u64 {
    let mut buffer = [0; 2048];
    let mut judged = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = server.recv_from(&mut buffer) else { continue };
        let number = u16::from_be_bytes([buffer[0], buffer[1]]);
        assert_eq!(from.ip(), ROUTER_WAN, "connection {number} left without its translation");
        assert_eq!(from.port(), 21000 + number, "connection {number} got another's translation");
        server.send_to(&buffer[..length], from).expect("sent back");
        judged += 1;
    }
    judged
}

/// Sends over all connections as fast as it can, and checks that echoes come back to their own.
fn load(sockets: &[UdpSocket], stop: &AtomicBool) -> u64 {
    let mut echoes = 0;
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        for (number, socket) in (0_u16..).zip(sockets) {
            let mut datagram = [0; 32];
            datagram[..2].copy_from_slice(&number.to_be_bytes());
            // A full queue or an ICMP error of the moment of a flush is no matter here.
            let _ = socket.send(&datagram);
            while let Ok(length) = socket.recv(&mut buffer) {
                assert_eq!((length, &buffer[..2]), (32, &number.to_be_bytes()[..]));
                echoes += 1;
            }
        }
    }
    echoes
}

fn socket(from: SocketAddrV4, to: Option<SocketAddrV4>) -> UdpSocket {
    let socket = UdpSocket::bind(from).unwrap();
    if let Some(to) = to {
        socket.connect(to).unwrap();
        socket.set_nonblocking(true).unwrap();
    } else {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    }
    socket
}

/// For some seconds entries are deleted one by one, all at once, and made again.
fn disturb(lab: &Lab, time: Duration) -> u32 {
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < time {
        for number in [3, 17, 31] {
            let port = (FIRST_PORT + number).to_string();
            lab.conntrack(&["-D", "-p", "udp", "--sport", &port]);
        }
        thread::sleep(Duration::from_millis(100));
        lab.conntrack(&["-F"]);
        // Every route change makes all entries look up again.
        lab.router.ip("route add 203.0.113.0/24 via 198.51.100.2\nroute del 203.0.113.0/24\n");
        thread::sleep(Duration::from_millis(100));
        rounds += 1;
    }
    rounds
}

fn hazard_28_translations_never_mix_while_entries_come_and_go(hook: &str, test: &str) {
    let lab = lab(hook, test, &fixed_ports());
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let server = lab.server.enter(|| socket(ECHO, None));
    let sockets: Vec<UdpSocket> = lab.client.enter(|| {
        (0..CONNECTIONS).map(|n| socket(at(CLIENT, FIRST_PORT + n), Some(ECHO))).collect()
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let judge = scope.spawn(|| judge(&server, &stop));
        let load = scope.spawn(|| load(&sockets, &stop));
        let rounds = disturb(&lab, Duration::from_secs(6));
        stop.store(true, Ordering::Relaxed);
        let (judged, echoes) = (judge.join().unwrap(), load.join().unwrap());
        let fast = forwarded(&daemon);
        println!(
            "{hook}: {rounds} rounds, {judged} datagrams judged, {echoes} echoes, {fast} fast"
        );
        assert!(judged > 1000 && echoes > 1000 && fast > 1000, "there was load");
    });
    assert!(daemon.stop(LIMIT).success());
}

/// Resident memory in KiB.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Makes and ends as many UDP connections as there are ports in the range.
fn churn(lab: &Lab, daemon: &Daemon, server: &UdpSocket, ports: std::ops::Range<u16>) {
    let mut buffer = [0; 64];
    for port in ports {
        let client = lab.client.enter(|| socket(at(CLIENT, port), None));
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.connect(ECHO).unwrap();
        client.send(b"hello").unwrap();
        let (length, from) = server.recv_from(&mut buffer).expect("a datagram");
        server.send_to(&buffer[..length], from).unwrap();
        client.recv(&mut buffer).expect("its echo");
    }
    lab.conntrack(&["-F"]);
    // The same ports come again: a packet must not meet what is about to be forgotten.
    eventually(LIMIT, "all of them are forgotten", || offloaded(daemon) == 0);
}

fn memory_stays_level_while_connections_churn(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.static_neighbours();
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let server = lab.server.enter(|| {
        let socket = socket(at(SERVER, 7), None);
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    });
    churn(&lab, &daemon, &server, 10_000..14_000);
    let before = resident(&daemon);
    for _ in 0..5 {
        churn(&lab, &daemon, &server, 10_000..14_000);
    }
    let after = resident(&daemon);
    println!("{hook}: {before} KiB after 4,000 connections, {after} KiB after 24,000");
    assert!(after <= before + 1024, "{before} KiB, then {after} KiB");
}
