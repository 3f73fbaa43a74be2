// SPDX-License-Identifier: GPL-2.0-only
//! Two labs that are alike, except that bpfw runs in one of them. The hosts say nothing of their
//! own: all that comes in at the routers is what the test sends.

use super::conversation::{LAST, opening, opposite, rules};
use super::daemon::Daemon;
use super::flow::{Flow, LAN, Side, WAN, ipv6_of};
use super::ipv6::add_twin;
use super::lab::{Lab, SERVER, show};
use super::maps::Maps;
use super::packet::Packet;
use super::port::{Port, PortFrame};
use super::router::{self, LIMIT, start};
use super::wait::{becomes_true, eventually};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// The largest IPv4 packet that wan0 sends; lan0 sends 1,500, and to the client 1,300.
pub const WAN_MTU: usize = 1400;

/// After this time nothing is on its way any longer.
const QUIET: Duration = Duration::from_millis(200);

/// Frames that came out of the router, in no order: at which side, and what they were.
pub type Seen = Vec<(&'static str, PortFrame)>;

/// What came out of both routers.
pub struct Outcome {
    pub stack: Seen,
    pub bpfw: Seen,
    /// The ports of the connections that the labs are made for.
    ports: Vec<u16>,
}

impl Outcome {
    /// What came out in these orders, in labs for connections with these ports.
    pub fn new(mut stack: Seen, mut bpfw: Seen, ports: Vec<u16>) -> Self {
        stack.sort();
        bpfw.sort();
        Self { stack, bpfw, ports }
    }

    pub fn is_equal(&self) -> bool {
        self.stack == self.bpfw || self.differences().iter().all(Vec::is_empty)
    }

    /// What came out of one of the routers alone: without bpfw, with it.
    pub fn differences(&self) -> [Seen; 2] {
        let alone = [without(&self.stack, &self.bpfw), without(&self.bpfw, &self.stack)];
        let [stack, bpfw] = alone.each_ref().map(|seen| self.without_chance(seen));
        // The same except for chance, or else as it came.
        if stack == bpfw { Default::default() } else { alone }
    }

    /// What the kernel chose by chance left out: the source port of a connection whose usual
    /// translation is another's (nf_nat_l4proto_unique_tuple in net/netfilter/nf_nat_core.c). This
    /// happens after a RST, when a SYN of the other side is a connection of its own. Offloaded ones
    /// have the labs' ports in the stack's router: no such frame stands for one of theirs.
    fn without_chance(&self, seen: &Seen) -> Seen {
        let mut seen = seen.clone();
        for (_, frame) in &mut seen {
            if source_port(&frame.bytes).is_some_and(|port| !self.ports.contains(&port)) {
                clear_source_port(&mut frame.bytes);
            }
        }
        seen.sort();
        seen
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [stack, bpfw] = self.differences();
        write!(f, "left the stack's router alone:\n{}", list(&stack))?;
        write!(f, "left bpfw's router alone:\n{}", list(&bpfw))
    }
}

/// Where TCP or UDP begins in an untagged frame without IP options or extension headers, and its number.
fn transport(bytes: &[u8]) -> Option<(usize, u8)> {
    let (at, protocol) = match bytes.get(12..15)? {
        [8, 0, 0x45] => (14 + 20, *bytes.get(23)?),
        [0x86, 0xdd, _] => (14 + 40, *bytes.get(20)?),
        _ => return None,
    };
    matches!(protocol, 6 | 17).then_some((at, protocol))
}

/// Of TCP and UDP.
fn source_port(bytes: &[u8]) -> Option<u16> {
    let (at, _) = transport(bytes)?;
    let port = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([port[0], port[1]]))
}

/// And the checksum, which covers it.
fn clear_source_port(bytes: &mut [u8]) {
    let Some((at, protocol)) = transport(bytes) else { return };
    let checksum = if protocol == 6 { at + 16 } else { at + 6 };
    for place in [at, checksum] {
        if let Some(word) = bytes.get_mut(place..place + 2) {
            word.fill(0);
        }
    }
}

/// The frames of `seen` that `other` has not; both are sorted.
fn without(seen: &Seen, other: &Seen) -> Seen {
    let mut other = other.iter().peekable();
    let mut left = Seen::new();
    for each in seen {
        while other.next_if(|next| *next < each).is_some() {}
        if other.next_if_eq(&each).is_none() {
            left.push(each.clone());
        }
    }
    left
}

/// One frame a line.
fn list(seen: &Seen) -> String {
    seen.iter().map(|(device, frame)| format!("  {device} {frame}\n")).collect()
}

/// A lab and its hosts' ports.
struct Half {
    lab: Lab,
    lan: Port,
    wan: Port,
}

/// What rules and sysctls say beside those that all rounds have.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How the routers look at source addresses.
    pub rp_filter: &'static str,
    /// A rule that drops packets of a direction, once the connections are open.
    pub ban: Option<&'static str>,
}

/// Both labs.
pub struct Twins {
    stack: Half,
    bpfw: Half,
    flows: Vec<Flow>,
    batches: u64,
    maps: Maps,
    _daemon: Daemon,
}

