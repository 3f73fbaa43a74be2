// SPDX-License-Identifier: GPL-2.0-only
//! The topology of the live tests: client - router - server, optionally with a LAN switch.

use super::netns::{Namespace, text};
use super::nics;
use super::packet::Mac;
use super::rules;
use std::net::Ipv4Addr;
use std::process::Output;

pub const LAN_NET: &str = "192.0.2.0/24";
pub const ROUTER_LAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const HOST2: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
pub const ROUTER_WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

pub const ROUTER_LAN_MAC: Mac = [2, 0, 0, 0, 1, 1];
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 1, 2];
pub const HOST2_MAC: Mac = [2, 0, 0, 0, 1, 3];
pub const ROUTER_WAN_MAC: Mac = [2, 0, 0, 0, 2, 1];
pub const SERVER_MAC: Mac = [2, 0, 0, 0, 2, 2];

/// What the hosts leave to their (virtual) NICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// The kernel's defaults: partial checksums and segments larger than the MTU.
    Default,
    /// Whole checksums, no large segments, GRO on everywhere: what XDP on veth needs.
    ///
    /// XDP sees the partial checksums of local senders. A redirect to a veth reaches its peer only
    /// if the peer has NAPI, which GRO turns on.
    Plain,
}

/// The namespaces of one test.
pub struct Lab {
    /// eth0 192.0.2.2, default route through the router.
    pub client: Namespace,
    /// lan0 192.0.2.1, wan0 198.51.100.1, forwarding.
    pub router: Namespace,
    /// eth0 198.51.100.2, no default route.
    pub server: Namespace,
    extra: Option<Extra>,
}

/// What `Lab::with_switch` adds.
struct Extra {
    host2: Namespace,
    switch: Namespace,
}

impl Lab {
    /// Client and server, each wired straight to the router.
    pub fn new(test: &str, offloads: Offloads) -> Self {
        Self::build(test, offloads, false)
    }

    /// As `new`, but a switch in the LAN, with a second host behind it: `host2`.
    pub fn with_switch(test: &str, offloads: Offloads) -> Self {
        Self::build(test, offloads, true)
    }

    fn build(test: &str, offloads: Offloads, switched: bool) -> Self {
        let make = |role: &str| Namespace::new(&format!("{role}-{test}"));
        let extra = switched.then(|| Extra { host2: make("host2"), switch: make("switch") });
        let lab =
            Self { client: make("client"), router: make("router"), server: make("server"), extra };
        lab.wire();
        lab.wait_for_carrier();
        lab.address();
        if offloads == Offloads::Plain {
            lab.make_plain();
        }
        lab.router.sysctl("net/ipv4/ip_forward", "1");
        lab.nft(rules::SEEN);
        lab
    }

    fn wire(&self) {
        let host = ("eth0", Some(CLIENT_MAC));
        let (lan, wan) = (("lan0", ROUTER_LAN_MAC), ("wan0", ROUTER_WAN_MAC));
        self.wire_router(WAN, wan, &self.server, ("eth0", Some(SERVER_MAC)));
        let Some(Extra { host2, switch }) = &self.extra else {
            return self.wire_router(LAN, lan, &self.client, host);
        };
        switch.ip("link add br0 type bridge\nlink set br0 up\n");
        cable(&self.client, host, switch, ("client", None));
        cable(host2, ("eth0", Some(HOST2_MAC)), switch, ("host2", None));
        self.wire_router(LAN, lan, switch, ("router", None));
        for port in SWITCH_PORTS {
            switch.ip(&format!("link set {port} master br0\n"));
        }
    }

    /// By a veth pair, or by the NICs that the environment names.
    fn wire_router(&self, side: usize, port: (&str, Mac), host: &Namespace, end: End<'_>) {
        match nics::chosen() {
            None => cable(&self.router, (port.0, Some(port.1)), host, end),
            Some(segments) => {
                segments[side].lay((&self.router, port.0, port.1), (host, end.0, end.1));
            }
        }
    }

    /// Waits until the router's links are up, which takes a NIC some seconds after a reset.
    pub fn wait_for_carrier(&self) {
        if nics::chosen().is_some() {
            nics::wait_for_carrier(&self.router, &["lan0", "wan0"]);
        }
    }

    fn address(&self) {
        self.router
            .ip(&format!("addr add {ROUTER_LAN}/24 dev lan0\naddr add {ROUTER_WAN}/24 dev wan0\n"));
        self.server.ip(&format!("addr add {SERVER}/24 dev eth0\n"));
        let hosts = [(Some(&self.client), CLIENT), (self.extra.as_ref().map(|e| &e.host2), HOST2)];
        for (host, address) in hosts {
            if let Some(host) = host {
                host.ip(&format!(
                    "addr add {address}/24 dev eth0\nroute add default via {ROUTER_LAN}\n"
                ));
            }
        }
    }

    fn make_plain(&self) {
        let set = |namespace: &Namespace, device: &str, what: &str| {
            namespace.sh(&format!("ethtool -K {device} {what}"));
        };
        for host in [&self.client, &self.server] {
            set(host, "eth0", PLAIN);
        }
        set(&self.router, "lan0", "gro on");
        set(&self.router, "wan0", "gro on");
        if let Some(extra) = &self.extra {
            set(&extra.host2, "eth0", PLAIN);
            // Towards the router, GRO for the frames redirected there. Towards the hosts none: the
            // switch would hand merged packets on, as no switch does.
            set(&extra.switch, "router", "gro on");
            set(&extra.switch, "client", "gro off");
            set(&extra.switch, "host2", "gro off");
        }
    }

