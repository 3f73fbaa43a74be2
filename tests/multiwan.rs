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

on_both_hooks!(hazard_07_routing_that_changed_before_the_first_packet);

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
        let args = [&[hook, "--log-level", "debug"], options, &INTERFACES].concat();
        let daemon = Daemon::start(&self.lab.router, &args);
        daemon.wait_for_line("forwarding", LIMIT);
        daemon
    }

    fn client(&self, port: u16) -> UdpClient {
        UdpClient::open(&self.lab.client, at(CLIENT, port), SERVICE)
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
    wait_until_offloaded(&daemon, 1);
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
