// SPDX-License-Identifier: GPL-2.0-only
//! Packets that stand for many, at TC. What leaves the router fits its link, as with the plain
//! kernel, whether it is TCP, UDP, or another packet inside.

mod support;

use bpfw::abi;
use nix::sys::socket::{setsockopt, sockopt};
use std::net::Ipv4Addr;
use std::time::Duration;
use support::capture::{Capture, Frame};
use support::lab::{CLIENT, Lab, ROUTER_LAN, SERVER};
use support::live::root_or_skip;
use support::maps::Maps;
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::tcp::{Direction, Path, TcpPair};
use support::udp::{UdpClient, UdpEcho, datagram, udp_echo};
use support::wait::eventually;

/// The largest IPv4 packet that wan0 takes. The hosts' links take 1,500 bytes.
const MTU: usize = 1450;
/// What VXLAN adds to an inner packet: headers of IPv4, UDP, VXLAN and Ethernet.
const VXLAN: usize = 50;
/// Headers of IPv4 and UDP.
const UDP: usize = 28;
/// The port of both ends of VXLAN and of plain UDP.
const PORT: u16 = 4789;

/// Whether the fast path may take the large packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Fast,
    Stack,
    /// The stack tells the sender that they are too large, and those that follow are fast.
    Learns,
}
use Way::{Fast, Learns, Stack};

/// What the large packets consist of.
enum Bulk {
    /// TCP, in a tunnel or not.
    Tcp(TcpPair),
    /// UDP with as many bytes in each segment. The server's echo counts them.
    Udp(UdpEcho, UdpClient, usize),
}

impl Bulk {
    const SEGMENTS: usize = 20;
    /// The addresses of both ends of the tunnel within it.
    const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];

    fn tcp(lab: &Lab) -> Self {
        Self::Tcp(TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001))))
    }

    /// TCP in VXLAN, whose ends both take packets of as many bytes.
    fn vxlan(lab: &Lab, mtu: usize, options: &str) -> Self {
        Self::add_vxlan(lab, mtu, options);
        let inside = Path::direct(at(Self::INNER[1], 5001));
        Self::Tcp(TcpPair::open(&lab.client, &lab.server, inside))
    }

    /// UDP in VXLAN.
    fn udp_in_vxlan(lab: &Lab, segment: usize) -> Self {
        Self::add_vxlan(lab, 1500 - VXLAN, "noudpcsum");
        let [near, far] = Self::INNER.map(|address| at(address, 5001));
        Self::Udp(udp_echo(&lab.server, far), UdpClient::open(&lab.client, near, far), segment)
    }

    fn add_vxlan(lab: &Lab, mtu: usize, options: &str) {
        for (host, local, remote, inner) in [
            (&lab.client, CLIENT, SERVER, Self::INNER[0]),
            (&lab.server, SERVER, CLIENT, Self::INNER[1]),
        ] {
            host.ip(&format!(
                "link add vx0 type vxlan id 7 local {local} remote {remote} dstport {PORT} \
                 srcport {PORT} {} {options}\n\
                 link set vx0 mtu {mtu} up\naddr add {inner}/24 dev vx0\n",
                // The range of source ports ends before this one.
                PORT + 1
            ));
        }
    }

    fn udp(lab: &Lab, segment: usize) -> Self {
        let server = udp_echo(&lab.server, at(SERVER, PORT));
        let client = UdpClient::open(&lab.client, at(CLIENT, PORT), at(SERVER, PORT));
        Self::Udp(server, client, segment)
    }

    fn exchange(&self) {
        match self {
            Self::Tcp(pair) => pair.exchange(),
            Self::Udp(_, client, _) => assert!(client.echoes(0, LIMIT)),
        }
    }

    /// Sends large packets to the server, which gets all of them.
    fn send(&self) {
        match self {
            Self::Tcp(pair) => {
                pair.transfer(Direction::ToServer, 4 << 20, 1);
            }
            Self::Udp(server, client, segment) => {
                let set = |bytes: usize| {
                    setsockopt(client.socket(), sockopt::UdpGsoSegment, &(bytes as i32))
                        .expect("UDP_SEGMENT");
                };
                set(*segment);
                for _ in 0..10 {
                    let before = server.sources().len();
                    client
                        .socket()
                        .send(&datagram(7, *segment).repeat(Self::SEGMENTS))
                        .expect("sent");
                    eventually(LIMIT, "all segments arrive", || {
                        server.sources().len() == before + Self::SEGMENTS
                    });
                    // The answers would fill the socket, which then takes no more.
                    while client.recv(Duration::from_millis(1)).is_some() {}
                }
                set(0);
            }
        }
    }

    /// Waits until a small packet goes either way by the fast path.
    fn wait_until_fast(&self, lab: &Lab) {
        eventually(LIMIT, "small packets take the fast path", || {
            let before = lab.stack_packets();
            self.exchange();
            // The last acknowledgement may be on its way.
            std::thread::sleep(Duration::from_millis(60));
            let entries = lab.conntrack_list();
            lab.stack_packets() == before
                && entries.lines().any(|entry| {
                    entry.contains("[ASSURED]") && entry.contains(&format!("src={CLIENT} "))
                })
        });
    }
}

