// SPDX-License-Identifier: GPL-2.0-only
//! VLAN devices on the hosts and the router, end to end: tags in the frame or beside it.

mod support;

use bpfw::abi;
use std::net::Ipv4Addr;
use std::time::Duration;
use support::capture::Capture;
use support::lab::{CLIENT_MAC, Lab, ROUTER_LAN_MAC, SERVER};
use support::maps::Maps;
use support::netns::Namespace;
use support::packet::Packet;
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::tcp::Path;
use support::trial::{Ends, try_both_protocols};
use support::udp::{UdpClient, UdpEcho, udp_echo};
use support::wait::becomes_true;

on_both_hooks!(
    vlans_of_one_port,
    a_vlan_and_an_untagged_network,
    hazard_23_tags_beside_the_frame,
    a_foreign_tag_is_never_forwarded,
);

/// Of the client's network and that of the second host.
const VLANS: [u16; 2] = [10, 20];
const UNKNOWN: u16 = 30;

const fn router(vlan: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, vlan as u8, 1)
}

const fn host(vlan: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, vlan as u8, 2)
}

/// Where a sender's NIC and driver have the tag until the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tags {
    InFrame,
    /// As veth has it by default: nothing on the way puts the tag in, or has to take it off.
    Beside,
}

impl Tags {
    fn offload(self) -> &'static str {
        if self == Self::InFrame { "off" } else { "on" }
    }
}

/// False, with the reason, where the kernel has no VLAN devices.
fn has_vlans(test: &str) -> bool {
    let probe = Namespace::new("vlan-probe");
    probe.ip("link add v0 type veth peer name v1\n");
    let added = probe.try_run(&["sh", "-c", "ip link add link v0 name v0.5 type vlan id 5"]);
    if !added.status.success() {
        support::live::lacking(test, "this kernel has no VLAN devices");
    }
    added.status.success()
}

/// Client and second host are in a VLAN each, both of which the switch has on the router's lan0.
/// The server's network is untagged.
fn vlan_lab(hook: &str, test: &str, rules: &str, tags: Tags) -> Option<Lab> {
    // The last letters of the labs' names tell the hooks apart.
    let name = test.trim_end_matches("-x").trim_end_matches("-t");
    if !has_vlans(&format!("{name}::{hook}")) {
        return None;
    }
    let lab = Lab::with_switch(test, offloads(hook));
    lab.nft(&rules.replace("iifname lan0", "iifname lan0*"));
    lab.route_server_via_router();
    for (namespace, vlan) in [(&lab.client, VLANS[0]), (lab.host2(), VLANS[1])] {
        add_vlan(&lab.router, "lan0", vlan, router(vlan), tags);
        add_vlan(namespace, "eth0", vlan, host(vlan), tags);
        namespace.ip(&format!("route replace default via {}\n", router(vlan)));
        if hook == "xdp" {
            namespace.sh(&format!("ethtool -K eth0.{vlan} tx off tso off gso off"));
        }
    }
    let offload = tags.offload();
    lab.switch()
        .sh(&format!("ethtool -K router txvlan {offload} tx-vlan-stag-hw-insert {offload}"));
    Some(lab)
}

fn add_vlan(namespace: &Namespace, port: &str, vlan: u16, address: Ipv4Addr, tags: Tags) {
    let offload = tags.offload();
    namespace.sh(&format!("ethtool -K {port} rxvlan {offload} txvlan {offload}"));
    namespace.ip(&format!(
        "link add link {port} name {port}.{vlan} type vlan id {vlan}\n\
         link set {port}.{vlan} up\naddr add {address}/24 dev {port}.{vlan}\n"
    ));
}

/// From the client in its VLAN to a port of another host's.
fn client(lab: &Lab, server: &Namespace, address: Ipv4Addr) -> (UdpEcho, UdpClient) {
    let service = at(address, 7);
    let local = at(host(VLANS[0]), 40000);
    (udp_echo(server, service), UdpClient::open(&lab.client, local, service))
}

fn expect_fast(lab: &Lab, hook: &str, server: &Namespace, address: Ipv4Addr) {
    let (_server, udp) = client(lab, server, address);
    let ends = Ends { client: &lab.client, server };
    try_both_protocols(lab, hook, udp, Path::direct(at(address, 5001)), ends);
}

