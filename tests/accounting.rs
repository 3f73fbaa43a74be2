// SPDX-License-Identifier: GPL-2.0-only
//! What conntrack and `bpfw events` count of a connection is, together, what was sent.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use support::daemon::Daemon;
use support::ipv6::{CLIENT6, ECHO6, SERVER6, add_ipv6, at6};
use support::lab::{CLIENT, Lab, Offloads, SERVER};
use support::netns::Namespace;
use support::router::*;
use support::rules::snat_rules;
use support::tcp::{Direction, Path, TcpPair};
use support::udp::{UdpClient, udp_echo};
use support::wait::{becomes_true, eventually};

on_both_hooks!(each_packet_is_counted_once, hosts_have_used_what_they_have_sent);

/// Packets and bytes.
type Sum = (u64, u64);

/// By protocol and family: what client and server have sent.
type Sums = BTreeMap<&'static str, [Sum; 2]>;

const KINDS: [&str; 4] = ["tcp4", "udp4", "tcp6", "udp6"];

/// Each end counts what it sends.
const SENT: &str = "table inet sent {
    counter tcp4 { }
    counter udp4 { }
    counter tcp6 { }
    counter udp6 { }
    chain output {
        type filter hook output priority 0;
        meta nfproto ipv4 meta l4proto tcp counter name tcp4
        meta nfproto ipv4 meta l4proto udp counter name udp4
        meta nfproto ipv6 meta l4proto tcp counter name tcp6
        meta nfproto ipv6 meta l4proto udp counter name udp6
    }
}
";

fn counting_lab(test: &str) -> Lab {
    let lab = Lab::new(test, Offloads::Plain);
    lab.nft(&snat_rules());
    lab.route_server_via_router();
    add_ipv6(&lab);
    // Nor does the router take several packets for one.
    lab.router.sh("ethtool -K lan0 gro off; ethtool -K wan0 gro off");
    for (name, value) in [("nf_conntrack_acct", "1"), ("nf_conntrack_tcp_timeout_time_wait", "1")] {
        lab.router.sysctl(&format!("net/netfilter/{name}"), value);
    }
    for host in [&lab.client, &lab.server] {
        // So that its rules see each segment.
        host.ip("link set eth0 gso_max_segs 1\n");
        host.run_with_input(&["nft", "-f", "-"], SENT);
    }
    lab
}

/// All that client and server have sent.
fn sent(lab: &Lab) -> Sums {
    let of = |host: &Namespace, kind: &str| {
        let text = host.sh(&format!("nft list counter inet sent {kind}"));
        (number(&text, "packets "), number(&text, "bytes "))
    };
    KINDS.map(|kind| (kind, [of(&lab.client, kind), of(&lab.server, kind)])).into()
}

/// The number behind this name.
fn number(text: &str, name: &str) -> u64 {
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("no {name}in {text}"));
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {name}in {text}"))
}

fn kind(protocol: &str, address: IpAddr) -> &'static str {
    let family = if address.is_ipv4() { '4' } else { '6' };
    let name = format!("{protocol}{family}");
    KINDS.into_iter().find(|kind| **kind == name).expect("one of ours")
}

/// What bpfw has told of offloads that have ended.
fn told_by_bpfw(client: &Daemon) -> Sums {
    let mut sums = Sums::new();
    for line in client.lines() {
        let event: Value = serde_json::from_str(&line).expect("an object a line");
        assert_ne!(event["event"], "missed");
        if event["event"] == "end" {
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            let address = text(&event["original"]["src"]).parse().expect("an address");
            let of = |way: &str, name: &str| event[way][name].as_u64().expect("a number");
            let sum = |way: &str| (of(way, "packets"), of(way, "bytes"));
            let kind = kind(&text(&event["protoname"]), address);
            add(&mut sums, kind, [sum("original"), sum("reply")]);
        }
    }
    sums
}

/// What conntrack has told of entries that have ended.
fn told_by_conntrack(client: &Daemon) -> Sums {
    let mut sums = Sums::new();
    for line in client.lines().iter().filter(|line| line.contains("[DESTROY]")) {
        let address = line.split_once("src=").and_then(|(_, rest)| rest.split(' ').next());
        let address = address.expect("an address").parse().expect("an address");
        let protocol = if line.contains(" tcp ") { "tcp" } else { "udp" };
        let (original, reply) = line.split_at(line.rfind("src=").expect("two tuples"));
        let sum = |text| (number(text, "packets="), number(text, "bytes="));
        add(&mut sums, kind(protocol, address), [sum(original), sum(reply)]);
    }
    sums
}

fn add(sums: &mut Sums, kind: &'static str, more: [Sum; 2]) {
    let entry = sums.entry(kind).or_default();
    for (sum, more) in entry.iter_mut().zip(more) {
        *sum = (sum.0 + more.0, sum.1 + more.1);
    }
}

