// SPDX-License-Identifier: GPL-2.0-only
//! The stack goes on doing what only it can do for a connection (helpers, zones, SYN proxies).
//! Conntrack's counters and the kernel's settings are not touched.

mod support;

use bpfw::abi::bpfw_conn;
use bpfw::conntrack::requests::Requests;
use bpfw::flow::tuple::{Protocol, Tuple};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path as File, PathBuf};
use std::time::Duration;
use support::conntrack::{entry, is_in_state};
use support::daemon::Daemon;
use support::lab::{CLIENT, Lab, ROUTER_WAN, SERVER};
use support::maps::Maps;
use support::packet::tcp;
use support::router::*;
use support::rules::{INVALID, snat_rules};
use support::segments::{End, Segments};
use support::tcp::{Direction, Path, TcpPair};
use support::udp::{UdpClient, udp_echo};
use support::wait::eventually;

on_both_hooks!(
    hazard_02_a_reused_tcp_port_gets_its_own_translation,
    hazard_02_conntrack_decides_on_a_rst,
    hazard_15_zones_helpers_and_untracked_stay,
    hazard_15_ftp_through_nat,
    hazard_15_a_proxied_handshake_stays,
    hazard_21_no_setting_is_written,
    hazard_21_the_liberal_flag_stays_until_the_connection_ends,
    hazard_33_packets_and_bytes_are_counted,
);

fn tuple(source: SocketAddr, destination: SocketAddrV4) -> Tuple {
    Tuple::new(Protocol::Tcp, source, destination)
}

fn wait_until_known(daemon: &Daemon, segments: &Segments) {
    let maps = Maps::of(daemon.pid());
    eventually(LIMIT, "the connection is offloaded", || maps.has_connection(segments.original()));
}

/// The same ports again after TIME_WAIT and after a RST, with another translation each time.
fn hazard_02_a_reused_tcp_port_gets_its_own_translation(hook: &str, test: &str) {
    let rules = |port: u16| {
        let to = format!("meta l4proto tcp oifname wan0 snat to {ROUTER_WAN}:{port}");
        snat_rules().replace("oifname wan0 masquerade", &to)
    };
    let lab = lab(hook, test, &rules(21000));
    lab.nft(INVALID);
    let daemon = start(&lab, hook, &[]);
    let mut one = Segments::new(&lab, 41001);
    for (port, by_rst) in [(21000, false), (22000, true), (23000, false), (24000, true)] {
        lab.nft(&rules(port));
        one.handshake(Some(7));
        wait_until_known(&daemon, &one);
        // The stack sends the first of each direction, and bpfw makes conntrack forget what it saw.
        one.exchange();
        std::thread::sleep(Duration::from_millis(300));
        let before = lab.stack_packets();
        for _ in 0..5 {
            one.exchange();
            assert_eq!(one.acknowledge(End::Client).src, at(ROUTER_WAN, port));
        }
        assert_eq!(lab.stack_packets(), before, "all of it takes the fast path");
        if by_rst {
            // After the server's, the kernel itself would go on with the entry.
            one.send(End::Client, |rst| rst.flags(tcp::RST | tcp::ACK));
        } else {
            one.finish(End::Client);
            one.finish(End::Server);
            one.acknowledge(End::Client);
        }
        let state = if by_rst { "CLOSE " } else { "TIME_WAIT" };
        eventually(LIMIT, "the end is seen", || is_in_state(&lab, 41001, state));
    }
    assert_eq!(lab.invalid_packets(), 0);
}

/// A RST that conntrack refuses ends nothing for long; one that it believes ends the connection.
fn hazard_02_conntrack_decides_on_a_rst(hook: &str, test: &str) {
    const NO_OPERATION: [u8; 4] = [1; 4];
    let lab = lab(hook, test, &snat_rules());
    lab.nft(INVALID);
    let daemon = start(&lab, hook, &[]);
    // A round of the sweep may come between, by chance, and make conntrack forget.
    let refused = (41001..41010).find_map(|port| {
        let mut one = Segments::open(&lab, port, Some(7));
        wait_until_known(&daemon, &one);
        // With options, bpfw does not know whose it is: conntrack will remember what it has seen.
        let acknowledged = one.send(End::Server, |packet| packet.ip_options(&NO_OPERATION));
        let old = acknowledged.tcp.unwrap().ack.wrapping_sub(100);
        one.send_only(End::Client, |rst| rst.seq(old).flags(tcp::RST | tcp::ACK));
        eventually(LIMIT, "conntrack has judged it", || {
            lab.invalid_packets() > 0 || is_in_state(&lab, port, "CLOSE ")
        });
        (lab.invalid_packets() > 0).then_some((one, port))
    });
    let (mut one, port) = refused.expect("conntrack believes each of them");
    assert!(is_in_state(&lab, port, "ESTABLISHED"));
    eventually(LIMIT, "the connection goes on, on the fast path", || {
        let before = lab.stack_packets();
        one.exchange();
        lab.stack_packets() == before
    });
    one.send(End::Client, |rst| rst.flags(tcp::RST | tcp::ACK));
    let maps = Maps::of(daemon.pid());
    eventually(LIMIT, "the connection has ended", || !maps.has_connection(one.original()));
    assert_eq!(lab.invalid_packets(), 1);
}

