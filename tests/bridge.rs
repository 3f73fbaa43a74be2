// SPDX-License-Identifier: GPL-2.0-only
//! TC at a bridge: who is behind which port, and what the bridge forbids, stays the bridge's business.

mod support;

use std::net::SocketAddrV4;
use std::time::Duration;
use support::lab::{CLIENT, CLIENT_MAC, HOST2, HOST2_MAC, Lab, Offloads, ROUTER_LAN, show};
use support::netns::Namespace;
use support::router::*;
use support::rules::{hairpin_rules, snat_rules};
use support::udp::{UdpClient, udp_echo};
use support::wait::eventually;

/// A router with two LAN ports in a bridge: the client behind one, the second host behind the other.
struct Bridged {
    lab: Lab,
    host2: Namespace,
}

/// As an OpenWrt router has it, with `br-lan` in place of `lan0`.
fn bridged(test: &str, rules: &str) -> Bridged {
    let lab = Lab::new(test, Offloads::Default);
    lab.nft(&rules.replace("lan0", "br-lan"));
    lab.route_server_via_router();
    let host2 = Namespace::new(&format!("host2-{test}"));
    lab.bridge_the_lan();
    lab.router.ip(&format!(
        "link add lan1 type veth peer name eth0 address {} netns {}\n\
         link set lan1 up\nlink set lan1 master br-lan\n",
        show(HOST2_MAC),
        host2.name(),
    ));
    host2.ip(&format!(
        "link set eth0 up\naddr add {HOST2}/24 dev eth0\nroute add default via {ROUTER_LAN}\n"
    ));
    if has_br_netfilter(&lab) {
        lab.router.sysctl(BR_NETFILTER, "0");
    }
    Bridged { lab, host2 }
}

/// Bridged frames go through iptables and nftables; docker sets it.
const BR_NETFILTER: &str = "net/bridge/bridge-nf-call-iptables";

fn has_br_netfilter(lab: &Lab) -> bool {
    lab.router.try_run(&["test", "-e", &format!("/proc/sys/{BR_NETFILTER}")]).status.success()
}

/// Most of this many echoes take the fast path.
fn stays_fast(lab: &Lab, client: &UdpClient, echoes: u64) {
    let fast = (0..echoes).filter(|number| echo_is_fast(lab, client, *number)).count() as u64;
    assert!(fast * 100 >= echoes * 99, "{fast} of {echoes} were fast");
}

/// The port behind which the bridge knows this MAC address.
fn port_of(lab: &Lab, mac: [u8; 6]) -> Option<String> {
    let entries = lab.router.sh("bridge fdb show br br-lan dynamic");
    let entry = entries.lines().find(|line| line.starts_with(&show(mac)))?;
    entry.split(' ').skip_while(|word| *word != "dev").nth(1).map(str::to_owned)
}

#[test]
fn hazard_35_a_station_that_only_forwards_fast_packets_is_not_forgotten() {
    if !support::live::root_or_skip(
        "hazard_35_a_station_that_only_forwards_fast_packets_is_not_forgotten",
    ) {
        return;
    }
    let Bridged { lab, .. } = bridged("fdb", &snat_rules());
    let _daemon = start_at(&lab, "tc", &[], &["br-lan", "wan0"]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    // Hundredths of a second.
    lab.router.ip("link set br-lan type bridge ageing_time 200\n");
    for number in 0..80 {
        assert!(client.echoes(number, LIMIT));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(port_of(&lab, CLIENT_MAC).as_deref(), Some("lan0"), "echo {number}");
    }
}

#[test]
fn hazard_35_a_port_that_the_bridge_blocks_forwards_nothing() {
    if !support::live::root_or_skip("hazard_35_a_port_that_the_bridge_blocks_forwards_nothing") {
        return;
    }
    let Bridged { lab, .. } = bridged("blocked", &snat_rules());
    let _daemon = start_at(&lab, "tc", &[], &["br-lan", "wan0"]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    // Locked: what is not in the FDB as static may not send (802.1X).
    lab.router.sh("bridge fdb del $(bridge fdb show br br-lan dynamic | \
                   awk '/dev lan0/ { print $1; exit }') dev lan0 master");
    lab.router.sh("bridge link set dev lan0 learning off locked on");
    assert!(!client.echoes(1, Duration::from_millis(300)), "a locked port lets nothing in");
    lab.router.sh("bridge link set dev lan0 locked off learning on");
    eventually(LIMIT, "it is open again", || client.echoes(2, Duration::from_millis(100)));
    wait_until_fast(&lab, &client);
}

#[test]
fn hazard_36_a_station_that_moves_keeps_its_connections() {
    if !support::live::root_or_skip("hazard_36_a_station_that_moves_keeps_its_connections") {
        return;
    }
    let Bridged { lab, host2 } = bridged("roam", &snat_rules());
    let _daemon = start_at(&lab, "tc", &[], &["br-lan", "wan0"]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    // Address and MAC of the client appear behind the other port, as with a phone that roams.
    lab.client.ip("link set eth0 down\n");
    host2.ip(&format!(
        "addr flush dev eth0\nlink set eth0 down\nlink set eth0 address {}\nlink set eth0 up\n\
         addr add {CLIENT}/24 dev eth0\nroute add default via {ROUTER_LAN}\n",
        show(CLIENT_MAC)
    ));
    let moved = UdpClient::open(&host2, at(CLIENT, 40000), ECHO);
    eventually(LIMIT, "answers come to the other port", || {
        moved.echoes(1, Duration::from_millis(100))
    });
    assert_eq!(port_of(&lab, CLIENT_MAC).as_deref(), Some("lan1"));
    stays_fast(&lab, &moved, 200);
}

#[test]
fn hazard_37_a_hairpin_through_the_bridge_is_fast() {
    if !support::live::root_or_skip("hazard_37_a_hairpin_through_the_bridge_is_fast") {
        return;
    }
    let service = at(HOST2, 7);
    let Bridged { lab, host2 } = bridged("pinned", &hairpin_rules(8080, service));
    let _daemon = start_at(&lab, "tc", &[], &["br-lan", "wan0"]);
    let _server = udp_echo(&host2, service);
    let entrance: SocketAddrV4 = at(support::lab::ROUTER_WAN, 8080);
    let client = UdpClient::open(&lab.client, at(CLIENT, 40000), entrance);
    wait_until_fast(&lab, &client);
    stays_fast(&lab, &client, 200);
}

#[test]
fn hazard_37_with_br_netfilter_translated_frames_are_right() {
    if !support::live::root_or_skip("hazard_37_with_br_netfilter_translated_frames_are_right") {
        return;
    }
    let Bridged { lab, .. } = bridged("netfilter", &snat_rules());
    if !has_br_netfilter(&lab) {
        return support::live::lacking(
            "hazard_37_with_br_netfilter_translated_frames_are_right",
            "this kernel has no br_netfilter",
        );
    }
    lab.router.sysctl(BR_NETFILTER, "1");
    let _daemon = start_at(&lab, "tc", &[], &["br-lan", "wan0"]);
    let (server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    stays_fast(&lab, &client, 200);
    let router = support::lab::ROUTER_WAN;
    assert!(server.sources().iter().all(|source| *source.ip() == router), "masqueraded");
}