fn length(frame: &Frame) -> usize {
    usize::from(u16::from_be_bytes([frame.bytes[16], frame.bytes[17]]))
}

fn is_incoming_ipv4(frame: &Frame) -> bool {
    !frame.outgoing && frame.bytes[12..14] == [8, 0]
}

/// The lengths of packets as they left, and how many came in that stand for many.
fn watch(lab: &Lab, bulk: &Bulk) -> (usize, usize) {
    let came = Capture::open(&lab.router, "lan0");
    let left = Capture::open(&lab.server, "eth0");
    bulk.send();
    let largest = left.collect(Duration::ZERO, is_incoming_ipv4).iter().map(length).max();
    let large =
        came.collect(Duration::ZERO, |frame| is_incoming_ipv4(frame) && length(frame) > 1500);
    (largest.expect("packets"), large.len())
}

/// A router whose link to the server takes less than the client sends; segments leave it one by one.
fn small_link(test: &str, rules: &str) -> Lab {
    let lab = lab("tc", test, rules);
    // Whoever sends too much learns nothing, and goes on.
    lab.client.sysctl("net/ipv4/ip_no_pmtu_disc", "1");
    lab.router.ip(&format!("link set wan0 mtu {MTU}\n"));
    lab.router.sh("ethtool -K wan0 tso off gso off tx-udp-segmentation off \
         tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off");
    lab
}

/// The same packets through the plain kernel and through bpfw.
fn compare(lab: &Lab, bulk: &Bulk, way: Way) {
    let (by_kernel, large) = watch(lab, bulk);
    assert!(large > 0, "nothing came in that stands for many");
    assert!(by_kernel <= MTU, "{by_kernel} bytes by the kernel");
    // It may have learned of the smaller link.
    lab.client.ip("route flush cache\n");
    let daemon = start(lab, "tc", &[]);
    bulk.wait_until_fast(lab);
    let maps = Maps::of(daemon.pid());
    let count = || [abi::BPFW_FORWARDED, abi::BPFW_PASS_TOO_BIG].map(|each| maps.packets(each));
    let (before, stack) = (count(), lab.stack_packets());
    let (largest, large) = watch(lab, bulk);
    let [fast, too_big] = [0, 1].map(|which| count()[which] - before[which]);
    let stack = lab.stack_packets() - stack;
    println!("{fast} forwarded, {too_big} too big, {stack} by the stack, {large} stand for many");
    assert_eq!(largest, by_kernel, "bytes in the largest packet that left");
    assert!(large > 0, "nothing came in that stands for many");
    match way {
        Fast => assert!(too_big == 0 && stack == 0, "{too_big} too big, {stack} by the stack"),
        Stack => assert!(too_big as usize >= large, "only {too_big} of {large} are too big"),
        Learns => assert!(too_big > 0 && fast > too_big, "{too_big} too big, {fast} forwarded"),
    }
}

/// Each test has a lab of its own.
macro_rules! at_tc {
    ($($name:ident: $lab:ident $body:block)+) => {$(
        #[test]
        fn $name() {
            if root_or_skip(stringify!($name)) {
                let $lab = &small_link(stringify!($name), &no_nat_rules());
                $body
            }
        }
    )+};
}

/// Makes the client's interface split what its own stack leaves whole; the router joins it again.
fn join_at_the_router(lab: &Lab) {
    lab.client.sh("ethtool -K eth0 tso off gso off tx-udp-segmentation off");
    lab.router.sh("ethtool -K lan0 gro on rx-udp-gro-forwarding on");
}

/// The same, and the router keeps the packets in a list, each with its own headers.
fn list_at_the_router(lab: &Lab) {
    join_at_the_router(lab);
    lab.router.sh("ethtool -K lan0 rx-gro-list on");
}

/// The same for VXLAN: a router with such a device joins the packets of others that pass through.
fn join_vxlan_at_the_router(lab: &Lab) {
    join_at_the_router(lab);
    lab.router.ip(&format!(
        "link add vx9 type vxlan id 9 local {ROUTER_LAN} dstport {PORT}\nlink set vx9 up\n"
    ));
}

/// The link takes 1,500 bytes, and a route allows less.
fn limit_by_route(lab: &Lab) {
    lab.router.ip(&format!("link set wan0 mtu 1500\nroute add {SERVER} dev wan0 mtu lock {MTU}\n"));
}