/// UDP to port 8 is in a zone, to 9 untracked, to 10 a helper reads along.
const SPECIAL: &str = "
table ip special {
    ct helper transfer {
        type \"tftp\" protocol udp
    }
    ct helper calls {
        type \"sip\" protocol udp
    }
    chain raw {
        type filter hook prerouting priority -300; policy accept;
        udp dport 8 ct zone set 5
        udp sport 8 ct zone set 5
        udp dport 9 notrack
        udp sport 9 notrack
    }
    chain prerouting {
        type filter hook prerouting priority -150; policy accept;
        udp dport 10 ct helper set \"transfer\"
        udp dport 11 ct helper set \"calls\"
    }
}
";

fn hazard_15_zones_helpers_and_untracked_stay(hook: &str, test: &str) {
    let rules = snat_rules()
        .replace("ct status dnat accept", "ct state untracked accept\nct status dnat accept");
    let lab = lab(hook, test, &rules);
    lab.nft(SPECIAL);
    let daemon = start(&lab, hook, &[]);
    let (_server, plain) = echo(&lab, 40000);
    let _servers = [8, 9, 10, 11].map(|port| udp_echo(&lab.server, at(SERVER, port)));
    let special = [8, 9, 10, 11]
        .map(|port| UdpClient::open(&lab.client, at(CLIENT, 40000 + port), at(SERVER, port)));
    wait_until_fast(&lab, &plain);
    for number in 0..20 {
        for client in &special {
            assert!(!echo_is_fast(&lab, client, number));
        }
    }
    assert!(entry(&lab, 40008).expect("an entry").contains("zone=5"));
    assert!(entry(&lab, 40009).is_none());
    let helped = support::netns::text(&lab.conntrack(&["-L", "-o", "extended"]).stdout);
    assert!(helped.contains("helper=tftp") && helped.contains("helper=sip"), "{helped}");
    assert!(echo_is_fast(&lab, &plain, 1));
    assert_eq!(offloaded(&daemon), 1);
}

const FTP: &str = "
table ip file_transfer {
    ct helper ftp_standard {
        type \"ftp\" protocol tcp
    }
    chain prerouting {
        type filter hook prerouting priority -150; policy accept;
        tcp dport 21 ct helper set \"ftp_standard\"
    }
}
";

/// The address in an FTP command: four bytes and two of the port, with commas between.
fn address_of(line: &str) -> SocketAddrV4 {
    let digits = |c: char| c.is_ascii_digit() || c == ',';
    let list = line.split(|c| !digits(c)).find(|part| part.matches(',').count() == 5);
    let bytes: Vec<u8> = list
        .unwrap_or_else(|| panic!("no address in {line}"))
        .split(',')
        .map(|byte| byte.parse().expect("a byte"))
        .collect();
    let port = u16::from_be_bytes([bytes[4], bytes[5]]);
    SocketAddrV4::new(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]), port)
}

/// Sends a line one way over the control connection, and returns it as it arrives.
fn say(mut from: &TcpStream, to: &TcpStream, line: &str) -> String {
    from.write_all(format!("{line}\r\n").as_bytes()).expect("written");
    let mut heard = String::new();
    BufReader::new(to).read_line(&mut heard).expect("read");
    heard.trim_end().to_owned()
}

