// SPDX-License-Identifier: GPL-2.0-only
//! Reasons of `bpfw why` and states of `bpfw status` that tests/why.rs and tests/status.rs do not produce, one by one.

mod support;

use bpfw::datapath::probe::look_ups_heed_marks;
use bpfw::reasons::Reason;
use bpfw::reasons::answer::Answer;
use bpfw::reasons::connection::Refusal;
use bpfw::reasons::interface::Problem;
use bpfw::reasons::packet::VERDICTS;
use serde_json::Value;
use support::ask::ask;
use support::lab::{CLIENT, Lab, SERVER};
use support::live::{lacking, root_or_skip};
use support::router::*;
use support::rules::no_nat_rules;
use support::udp::{UdpClient, udp_echo};
use support::wait::eventually;

on_both_hooks!(interfaces_say_why_they_are_left);

fn json(lab: &Lab, words: &[&str]) -> Value {
    ask(&lab.router, &[words, &["--json"]].concat()).json()
}

/// The row of a reason that a connection can have.
fn of_connection(name: &str) -> Reason {
    let refusals = Refusal::ALL.iter().map(|refusal| refusal.reason());
    let answers = Answer::ALL.iter().map(|answer| answer.reason());
    let mut all = refusals.chain(answers).chain(VERDICTS);
    all.find(|reason| reason.name == name).unwrap_or_else(|| panic!("none is called {name}"))
}

/// Waits until `bpfw why` gives this reason for the connection from this port; its text says the same.
fn expect(lab: &Lab, port: u16, reason: &str) {
    let port = port.to_string();
    let words = ["why", "--sport", &port];
    let mut last = Value::Null;
    eventually(LIMIT, &format!("{port} is {reason}"), || {
        last = json(lab, &words);
        last["reason"] == reason
    });
    let Reason { words, advice, .. } = of_connection(reason);
    assert_eq!((&last["words"], &last["advice"]), (&words.into(), &advice.into()), "{last}");
    assert_eq!(last["verdict"], "stack");
}

/// What is set up, and what takes it away again; both are words of the shell.
struct Obstacle {
    reason: &'static str,
    make: &'static str,
    undo: &'static str,
}

const MARKS: &str = "nft 'table ip marks { chain c { type filter hook prerouting priority -140; \
                     udp dport 7 meta mark set 1; }; }'; ip rule add fwmark 1 lookup main";
const COPIES: &str = "nft 'table ip copies { chain c { type filter hook forward priority 1; \
                      dup to 198.51.100.9 device \"wan0\"; }; }'";

const OBSTACLES: &[Obstacle] = &[
    Obstacle {
        reason: "type-of-service",
        make: "ip rule add tos 0x10 table main",
        undo: "ip rule del tos 0x10 table main",
    },
    Obstacle {
        reason: "unknown-rule",
        make: "ip rule add tun_id 7 lookup main",
        undo: "ip rule del tun_id 7 lookup main",
    },
    Obstacle {
        reason: "realms",
        make: "ip rule add from 192.0.2.0/24 realms 7 lookup main",
        undo: "ip rule del from 192.0.2.0/24 realms 7 lookup main",
    },
    Obstacle {
        reason: "multipath",
        make: "sysctl -qw net.ipv4.fib_multipath_hash_policy=1; \
               ip route add 203.0.113.0/24 nexthop via 198.51.100.2 nexthop via 198.51.100.3",
        undo: "ip route del 203.0.113.0/24; sysctl -qw net.ipv4.fib_multipath_hash_policy=0",
    },
    Obstacle {
        reason: "path-mtu",
        make: "sysctl -qw net.ipv4.ip_forward_use_pmtu=1",
        undo: "sysctl -qw net.ipv4.ip_forward_use_pmtu=0",
    },
    Obstacle {
        reason: "redirects",
        make: "sysctl -qw net.ipv4.conf.all.accept_redirects=1",
        undo: "sysctl -qw net.ipv4.conf.all.accept_redirects=0",
    },
    Obstacle {
        reason: "policy-routing",
        make: MARKS,
        undo: "ip rule del fwmark 1 lookup main; nft delete table ip marks",
    },
    Obstacle { reason: "copies", make: COPIES, undo: "nft delete table ip copies" },
];

