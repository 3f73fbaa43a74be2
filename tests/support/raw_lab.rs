// SPDX-License-Identifier: GPL-2.0-only
//! A router whose WAN is a tun, between two ends that the test holds, and one connection.

use super::daemon::Daemon;
use super::lab::{CLIENT, CLIENT_MAC, Lab, ROUTER_LAN, ROUTER_LAN_MAC, ROUTER_WAN, SERVER, show};
use super::packet::{Packet, tcp};
use super::port::{Port, PortFrame};
use super::raw_end::{RawEnd, Sample};
use super::router::*;
use super::rules::{no_nat_rules, snat_rules};
use super::tun::{Tun, wan_by_tun};
use super::wait::eventually;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// The port that the client's address gets, so that both runs translate alike.
const CLIENT_PORT: u16 = 40000;
const SERVICE: u16 = 7;
pub const UDP: u8 = 17;
pub const TCP: u8 = 6;
/// Conntrack calls UDP a stream by a packet later than 2 s after the first.
const STREAM: Duration = Duration::from_millis(2500);

/// A router between two ends that the test holds, and a connection between them.
pub struct RawLab {
    pub lab: Lab,
    pub client: RawEnd,
    pub server: RawEnd,
    /// As the client sends, and as the server does.
    ways: [(SocketAddrV4, SocketAddrV4); 2],
    protocol: u8,
}

/// What stands at the router's LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lan {
    Ethernet,
    Tun,
}

impl RawLab {
    pub fn new(test: &str, lan: Lan, translated: bool, protocol: u8) -> Self {
        let rules = if translated { snat_rules() } else { no_nat_rules() };
        let lab = lab("tc", test, &rules);
        let server = RawEnd::Tun(wan_by_tun(&lab));
        let client = match lan {
            Lan::Ethernet => ethernet_lan(&lab),
            Lan::Tun => tun_lan(&lab),
        };
        // The test's segments lie outside of the window; both runs must treat them alike.
        lab.router.sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1");
        let (inner, service) = (at(CLIENT, CLIENT_PORT), at(SERVER, SERVICE));
        let outer = if translated { at(ROUTER_WAN, CLIENT_PORT) } else { inner };
        Self { lab, client, server, ways: [(inner, service), (service, outer)], protocol }
    }

    pub fn packet(&self, reply: bool) -> Packet {
        let (from, to) = self.ways[usize::from(reply)];
        match self.protocol {
            TCP => Packet::tcp(from, to).flags(tcp::ACK | tcp::PSH).seq(77).ack(99),
            _ => Packet::udp(from, to),
        }
    }

    /// The end that packets of a direction come from, and the other.
    fn ends(&self, reply: bool) -> (&RawEnd, &RawEnd) {
        if reply { (&self.server, &self.client) } else { (&self.client, &self.server) }
    }

    /// Sends a packet; what leaves the router of it.
    pub fn pass(&self, reply: bool, id: u16, sample: impl Into<Sample>) -> PortFrame {
        let mut sample = sample.into();
        sample.packet = sample.packet.id(id);
        let (from, to) = self.ends(reply);
        from.send(&sample);
        to.take(id)
    }

    /// Conntrack calls the connection assured afterwards.
    pub fn open(&self) {
        if self.protocol == TCP {
            self.pass(false, 1, self.packet(false).flags(tcp::SYN).seq(76).ack(0));
            self.pass(true, 2, self.packet(true).flags(tcp::SYN | tcp::ACK).seq(98).ack(77));
            self.pass(false, 3, self.packet(false));
            return;
        }
        let start = Instant::now();
        while start.elapsed() < STREAM {
            self.pass(false, 1, self.packet(false));
            self.pass(true, 2, self.packet(true));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// bpfw, once it forwards both directions.
    pub fn start(&self) -> Daemon {
        let daemon = start(&self.lab, "tc", &[]);
        eventually(LIMIT, "a packet brings it to the fast path", || {
            let fast = forwarded(&daemon);
            self.pass(false, 4, self.packet(false));
            self.pass(true, 5, self.packet(true));
            forwarded(&daemon) == fast + 2
        });
        daemon
    }
}

/// The client's cable as it is, but the host keeps silent.
fn ethernet_lan(lab: &Lab) -> RawEnd {
    const SILENCE: &str = "table ip silence {
        chain prerouting { type filter hook prerouting priority -400; policy drop; }
    }";
    lab.client.run_with_input(&["nft", "-f", "-"], SILENCE);
    let mac = show(CLIENT_MAC);
    lab.router.ip(&format!("neigh replace {CLIENT} lladdr {mac} dev lan0 nud permanent\n"));
    RawEnd::Ethernet(Port::open(&lab.client, "eth0"), CLIENT_MAC, ROUTER_LAN_MAC)
}

fn tun_lan(lab: &Lab) -> RawEnd {
    lab.router.ip("link del lan0\n");
    let tun = Tun::open(&lab.router, "lan0");
    lab.router.ip(&format!("addr add {ROUTER_LAN}/24 dev lan0\n"));
    RawEnd::Tun(tun)
}
