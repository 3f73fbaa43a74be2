// SPDX-License-Identifier: GPL-2.0-only
//! IPsec policies: what they cover stays with the stack, and nothing else does.
//!
//! The server is also a site at the far end of a tunnel, whose network is 203.0.113.0/24. Where the
//! kernel has ESP, the tunnel works; where it has not, the stack keeps what the policies cover for
//! want of a key. Either way, none of it may leave in clear.

mod support;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::capture::{Capture, Frame};
use support::daemon::Daemon;
use support::lab::{CLIENT, LAN_NET, Lab, ROUTER_WAN, ROUTER_WAN_MAC, SERVER, SERVER_MAC};
use support::live::lacking;
use support::netns::{Namespace, text};
use support::packet::Packet;
use support::router::*;
use support::rules::{dnat_rules, no_nat_rules, snat_rules};
use support::udp::{UdpClient, UdpEcho, udp_echo};
use support::wait::{becomes_true, eventually};

on_both_hooks!(
    hazard_13_covered_connections_stay_with_the_stack,
    hazard_13_other_policies_do_not_matter,
    hazard_13_clear_packets_do_not_come_in_past_a_policy,
    hazard_13_policies_from_before_the_start,
    hazard_13_a_new_policy_ends_the_offload,
    hazard_13_a_new_policy_behind_snat,
    hazard_13_a_new_policy_from_outside,
    hazard_65_inner_packets_in_clear_are_not_forwarded,
);

const SITE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const SITE_NET: &str = "203.0.113.0/24";
/// The port of the service at the site; the server's own has another.
const PORT: u16 = 9;

/// At the server: what comes from the router for the site without protection, and all ESP.
const WIRE: &str = "
table ip wire {
    counter in_clear { }
    counter in_esp { }
    chain prerouting {
        type filter hook prerouting priority -400; policy accept;
        ip daddr 203.0.113.2 meta ipsec missing counter name in_clear
        ip protocol esp counter name in_esp
    }
}
";

fn site_lab(hook: &str, test: &str, rules: &str) -> Lab {
    let lab = lab(hook, test, rules);
    lab.server.ip(&format!("addr add {SITE}/24 dev eth0\n"));
    lab.router.ip(&format!("route add {SITE_NET} via {SERVER}\n"));
    lab.server.run_with_input(&["nft", "-f", "-"], WIRE);
    lab
}

/// Packets that arrived at the server: `in_clear` or `in_esp`.
fn arrived(lab: &Lab, counter: &str) -> u64 {
    let listed = lab.server.run(&["nft", "list", "counter", "ip", "wire", counter]);
    let listed = text(&listed.stdout);
    let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|word| word.parse().ok()).expect("a counter has packets")
}

/// A service at the site and a client of it.
fn covered_echo(lab: &Lab) -> (UdpEcho, UdpClient) {
    let server = udp_echo(&lab.server, at(SITE, PORT));
    (server, UdpClient::open(&lab.client, at(CLIENT, 41000), at(SITE, PORT)))
}

/// The time until they are streams runs for both at once.
fn wait_until_both_fast(lab: &Lab, first: &UdpClient, second: &UdpClient) {
    assert!(second.echoes(0, LIMIT));
    wait_until_fast(lab, first);
    wait_until_fast(lab, second);
}

fn policy(lab: &Lab, command: &str) {
    lab.router.ip(&format!("xfrm policy {command}\n"));
}

/// Both connections are fast, and then the policy takes the one that it covers.
fn expect_covered(lab: &Lab, daemon: &Daemon, covered: &UdpClient, other: &UdpClient, which: &str) {
    let mark = daemon.mark();
    policy(lab, &format!("add {which} action allow"));
    daemon.wait_for_line_after(mark, "forwarding", LIMIT);
    wait_until_fast(lab, other);
    for number in 0..10 {
        assert!(!echo_is_fast(lab, covered, number), "fast in spite of {which}");
    }
    assert!(echo_is_fast(lab, other, 10), "slow because of {which}");
    assert_eq!(offloaded(daemon), 1, "{which}");
    policy(lab, &format!("delete {which}"));
    wait_until_fast(lab, covered);
    wait_until_fast(lab, other);
}

