// SPDX-License-Identifier: GPL-2.0-only
//! A router with two ways out: no packet leaves by one of them with the other one's address.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use support::capture::Capture;
use support::daemon::Daemon;
use support::lab::{CLIENT, Lab, ROUTER_WAN, SERVER};
use support::router::*;
use support::udp::{UdpClient, UdpEcho, udp_echo};
use support::wait::eventually;

on_both_hooks!(
    hazard_07_routing_that_changed_before_the_first_packet,
    hazard_14_marks_choose_the_way,
    hazard_14_marks_that_the_mask_leaves_out_stop_offloading,
    hazard_14_a_changed_mark_is_the_stacks_business,
    hazard_14_equal_routes_share_connections_as_the_stack_does,
    hazard_14_equal_routes_by_more_than_addresses_stop_offloading,
);

const WAN1: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const SERVER1: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The server's address that both ways lead to.
const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 88, 99, 1), 7);

const MASQUERADE: &str = "
    table ip rules {
        chain postrouting {
            type nat hook postrouting priority 100; policy accept;
            oifname { wan0, wan1 } masquerade
        }
    }";

/// Connections are marked by their port, as mwan3 does it: their packets get the mark back, and
/// routing rules go by that. From 42000 upwards they are not marked.
const MARKS: &str = "
    table ip marks {
        chain prerouting {
            type filter hook prerouting priority -150; policy accept;
            ct mark 0 udp sport 40000-40999 ct mark set 0x100
            ct mark 0 udp sport 41000-41999 ct mark set 0x200
            meta mark set ct mark and 0x300
        }
    }";

const RULES_BY_MARK: &str = "
    rule add fwmark 0x100/0x300 lookup 101
    rule add fwmark 0x200/0x300 lookup 102
    route add default via 198.51.100.2 table 101
    route add default via 203.0.113.2 table 102
    route add 192.0.2.0/24 dev lan0 table 101
    route add 192.0.2.0/24 dev lan0 table 102
    route add default via 198.51.100.2
";

const EQUAL_ROUTES: &str = "
    route add default nexthop via 198.51.100.2 dev wan0 nexthop via 203.0.113.2 dev wan1
";

/// What bpfw is started at.
const INTERFACES: [&str; 3] = ["lan0", "wan0", "wan1"];

/// The lab with a second cable between router and server, and the frames that arrive by each.
struct TwoWays {
    lab: Lab,
    captures: [Capture; 2],
    _echo: UdpEcho,
}

impl TwoWays {
    fn new(hook: &str, test: &str) -> Self {
        let lab = lab(hook, test, MASQUERADE);
        lab.server.ip(&format!(
            "link add eth1 type veth peer name wan1 netns {}\nlink set eth1 up\n\
             addr add {SERVER1}/24 dev eth1\naddr add {}/32 dev lo\n",
            lab.router.name(),
            SERVICE.ip()
        ));
        lab.router.ip(&format!("link set wan1 up\naddr add {WAN1}/24 dev wan1\n"));
        lab.server.sh("ethtool -K eth1 tx off tso off gso off gro on");
        lab.router.sh("ethtool -K wan1 gro on");
        for device in ["all", "eth0", "eth1"] {
            lab.server.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0");
        }
        // Were the next hop not known, the stack would have to see the packets.
        lab.router.sh(&format!("ping -c 1 -W 5 {SERVER}; ping -c 1 -W 5 {SERVER1}"));
        let captures = ["eth0", "eth1"].map(|device| Capture::open(&lab.server, device));
        let _echo = udp_echo(&lab.server, SERVICE);
        Self { lab, captures, _echo }
    }

    fn start(&self, hook: &str, options: &[&str]) -> Daemon {
        let args =
            [&[hook, "--log-level", "debug", "--prove-every", "0"], options, &INTERFACES].concat();
        let daemon = Daemon::start(&self.lab.router, &args);
        daemon.wait_for_line("forwarding", LIMIT);
        daemon
    }

    fn client(&self, port: u16) -> UdpClient {
        UdpClient::open(&self.lab.client, at(CLIENT, port), SERVICE)
    }