fn vlans_of_one_port(hook: &str, test: &str) {
    if let Some(lab) = vlan_lab(hook, test, &no_nat_rules(), Tags::InFrame) {
        expect_fast(&lab, hook, lab.host2(), host(VLANS[1]));
    }
}

fn a_vlan_and_an_untagged_network(hook: &str, test: &str) {
    if let Some(lab) = vlan_lab(hook, test, &snat_rules(), Tags::InFrame) {
        expect_fast(&lab, hook, &lab.server, SERVER);
    }
}

/// TC sees them. XDP does not, so the interface's packets stay with the stack. Where the driver
/// claims to leave the tags, packets seem to come in without one, which is not where answers go.
fn hazard_23_tags_beside_the_frame(hook: &str, test: &str) {
    let Some(lab) = vlan_lab(hook, test, &snat_rules(), Tags::Beside) else { return };
    if hook == "tc" {
        return expect_fast(&lab, hook, &lab.server, SERVER);
    }
    let daemon = start(&lab, hook, &[]);
    daemon.wait_for_line("its VLAN tags are removed before XDP sees them", LIMIT);
    let (_server, udp) = client(&lab, &lab.server, SERVER);
    assert_eq!(udp.count_echoes(0..50, LIMIT), 50);
    assert_eq!(forwarded(&daemon), 0);

    lab.router.sh("ethtool -K lan0 rxvlan off");
    daemon.wait_for_line("packets of lan0 are forwarded again", LIMIT);
    let before = lab.stack_packets();
    assert_eq!(udp.count_echoes(100..150, LIMIT), 50);
    assert!(lab.stack_packets() >= before + 50, "the client's packets go by the stack");
}

/// A frame of a connection on the fast path, with a tag that is not the connection's.
fn a_foreign_tag_is_never_forwarded(hook: &str, test: &str) {
    let Some(lab) = vlan_lab(hook, test, &snat_rules(), Tags::InFrame) else { return };
    let daemon = start(&lab, hook, &[]);
    let (_server, udp) = client(&lab, &lab.server, SERVER);
    wait_until_fast(&lab, &udp);
    let (wire, capture) = (Capture::open(&lab.client, "eth0"), Capture::open(&lab.server, "eth0"));
    let send = |tag: Option<(u16, u16)>, mark: &[u8]| {
        let packet = Packet::udp(at(host(VLANS[0]), 40000), at(SERVER, 7));
        let packet = packet.mac(CLIENT_MAC, ROUTER_LAN_MAC).payload(mark);
        let packet = tag.map_or(packet.clone(), |(id, protocol)| packet.vlan(id, 0, protocol));
        wire.send_frame(&packet.build());
    };
    let arrives = |mark: &[u8], limit: Duration| {
        let marked = |bytes: &[u8]| bytes.windows(mark.len()).any(|part| part == mark);
        capture.next(limit, |frame| !frame.outgoing && marked(&frame.bytes)).is_some()
    };
    let count = || (forwarded(&daemon), Maps::of(daemon.pid()).packets(abi::BPFW_PASS_LINK));

    let (fast, _) = count();
    send(Some((VLANS[0], 0x8100)), b"its own tag");
    assert!(arrives(b"its own tag", LIMIT));
    assert!(becomes_true(LIMIT, || count().0 > fast), "the fast path takes its own tag");
    // The echo of it comes back.
    std::thread::sleep(Duration::from_millis(500));

    let (fast, unknown) = count();
    send(Some((UNKNOWN, 0x8100)), b"unknown tag");
    send(Some((VLANS[0], 0x88a8)), b"other protocol");
    assert!(becomes_true(LIMIT, || count().1 >= unknown + 2), "both have come to the router");
    assert!(!arrives(b"unknown tag", Duration::from_millis(500)));
    assert!(!arrives(b"other protocol", Duration::from_millis(500)));
    assert_eq!(count().0, fast, "no frame with an unknown tag is forwarded");

    // The stack may forward these: a source address is not tied to an interface.
    let ways = [(Some((VLANS[1], 0x8100)), &b"another tag"[..]), (None, b"no tag")];
    for (tag, mark) in ways {
        let before = lab.stack_packets();
        send(tag, mark);
        assert!(arrives(mark, LIMIT), "the stack takes it");
        assert!(lab.stack_packets() > before, "not the fast path");
    }
}