/// Active and passive transfers. NAT changes the address in the client's command, and with it the
/// length of the segment: from then on all sequence numbers are adjusted.
fn hazard_15_ftp_through_nat(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.nft(INVALID);
    lab.nft(FTP);
    let daemon = start(&lab, hook, &[]);
    let maps = Maps::of(daemon.pid());
    let control = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 21)));
    // The helper looks at what follows a whole line.
    assert_eq!(say(&control.server, &control.client, "220 ready"), "220 ready");
    assert_eq!(say(&control.client, &control.server, "USER anonymous"), "USER anonymous");
    let own = tuple(control.client.local_addr().unwrap(), at(SERVER, 21));
    for round in 0..2 {
        // Active: the server connects to the address that it is told.
        let listener = lab.client.enter(|| TcpListener::bind(at(CLIENT, 50000 + round))).unwrap();
        let told = format!("PORT 192,0,2,2,195,{}", 80 + round);
        let heard = say(&control.client, &control.server, &told);
        assert!(address_of(&heard).ip() == &ROUTER_WAN, "{heard}");
        let target = address_of(&heard).into();
        let server = lab.server.enter(|| TcpStream::connect_timeout(&target, LIMIT)).unwrap();
        let (client, _) = listener.accept().unwrap();
        bulk(&daemon, &TcpPair { client, server });
        assert_eq!(say(&control.server, &control.client, "226 done"), "226 done");
        // Passive: the client connects to the address that it is told.
        let listener = lab.server.enter(|| TcpListener::bind(at(SERVER, 50000 + round))).unwrap();
        let told = format!("227 Entering Passive Mode (198,51,100,2,195,{})", 80 + round);
        let heard = say(&control.server, &control.client, &told);
        let target = address_of(&heard).into();
        let client = lab.client.enter(|| TcpStream::connect_timeout(&target, LIMIT)).unwrap();
        let (server, _) = listener.accept().unwrap();
        bulk(&daemon, &TcpPair { client, server });
        assert_eq!(say(&control.client, &control.server, "NOOP"), "NOOP");
        assert!(!maps.has_connection(own), "the control connection is the stack's");
    }
    assert_eq!(lab.invalid_packets(), 0);
}

/// Most of a data connection's packets take the fast path.
fn bulk(daemon: &Daemon, pair: &TcpPair) {
    for end in [&pair.client, &pair.server] {
        end.set_read_timeout(Some(LIMIT)).unwrap();
    }
    pair.exchange();
    let before = forwarded(daemon);
    pair.transfer(Direction::ToClient, 32 << 20, 1);
    assert!(forwarded(daemon) > before + 100);
}

/// The router answers the SYN itself, and adjusts the numbers of all that follows.
const SYN_PROXY: &str = "
table ip proxy {
    chain raw {
        type filter hook prerouting priority -300; policy accept;
        tcp dport 5003 tcp flags syn notrack
    }
    chain forward {
        type filter hook forward priority -10; policy accept;
        tcp dport 5003 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
    }
}
";

fn hazard_15_a_proxied_handshake_stays(hook: &str, test: &str) {
    let lab = lab(hook, test, &support::rules::no_nat_rules());
    lab.router.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0");
    lab.nft(SYN_PROXY);
    let daemon = start(&lab, hook, &[]);
    let plain = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    wait_until_tcp_fast(&lab, &plain);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5003)));
    for _ in 0..20 {
        assert!(!tcp_is_fast(&lab, &pair));
    }
    pair.transfer(Direction::ToServer, 4 << 20, 1);
    pair.transfer(Direction::ToClient, 4 << 20, 2);
    assert_eq!(offloaded(&daemon), 1);
}

/// All readable settings below a directory, except for the one that counts.
fn settings(directory: &File, found: &mut BTreeMap<PathBuf, String>) {
    for file in fs::read_dir(directory).expect("readable").filter_map(Result::ok) {
        let path = file.path();
        if file.file_type().is_ok_and(|kind| kind.is_dir()) {
            settings(&path, found);
        } else if !path.ends_with("nf_conntrack_count") {
            // Some can only be written.
            found.extend(fs::read_to_string(&path).ok().map(|value| (path, value)));
        }
    }
}

fn all_settings() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    settings(File::new("/proc/sys/net"), &mut found);
    found
}

fn hazard_21_no_setting_is_written(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    // The router's own, and those that belong to the whole machine.
    let read = || [lab.router.enter(all_settings), all_settings()];
    let before = read();
    println!("{} settings", before[0].len() + before[1].len());
    assert!(before[0].keys().any(|path| path.ends_with("nf_conntrack_tcp_be_liberal")));
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    wait_until_tcp_fast(&lab, &pair);
    assert_eq!(read(), before, "while it runs");
    assert!(daemon.stop(LIMIT).success());
    assert_eq!(read(), before, "afterwards");
}