/// Each of them stands against all connections: `status` says so first, and `why` of each connection.
#[test]
fn policies_that_stand_against_all() {
    let test = "policies_that_stand_against_all";
    if !root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &no_nat_rules());
    let daemon = start(&lab, "tc", &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    for Obstacle { reason, make, undo } in OBSTACLES {
        lab.router.sh(make);
        expect(&lab, 40000, reason);
        let status = ask(&lab.router, &["status"]);
        let words = of_connection(reason).words;
        assert!(status.first_line().ends_with(&format!(": nothing is offloaded: {words}")));
        assert_eq!(status.code, 4, "{status:?}");
        lab.router.sh(undo);
        eventually(LIMIT, &format!("{reason} is over"), || {
            json(&lab, &["status"])["state"] == "forwarding"
        });
    }
    assert!(daemon.stop(LIMIT).success());
}

/// An entry of conntrack that another program adds.
fn add(lab: &Lab, port: u16, more: &str) {
    let port = port.to_string();
    let usual = ["-I", "-p", "udp", "-s", "192.0.2.2", "--sport", &port, "--dport", "9"];
    let words: Vec<&str> = more.split(' ').collect();
    let added = lab.conntrack(&[&usual[..], &["-t", "100"], &words].concat());
    assert!(added.status.success(), "{more}: {added:?}");
}

/// What conntrack's entry says by itself.
#[test]
fn entries_that_stay_with_the_stack() {
    let test = "entries_that_stay_with_the_stack";
    if !root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &no_nat_rules());
    lab.router.ip(
        "link add elsewhere type veth peer name beyond\nlink set beyond up\naddr add 203.0.113.1/24 dev elsewhere\nlink set elsewhere up\n",
    );
    lab.router.ip(&format!(
        "xfrm policy add src {CLIENT}/32 dst 198.51.100.66/32 dir fwd action block\n"
    ));
    let daemon = start(&lab, "tc", &[]);
    let stream = "-u SEEN_REPLY,ASSURED";
    let other = "-r 198.51.100.3 -q 192.0.2.2 --reply-port-src 9 --reply-port-dst 50005";
    for (port, more, reason) in [
        (50_001, "-d 198.51.100.2 -u UNSET", "no-reply"),
        (50_002, &format!("-d 198.51.100.2 -w 5 {stream}"), "zone"),
        (50_003, "-d 198.51.100.2 -u SEEN_REPLY,ASSURED,FIXED_TIMEOUT", "fixed-timeout"),
        (50_004, &format!("-d 224.0.0.9 {stream}"), "not-unicast"),
        (50_005, &format!("-d 198.51.100.2 {other} {stream}"), "not-translated"),
        (50_006, &format!("-d 198.51.100.2 {stream}"), "not-seen"),
        (50_007, &format!("-d 203.0.113.9 {stream}"), "not-here"),
        (50_008, &format!("-d 198.51.100.66 {stream}"), "ipsec"),
    ] {
        add(&lab, port, more);
        expect(&lab, port, reason);
    }
    assert!(daemon.stop(LIMIT).success());
}

/// What the daemon or the datapath has found out about connections with packets.
#[test]
fn packets_that_stay_with_the_stack() {
    let test = "packets_that_stay_with_the_stack";
    if !root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &no_nat_rules());
    lab.nft(
        "table ip policies {
            ct timeout own { protocol udp; l3proto ip; policy = { unreplied : 13, replied : 13 }; }
            chain c { type filter hook prerouting priority -150; udp dport 9 ct timeout set \"own\"; }
        }",
    );
    let set_timeouts = |seconds: &str| {
        for name in ["udp_timeout", "udp_timeout_stream"] {
            lab.router.sysctl(&format!("net/netfilter/nf_conntrack_{name}"), seconds);
        }
    };
    // A quarter of it is the longest silence.
    set_timeouts("8");
    let daemon = start(&lab, "tc", &[]);
    let _servers = [7, 9].map(|port| udp_echo(&lab.server, at(SERVER, port)));
    let open = |local, port| UdpClient::open(&lab.client, at(CLIENT, local), at(SERVER, port));
    let own = open(40_009, 9);
    assert!(own.echoes(1, LIMIT));
    expect(&lab, 40_009, "own-timeout");
    let once = open(40_001, 7);
    assert!(once.echoes(1, LIMIT));
    expect(&lab, 40_001, "unassured");
    let stream = open(40_002, 7);
    wait_until_fast(&lab, &stream);
    expect(&lab, 40_002, "idle");
    set_timeouts("2");
    let short = open(40_003, 7);
    eventually(LIMIT, "its timeout is short", || {
        assert!(short.echoes(1, LIMIT));
        json(&lab, &["why", "--sport", "40003"])["reason"] == "odd-timeout"
    });
    assert!(daemon.stop(LIMIT).success());
    set_timeouts("60");
    let daemon = start(&lab, "tc", &["--max-connections", "1"]);
    let clients = [40_004, 40_005].map(|local| open(local, 7));
    let is_full = |port: &str| json(&lab, &["why", "--sport", port])["reason"] == "full";
    eventually(LIMIT, "one finds no room", || {
        assert!(clients.iter().all(|client| client.echoes(1, LIMIT)));
        is_full("40004") || is_full("40005")
    });
    assert!(daemon.stop(LIMIT).success());
}