/// A policy that lets all pass shows what is covered: the stack goes on forwarding it.
fn hazard_13_covered_connections_stay_with_the_stack(hook: &str, test: &str) {
    let lab = site_lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let ((_site, covered), (_server, other)) = (covered_echo(&lab), echo(&lab, 40000));
    wait_until_both_fast(&lab, &covered, &other);
    let wan = format!("{ROUTER_WAN}/32");
    for which in [
        format!("src {LAN_NET} dst {SITE_NET} dir out"),
        format!("src {wan} dst {SITE_NET} dir out"),
        format!("src {SITE_NET} dst {LAN_NET} dir fwd"),
        format!("src {SITE_NET} dst {wan} dir fwd"),
        format!("src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport {PORT} dir out"),
        format!("src {CLIENT}/32 dst {SITE}/32 sport 41000 dport {PORT} proto udp dir fwd"),
    ] {
        expect_covered(&lab, &daemon, &covered, &other, &which);
    }
    // A wider selector in place of one that did not cover it.
    policy(&lab, "update src 0.0.0.0/0 dst 203.0.113.9/32 dir out action allow");
    wait_until_fast(&lab, &covered);
    policy(&lab, &format!("update src 0.0.0.0/0 dst {SITE_NET} dir out action allow"));
    wait_until_offloaded(&daemon, 1);
    assert!(!echo_is_fast(&lab, &covered, 12));
    policy(&lab, "flush");
    wait_until_fast(&lab, &covered);
}

/// What does not cover a connection does not even make the fast path pause for long.
fn hazard_13_other_policies_do_not_matter(hook: &str, test: &str) {
    let lab = site_lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_site, client) = covered_echo(&lab);
    wait_until_fast(&lab, &client);
    policy(&lab, &format!("add src {SITE_NET} dst {LAN_NET} dir in action block"));
    std::thread::sleep(Duration::from_millis(300));
    assert!((0..20).all(|number| echo_is_fast(&lab, &client, number)), "not forwarding");
    // Connections of IPv6 are compared with this one, after a pause.
    policy(&lab, "add src 2001:db8:1::/48 dst 2001:db8:2::/48 dir out action block");
    wait_until_fast(&lab, &client);
    assert!((0..20).all(|number| echo_is_fast(&lab, &client, number)), "not IPv6");
    let mark = daemon.mark();
    policy(
        &lab,
        &format!("add src {LAN_NET} dst {SITE_NET} proto udp dport 10 dir out action block"),
    );
    policy(&lab, &format!("add src {LAN_NET} dst {SITE_NET} proto tcp dir out action block"));
    policy(&lab, "add src 203.0.112.0/24 dst 0.0.0.0/0 dir fwd action block");
    daemon.wait_for_line_after(mark, "IPsec policies for forwarded packets now", LIMIT);
    wait_until_fast(&lab, &client);
    assert_eq!(offloaded(&daemon), 1);
    policy(&lab, "flush");
    daemon.wait_for_line_after(mark, "there are no IPsec policies", LIMIT);
    // A policy that goes is a change as any other: each direction proves itself again.
    wait_until_fast(&lab, &client);
}

/// The policy wants ESP from the site; what comes in clear is not for the client any longer.
fn hazard_13_clear_packets_do_not_come_in_past_a_policy(hook: &str, test: &str) {
    let lab = site_lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_site, client) = covered_echo(&lab);
    wait_until_fast(&lab, &client);
    let tunnel = template(SERVER, ROUTER_WAN);
    policy(&lab, &format!("add src {SITE_NET} dst {ROUTER_WAN}/32 dir fwd {tunnel}"));
    eventually(LIMIT, "the policy stops the answers", || {
        !client.echoes(1, Duration::from_millis(200))
    });
    wait_until_offloaded(&daemon, 0);
    policy(&lab, "flush");
    wait_until_fast(&lab, &client);
}

fn template(from: Ipv4Addr, to: Ipv4Addr) -> String {
    format!("tmpl src {from} dst {to} proto esp reqid 1 mode tunnel")
}

/// A tunnel for what goes between `near`, at the router, and the site.
struct Tunnel {
    near: String,
    /// The kernel has ESP.
    works: bool,
}

impl Tunnel {
    /// Gives both ends their keys, which does nothing yet.
    fn new(lab: &Lab, near: &str) -> Self {
        let state = |from: Ipv4Addr, to: Ipv4Addr, spi: u32| {
            format!(
                "xfrm state add src {from} dst {to} proto esp spi {spi} reqid 1 mode tunnel \
                 auth hmac(sha256) 0x{} enc cbc(aes) 0x{}\n",
                "a7".repeat(32),
                "5c".repeat(16)
            )
        };
        let states = state(ROUTER_WAN, SERVER, 0x1001) + &state(SERVER, ROUTER_WAN, 0x1002);
        let batch = format!("printf '%s' '{states}' | ip -batch -");
        let set = |end: &Namespace| end.try_run(&["sh", "-c", &batch]);
        let (router, server) = (set(&lab.router), set(&lab.server));
        let works = router.status.success() && server.status.success();
        if !works {
            println!("no tunnel: the stack keeps what is covered. {}", text(&router.stderr));
        }
        Self { near: near.to_owned(), works }
    }

