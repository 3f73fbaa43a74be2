// SPDX-License-Identifier: GPL-2.0-only
//! TC at interfaces that stand on others: what lies below an interface stays the kernel's business.

mod support;

use support::lab::{CLIENT, CLIENT_MAC, Lab, Offloads, ROUTER_LAN, ROUTER_WAN, SERVER, show};
use support::netns::Namespace;
use support::router::*;
use support::rules::snat_rules;
use support::tcp::Path;
use support::trial::{Ends, try_with};
use support::wait::eventually;

/// One way to build the router's side of a network.
struct Layers {
    /// The kind of interface that the kernel must have, as a command makes one.
    probe: &'static str,
    /// What replaces `lan0` and `wan0` for routing, rules and bpfw.
    names: [&'static str; 2],
    /// Commands of `ip` for the router, which has no addresses left, and for the client.
    router: String,
    client: String,
}

/// A lab with these layers; none, with the reason, where the kernel lacks them.
fn lab_with(test: &str, layers: &Layers) -> Option<Lab> {
    if !support::live::root_or_skip(test) {
        return None;
    }
    let probe = Namespace::new("layers-probe");
    probe.ip("link add v0 type veth peer name v1\n");
    if !probe.try_run(&["sh", "-c", layers.probe]).status.success() {
        support::live::lacking(test, &format!("this kernel cannot do: {}", layers.probe));
        return None;
    }
    let [lan, wan] = layers.names;
    let lab = Lab::new(test, Offloads::Default);
    lab.nft(&snat_rules().replace("lan0", lan).replace("wan0", wan));
    // An interface without the address does not answer for the one above it.
    lab.router.sysctl("net/ipv4/conf/all/arp_ignore", "1");
    lab.router.ip("addr flush dev lan0\naddr flush dev wan0\n");
    lab.router.ip(&layers.router);
    lab.router
        .ip(&format!("addr add {ROUTER_LAN}/24 dev {lan}\naddr add {ROUTER_WAN}/24 dev {wan}\n"));
    lab.client.ip(&layers.client);
    lab.client.ip(&format!("route replace default via {ROUTER_LAN}\n"));
    Some(lab)
}

/// Both protocols are fast between the two interfaces, both ways, with translation.
fn is_fast(test: &str, layers: &Layers) {
    let Some(lab) = lab_with(test, layers) else { return };
    try_both(&lab, layers);
}

fn try_both(lab: &Lab, layers: &Layers) {
    let daemon = start_at(lab, "tc", &[], &layers.names);
    let (_server, client) = echo(lab, 40000);
    let path = Path::direct(at(SERVER, 5001));
    let ends = Ends { client: &lab.client, server: &lab.server };
    try_with(lab, &daemon, client, path, ends);
    assert!(daemon.stop(LIMIT).success());
}

/// The client's address moves to an interface on top of eth0.
fn client_on(device: &str) -> String {
    format!("addr flush dev eth0\naddr add {CLIENT}/24 dev {device}\n")
}

#[test]
fn hazard_50_a_macvlan() {
    let router = "link add mv0 link wan0 type macvlan mode bridge\nlink set mv0 up\n";
    let layers = Layers {
        probe: "ip link add m0 link v0 type macvlan",
        names: ["lan0", "mv0"],
        router: router.into(),
        client: String::new(),
    };
    is_fast("hazard_50_a_macvlan", &layers);
}

#[test]
fn hazard_50_two_tags() {
    let tags = |port| {
        format!(
            "link add outer link {port} type vlan proto 802.1ad id 7\nlink set outer up\n\
             link add inner link outer type vlan id 5\nlink set inner up\n"
        )
    };
    let layers = Layers {
        probe: "ip link add v0.7 link v0 type vlan proto 802.1ad id 7",
        names: ["inner", "wan0"],
        router: tags("lan0"),
        client: tags("eth0") + &client_on("inner"),
    };
    is_fast("hazard_50_two_tags", &layers);
}

/// The bridge puts its PVID beside each frame, and the VLAN device on the bridge is the interface.
fn filtering() -> Layers {
    Layers {
        probe: "ip link add b0 type bridge vlan_filtering 1 && ip link add b0.1 link b0 type vlan id 1",
        names: ["vlan10", "wan0"],
        router: "link add br0 type bridge vlan_filtering 1 vlan_default_pvid 10\n\
                 link set lan0 master br0\nlink set br0 up\n\
                 link add vlan10 link br0 type vlan id 10\nlink set vlan10 up\n"
            .into(),
        client: String::new(),
    }
}

#[test]
fn hazard_35_a_vlan_device_on_a_filtering_bridge() {
    let test = "hazard_35_a_vlan_device_on_a_filtering_bridge";
    let layers = filtering();
    let Some(lab) = lab_with(test, &layers) else { return };
    lab.router.sh("bridge vlan add vid 10 dev br0 self");
    try_both(&lab, &layers);
}

/// The second cable between client and router; the client bridges both, as a switch does.
fn two_cables(mode: &str) -> Layers {
    Layers {
        probe: "ip link add bond9 type bond",
        names: ["bond0", "wan0"],
        router: format!(
            "link add lan1 type veth peer name other\nlink set lan0 down\n\
             link add bond0 type bond mode {mode} miimon 50\n\
             link set lan0 master bond0\nlink set lan1 master bond0\nlink set bond0 up\n"
        ),
        client: format!(
            "link add br0 address {} type bridge\nlink set eth0 master br0\n\
             link set br0 up\naddr flush dev eth0\naddr add {CLIENT}/24 dev br0\n",
            show(CLIENT_MAC)
        ),
    }
}

/// The second cable's far end goes to the client.
fn plug_in(lab: &Lab) {
    lab.router.ip(&format!("link set other netns {}\n", lab.client.name()));
    lab.client.ip("link set other master br0\nlink set other up\n");
    lab.router.ip("link set lan0 up\nlink set lan1 up\n");
    eventually(LIMIT, "the bond has a carrier", || {
        lab.router.sh("cat /proc/net/bonding/bond0").matches("MII Status: up").count() == 3
    });
}

#[test]
fn hazard_50_a_bond_of_two_slaves() {
    let (test, layers) = ("hazard_50_a_bond_of_two_slaves", two_cables("balance-xor"));
    let Some(lab) = lab_with(test, &layers) else { return };
    plug_in(&lab);
    try_both(&lab, &layers);
}

#[test]
fn hazard_50_a_bond_that_fails_over_stays_fast() {
    let (test, layers) =
        ("hazard_50_a_bond_that_fails_over_stays_fast", two_cables("active-backup"));
    let Some(lab) = lab_with(test, &layers) else { return };
    plug_in(&lab);
    let daemon = start_at(&lab, "tc", &[], &layers.names);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    for (number, slave) in (1..).zip(["lan0", "lan1"]) {
        let other = if slave == "lan0" { "lan1" } else { "lan0" };
        lab.router.ip(&format!("link set {slave} down\n"));
        eventually(LIMIT, "the other slave takes over", || {
            client.echoes(number, std::time::Duration::from_millis(100))
        });
        let active = lab.router.sh("cat /sys/class/net/bond0/bonding/active_slave");
        assert_eq!(active.trim(), other);
        wait_until_fast(&lab, &client);
        lab.router.ip(&format!("link set {slave} up\n"));
        eventually(LIMIT, "it is back", || {
            lab.router.sh("cat /proc/net/bonding/bond0").matches("MII Status: up").count() == 3
        });
    }
    assert!(daemon.stop(LIMIT).success());
}