impl Half {
    fn new(hook: &str, test: &str, flows: &[Flow]) -> Self {
        let lab = router::lab(hook, test, &rules(flows));
        for host in [&lab.client, &lab.server] {
            host.run_with_input(&["nft", "-f", "-"], SILENCE);
            host.sh(OWN_QUEUES.replace("DEVICES", "eth0").as_str());
        }
        lab.router.sh(OWN_QUEUES.replace("DEVICES", "lan0 wan0").as_str());
        lab.server.ip(&format!("link set eth0 mtu {WAN_MTU}\n"));
        add_ipv6(&lab);
        lab.router.ip(&neighbors());
        // A default route, because the rate of "network unreachable" has a limit that is the
        // machine's own (ip_error in the kernel's net/ipv4/route.c).
        lab.router.ip(&format!(
            "link set wan0 mtu {WAN_MTU}\nroute add {} dev lan0 mtu 1300\n\
             route add default via {SERVER}\nroute add {} dev lan0 mtu 1300\n\
             route add default via {}\n",
            LAN.host,
            ipv6_of(LAN.host),
            ipv6_of(SERVER)
        ));
        for (path, value) in SYSCTLS {
            lab.router.sysctl(path, value);
        }
        let (lan, wan) = (Port::open(&lab.client, "eth0"), Port::open(&lab.server, "eth0"));
        Self { lab, lan, wan }
    }

    fn port(&self, side: Side) -> &Port {
        if side == LAN { &self.lan } else { &self.wan }
    }

    /// Sends all, and a last one that is always the stack's.
    fn send(&self, from: Side, frames: &[PortFrame], last: &[u8]) {
        for frame in frames {
            self.port(from).send(frame);
        }
        self.port(from).send(&last.to_vec().into());
    }

    /// Takes what comes out until the last frame has.
    fn take(&self, from: Side, last: &[u8]) -> Seen {
        let far = opposite(from);
        let end = Instant::now() + LIMIT;
        let mut seen = Seen::new();
        let is_last = |frame: &PortFrame| frame.bytes.get(TAIL..) == Some(&last[TAIL..]);
        while Instant::now() < end {
            match self.port(far).receive() {
                Some(frame) if is_last(&frame) => {
                    self.drain(&mut seen);
                    return seen;
                }
                Some(frame) if is_multicast(&frame) => {}
                Some(frame) => seen.push((far.device, plain(frame))),
                None => self.port(far).wait(),
            }
        }
        panic!("the last frame of a batch got lost; seen:\n{}", list(&seen));
    }

    /// Adds what has come out meanwhile.
    fn drain(&self, seen: &mut Seen) {
        for side in [LAN, WAN] {
            let frames = std::iter::from_fn(|| self.port(side).receive());
            let frames = frames.filter(|frame| !is_multicast(frame));
            seen.extend(frames.map(|frame| (side.device, plain(frame))));
        }
        seen.sort();
    }
}

impl Twins {
    /// Both labs with the rules for these connections, and bpfw in one of them.
    pub fn new(hook: &str, test: &str, flows: Vec<Flow>) -> Self {
        let stack = Half::new(hook, &format!("{test}-stack"), &flows);
        let bpfw = Half::new(hook, &format!("{test}-bpfw"), &flows);
        let daemon = start(&bpfw.lab, hook, &["--log-level", "info", "--max-connections", "1000"]);
        let maps = Maps::of(daemon.pid());
        Self { stack, bpfw, flows, batches: 0, maps, _daemon: daemon }
    }

    /// bpfw's maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Forgets all connections and opens those of `new` again, all of them offloaded.
    pub fn renew(&mut self, policy: Policy) {
        for half in [&self.stack, &self.bpfw] {
            half.lab.conntrack(&["-F"]);
            half.lab.router.sysctl("net/ipv4/conf/all/rp_filter", policy.rp_filter);
            half.lab.nft("table inet one_way\ndelete table inet one_way");
        }
        eventually(LIMIT, "no connection is offloaded", || self.maps.entries() == 0);
        let outcome = self.inject(LAN, &[]);
        assert!(outcome.is_equal(), "after the last batch:\n{outcome}");
        let openings: Vec<_> = self.flows.iter().map(opening).collect();
        for step in 0..3 {
            for side in [LAN, WAN] {
                let now = openings.iter().filter_map(|opening| opening.get(step));
                let now = now.filter(|(from, _)| *from == side);
                let frames: Vec<PortFrame> = now.map(|(_, p)| p.build().into()).collect();
                let outcome = self.inject(side, &frames);
                assert_eq!(
                    outcome.stack.len(),
                    frames.len(),
                    "openings:\n{}",
                    list(&outcome.stack)
                );
                assert!(outcome.is_equal(), "opening connections:\n{outcome}");
            }
        }
        let tuples = self.flows.iter().flat_map(|flow| [false, true].map(|way| flow.tuple(way)));
        let tuples: Vec<_> = tuples.collect();
        eventually(LIMIT, "all connections are offloaded", || {
            tuples.iter().all(|tuple| self.maps.has_connection(*tuple))
        });
        if let Some(ban) = policy.ban {
            self.ban(ban);
        }
    }