    /// The policies of both ends, the router's first.
    fn open(&self, lab: &Lab) {
        let near = &self.near;
        let (there, back) = (template(ROUTER_WAN, SERVER), template(SERVER, ROUTER_WAN));
        lab.router.ip(&format!(
            "xfrm policy add src {near} dst {SITE_NET} dir out {there}\n\
             xfrm policy add src {SITE_NET} dst {near} dir fwd {back}\n\
             xfrm policy add src {SITE_NET} dst {near} dir in {back}\n"
        ));
        lab.server.ip(&format!(
            "xfrm policy add src {SITE_NET} dst {near} dir out {back}\n\
             xfrm policy add src {near} dst {SITE_NET} dir in {there}\n"
        ));
    }

    fn close(lab: &Lab) {
        for end in [&lab.router, &lab.server] {
            end.ip("xfrm policy flush\n");
        }
    }
}

fn hazard_13_policies_from_before_the_start(hook: &str, test: &str) {
    for (rules, near) in [(no_nat_rules(), LAN_NET), (snat_rules(), "198.51.100.1/32")] {
        let lab = site_lab(hook, test, &rules);
        let tunnel = Tunnel::new(&lab, near);
        tunnel.open(&lab);
        let daemon = start(&lab, hook, &[]);
        daemon.wait_for_line("connections that IPsec policies cover", LIMIT);
        let ((_site, covered), (_server, other)) = (covered_echo(&lab), echo(&lab, 40000));
        wait_until_fast(&lab, &other);
        for number in 0..20 {
            let limit = if tunnel.works { LIMIT } else { Duration::from_millis(20) };
            assert_eq!(covered.echoes(number, limit), tunnel.works);
        }
        assert_eq!(arrived(&lab, "in_clear"), 0);
        assert_eq!(arrived(&lab, "in_esp") >= 20, tunnel.works);
        assert_eq!(offloaded(&daemon), 1);
        assert!(echo_is_fast(&lab, &other, 30));
    }
}

/// Sends as fast as it can until told to end, and counts.
#[derive(Default)]
struct Flood {
    over: AtomicBool,
    sent: AtomicU64,
}

impl Flood {
    fn run(&self, client: &UdpClient) {
        while !self.over.load(Ordering::Relaxed) {
            client.send(self.sent.fetch_add(1, Ordering::Relaxed));
        }
    }
}

fn hazard_13_a_new_policy_ends_the_offload(hook: &str, test: &str) {
    let lab = site_lab(hook, test, &no_nat_rules());
    let (_site, client) = covered_echo(&lab);
    try_new_policy(&lab, hook, LAN_NET, &client);
}

fn hazard_13_a_new_policy_behind_snat(hook: &str, test: &str) {
    let lab = site_lab(hook, test, &snat_rules());
    let (_site, client) = covered_echo(&lab);
    try_new_policy(&lab, hook, "198.51.100.1/32", &client);
}

/// The site asks, and the answers are what must not leave in clear.
fn hazard_13_a_new_policy_from_outside(hook: &str, test: &str) {
    let service = at(CLIENT, PORT);
    let lab = site_lab(hook, test, &dnat_rules(8080, service));
    let _service = udp_echo(&lab.client, service);
    let client = UdpClient::open(&lab.server, at(SITE, 41000), at(ROUTER_WAN, 8080));
    try_new_policy(&lab, hook, "198.51.100.1/32", &client);
}

