// SPDX-License-Identifier: GPL-2.0-only
//! Routing changes under steady traffic: each test prints how long after the change the last
//! packet went the old way.

mod support;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use support::capture::{Capture, Frame};
use support::lab::{CLIENT, Lab, ROUTER_WAN, SERVER, SERVER_MAC, show};
use support::packet::Mac;
use support::router::*;
use support::rules::no_nat_rules;
use support::steady::{Steady, expect_frame, goes_to, is_udp, last_of};
use support::udp::{UdpClient, udp_echo};
use support::wait::eventually;

on_both_hooks!(hazard_07_routing_changes_are_followed);

/// Behind the server, reached by a gateway.
const SERVICE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// Another gateway at the same interface, of which only the MAC address exists.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const OTHER_MAC: Mac = [2, 0, 0, 0, 2, 77];

/// What becomes of the packets.
enum Then {
    /// They go to the other gateway.
    Move,
    /// They go nowhere, as the stack tells the sender.
    Fail,
    /// They go nowhere.
    Stop,
}

struct Change {
    what: &'static str,
    /// Commands of `ip`, or a sysctl and its value.
    make: String,
    undo: String,
    then: Then,
}

fn change(what: &'static str, make: String, undo: String, then: Then) -> Change {
    Change { what, make, undo, then }
}

/// Each begins and ends with a default route by the server, of metric 100.
fn changes() -> Vec<Change> {
    let default = format!("route add default via {SERVER} metric 100");
    let up = format!("{}\n{default}", neighbors());
    vec![
        change(
            "a more specific route",
            format!("route add {SERVICE} via {OTHER}"),
            format!("route del {SERVICE} via {OTHER}"),
            Then::Move,
        ),
        change(
            "another default route",
            format!("route replace default via {OTHER} metric 100"),
            format!("route replace default via {SERVER} metric 100"),
            Then::Move,
        ),
        change(
            "a default route of a better metric",
            format!("route add default via {OTHER} metric 10"),
            format!("route del default via {OTHER} metric 10"),
            Then::Move,
        ),
        change(
            "a rule",
            format!("rule add from {CLIENT} lookup 77"),
            // With the next change's route.
            format!("rule del from {CLIENT} lookup 77\nroute add {SERVICE} nhid 7"),
            Then::Move,
        ),
        change(
            "another next hop in a nexthop object",
            format!("nexthop replace id 7 via {OTHER} dev wan0"),
            format!("nexthop replace id 7 via {SERVER} dev wan0"),
            Then::Move,
        ),
        change(
            "a route that is gone",
            format!("route del {SERVICE} nhid 7\nroute del default via {SERVER} metric 100"),
            default,
            Then::Fail,
        ),
        change(
            "an unreachable route",
            format!("route add unreachable {SERVICE}"),
            format!("route del unreachable {SERVICE}"),
            Then::Fail,
        ),
        change(
            "an address that is gone",
            format!("addr del {ROUTER_WAN}/24 dev wan0"),
            format!("addr add {ROUTER_WAN}/24 dev wan0\n{up}"),
            Then::Fail,
        ),
        change(
            "an interface that is down",
            "link set wan0 down".into(),
            format!("link set wan0 up\n{up}"),
            Then::Fail,
        ),
        change(
            "forwarding switched off",
            "net/ipv4/ip_forward=0".into(),
            "net/ipv4/ip_forward=1".into(),
            Then::Stop,
        ),
        change(
            "forwarding switched off at the ingress",
            "net/ipv4/conf/lan0/forwarding=0".into(),
            "net/ipv4/conf/lan0/forwarding=1".into(),
            Then::Stop,
        ),
    ]
}

fn neighbors() -> String {
    let neighbor = |address, mac| {
        format!("neigh replace {address} lladdr {} dev wan0 nud permanent", show(mac))
    };
    format!("{}\n{}", neighbor(SERVER, SERVER_MAC), neighbor(OTHER, OTHER_MAC))
}

fn apply(lab: &Lab, commands: &str) {
    match commands.split_once('=') {
        Some((sysctl, value)) => lab.router.sysctl(sysctl, value),
        None => lab.router.ip(&format!("{commands}\n")),
    }
}

/// An ICMP message of type 3: destination unreachable.
fn is_unreachable(frame: &Frame) -> bool {
    frame.view().is_some_and(|view| view.protocol == 1 && view.payload.first() == Some(&3))
}

/// Makes the change under steady traffic; when its last packet went the old way.
fn try_change(lab: &Lab, client: &UdpClient, change: &Change) -> Duration {
    let errors = Capture::open(&lab.client, "eth0");
    let capture = Capture::open(&lab.server, "eth0");
    let _stream = Steady::start(client);
    expect_frame(&capture, "packets go the old way", |frame| goes_to(frame, SERVER_MAC));
    let since = Instant::now();
    apply(lab, &change.make);
    let last = last_of(&capture, since, |frame| goes_to(frame, SERVER_MAC));
    let arrived = capture.next(Duration::from_millis(20), |frame| !frame.outgoing && is_udp(frame));
    match change.then {
        Then::Move => assert!(arrived.is_some_and(|frame| goes_to(&frame, OTHER_MAC))),
        Then::Stop => assert_eq!(arrived, None, "{}", change.what),
        Then::Fail => {
            assert_eq!(arrived, None, "{}", change.what);
            expect_frame(&errors, "the stack says so", is_unreachable);
        }
    }
    last
}

fn hazard_07_routing_changes_are_followed(hook: &str, test: &str) {
    let lab = lab(hook, test, &no_nat_rules());
    lab.static_neighbours();
    // Else two limits of the kernel take each other's tokens, and the errors stop altogether.
    lab.router.sysctl("net/ipv4/icmp_ratelimit", "0");
    lab.server.ip(&format!("addr add {SERVICE}/32 dev lo\n"));
    lab.router.ip(&format!(
        "{}\nnexthop add id 7 via {SERVER} dev wan0\n\
         route add default via {SERVER} metric 100\nroute add default via {OTHER} table 77\n",
        neighbors()
    ));
    let _daemon = start(&lab, hook, &[]);
    let service = at(SERVICE, 7);
    let _server = udp_echo(&lab.server, service);
    let client = UdpClient::open(&lab.client, at(CLIENT, 40000), service);
    wait_until_fast(&lab, &client);
    for change in changes() {
        let last = try_change(&lab, &client, &change);
        println!("{hook}, {}: the last packet the old way {last:?} later", change.what);
        apply(&lab, &change.undo);
        eventually(LIMIT, "all is as before", || {
            client.echoes(1, Duration::from_millis(100)) && echo_is_fast(&lab, &client, 2)
        });
    }
}