    /// A client with an address of its own, 192.0.2.100 and more.
    fn other_host(&self, number: u8) -> UdpClient {
        let address = Ipv4Addr::new(192, 0, 2, 100 + number);
        self.lab.client.ip(&format!("addr add {address}/24 dev eth0\n"));
        UdpClient::open(&self.lab.client, at(address, 40000), SERVICE)
    }

    /// The datagrams that came by each way since the last time; panics over a wrong source.
    fn arrived(&self) -> [usize; 2] {
        let mut arrived = [0; 2];
        for (way, own) in [ROUTER_WAN, WAN1].into_iter().enumerate() {
            while let Some(frame) = self.captures[way].next(Duration::from_millis(20), |frame| {
                !frame.outgoing && frame.view().is_some_and(|view| view.protocol == 17)
            }) {
                let source = *frame.view().expect("looked at").src.ip();
                assert_eq!(source, own, "by way {way}");
                arrived[way] += 1;
            }
        }
        arrived
    }
}

/// The connection was masqueraded for the one way; before a packet takes the fast path, the route
/// leads to the other. The kernel ends such a connection, so it must see the packet.
fn hazard_07_routing_that_changed_before_the_first_packet(hook: &str, test: &str) {
    let ways = TwoWays::new(hook, test);
    let route = |next: Ipv4Addr| ways.lab.router.ip(&format!("route replace default via {next}\n"));
    route(SERVER);
    let found = ways.client(40000);
    assert!(found.echoes(0, LIMIT));
    let daemon = ways.start(hook, &[]);
    let fresh = ways.client(40001);
    assert!(fresh.echoes(0, LIMIT));
    wait_until_offloaded(&daemon, 2);
    let [first, second] = ways.arrived();
    assert_eq!((first, second), (2, 0));
    route(SERVER1);
    // As soon as the daemon knows; before that the fast path cannot.
    std::thread::sleep(Duration::from_millis(200));
    for client in [&fresh, &found] {
        // The kernel drops this one and ends the connection, the next one begins a new one.
        client.echoes(1, Duration::from_millis(100));
        eventually(LIMIT, "a new connection by the new way", || {
            client.echoes(2, Duration::from_millis(200))
        });
        wait_until_fast(&ways.lab, client);
    }
    let [first, second] = ways.arrived();
    assert_eq!(first, 0, "all by the new way");
    assert!(second >= 4, "only {second} by the new way");
}

fn hazard_14_marks_choose_the_way(hook: &str, test: &str) {
    let ways = TwoWays::new(hook, test);
    ways.lab.nft(MARKS);
    ways.lab.router.ip(RULES_BY_MARK);
    let daemon = ways.start(hook, &["--route-mark-mask", "0x300"]);
    let [first, second, unmarked] = [40000, 41000, 42000].map(|port| ways.client(port));
    wait_until_fast(&ways.lab, &first);
    wait_until_fast(&ways.lab, &second);
    // Whether rules mark its packets by something else is not to be known.
    for number in 0..10 {
        assert!(!echo_is_fast(&ways.lab, &unmarked, number));
    }
    wait_until_offloaded(&daemon, 2);
    ways.arrived();
    for number in 0..20 {
        assert!(
            echo_is_fast(&ways.lab, &first, number) && echo_is_fast(&ways.lab, &second, number)
        );
    }
    assert_eq!(ways.arrived(), [20, 20]);
    // Without rules there is nothing that a missing mark could hide.
    ways.lab.router.ip("rule del fwmark 0x100/0x300\nrule del fwmark 0x200/0x300\n");
    wait_until_fast(&ways.lab, &unmarked);
}

fn hazard_14_marks_that_the_mask_leaves_out_stop_offloading(hook: &str, test: &str) {
    let ways = TwoWays::new(hook, test);
    ways.lab.nft(MARKS);
    ways.lab.router.ip(RULES_BY_MARK);
    let daemon = ways.start(hook, &["--route-mark-mask", "0x300"]);
    let client = ways.client(41000);
    wait_until_fast(&ways.lab, &client);
    ways.lab.router.ip("rule add fwmark 0x1000/0x1000 lookup 101\n");
    daemon.wait_for_line("nothing is offloaded", LIMIT);
    wait_until_offloaded(&daemon, 0);
    for number in 0..10 {
        assert!(!echo_is_fast(&ways.lab, &client, number));
    }
    ways.lab.router.ip("rule del fwmark 0x1000/0x1000\n");
    wait_until_fast(&ways.lab, &client);
    let [first, second] = ways.arrived();
    assert!(first == 0 && second > 10, "{first} by the one way, {second} by the other");
}

