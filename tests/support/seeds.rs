// SPDX-License-Identifier: GPL-2.0-only
//! What fuzzing starts from: datagrams of the running kernel, and lines that someone might type.

use super::netns::Namespace;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM};
use netlink_sys::{Socket, SocketAddr};
use nix::net::if_::if_nametoindex;
use std::io::ErrorKind;

/// Seeds with the name of the family of decoders that reads them.
pub type Seeds = Vec<(&'static str, Vec<u8>)>;

const DUMP: u16 = 0x301;
const ASK: u16 = 0x001;
/// Configuration files.
const FILES: [&str; 3] = [
    "# A comment\nhook = \"tc\"\ninterfaces = [\"br-*\", \"wan0\", \"!br-guest\"]\n",
    "hook = 'xdp'\ninterfaces = ['lan0']\nlog-level = \"debug\"\n[interface.lan0]\nxdp-mode = 'native'",
    "object = \"a.o\"\nmax-connections = 1_000\noffload-mark = \"0x10/0xf0\"\n[interface]\nx.xdp-mode = 'auto'",
];

/// A netlink message's header.
const HEADER: usize = 16;

/// A bit of everything that the decoders know, made and then changed or taken away.
const NETWORK: &str = "
ip link add v0 type veth peer name v1
ip link add br0 type bridge
ip link set v1 master br0
ip link set v0 up
ip link set v1 up
ip addr add 10.0.0.1/24 dev v0
ip addr add 10.0.1.1 peer 10.0.1.2/32 dev v0
ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev v0 nud reachable
ip neigh add 10.0.0.3 lladdr 02:00:00:00:00:03 dev v0 nud permanent
ip neigh add proxy 10.0.0.4 dev v0
ip route add 10.1.0.0/16 via 10.0.0.2 mtu 1400
ip route append 10.1.0.0/16 via 10.0.0.3 mtu lock 1300
ip route add 10.2.0.0/16 mtu 1280 nexthop via 10.0.0.2 dev v0 nexthop via 10.0.0.3 dev v0
ip nexthop add id 9 via 10.0.0.3 dev v0
ip route add 10.3.0.0/16 nhid 9 mtu 1200
ip route replace 10.1.0.0/16 via 10.0.0.3
ip rule add fwmark 0x100/0x3f00 table 7
ip rule add from 10.0.0.0/8 tos 0x10 iif v0 table 8 priority 99
tc qdisc add dev v0 clsact
tc qdisc add dev v1 ingress
tc filter add dev v0 ingress prio 5 protocol ip u32 match u32 0 0
tc filter add dev v0 egress prio 6 protocol all u32 match u32 0 0
sysctl -qw net.ipv6.conf.v0.disable_ipv6=0
ip addr add 2001:db8::1/64 dev v0 nodad
ip neigh add fe80::2 lladdr 02:00:00:00:00:02 dev v0 nud reachable
ip route add 2001:db8:1::/48 via fe80::2 dev v0 mtu 1400 expires 600
ip route add 2001:db8:2::/48 nexthop via fe80::2 dev v0 nexthop via fe80::3 dev v0
ip route append 2001:db8:2::/48 via fe80::4 dev v0
ip route add 2001:db8:3::/48 from 2001:db8::/64 via fe80::2 dev v0 pref high
ip nexthop add id 10 via fe80::3 dev v0
ip route add 2001:db8:4::/48 nhid 10
ip -6 rule add from 2001:db8::/32 fwmark 0x100/0x3f00 ipproto udp dport 53 table 7
ip xfrm policy add src 10.0.0.0/8 dst 10.9.0.0/16 dir fwd tmpl src 1.1.1.1 dst 2.2.2.2 proto esp mode tunnel
ip xfrm policy add src 10.0.0.0/8 dst 0.0.0.0/0 dir out action block
ip xfrm policy add src ::/0 dst ::/0 dir in
ip xfrm policy add src 2001:db8::/32 dst 2001:db8:9::/48 dir fwd tmpl src 2001:db8::1 dst 2001:db8::2 proto esp mode tunnel
ip xfrm policy add src 2001:db8::/32 dst ::/0 dir out action block
conntrack -I -p tcp -s 10.0.0.2 -d 10.1.0.2 -r 10.1.0.2 -q 10.0.0.1 --sport 1024 --dport 80 --reply-port-src 80 --reply-port-dst 61000 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 100 -m 5
conntrack -I -p udp -s 10.0.0.2 -d 10.1.0.2 --sport 5353 --dport 53 -t 100 -u SEEN_REPLY
conntrack -I -p tcp -s 2001:db8::2 -d 2001:db8:1::2 -r 2001:db8:1::2 -q 2001:db8:2::1 --sport 1024 --dport 80 --reply-port-src 80 --reply-port-dst 61000 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 100 -m 5
conntrack -I -p udp -s 2001:db8::2 -d 2001:db8:1::2 --sport 5353 --dport 53 -t 100 -u SEEN_REPLY
conntrack -I -p icmp -s 10.0.0.2 -d 10.1.0.2 --icmp-type 8 --icmp-code 0 -t 100
conntrack -U -p udp -s 10.0.0.2 -d 10.1.0.2 --sport 5353 --dport 53 -m 6
nft -f - <<RULES
table inet t {
    quota full { over 1000 mbytes }
    set banned { type ipv4_addr; elements = { 192.0.2.9 } }
    chain forward {
        type filter hook forward priority 0;
        ct state vmap { established : accept, invalid : drop }
        ip saddr @banned drop
        meta l4proto tcp tcp flags & (syn|rst) == syn tcp option maxseg size set 1400
        limit rate over 10/second drop
        quota name full drop
        ip dscp set 8
        ct state new goto new
        jump others
    }
    chain new {
        meta mark set 7 ct mark set mark accept
    }
    chain others {
        iifname v0 fib daddr . iif type != local return
        reject
    }
}
table netdev n {
    chain in { type filter hook ingress device v0 priority 0; counter; }
}
RULES
";

const END: &str = "
conntrack -D -p udp
ip route del 10.2.0.0/16
ip neigh del 10.0.0.2 dev v0
ip route del 2001:db8:2::/48 via fe80::4 dev v0
ip rule del fwmark 0x100/0x3f00
ip addr del 10.0.1.1 peer 10.0.1.2/32 dev v0
ip link del v0
";

const LINES: [&str; 7] = [
    "xdp lan0 wan0",
    "tc bpf/obj/tc_le_bpfw.o lan0 wan0",
    "xdp --interval 100 --max-connections 4096 --xdp-mode generic lan0",
    "tc --log-level debug --bpf-log-level info --offload-mark 0x100/0x3f00 lan0",
    "xdp --route-mark-mask 0xff0000 lan0",
    "--help",
    "xdp --offload-mark=7 --interval=10 xdp_le_bpfw.o lan0",
];

const NUMBERS: [&str; 3] = ["262144\n", "2\n", "432000\n"];

/// Seeds of every family.
pub fn make() -> Seeds {
    let namespace = Namespace::new("seeds");
    let mut seeds = namespace.enter(|| captured(&namespace));
    seeds.extend(crafted());
    let lines = LINES.map(|line| ("command_line", line.replace(' ', "\0").into_bytes()));
    seeds.extend(lines);
    seeds.extend(FILES.map(|text| ("configuration", text.as_bytes().to_vec())));
    seeds.extend(NUMBERS.map(|number| ("sysctl", number.as_bytes().to_vec())));
    seeds
}

/// The kernel's events and answers while the network is made and taken down.
fn captured(namespace: &Namespace) -> Seeds {
    let mut taps = [
        Tap::open(NETLINK_ROUTE, &[1, 3, 4, 5, 7, 8, 9, 11, 19, 25, 32]),
        Tap::open(NETLINK_XFRM, &[4]),
        Tap::open(NETLINK_NETFILTER, &[1, 2, 3, 7]),
    ];
    namespace.sh(NETWORK);
    let [route, xfrm, netfilter] = &mut taps;
    // Links, addresses, routes, neighbors, rules, qdiscs.
    for (kind, length) in [(18, 16), (22, 8), (26, 12), (30, 12), (34, 12)] {
        route.ask(kind, DUMP, &vec![0; length]);
    }
    route.ask(38, DUMP, &[0; 20]);
    for parent in [0xffff_fff2_u32, 0xffff_fff3] {
        let v0 = if_nametoindex("v0").expect("it was just made");
        route.ask(46, DUMP, &[0, v0, 0, parent, 0].map(u32::to_ne_bytes).concat());
    }
    // Policies, their defaults.
    xfrm.ask(0x15, DUMP, &[]);
    xfrm.ask(0x28, ASK, &[0; 3]);
    // Conntrack's entries; nftables' chains, rules, objects.
    netfilter.ask(0x101, DUMP, &[0; 4]);
    [0xa04, 0xa07, 0xa13].iter().for_each(|kind| netfilter.ask(*kind, DUMP, &[0; 4]));
    namespace.sh(END);
    taps.into_iter().flat_map(Tap::finish).collect()
}

/// A socket that keeps all that it hears.
struct Tap {
    protocol: isize,
    socket: Socket,
    heard: Vec<Vec<u8>>,
}

impl Tap {
    fn open(protocol: isize, groups: &[u32]) -> Self {
        let mut socket = Socket::new(protocol).expect("a netlink socket");
        socket.bind_auto().expect("binding");
        socket.set_non_blocking(true).expect("a flag");
        groups.iter().for_each(|group| socket.add_membership(*group).expect("a group"));
        Self { protocol, socket, heard: Vec::new() }
    }

    /// The kernel answers within the call, or goes on when the answer's begin is read.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) {
        let message = message(kind, flags, body);
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0).expect("a request");
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => self.heard.push(datagram),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("reading netlink: {error}"),
            }
        }
    }

    fn finish(mut self) -> Seeds {
        self.drain();
        let protocol = self.protocol;
        self.heard.into_iter().flat_map(|datagram| named(protocol, datagram)).collect()
    }
}