#[test]
fn a_connection_without_a_mark_to_be_routed_by() {
    let test = "a_connection_without_a_mark_to_be_routed_by";
    if !root_or_skip(test) {
        return;
    }
    if !look_ups_heed_marks() {
        return lacking(test, "this kernel's look-ups heed no marks");
    }
    let lab = lab("tc", test, &no_nat_rules());
    lab.router.ip("rule add fwmark 0x1/0xff lookup main\n");
    let daemon = start(&lab, "tc", &["--route-mark-mask", "0xff"]);
    let (_server, client) = echo(&lab, 40000);
    assert!(client.echoes(1, LIMIT));
    expect(&lab, 40000, "route-mark");
    assert!(daemon.stop(LIMIT).success());
}

/// The reason of an interface in the status, or one of its notices.
fn has_reason(lab: &Lab, device: &str, reason: &str) -> bool {
    let status = json(lab, &["status"]);
    let interfaces = status["interfaces"].as_array().expect("a list");
    let interface = interfaces.iter().find(|interface| interface["device"] == device);
    interface.is_some_and(|interface| {
        let notices = interface["notices"].as_array().expect("a list");
        notices.iter().chain([&interface["reason"]]).any(|cause| cause["name"] == reason)
    })
}

fn interfaces_say_why_they_are_left(hook: &str, test: &str) {
    let lab = lab(hook, test, &no_nat_rules());
    let daemon = start(&lab, hook, &[]);
    let expect = |device: &str, problem: Problem| {
        let Reason { name, words, advice, .. } = problem.reason();
        eventually(LIMIT, &format!("{device}: {problem}"), || has_reason(&lab, device, name));
        let status = ask(&lab.router, &["status"]);
        let advice = advice.map(|advice| format!(" ({advice})\n")).unwrap_or_default();
        let says = status.out.contains(words) && status.out.contains(&advice);
        assert!(says, "{device}: {problem}: {status:?}");
    };
    if hook == "xdp" {
        lab.client.sh("ethtool -K eth0 gro off");
        expect("lan0", Problem::VethPeer);
        lab.client.sh("ethtool -K eth0 gro on");
        lab.router.sh("tc qdisc add dev wan0 root tbf rate 1mbit burst 10k latency 10ms");
        expect("wan0", Problem::Shaper);
        lab.router.sh("tc qdisc del dev wan0 root");
    }
    lab.router.ip("link set lan0 down\n");
    expect("lan0", Problem::Down);
    lab.router.ip("link set lan0 up\n");
    eventually(LIMIT, "all are used", || ask(&lab.router, &["status"]).code == 0);
    lab.nft(
        "table netdev guard { chain ban { type filter hook ingress devices = { lan0, wan0 } priority 0; }; }",
    );
    expect("lan0", Problem::NetdevChain);
    eventually(LIMIT, "nothing is usable", || json(&lab, &["status"])["state"] == "nothing-usable");
    let status = ask(&lab.router, &["status"]);
    assert!(status.first_line().ends_with(": forwarding nothing: no usable interface"));
    assert_eq!(status.code, 4);
    lab.nft("delete table netdev guard");
    lab.router.ip("link del lan0\n");
    expect("lan0", Problem::Gone);
    assert!(daemon.stop(LIMIT).success());
}