at_tc! {
    hazard_57_tcp_larger_than_the_link: lab {
        compare(lab, &Bulk::tcp(lab), Stack);
    }
    hazard_57_tcp_that_fits_stays_fast: lab {
        lab.client.ip(&format!("link set eth0 mtu {MTU}\n"));
        compare(lab, &Bulk::tcp(lab), Fast);
    }
    hazard_57_listed_tcp_larger_than_the_link: lab {
        list_at_the_router(lab);
        compare(lab, &Bulk::tcp(lab), Stack);
    }
    hazard_57_listed_tcp_that_fits_stays_fast: lab {
        list_at_the_router(lab);
        lab.client.ip(&format!("link set eth0 mtu {MTU}\n"));
        compare(lab, &Bulk::tcp(lab), Fast);
    }
    hazard_57_udp_larger_by_one: lab {
        compare(lab, &Bulk::udp(lab, MTU + 1 - UDP), Stack);
    }
    hazard_57_udp_that_fits_stays_fast: lab {
        compare(lab, &Bulk::udp(lab, MTU - UDP), Fast);
    }
    hazard_57_joined_udp_larger_by_one: lab {
        join_at_the_router(lab);
        compare(lab, &Bulk::udp(lab, MTU + 1 - UDP), Stack);
    }
    hazard_57_joined_udp_that_fits_stays_fast: lab {
        join_at_the_router(lab);
        compare(lab, &Bulk::udp(lab, MTU - UDP), Fast);
    }
    hazard_57_listed_udp_larger_by_one: lab {
        list_at_the_router(lab);
        compare(lab, &Bulk::udp(lab, MTU + 1 - UDP), Stack);
    }
    hazard_57_listed_udp_that_fits_stays_fast: lab {
        list_at_the_router(lab);
        compare(lab, &Bulk::udp(lab, MTU - UDP), Fast);
    }
    hazard_57_vxlan_larger_than_the_link: lab {
        compare(lab, &Bulk::vxlan(lab, 1500 - VXLAN, "noudpcsum"), Stack);
    }
    hazard_57_vxlan_larger_by_one: lab {
        compare(lab, &Bulk::vxlan(lab, MTU + 1 - VXLAN, "noudpcsum"), Stack);
    }
    hazard_57_vxlan_that_fits_stays_fast: lab {
        compare(lab, &Bulk::vxlan(lab, MTU - VXLAN, "noudpcsum"), Fast);
    }
    hazard_57_vxlan_with_checksums_larger_than_the_link: lab {
        compare(lab, &Bulk::vxlan(lab, 1500 - VXLAN, "udpcsum"), Stack);
    }
    hazard_57_vxlan_with_checksums_that_fits_stays_fast: lab {
        compare(lab, &Bulk::vxlan(lab, MTU - VXLAN, "udpcsum"), Fast);
    }
    hazard_57_vxlan_that_must_not_be_split: lab {
        lab.client.sysctl("net/ipv4/ip_no_pmtu_disc", "0");
        compare(lab, &Bulk::vxlan(lab, 1500 - VXLAN, "noudpcsum df set"), Learns);
    }
    hazard_57_translated_vxlan_larger_than_the_link: lab {
        lab.nft(&snat_rules());
        compare(lab, &Bulk::vxlan(lab, 1500 - VXLAN, "noudpcsum"), Stack);
    }
    hazard_57_joined_vxlan_larger_than_the_link: lab {
        join_vxlan_at_the_router(lab);
        compare(lab, &Bulk::vxlan(lab, 1500 - VXLAN, "noudpcsum"), Stack);
    }
    hazard_57_joined_vxlan_that_fits_stays_fast: lab {
        join_vxlan_at_the_router(lab);
        compare(lab, &Bulk::vxlan(lab, MTU - VXLAN, "noudpcsum"), Fast);
    }
    // The kernel does not count the inner UDP header, so it takes eight bytes more for fitting.
    hazard_57_udp_in_vxlan_larger_than_the_link: lab {
        compare(lab, &Bulk::udp_in_vxlan(lab, MTU + 9 - VXLAN - UDP), Stack);
    }
    hazard_57_udp_in_vxlan_that_fits_stays_fast: lab {
        compare(lab, &Bulk::udp_in_vxlan(lab, MTU - VXLAN - UDP), Fast);
    }
    hazard_57_a_route_limits_vxlan: lab {
        limit_by_route(lab);
        compare(lab, &Bulk::vxlan(lab, 1500 - VXLAN, "udpcsum"), Stack);
    }
    // Here nobody knows what is in them, so that plain UDP goes by the stack, too.
    hazard_57_a_route_limits_udp: lab {
        limit_by_route(lab);
        compare(lab, &Bulk::udp(lab, MTU - UDP), Stack);
    }
}