/// Conntrack's memory of this TCP connection's windows is out of date when bpfw stops. A check
/// would call its segments invalid.
fn hazard_21_the_liberal_flag_stays_until_the_connection_ends(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.nft(INVALID);
    let daemon = start(&lab, hook, &[]);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    wait_until_tcp_fast(&lab, &pair);
    let both_ways = |pair: &TcpPair, seed| {
        pair.transfer(Direction::ToServer, 16 << 20, seed);
        pair.transfer(Direction::ToClient, 16 << 20, seed);
    };
    both_ways(&pair, 1);
    let bulk_by_the_stack = lab.stack_packets();
    assert!(forwarded(&daemon) > 10 * bulk_by_the_stack, "bulk takes the fast path");
    assert!(daemon.stop(LIMIT).success());
    let is_liberal = |pair: &TcpPair| {
        let original = tuple(pair.client.local_addr().unwrap(), at(SERVER, 5001));
        let ask = || Requests::open().and_then(|mut requests| requests.get(&original));
        lab.router.enter(ask).expect("an answer").expect("an entry").is_liberal()
    };
    assert!(is_liberal(&pair));
    both_ways(&pair, 2);
    assert!(lab.stack_packets() > 2 * bulk_by_the_stack, "the stack goes on with it");
    assert_eq!(lab.invalid_packets(), 0);
    assert!(is_liberal(&pair), "for as long as it lives");
    let port = pair.client.local_addr().unwrap().port();
    drop(pair);
    eventually(LIMIT, "conntrack sees its end", || is_in_state(&lab, port, "TIME_WAIT"));
    let later = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    later.exchange();
    assert!(!is_liberal(&later), "a later one has nothing of it");
    assert_eq!(lab.invalid_packets(), 0);
}

/// Packets and bytes of a connection so far: of the original direction, and of the other one.
fn counted(daemon: &Daemon, port: u16) -> [(u64, u64); 2] {
    let connections = Maps::of(daemon.pid()).connections();
    let is_original = |conn: &&bpfw_conn| conn.cell.head.src_port == port.into();
    let original = connections.iter().find(is_original).expect("it is offloaded");
    let reply = connections.iter().find(|conn| Some(conn.tuple()) == original.reverse());
    [original.volume(), reply.expect("both directions").volume()]
}

/// What conntrack itself has counted for a connection: packets and bytes of both directions.
fn accounted(lab: &Lab, port: u16) -> Vec<String> {
    let line = entry(lab, port).expect("an entry");
    let is_count = |word: &&str| word.starts_with("packets=") || word.starts_with("bytes=");
    line.split_whitespace().filter(is_count).map(str::to_owned).collect()
}

fn hazard_33_packets_and_bytes_are_counted(hook: &str, test: &str) {
    const HEADERS: u64 = 20 + 8;
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl("net/netfilter/nf_conntrack_acct", "1");
    let daemon = start(&lab, hook, &[]);
    let (_server, small) = echo(&lab, 40000);
    wait_until_fast(&lab, &small);
    let mut one = Segments::open(&lab, 41001, Some(7));
    wait_until_known(&daemon, &one);
    // The stack sends the first of each direction.
    one.data(End::Client, &[0; 1000]);
    one.acknowledge(End::Server);
    let by_conntrack = accounted(&lab, 40000);
    assert_eq!(by_conntrack.len(), 4);
    let (stack, udp, tcp) = (lab.stack_packets(), counted(&daemon, 40000), counted(&daemon, 41001));
    for number in 0..50 {
        assert!(small.echoes(number, LIMIT));
        one.data(End::Client, &[0; 1000]);
        one.acknowledge(End::Server);
    }
    assert_eq!(lab.stack_packets(), stack);
    let more = |port, before: [(u64, u64); 2]| {
        let now = counted(&daemon, port);
        [0, 1].map(|way| (now[way].0 - before[way].0, now[way].1 - before[way].1))
    };
    assert_eq!(more(40000, udp), [(50, 50 * (HEADERS + 64)); 2]);
    assert_eq!(more(41001, tcp), [(50, 50 * (40 + 1000)), (50, 50 * 40)]);
    // As the README says: only the map counts what is offloaded.
    assert_eq!(accounted(&lab, 40000), by_conntrack);
}