fn listeners(lab: &Lab) -> (Daemon, Daemon) {
    let bpfw = Daemon::start(&lab.router, &["events", "--json"]);
    bpfw.wait_for_line("listening", LIMIT);
    let conntrack = Daemon::start_program(&lab.router, "conntrack", &["-E", "-e", "DESTROY"]);
    // It says nothing when it begins to listen.
    let probe = || {
        let line = "-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 100";
        lab.conntrack(&["-I", line].join(" ").split(' ').collect::<Vec<_>>());
        lab.conntrack(&["-D", "-s", "10.0.0.1"]);
        !conntrack.lines().is_empty()
    };
    eventually(LIMIT, "conntrack's tool listens", probe);
    (bpfw, conntrack)
}

/// Datagrams of several sizes, partly by the network stack: not assured at first, then with a period.
fn talk_udp(lab: &Lab, from: SocketAddr, to: SocketAddr) {
    let _server = udp_echo(&lab.server, to);
    let client = UdpClient::open(&lab.client, from, to);
    for number in 0..400 {
        assert!(client.echoes(number, LIMIT), "echo {number} is lost");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let client = client.size(1200);
    assert_eq!(client.count_echoes(400..600, LIMIT), 200);
}

/// Exchanges and a transfer each way, from the first SYN to the last FIN.
fn talk_tcp(lab: &Lab, to: SocketAddr) {
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(to));
    for _ in 0..50 {
        pair.exchange();
    }
    pair.transfer(Direction::ToServer, 1 << 20, 1);
    pair.transfer(Direction::ToClient, 1 << 20, 2);
}

/// All four kinds of connections, until conntrack has forgotten them.
fn talk(lab: &Lab, conntrack: &Daemon) {
    talk_udp(lab, at(CLIENT, 40000).into(), ECHO.into());
    talk_udp(lab, at6(CLIENT6, 40000).into(), ECHO6.into());
    talk_tcp(lab, at(SERVER, 5001).into());
    talk_tcp(lab, at6(SERVER6, 5001).into());
    for family in ["ipv4", "ipv6"] {
        assert!(lab.conntrack(&["-D", "-f", family, "-p", "udp"]).status.success());
    }
    let ended = becomes_true(LIMIT, || {
        // To list them removes those that are over.
        lab.conntrack(&["-L", "-f", "ipv6"]);
        lab.conntrack_list();
        let sums = told_by_conntrack(conntrack);
        KINDS.iter().all(|kind| sums.contains_key(kind))
    });
    assert!(ended, "{:?}\n{}", conntrack.lines(), lab.conntrack_list());
}

fn each_packet_is_counted_once(hook: &str, test: &str) {
    let lab = counting_lab(test);
    let daemon = start(&lab, hook, &["--prove-every", "2"]);
    let (bpfw, conntrack) = listeners(&lab);
    talk(&lab, &conntrack);
    let sent = sent(&lab);
    eventually(LIMIT, "bpfw has told all ends", || told_by_bpfw(&bpfw).len() == KINDS.len());
    assert!(daemon.stop(LIMIT).success());
    let (fast, slow) = (told_by_bpfw(&bpfw), told_by_conntrack(&conntrack));
    let mut both = fast.clone();
    for (kind, sums) in &slow {
        add(&mut both, kind, *sums);
    }
    println!("{hook}: sent {sent:?}\nfast {fast:?}\nslow {slow:?}");
    assert_eq!(both, sent, "fast {fast:?}, slow {slow:?}");
    for kind in KINDS {
        for way in 0..2 {
            let (fast, slow) = (fast[kind][way].0, slow[kind][way].0);
            assert!(fast > slow && slow > 0, "{kind}: {fast} fast, {slow} by the stack");
        }
    }
}

/// The example of docs/accounting.md.
fn hosts_have_used_what_they_have_sent(hook: &str, test: &str) {
    let lab = counting_lab(test);
    let daemon = start(&lab, hook, &["--prove-every", "2"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/use-by-host");
    let path = format!("BPFW={}", support::daemon::program());
    let hosts = format!("{CLIENT}|{CLIENT6}");
    let mut example =
        Daemon::start_program(&lab.router, "env", &[&path, "sh", script, "600", &hosts]);
    let (_, conntrack) = listeners(&lab);
    talk(&lab, &conntrack);
    let sent = sent(&lab);
    let total = |families: [&str; 2]| {
        let both = families.map(|kind| sent[kind]);
        (both[0][0].1 + both[1][0].1, both[0][1].1 + both[1][1].1)
    };
    // Its time ends with bpfw.
    assert!(daemon.stop(LIMIT).success());
    let status = example.wait_exit(LIMIT);
    assert!(status.success(), "{:?}", example.lines());
    let expected = [(CLIENT.to_string(), total(["tcp4", "udp4"]))]
        .into_iter()
        .chain([(CLIENT6.to_string(), total(["tcp6", "udp6"]))])
        .map(|(host, (up, down))| format!("{host} {up} {down}"));
    for line in expected {
        assert!(example.lines().contains(&line), "{line} in {:?}", example.lines());
    }
}
