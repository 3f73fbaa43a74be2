// SPDX-License-Identifier: GPL-2.0-only
//! What the kernel's routing asks of each packet, or changes without an event. Two labs are alike,
//! and bpfw runs in one of them. After each change, the same packets must have the same fate.

mod support;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;
use support::capture::{Capture, Frame};
use support::checksum;
use support::daemon::Daemon;
use support::lab::{
    CLIENT, CLIENT_MAC, Lab, ROUTER_LAN_MAC, ROUTER_WAN, ROUTER_WAN_MAC, SERVER, SERVER_MAC, show,
};
use support::packet::{Mac, Packet};
use support::router::*;
use support::rules::no_nat_rules;
use support::wait::{becomes_true, eventually};

on_both_hooks!(
    hazard_58_inputs_of_the_route_are_followed_or_refused,
    hazard_58_a_locked_path_mtu_counts_with_the_next_period,
);

/// Behind the first gateway, which is the server.
const SERVICE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// The second gateway. Nobody stands there.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const OTHER_MAC: Mac = [2, 0, 0, 0, 2, 77];

/// Packets for each probe.
const PACKETS: u8 = 20;
/// Nothing is on its way any longer.
const QUIET: Duration = Duration::from_millis(60);

/// One step of a change.
#[derive(Clone, Copy)]
enum Step {
    /// Commands of `ip`, one a line. A, B and S stand for both gateways and the service.
    Ip(&'static str),
    /// A sysctl below /proc/sys/net/ipv4, and its value.
    Sysctl(&'static str, &'static str),
    /// Rules of nft.
    Nft(&'static str),
    /// An ICMP message of the first gateway to the router: type, code and second word.
    Icmp(u8, u8, [u8; 4]),
    /// Waits until bpfw forwards again: what comes next is the change that counts.
    UntilFast,
}

use Step::{Icmp, Ip, Nft, Sysctl, UntilFast};

/// The packets that show a change.
#[derive(Clone, Copy)]
struct Probe {
    tos: u8,
    payload: usize,
}

const PLAIN: Probe = Probe { tos: 0, payload: 64 };
const TOS: Probe = Probe { tos: 0x10, payload: 64 };
const LARGE: Probe = Probe { tos: 0, payload: 1350 };

/// What bpfw does while the change lasts.
enum Then {
    /// It forwards.
    Fast,
    /// The stack gets the packets of this destination.
    Stack,
    /// It offloads nothing, and the log says why.
    Nothing(&'static str),
}

use Then::{Fast, Nothing, Stack};

struct Row {
    name: &'static str,
    make: &'static [Step],
    undo: &'static [Step],
    probe: Probe,
    then: Then,
}

const BY_TOS: &str = "by type of service";
const BY_MORE: &str = "by more than addresses";
const UNDO_ROUTE: &[Step] = &[Ip("route replace S via A")];
const UNDO_GROUP: &[Step] =
    &[Ip("route replace S via A\nnexthop del id 3\nnexthop del id 2\nnexthop del id 1")];
const REDIRECT: Step = Icmp(5, 1, OTHER.octets());

const ROWS: &[Row] = &[
    Row {
        name: "a route by TOS",
        make: &[Ip("route add S tos 0x10 via B")],
        undo: &[Ip("route del S tos 0x10 via B")],
        probe: TOS,
        then: Nothing(BY_TOS),
    },
    Row {
        name: "a default route by TOS in a table of a rule",
        make: &[Ip(
            "rule add from 192.0.2.0/24 lookup 77\nroute add default tos 0x10 via B table 77",
        )],
        undo: &[Ip("route flush table 77\nrule del from 192.0.2.0/24 lookup 77")],
        probe: TOS,
        then: Nothing(BY_TOS),
    },
    Row {
        name: "a rule by TOS",
        make: &[Ip("route add default via B table 77\nrule add tos 0x10 lookup 77")],
        undo: &[Ip("rule del tos 0x10 lookup 77\nroute flush table 77")],
        probe: TOS,
        then: Nothing(BY_TOS),
    },
    Row {
        name: "a rule by a tunnel's id",
        make: &[Ip("route add default via B table 77\nrule add tun_id 7 lookup 77")],
        undo: &[Ip("rule del tun_id 7 lookup 77\nroute flush table 77")],
        probe: PLAIN,
        then: Nothing("look-ups do not know"),
    },
    Row {
        name: "rules by ports, protocol and user",
        make: &[Ip("route add default via B table 77\n\
                    rule add ipproto udp dport 7 sport 40000-40999 uidrange 0-0 lookup 77")],
        undo: &[Ip("rule del ipproto udp dport 7 sport 40000-40999 uidrange 0-0 lookup 77\n\
                    route flush table 77")],
        probe: PLAIN,
        then: Fast,
    },
    Row {
        name: "a path MTU, and forwarding by it",
        make: &[Sysctl("ip_forward_use_pmtu", "1"), Icmp(3, 4, [0, 0, 5, 20])],
        undo: &[Sysctl("ip_forward_use_pmtu", "0"), Ip("route flush cache")],
        probe: LARGE,
        then: Nothing("ip_forward_use_pmtu"),
    },
    Row {
        name: "a path MTU, and forwarding without it",
        make: &[Icmp(3, 4, [0, 0, 5, 20])],
        undo: &[Ip("route flush cache")],
        probe: LARGE,
        then: Fast,
    },
    Row {
        name: "an accepted redirect",
        make: &[Sysctl("conf/all/accept_redirects", "1"), REDIRECT],
        undo: &[Sysctl("conf/all/accept_redirects", "0"), Ip("route flush cache")],
        probe: PLAIN,
        then: Nothing("ICMP redirects"),
    },
    Row {
        name: "a redirect that a router does not accept by default",
        make: &[REDIRECT],
        undo: &[Ip("route flush cache")],
        probe: PLAIN,
        then: Fast,
    },
    Row {
        name: "a route with a realm, and rules by it",
        make: &[
            Nft("table ip realms { chain c {\ntype filter hook forward priority 0;\n\
                 rt classid 7 drop\n}\n}"),
            UntilFast,
            Ip("route replace S via A realm 7"),
        ],
        undo: &[Ip("route replace S via A"), Nft("delete table ip realms")],
        probe: PLAIN,
        then: Nothing("realms"),
    },
    Row {
        name: "a rule that sets a realm, and rules by it",
        make: &[
            Nft("table ip realms { chain c {\ntype filter hook forward priority 0;\n\
                 rt classid 7 drop\n}\n}"),
            UntilFast,
            Ip("rule add from 192.0.2.0/24 realms 7 lookup main"),
        ],
        undo: &[
            Ip("rule del from 192.0.2.0/24 realms 7 lookup main"),
            Nft("delete table ip realms"),
        ],
        probe: PLAIN,
        then: Nothing("realms"),
    },
    Row {
        name: "metrics that forwarding does not heed",
        make: &[Ip(
            "route replace S via A hoplimit 3 advmss 500 window 900 features ecn quickack 1",
        )],
        undo: UNDO_ROUTE,
        probe: LARGE,
        then: Fast,
    },
    Row {
        name: "a prohibited destination",
        make: &[Ip("route replace prohibit S")],
        undo: UNDO_ROUTE,
        probe: PLAIN,
        then: Stack,
    },
    Row {
        name: "a rule that goes on to other tables",
        make: &[Ip("route replace default via B\nroute add throw S table 77\nroute del S\n\
                    rule add from all lookup 77")],
        undo: &[Ip("rule del from all lookup 77\nroute flush table 77\nroute replace S via A\n\
                    route del default")],
        probe: PLAIN,
        then: Fast,
    },
    Row {
        name: "a local destination by the table local",
        make: &[Ip("route add local S dev lo table local")],
        undo: &[Ip("route del local S dev lo table local")],
        probe: PLAIN,
        then: Stack,
    },
    Row {
        name: "a lightweight tunnel",
        make: &[Ip("route replace S encap ip id 7 dst 198.51.100.9 via B dev wan0")],
        undo: UNDO_ROUTE,
        probe: PLAIN,
        then: Stack,
    },
    Row {
        name: "several next hops, of which one dies",
        make: &[
            Sysctl("fib_multipath_use_neigh", "1"),
            Ip("route replace S nexthop via A nexthop via B\nneigh change A dev wan0 nud failed"),
        ],
        undo: &[Ip("NEIGHBORS\nroute replace S via A"), Sysctl("fib_multipath_use_neigh", "0")],
        probe: PLAIN,
        then: Fast,
    },
    Row {
        name: "several next hops, of which the other one dies",
        make: &[
            Sysctl("fib_multipath_use_neigh", "1"),
            Ip("route replace S nexthop via A nexthop via B\nneigh change B dev wan0 nud failed"),
        ],
        undo: &[Ip("NEIGHBORS\nroute replace S via A"), Sysctl("fib_multipath_use_neigh", "0")],
        probe: PLAIN,
        then: Fast,
    },
    Row {
        name: "several next hops, of which a dead one's entry goes",
        make: &[
            Sysctl("fib_multipath_use_neigh", "1"),
            Ip("route replace S nexthop via A nexthop via B\nneigh change A dev wan0 nud failed"),
            UntilFast,
            Ip("neigh del A dev wan0"),
        ],
        undo: &[Ip("NEIGHBORS\nroute replace S via A"), Sysctl("fib_multipath_use_neigh", "0")],
        probe: PLAIN,
        then: Fast,
    },
    Row {
        name: "several next hops, of which only living ones count from now on",
        make: &[
            Ip("route replace S nexthop via A nexthop via B\nneigh change A dev wan0 nud failed\n\
                route replace S via B"),
            UntilFast,
            Ip("route replace S nexthop via A nexthop via B"),
            Sysctl("fib_multipath_use_neigh", "1"),
        ],
        undo: &[Ip("NEIGHBORS\nroute replace S via A"), Sysctl("fib_multipath_use_neigh", "0")],
        probe: PLAIN,
        then: Fast,
    },
    Row {
        name: "a group of next hops",
        make: &[Ip("nexthop add id 1 via A dev wan0\nnexthop add id 2 via B dev wan0\n\
                    nexthop add id 3 group 1/2\nroute replace S nhid 3")],
        undo: UNDO_GROUP,
        probe: PLAIN,
        then: Fast,
    },
    Row {
        name: "a group of next hops that are chosen by ports",
        make: &[
            Sysctl("fib_multipath_hash_policy", "1"),
            Ip("nexthop add id 1 via A dev wan0\nnexthop add id 2 via B dev wan0\n\
                nexthop add id 3 group 1/2\nroute replace S nhid 3"),
        ],
        undo: &[UNDO_GROUP[0], Sysctl("fib_multipath_hash_policy", "0")],
        probe: PLAIN,
        then: Nothing(BY_MORE),
    },
    Row {
        name: "a group that routes only name, chosen by ports",
        make: &[
            Sysctl("nexthop_compat_mode", "0"),
            Sysctl("fib_multipath_hash_policy", "1"),
            Ip("nexthop add id 1 via A dev wan0\nnexthop add id 2 via B dev wan0\n\
                nexthop add id 3 group 1/2\nroute replace S nhid 3"),
        ],
        undo: &[
            UNDO_GROUP[0],
            Sysctl("fib_multipath_hash_policy", "0"),
            Sysctl("nexthop_compat_mode", "1"),
        ],
        probe: PLAIN,
        then: Nothing(BY_MORE),
    },
    Row {
        name: "a resilient group",
        make: &[Ip("nexthop add id 1 via A dev wan0\nnexthop add id 2 via B dev wan0\n\
                    nexthop add id 3 group 1/2 type resilient buckets 4\nroute replace S nhid 3")],
        undo: UNDO_GROUP,
        probe: PLAIN,
        then: Nothing(BY_MORE),
    },
];

/// Changes that show only where several next hops can be chosen. Some of these seeds lead to the
/// one, and some to the other.
const SEEDS: [&str; 4] = ["1", "2", "3", "4"];

/// What became of a probe's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fate {
    /// By which gateway the plain packet before them left.
    before: Option<usize>,
    /// How many left by each gateway.
    by: [usize; 2],
    /// The bytes behind the Ethernet header of one of them, without the number and the sums.
    frame: Option<Vec<u8>>,
    /// ICMP errors that reached the client: type, code and second word; each once.
    errors: Vec<Vec<u8>>,
}

/// One of the two labs.
struct Half {
    lab: Lab,
    lan: Capture,
    wan: Capture,
}

impl Half {
    fn new(hook: &str, test: &str) -> Self {
        let lab = lab(hook, test, &no_nat_rules());
        lab.static_neighbours();
        for host in [&lab.client, &lab.server] {
            host.run_with_input(&["nft", "-f", "-"], SILENCE);
        }
        lab.router.ip(&format!("{}\nroute add {SERVICE} via {SERVER}\n", neighbors()));
        lab.router.sysctl("net/ipv4/icmp_ratemask", "0");
        let (lan, wan) = (Capture::open(&lab.client, "eth0"), Capture::open(&lab.server, "eth0"));
        Self { lab, lan, wan }
    }

    fn apply(&self, step: Step) {
        match step {
            Ip(commands) => self.lab.router.ip(&format!("{}\n", named(commands))),
            Sysctl(path, value) => self.lab.router.sysctl(&format!("net/ipv4/{path}"), value),
            Nft(rules) => self.lab.nft(rules),
            Icmp(kind, code, word) => self.wan.send_frame(&icmp(kind, code, word)),
            UntilFast => {}
        }
    }

    /// A packet each way.
    fn converse(&self) {
        self.lan.send_frame(&there(PLAIN, 0));
        self.wan.send_frame(&back());
    }

    /// Whether a packet each way arrives, and the stack has seen neither.
    fn is_fast(&self) -> bool {
        self.drain();
        let before = self.lab.stack_packets();
        self.converse();
        let wait = Duration::from_millis(300);
        let arrived = [&self.wan, &self.lan].map(|end| end.next(wait, is_ours).is_some());
        arrived == [true, true] && self.lab.stack_packets() == before
    }

    fn drain(&self) {
        for end in [&self.lan, &self.wan] {
            while end.next(Duration::ZERO, |_| true).is_some() {}
        }
    }

    /// Sends a probe's packets, and tells what became of them. A plain packet goes before them, so
    /// that what bpfw remembers of the way is for such packets.
    fn fate(&self, probe: Probe) -> Fate {
        self.drain();
        self.lan.send_frame(&there(PLAIN, PACKETS));
        let before = self.wan.next(QUIET, is_ours).map(|frame| gateway(&frame));
        self.drain();
        for number in 0..PACKETS {
            self.lan.send_frame(&there(probe, number));
        }
        let mut fate = Fate { before, ..Fate::default() };
        while let Some(frame) = self.wan.next(QUIET, is_ours) {
            fate.by[gateway(&frame)] += 1;
            fate.frame = Some(header(&frame));
        }
        let is_error = |frame: &Frame| frame.view().is_some_and(|view| view.protocol == 1);
        while let Some(frame) =
            self.lan.next(Duration::ZERO, |frame| !frame.outgoing && is_error(frame))
        {
            let error = [&frame.bytes[34..36], &frame.bytes[38..42]].concat();
            if !fate.errors.contains(&error) {
                fate.errors.push(error);
            }
        }
        fate
    }
}

/// A packet of the client, as it leaves.
fn there(probe: Probe, number: u8) -> Vec<u8> {
    Packet::udp(at(CLIENT, 40000), at(SERVICE, 7))
        .mac(CLIENT_MAC, ROUTER_LAN_MAC)
        .tos(probe.tos)
        .id(u16::from(number))
        .df(true)
        .payload(&vec![0x5a; probe.payload])
        .build()
}

/// A packet of the service.
fn back() -> Vec<u8> {
    Packet::udp(at(SERVICE, 7), at(CLIENT, 40000))
        .mac(SERVER_MAC, ROUTER_WAN_MAC)
        .payload(&[0xa5; 64])
        .build()
}

fn is_ours(frame: &Frame) -> bool {
    !frame.outgoing && frame.view().is_some_and(|view| view.protocol == 17)
}

/// The place of the gateway that the frame goes to.
fn gateway(frame: &Frame) -> usize {
    let to = frame.view().expect("looked at").ethernet.dst;
    [SERVER_MAC, OTHER_MAC].iter().position(|mac| *mac == to).expect("one of the gateways")
}

/// The IPv4 header without identification and checksum.
fn header(frame: &Frame) -> Vec<u8> {
    let mut header = frame.bytes[14..34].to_vec();
    header[4..6].fill(0);
    header[10..12].fill(0);
    header
}

/// An ICMP message about a packet of the router to the service. Of echo replies the kernel does not
/// ask whether it has sent any (icmp_err in net/ipv4/icmp.c).
fn icmp(kind: u8, code: u8, word: [u8; 4]) -> Vec<u8> {
    let ip = |from: Ipv4Addr, to: Ipv4Addr, length: u8| {
        let mut header = vec![0x45, 0, 0, length, 0, 0, 0, 0, 64, 1, 0, 0];
        header.extend([from.octets(), to.octets()].concat());
        let sum = checksum::internet(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    };
    let mut message =
        [&[kind, code, 0, 0][..], &word, &ip(ROUTER_WAN, SERVICE, 28), &[0; 8]].concat();
    let sum = checksum::internet(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let ethernet = [&ROUTER_WAN_MAC[..], &SERVER_MAC, &[8, 0]].concat();
    [ethernet, ip(SERVER, ROUTER_WAN, 56), message].concat()
}

/// Hosts take nothing in, and so answer nothing.
const SILENCE: &str = "table ip silence {
    chain prerouting { type filter hook prerouting priority -400; policy drop; }
}
";

fn neighbors() -> String {
    let of = |address, mac| {
        format!("neigh replace {address} lladdr {} dev wan0 nud permanent", show(mac))
    };
    format!("{}\n{}", of(SERVER, SERVER_MAC), of(OTHER, OTHER_MAC))
}

/// Commands with the addresses in place of the words that stand for them.
fn named(commands: &str) -> String {
    let word = |word: &str| match word {
        "A" => SERVER.to_string(),
        "B" => OTHER.to_string(),
        "S" => SERVICE.to_string(),
        "NEIGHBORS" => neighbors(),
        other => other.to_string(),
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    commands.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Both labs, and bpfw in the second.
struct Pair {
    stack: Half,
    bpfw: Half,
    daemon: Daemon,
}

impl Pair {
    fn new(hook: &str, test: &str, options: &[&str]) -> Self {
        let (stack, bpfw) = (Half::new(hook, &format!("{test}-k")), Half::new(hook, test));
        let daemon = start(&bpfw.lab, hook, options);
        let pair = Self { stack, bpfw, daemon };
        pair.wait_until_fast("at the start");
        pair
    }

    fn both(&self) -> [&Half; 2] {
        [&self.stack, &self.bpfw]
    }

    fn apply(&self, steps: &[Step]) {
        for step in steps {
            match step {
                UntilFast => self.wait_until_fast("within a change"),
                _ => self.both().into_iter().for_each(|half| half.apply(*step)),
            }
        }
    }

    fn wait_until_fast(&self, when: &str) {
        eventually(LIMIT, &format!("the connection is fast {when}"), || {
            self.stack.converse();
            std::thread::sleep(Duration::from_millis(20));
            // Before, packets of UDP pass up now and then.
            self.bpfw.is_fast() && self.bpfw.lab.conntrack_list().contains("[ASSURED]")
        });
    }

    /// Packets have the same fate in both labs, at the latest after `limit`, and keep it.
    fn agree(&self, name: &str, probe: Probe, limit: Duration) -> Fate {
        // The first packets may wait for a neighbor.
        self.stack.fate(probe);
        let wanted = self.stack.fate(probe);
        assert!(
            wanted.by.iter().sum::<usize>() == usize::from(PACKETS) || wanted.frame.is_none(),
            "{wanted:?}"
        );
        let mut seen = Fate::default();
        becomes_true(limit, || {
            (0..2).all(|_| {
                seen = self.bpfw.fate(probe);
                seen == wanted
            })
        });
        assert_eq!(seen, wanted, "{name}: with bpfw, and without");
        wanted
    }

    fn try_row(&self, row: &Row) {
        let mark = self.daemon.mark();
        self.apply(row.make);
        let fate = self.agree(row.name, row.probe, LIMIT);
        println!("{}: by {:?}, errors {:?}", row.name, fate.by, fate.errors);
        match row.then {
            Fast => {
                eventually(LIMIT, &format!("{}: it stays fast", row.name), || self.bpfw.is_fast())
            }
            Stack => assert!(!self.bpfw.is_fast(), "{}", row.name),
            Nothing(reason) => {
                let line = self.daemon.wait_for_line_after(mark, "nothing is offloaded", LIMIT);
                assert!(line.contains(reason), "{}: {line}", row.name);
                assert!(!self.bpfw.is_fast(), "{}", row.name);
            }
        }
        self.apply(row.undo);
        self.wait_until_fast(&format!("after {}", row.name));
    }
}

fn hazard_58_inputs_of_the_route_are_followed_or_refused(hook: &str, test: &str) {
    let pair = Pair::new(hook, test, &[]);
    for row in ROWS {
        pair.try_row(row);
    }
    // Which next hop a seed chooses is the same in both labs.
    let seed = "net/ipv4/fib_multipath_hash_seed";
    if !pair.bpfw.lab.router.enter(|| Path::new("/proc/sys").join(seed).exists()) {
        return;
    }
    pair.apply(&[Ip("route replace S nexthop via A nexthop via B"), UntilFast]);
    let fates = SEEDS.map(|value| {
        pair.both().into_iter().for_each(|half| half.lab.router.sysctl(seed, value));
        let by = pair.agree("a seed of the choice among next hops", PLAIN, LIMIT).by;
        pair.wait_until_fast("by a seed");
        by
    });
    assert!(fates.iter().any(|by| *by != fates[0]), "all the same: {fates:?}");
}

/// A path MTU below `route/min_pmtu` counts for forwarded packets by default, and no event tells.
fn hazard_58_a_locked_path_mtu_counts_with_the_next_period(hook: &str, test: &str) {
    let pair = Pair::new(hook, test, &["--prove-every", "1"]);
    pair.apply(&[Icmp(3, 4, [0, 0, 1, 144])]);
    let fate = pair.agree("a locked path MTU", LARGE, Duration::from_secs(3));
    assert_eq!((fate.by, fate.errors), ([0, 0], vec![vec![3, 4, 0, 0, 2, 40]]));
}
