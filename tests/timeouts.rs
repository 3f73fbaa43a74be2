// SPDX-License-Identifier: GPL-2.0-only
//! Timeout policies, of nftables' and of iptables': the connections that have one keep it, and
//! others are forwarded beside them.

mod support;

use std::time::{Duration, Instant};
use support::conntrack::time_left;
use support::lab::{CLIENT, Lab, SERVER};
use support::router::*;
use support::rules::snat_rules;
use support::tcp::{Path, TcpPair};
use support::udp::{UdpClient, UdpEcho, udp_echo};

on_both_hooks!(
    hazard_03_ct_timeout_policies_are_kept,
    hazard_03_ct_timeout_policies_of_iptables_are_kept,
    hazard_03_ct_timeout_policies_are_kept_for_tcp,
    hazard_03_ct_timeout_policies_found_at_the_start_are_kept,
);

/// Shorter and longer than the sysctls' 8 s, and so far apart that none is mistaken for another.
const SHORT: u64 = 4;
const LONG: u64 = 13;
/// Conntrack shows whole seconds, and the machine may be slow.
const SLACK: u64 = 3;

/// Port 8 gets the short timeout, port 9 the long one, and so does TCP's 5002.
const POLICIES: &str = "
table ip policies {
    ct timeout short {
        protocol udp
        l3proto ip
        policy = { unreplied : 4, replied : 4 }
    }
    ct timeout long {
        protocol udp
        l3proto ip
        policy = { unreplied : 13, replied : 13 }
    }
    ct timeout tcp_long {
        protocol tcp
        l3proto ip
        policy = { established : 13 }
    }
    chain prerouting {
        type filter hook prerouting priority -150; policy accept;
        udp dport 8 ct timeout set \"short\"
        udp dport 9 ct timeout set \"long\"
        tcp dport 5002 ct timeout set \"tcp_long\"
    }
}
";

fn lab_with_short_timeouts(hook: &str, test: &str) -> Lab {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl("net/netfilter/nf_conntrack_udp_timeout", "8");
    lab.router.sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", "8");
    lab
}

/// A connection to a port of the server's, from the port of the same number above 40,000.
fn connection(lab: &Lab, port: u16) -> (UdpEcho, UdpClient) {
    let server = udp_echo(&lab.server, at(SERVER, port));
    (server, UdpClient::open(&lab.client, at(CLIENT, 40_000 + port), at(SERVER, port)))
}

/// An echo every 100 ms through each connection, for so long that bpfw would have refreshed it.
/// After each echo, its policy's timeout has just begun, and none takes the fast path.
fn expect_kept(lab: &Lab, connections: &[(&UdpClient, u64)]) {
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < Duration::from_secs(6) {
        for (client, timeout) in connections {
            number += 1;
            assert!(!echo_is_fast(lab, client, number), "with {timeout} s of its own");
            let port = client.socket().local_addr().expect("bound").port();
            let left = time_left(lab, port);
            assert!((timeout - SLACK..=*timeout).contains(&left), "{left} s left of {timeout}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn hazard_03_ct_timeout_policies_are_kept(hook: &str, test: &str) {
    let lab = lab_with_short_timeouts(hook, test);
    let daemon = start(&lab, hook, &["--log-level", "trace"]);
    // While there is traffic already: the policies come later.
    let (_server, ordinary) = connection(&lab, 7);
    wait_until_fast(&lab, &ordinary);
    lab.nft(POLICIES);
    let (_short_server, short) = connection(&lab, 8);
    let (_long_server, long) = connection(&lab, 9);
    expect_kept(&lab, &[(&short, SHORT), (&long, LONG)]);
    daemon.wait_for_line("timeout of its own", LIMIT);
    let (_other_server, other) = connection(&lab, 10);
    wait_until_fast(&lab, &other);
    wait_until_fast(&lab, &ordinary);
    assert!(time_left(&lab, 40_010) <= 8);
    // Without the rule that chooses it, a new connection has none.
    lab.nft("flush chain ip policies prerouting");
    lab.conntrack(&["-F"]);
    wait_until_fast(&lab, &short);
}

fn hazard_03_ct_timeout_policies_of_iptables_are_kept(hook: &str, test: &str) {
    let lab = lab_with_short_timeouts(hook, test);
    lab.router.sh("nfct add timeout policy-long inet udp unreplied 13 replied 13
         iptables-nft -t raw -A PREROUTING -p udp --dport 9 -j CT --timeout policy-long");
    let _daemon = start(&lab, hook, &[]);
    let (_long_server, long) = connection(&lab, 9);
    let (_server, ordinary) = connection(&lab, 7);
    expect_kept(&lab, &[(&long, LONG)]);
    wait_until_fast(&lab, &ordinary);
}

fn hazard_03_ct_timeout_policies_are_kept_for_tcp(hook: &str, test: &str) {
    let lab = lab_with_short_timeouts(hook, test);
    lab.nft(POLICIES);
    let _daemon = start(&lab, hook, &[]);
    let open = |port| TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, port)));
    let (ordinary, long) = (open(5001), open(5002));
    wait_until_tcp_fast(&lab, &ordinary);
    let port = long.client.local_addr().expect("connected").port();
    for _ in 0..30 {
        assert!(!tcp_is_fast(&lab, &long));
        let left = time_left(&lab, port);
        assert!((LONG - SLACK..=LONG).contains(&left), "{left} s left of {LONG}");
    }
    assert!(tcp_is_fast(&lab, &ordinary));
}

/// What the table shows at the start does not tell: the long one has as much left as an ordinary
/// one after some seconds.
fn hazard_03_ct_timeout_policies_found_at_the_start_are_kept(hook: &str, test: &str) {
    let lab = lab_with_short_timeouts(hook, test);
    lab.nft(POLICIES);
    let (_server, ordinary) = connection(&lab, 7);
    let (_long_server, long) = connection(&lab, 9);
    assert!(long.echoes(0, LIMIT));
    std::thread::sleep(Duration::from_secs(LONG - 8 + 1));
    assert!(ordinary.echoes(0, LIMIT));
    let daemon = start(&lab, hook, &[]);
    assert!((5..8).contains(&time_left(&lab, 40_009)));
    assert_eq!(offloaded(&daemon), 0);
    expect_kept(&lab, &[(&long, LONG)]);
    wait_until_fast(&lab, &ordinary);
}
