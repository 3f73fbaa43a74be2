// SPDX-License-Identifier: GPL-2.0-only
//! Labs whose WAN is a PPPoE session or a WireGuard tunnel over the cable to the server.

use super::lab::{Lab, ROUTER_WAN, ROUTER_WAN_MAC, SERVER, SERVER_MAC};
use super::live::{lacking, root_or_skip};
use super::netns::Namespace;
use super::packet::Mac;
use super::pppoe::{self, Session};
use std::net::Ipv4Addr;

const NUMBER: u16 = 0x1234;
/// The addresses below the tunnel.
const UNDERLAY: [&str; 2] = ["203.0.113.1", "203.0.113.2"];
const PORT: u16 = 51820;

/// The lab's WAN cable becomes the tunnel's underlay, `below`.
fn free_the_names(lab: &Lab) {
    for (namespace, device) in [(&lab.router, "wan0"), (&lab.server, "eth0")] {
        namespace.ip(&format!(
            "link set {device} down\naddr flush dev {device}\nlink set {device} name below\n\
             link set below up\n"
        ));
    }
}

fn address(namespace: &Namespace, device: &str, own: Ipv4Addr, peer: Ipv4Addr) {
    namespace.ip(&format!("addr add {own} peer {peer} dev {device}\nlink set {device} up\n"));
}

fn address_both(lab: &Lab) {
    address(&lab.router, "wan0", ROUTER_WAN, SERVER);
    address(&lab.server, "eth0", SERVER, ROUTER_WAN);
    lab.server.ip("route replace default dev eth0\n");
}

/// As `root_or_skip`, for tests with PPPoE.
pub fn pppoe_or_skip(test: &str) -> bool {
    let there = root_or_skip(test) && pppoe::socket().is_ok();
    if !there {
        lacking(test, "this kernel has no PPPoE");
    }
    there
}

/// Makes a PPPoE session of the cable between router and server; it ends with the sessions.
pub fn wan_by_pppoe(lab: &Lab) -> [Session; 2] {
    free_the_names(lab);
    let open = |namespace: &Namespace, peer: Mac, name: &str| {
        let session = namespace.enter(|| Session::open("below", peer, NUMBER)).expect("PPPoE");
        namespace.ip(&format!("link set ppp{} name {name} mtu 1492\n", session.unit));
        session
    };
    let sessions =
        [open(&lab.router, SERVER_MAC, "wan0"), open(&lab.server, ROUTER_WAN_MAC, "eth0")];
    address_both(lab);
    sessions
}

/// As `root_or_skip`, for tests with WireGuard.
pub fn wireguard_or_skip(test: &str) -> bool {
    if !root_or_skip(test) {
        return false;
    }
    let namespace = Namespace::new("wireguard");
    let made = namespace.try_run(&["ip", "link", "add", "wg0", "type", "wireguard"]);
    let reason = match std::process::Command::new("wg").arg("--version").output() {
        _ if !made.status.success() => "this kernel has no WireGuard",
        Err(_) => "there is no program wg here (wireguard-tools)",
        Ok(_) => return true,
    };
    lacking(test, reason);
    false
}

/// Makes a WireGuard tunnel of the cable between router and server.
pub fn wan_by_wireguard(lab: &Lab) {
    free_the_names(lab);
    let ends = [(&lab.router, "wan0"), (&lab.server, "eth0")];
    let keys = ends.map(|(namespace, _)| namespace.sh("wg genkey").trim().to_owned());
    let public = keys.each_ref().map(|key| lab.router.sh(&format!("echo {key} | wg pubkey")));
    for (at, (namespace, device)) in ends.into_iter().enumerate() {
        let (own, peer) = (UNDERLAY[at], UNDERLAY[1 - at]);
        namespace.ip(&format!("addr add {own}/24 dev below\nlink add {device} type wireguard\n"));
        let (key, peer_key) = (&keys[at], public[1 - at].trim());
        namespace.sh(&format!(
            "key=$(mktemp); echo {key} >$key; wg set {device} listen-port {PORT} private-key $key \
             peer {peer_key} allowed-ips 0.0.0.0/0 endpoint {peer}:{PORT}; rm $key"
        ));
    }
    address_both(lab);
}