    /// A rule in both, of which bpfw knows when this is over.
    fn ban(&self, rule: &str) {
        let before = self.maps.generation();
        for half in [&self.stack, &self.bpfw] {
            half.lab.nft(&format!(
                "table inet one_way {{
                    chain c {{
                        type filter hook forward priority -10; policy accept;
                        meta l4proto {{ tcp, udp }} {rule}
                    }}
                }}"
            ));
        }
        eventually(LIMIT, "a new rule counts", || self.maps.generation() != before);
    }

    /// The same frames into both routers, from this side.
    pub fn inject(&mut self, from: Side, frames: &[PortFrame]) -> Outcome {
        self.batches += 1;
        let last = last(from, self.batches);
        let halves = [&self.stack, &self.bpfw];
        for half in halves {
            half.send(from, frames, &last);
        }
        let [mut stack, mut bpfw] = halves.map(|half| half.take(from, &last));
        // The last frame may have overtaken others.
        becomes_true(QUIET, || {
            self.stack.drain(&mut stack);
            self.bpfw.drain(&mut bpfw);
            stack == bpfw
        });
        let ends = self.flows.iter().flat_map(|flow| [flow.before, flow.after]);
        let ports = ends.flat_map(|(from, to)| [from.port(), to.port()]).collect();
        Outcome::new(stack, bpfw, ports)
    }
}

/// Hosts take nothing in, and so answer nothing.
const SILENCE: &str = "table inet silence {
    chain prerouting { type filter hook prerouting priority -400; policy drop; }
}
";

/// With GRO a veth has a queue of its own. The one of the CPU is everybody's: it may be full.
const OWN_QUEUES: &str = "for device in DEVICES; do ethtool -K $device gro on; done";

/// Nothing may depend on the time that passes.
const SYSCTLS: [(&str, &str); 12] = [
    // No limit to the rate of ICMP errors; and no advice, whose rate has a limit of its own.
    ("net/ipv4/icmp_ratemask", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    // The set of those that a limit concerns; 127 is none.
    ("net/ipv6/icmp/ratemask", "127"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/lan0/send_redirects", "0"),
    ("net/ipv4/conf/wan0/send_redirects", "0"),
    // Fragments wait as long as it takes; those that XDP has passed up take more memory.
    ("net/ipv4/ipfrag_time", "36000"),
    ("net/ipv4/ipfrag_high_thresh", "1000000000"),
    ("net/netfilter/nf_conntrack_frag6_timeout", "36000"),
    ("net/netfilter/nf_conntrack_frag6_high_thresh", "1000000000"),
    // Segments may lie outside of the window: bpfw wants it so for connections that it forwards.
    ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
];

/// The router has no link-local addresses: it sends no redirects of IPv6, whose rate has a limit of its own.
fn add_ipv6(lab: &Lab) {
    for side in [LAN, WAN] {
        lab.router.sysctl(&format!("net/ipv6/conf/{}/addr_gen_mode", side.device), "1");
        add_twin(&lab.router, side.device, side.router);
    }
}

/// Every address of both networks has a MAC address, so that neither ARP nor neighbor discovery is needed.
fn neighbors() -> String {
    let of = |side: Side| {
        let [a, b, c, _] = side.host.octets();
        (0..=255).filter(move |host| side.router.octets()[3] != *host).map(move |host| {
            let (mac, device) = (show(side.host_mac), side.device);
            let host = Ipv4Addr::new(a, b, c, host);
            [host.into(), ipv6_of(host).into()]
                .map(|host: IpAddr| {
                    format!("neigh replace {host} lladdr {mac} dev {device} nud permanent\n")
                })
                .concat()
        })
    };
    [LAN, WAN].into_iter().flat_map(of).collect()
}

/// Where the payload of a last frame begins.
const TAIL: usize = 14 + 24 + 8;

/// A frame with an IP option, which goes through the stack, and a number.
fn last(from: Side, number: u64) -> Vec<u8> {
    Packet::udp(from.at(LAST), opposite(from).at(LAST))
        .mac(from.host_mac, from.router_mac)
        .ip_options(&[1; 4])
        .payload(&number.to_be_bytes())
        .build()
}

/// To a MAC address of IPv6's multicast: the router's own reports of its groups, which come at any time.
fn is_multicast(frame: &PortFrame) -> bool {
    frame.bytes.starts_with(&[0x33, 0x33])
}

/// Without what differs between two routers: the identification of the ICMP errors that they make.
fn plain(mut frame: PortFrame) -> PortFrame {
    const ERRORS: [u8; 3] = [3, 11, 12];
    let bytes = &mut frame.bytes;
    // With options, if it answers a packet that has them.
    let header = bytes.get(14).map_or(0, |first| usize::from(first & 0x0f) * 4);
    let kind = bytes.get(14 + header).copied().unwrap_or(0);
    if header >= 20 && bytes[12..14] == [8, 0] && bytes[23] == 1 && ERRORS.contains(&kind) {
        bytes[18..20].fill(0);
        bytes[24..26].fill(0);
    }
    frame
}