    /// The second LAN host, 192.0.2.3; only with a switch.
    pub fn host2(&self) -> &Namespace {
        &self.extra.as_ref().expect("only Lab::with_switch has host2").host2
    }

    /// The LAN's switch, with ports `client`, `host2` and `router`; only with a switch.
    pub fn switch(&self) -> &Namespace {
        &self.extra.as_ref().expect("only Lab::with_switch has a switch").switch
    }

    /// Gives the server a default route through the router, as tests without NAT need.
    pub fn route_server_via_router(&self) {
        self.server.ip(&format!("route replace default via {ROUTER_WAN}\n"));
    }

    /// Makes all neighbour entries permanent, so that no ARP is needed.
    pub fn static_neighbours(&self) {
        neighbour(&self.client, ROUTER_LAN, ROUTER_LAN_MAC, "eth0");
        neighbour(&self.server, ROUTER_WAN, ROUTER_WAN_MAC, "eth0");
        neighbour(&self.router, CLIENT, CLIENT_MAC, "lan0");
        neighbour(&self.router, SERVER, SERVER_MAC, "wan0");
        if let Some(extra) = &self.extra {
            neighbour(&extra.host2, ROUTER_LAN, ROUTER_LAN_MAC, "eth0");
            neighbour(&self.router, HOST2, HOST2_MAC, "lan0");
        }
    }

    /// Makes `lan0` the port of a bridge, `br-lan`, which takes its addresses over.
    pub fn bridge_the_lan(&self) {
        let mac = show(ROUTER_LAN_MAC);
        self.router.ip(&format!(
            "addr flush dev lan0\nlink add br-lan address {mac} type bridge\n\
             link set lan0 master br-lan\nlink set br-lan up\naddr add {ROUTER_LAN}/24 dev br-lan\n"
        ));
    }

    /// Loads nft rules in the router; see [`rules`] for ready ones.
    ///
    /// A `flush ruleset` would take the counters of `stack_packets` away.
    pub fn nft(&self, ruleset: &str) {
        self.router.run_with_input(&["nft", "-f", "-"], ruleset);
    }

    /// How many packets the router's stack forwarded or refused so far; GRO may merge several.
    pub fn stack_packets(&self) -> u64 {
        self.stack_packets_of("all")
    }

    /// As `stack_packets`, of one protocol: `tcp`, `udp` or `icmp`.
    pub fn stack_packets_of(&self, protocol: &str) -> u64 {
        self.counter("inet seen", &format!("seen_{protocol}"))
    }

    /// How many packets conntrack called invalid so far; only with the rules [`rules::INVALID`].
    pub fn invalid_packets(&self) -> u64 {
        self.counter("inet invalid_packets", "seen_invalid")
    }

    /// How many packets a named counter of this table, with its family, has counted.
    pub fn counter(&self, table: &str, counter: &str) -> u64 {
        let words = [&["nft", "list", "counter"], &table.split(' ').collect::<Vec<_>>()[..]];
        let output = self.router.run(&[&words.concat()[..], &[counter]].concat());
        let output = text(&output.stdout);
        let mut words = output.split_whitespace().skip_while(|word| *word != "packets");
        let packets = words.nth(1).and_then(|word| word.parse().ok());
        packets.unwrap_or_else(|| panic!("no packet count in: {output}"))
    }

    /// The conntrack table, one entry a line.
    pub fn conntrack_list(&self) -> String {
        text(&self.conntrack(&["-L"]).stdout)
    }

    /// Runs the conntrack tool; its exit status is the caller's, as a search may find nothing.
    pub fn conntrack(&self, args: &[&str]) -> Output {
        self.router.try_run(&[&["conntrack"], args].concat())
    }
}

/// The router's sides, in the order of [`nics::chosen`].
const LAN: usize = 0;
const WAN: usize = 1;

const PLAIN: &str = "tx off tso off gso off gro on";
const SWITCH_PORTS: [&str; 3] = ["client", "host2", "router"];

/// One end of a cable: the interface's name, and its MAC if it matters.
type End<'a> = (&'a str, Option<Mac>);

/// Makes a veth pair between two namespaces, never visible outside, and sets it up.
fn cable(left: &Namespace, near: End<'_>, right: &Namespace, far: End<'_>) {
    let mac = |end: End<'_>| end.1.map(|mac| format!("address {}", show(mac))).unwrap_or_default();
    left.ip(&format!(
        "link add {} {} type veth peer name {} {} netns {}\nlink set {} up\n",
        near.0,
        mac(near),
        far.0,
        mac(far),
        right.name(),
        near.0
    ));
    right.ip(&format!("link set {} up\n", far.0));
}

fn neighbour(namespace: &Namespace, address: Ipv4Addr, mac: Mac, device: &str) {
    let mac = show(mac);
    namespace.ip(&format!("neigh replace {address} lladdr {mac} dev {device} nud permanent\n"));
}

/// A MAC as text.
pub fn show(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