/// A datagram and its first message, each with who reads it.
fn named(protocol: isize, datagram: Vec<u8>) -> Seeds {
    let kind = u16::from_ne_bytes([datagram[4], datagram[5]]);
    let (family, of_one) = match (protocol, kind) {
        (NETLINK_NETFILTER, 0xa00..0xb00) => ("ruleset", "ruleset"),
        (NETLINK_NETFILTER, _) => ("conntrack_datagram", "conntrack_message"),
        (NETLINK_XFRM, _) => ("xfrm", "xfrm"),
        (_, 32..36) => ("rules", "rules"),
        (_, 36..48) => ("tc", "tc"),
        _ => ("network", "network"),
    };
    vec![(of_one, first_message(&datagram)), (family, datagram)]
}

fn first_message(datagram: &[u8]) -> Vec<u8> {
    let length = u32::from_ne_bytes([datagram[0], datagram[1], datagram[2], datagram[3]]);
    datagram[..length as usize].to_vec()
}

/// What this kernel may not have, or what no tool makes. It is a VLAN interface, a BPF filter by
/// name, an entry with a helper, sequence adjustment and SYN proxy.
fn crafted() -> Seeds {
    let vlan = [attribute(1, &5_u16.to_ne_bytes()), attribute(5, &[0x88, 0xa8])].concat();
    let info = [attribute(1, b"vlan\0"), attribute(2, &vlan)].concat();
    let link = [
        [0, 7, 0x43, 0].map(u32::to_ne_bytes).concat(),
        attribute(3, b"lan.5\0"),
        attribute(5, &3_u32.to_ne_bytes()),
        attribute(18, &info),
    ];
    let filter = [
        [0, 7, 1, 0xffff_fff2, 0x0007_0008].map(u32::to_ne_bytes).concat(),
        attribute(1, b"bpf\0"),
        attribute(2, &attribute(7, b"bpfw\0")),
        attribute(11, &4_u32.to_ne_bytes()),
    ];
    let entry = [
        vec![2, 0, 0, 0],
        attribute(1, &tuple([192, 0, 2, 1], [198, 51, 100, 2])),
        attribute(2, &tuple([198, 51, 100, 2], [192, 0, 2, 1])),
        attribute(5, &attribute(1, b"ftp\0")),
        attribute(12, &[0, 0, 0, 9]),
        attribute(15, &attribute(3, &[0, 0, 0, 1])),
        attribute(18, &[0, 5]),
        attribute(24, &attribute(1, &[0, 0, 0, 1])),
    ];
    vec![
        ("network", message(16, 0, &link.concat())),
        ("tc", message(44, 0, &filter.concat())),
        ("conntrack_message", message(0x100, 0, &entry.concat())),
    ]
}

/// A tuple of conntrack: addresses, TCP, ports.
fn tuple(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let addresses = [attribute(1, &source), attribute(2, &destination)].concat();
    let ports = [attribute(1, &[6]), attribute(2, &[4, 0]), attribute(3, &[0, 21])].concat();
    [attribute(1, &addresses), attribute(2, &ports)].concat()
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 4).expect("a short one");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).expect("a short one");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}