/// The kernel ends a masqueraded connection whose new mark leads elsewhere; nothing may leave by
/// the new way with the old address before.
fn hazard_14_a_changed_mark_is_the_stacks_business(hook: &str, test: &str) {
    let ways = TwoWays::new(hook, test);
    ways.lab.nft(MARKS);
    ways.lab.router.ip(RULES_BY_MARK);
    let daemon = ways.start(hook, &["--route-mark-mask", "0x300"]);
    let client = ways.client(40000);
    wait_until_fast(&ways.lab, &client);
    wait_until_offloaded(&daemon, 1);
    assert!(ways.arrived()[0] > 0);
    let words = [
        "-U",
        "-p",
        "udp",
        "-s",
        "192.0.2.2",
        "-d",
        "192.88.99.1",
        "--sport",
        "40000",
        "--dport",
        "7",
        "-m",
        "0x200",
    ];
    assert!(ways.lab.conntrack(&words).status.success());
    eventually(LIMIT, "the kernel has ended it", || {
        client.echoes(1, Duration::from_millis(50));
        let list = ways.lab.conntrack_list();
        !list.lines().any(|line| line.contains("sport=40000") && line.contains("mark=512"))
    });
    // The one that follows gets its mark from the port again.
    wait_until_fast(&ways.lab, &client);
    assert_eq!(ways.arrived()[1], 0);
}

/// Equal-cost routes: the stack spreads connections over both ways by a hash of their addresses,
/// and so do the look-ups.
fn hazard_14_equal_routes_share_connections_as_the_stack_does(hook: &str, test: &str) {
    let ways = TwoWays::new(hook, test);
    ways.lab.router.ip(EQUAL_ROUTES);
    let daemon = ways.start(hook, &[]);
    let clients: Vec<UdpClient> = (1..=16).map(|host| ways.other_host(host)).collect();
    for client in &clients {
        assert!(client.echoes(0, LIMIT));
    }
    wait_until_offloaded(&daemon, clients.len());
    // The stack sends the first of each direction.
    for client in &clients {
        assert!(client.echoes(0, LIMIT));
    }
    let fast = forwarded(&daemon);
    for number in 1..5 {
        for client in &clients {
            assert!(client.echoes(number, LIMIT));
        }
    }
    assert!(forwarded(&daemon) >= fast + 2 * 4 * 16, "all took the fast path");
    let [first, second] = ways.arrived();
    assert_eq!(first + second, 16 * 6);
    assert!(first > 0 && second > 0, "{first} by the one way, {second} by the other");
}

/// By ports too means: by whatever hash the packet has got from its socket or NIC.
fn hazard_14_equal_routes_by_more_than_addresses_stop_offloading(hook: &str, test: &str) {
    let ways = TwoWays::new(hook, test);
    ways.lab.router.ip(EQUAL_ROUTES);
    let daemon = ways.start(hook, &[]);
    let clients: Vec<UdpClient> = (0..16).map(|number| ways.client(40000 + number)).collect();
    wait_until_fast(&ways.lab, &clients[0]);
    ways.arrived();
    ways.lab.router.sysctl("net/ipv4/fib_multipath_hash_policy", "1");
    daemon.wait_for_line("routes over several next hops", LIMIT);
    wait_until_offloaded(&daemon, 0);
    // Their translation is for a way that they may not take any more; the kernel ends those.
    ways.lab.conntrack(&["-F"]);
    for number in 0..5 {
        for client in &clients {
            assert!(!echo_is_fast(&ways.lab, client, number));
        }
    }
    let [first, second] = ways.arrived();
    assert!(first > 0 && second > 0, "{first} by the one way, {second} by the other");
    ways.lab.router.ip(&format!("route replace default via {SERVER}\n"));
    ways.lab.conntrack(&["-F"]);
    wait_until_fast(&ways.lab, &clients[0]);
}