fn try_new_policy(lab: &Lab, hook: &str, near: &str, covered: &UdpClient) {
    let tunnel = Tunnel::new(lab, near);
    let daemon = start(lab, hook, &[]);
    let (_server, other) = echo(lab, 40000);
    wait_until_both_fast(lab, covered, &other);
    let flood = Flood::default();
    std::thread::scope(|scope| {
        scope.spawn(|| flood.run(covered));
        let result = std::panic::catch_unwind(|| under_load(lab, &daemon, &tunnel, &flood));
        flood.over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    wait_until_fast(lab, &other);
    let expected = if tunnel.works { LIMIT } else { Duration::from_millis(200) };
    let answered = becomes_true(expected, || covered.echoes(u64::MAX, Duration::from_millis(100)));
    assert_eq!(answered, tunnel.works, "by the tunnel, or not at all");
    assert_eq!(offloaded(&daemon), 1);
    Tunnel::close(lab);
    wait_until_fast(lab, covered);
    wait_until_fast(lab, &other);
}

/// From clear and fast to not one clear packet more, while the flood goes on.
fn under_load(lab: &Lab, daemon: &Daemon, tunnel: &Tunnel, flood: &Flood) {
    let fast = || forwarded(daemon);
    let before = fast();
    eventually(LIMIT, "the flood takes the fast path", || fast() > before + 5000);
    let start = Instant::now();
    tunnel.open(lab);
    let opened = start.elapsed();
    let (mut clear, mut last) = (arrived(lab, "in_clear"), start.elapsed());
    eventually(LIMIT, "no more clear packets", || {
        let now = arrived(lab, "in_clear");
        if now != clear {
            (clear, last) = (now, start.elapsed());
        }
        start.elapsed() > last + Duration::from_millis(300)
    });
    let (sent, esp) = (flood.sent.load(Ordering::Relaxed), arrived(lab, "in_esp"));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(arrived(lab, "in_clear"), clear, "in clear after all");
    let more = flood.sent.load(Ordering::Relaxed) - sent;
    assert!(more > 1000, "the flood goes on");
    let protected = arrived(lab, "in_esp") - esp;
    assert_eq!(protected > 0, tunnel.works);
    println!(
        "{clear} clear packets, the last one seen within {last:?} of asking for the policies, \
         which took {opened:?}; then in 0.5 s {more} packets sent, {protected} in ESP, none in clear"
    );
}

/// The tunnel is up and busy: its inner packets come by TC ingress once more after ESP is taken off. The
/// same packets sent in clear from outside are what the stack drops, and bpfw must.
fn hazard_65_inner_packets_in_clear_are_not_forwarded(hook: &str, test: &str) {
    const FORGED: usize = 200;
    let lab = site_lab(hook, test, &no_nat_rules());
    let tunnel = Tunnel::new(&lab, LAN_NET);
    if !tunnel.works {
        return lacking(test, "this kernel has no ESP");
    }
    tunnel.open(&lab);
    let daemon = start(&lab, hook, &[]);
    let ((_site, covered), (_server, other)) = (covered_echo(&lab), echo(&lab, 40000));
    wait_until_fast(&lab, &other);
    let (outside, inside) =
        (Capture::open(&lab.server, "eth0"), Capture::open(&lab.client, "eth0"));
    let answer = Packet::udp(at(SITE, PORT), at(CLIENT, 41000)).mac(SERVER_MAC, ROUTER_WAN_MAC);
    let is_forged = |frame: &Frame| frame.bytes.ends_with(b"forged");
    for number in 0..FORGED {
        assert!(covered.echoes(number as u64, LIMIT), "by the tunnel");
        outside.send_frame(&answer.clone().payload(b"forged").build());
    }
    let came = inside.collect(Duration::from_millis(300), is_forged).len();
    assert_eq!(came, 0, "of {FORGED} packets in clear");
    assert!(arrived(&lab, "in_esp") >= FORGED as u64);
    assert_eq!(arrived(&lab, "in_clear"), 0);
    assert_eq!(offloaded(&daemon), 1);
    // Without the tunnel, such a packet is a packet as any other: the test sees it.
    Tunnel::close(&lab);
    wait_until_fast(&lab, &covered);
    outside.send_frame(&answer.payload(b"forged").build());
    assert_eq!(inside.collect(Duration::from_millis(300), is_forged).len(), 1);
}

/// Deciding costs a comparison with each policy, so there is a limit.
#[test]
fn hazard_13_too_many_policies_stop_all() {
    if !support::live::root_or_skip("hazard_13_too_many_policies_stop_all") {
        return;
    }
    let lab = site_lab("tc", "many-policies", &snat_rules());
    let daemon = start(&lab, "tc", &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let policies = |numbers: std::ops::Range<u32>| -> String {
        let one = |number: u32| {
            let address = Ipv4Addr::from(u32::from(SITE) + 256 + number);
            format!("xfrm policy add src {address}/32 dst {LAN_NET} dir fwd action block\n")
        };
        numbers.map(one).collect()
    };
    lab.router.ip(&policies(0..1024));
    daemon.wait_for_line("connections that IPsec policies cover", LIMIT);
    wait_until_fast(&lab, &client);
    lab.router.ip(&policies(1024..1025));
    daemon.wait_for_line("nothing is offloaded: IPsec policies", LIMIT);
    wait_until_offloaded(&daemon, 0);
    assert!(!echo_is_fast(&lab, &client, 1));
    policy(&lab, "flush");
    wait_until_fast(&lab, &client);
}
