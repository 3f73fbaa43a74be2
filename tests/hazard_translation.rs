// SPDX-License-Identifier: GPL-2.0-only
//! Entries that another program adds to conntrack: the kernel translates by their status bits, not
//! by their tuples, and so does bpfw.

mod support;

use bpfw::flow::tuple::{Protocol, Tuple};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use support::capture::Capture;
use support::lab::{
    CLIENT, CLIENT_MAC, Lab, ROUTER_LAN_MAC, ROUTER_WAN, ROUTER_WAN_MAC, SERVER, SERVER_MAC, show,
};
use support::maps::Maps;
use support::netns::text;
use support::packet::Packet;
use support::router::*;
use support::wait::eventually;

on_both_hooks!(hazard_59_entries_are_translated_by_their_status);

/// The kernel tracks and translates only while some rule needs that. This one concerns no packet.
const NAT_FOR_NONE: &str = "table ip rules {
    chain postrouting {
        type nat hook postrouting priority 100; policy accept;
        oifname lo masquerade
    }
}\n";

/// Where the client's packets are addressed to. It is another address of the server.
const DIALED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

/// The payload of the packet that ends a round. No connection is offloaded for it.
const END: u64 = u64::MAX;
/// How often each packet is sent while none may take another way than the kernel's.
const ROUNDS: usize = 20;

/// The side of a connection that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum From {
    Client,
    Server,
}

/// An entry as `conntrack -I` makes it.
struct Case {
    original: Tuple,
    /// The reply tuple that conntrack's tool is given.
    given: Tuple,
    /// The options `--src-nat` and `--dst-nat`.
    nat: [Option<SocketAddrV4>; 2],
}

impl Case {
    /// Every combination. Each end of the reply tuple is as it should be, or differs by address, by
    /// port, or by both. The kernel is asked for each kind of NAT, or not.
    fn all() -> Vec<Self> {
        let numbers = 0..4 * 4 * 4;
        numbers
            .map(|number: u16| {
                let [source, destination, bits] = [number % 4, number / 4 % 4, number / 16];
                let port = 20000 + 10 * number;
                let differ = |kind: u16, end: SocketAddrV4, other: Ipv4Addr| {
                    let address = if kind & 1 == 0 { *end.ip() } else { other };
                    at(address, end.port() + kind / 2)
                };
                let (from, to) = (at(CLIENT, port), at(DIALED, 7));
                let original = Tuple::new(Protocol::Udp, from, to);
                let given = Tuple::new(
                    Protocol::Udp,
                    differ(destination, to, SERVER),
                    differ(source, from, ROUTER_WAN),
                );
                let src_nat = (bits & 1 != 0).then_some(at(ROUTER_WAN, port + 5));
                let dst_nat = (bits & 2 != 0).then_some(at(SERVER, 9));
                Self { original, given, nat: [src_nat, dst_nat] }
            })
            .collect()
    }

    /// The entry's reply tuple: NAT that the kernel sets up changes what it was given.
    fn reply(&self) -> Tuple {
        let [src_nat, dst_nat] = self.nat;
        let Tuple { protocol, source, destination } = self.given;
        let translated = |nat: Option<_>, given| nat.map_or(given, SocketAddr::V4);
        Tuple::new(protocol, translated(dst_nat, source), translated(src_nat, destination))
    }

    /// Whether each end that differs is one that the kernel was asked to translate.
    fn is_consistent(&self) -> bool {
        let [src_nat, dst_nat] = self.nat;
        (src_nat.is_some() || self.given.destination == self.original.source)
            && (dst_nat.is_some() || self.given.source == self.original.destination)
    }

    fn insert(&self, lab: &Lab) {
        let (original, given) = (self.original, self.given);
        let mut words = format!(
            "-I -p udp -t 120 -u SEEN_REPLY,ASSURED -s {} --sport {} -d {} --dport {} \
             -r {} --reply-port-src {} -q {} --reply-port-dst {}",
            original.source.ip(),
            original.source.port(),
            original.destination.ip(),
            original.destination.port(),
            given.source.ip(),
            given.source.port(),
            given.destination.ip(),
            given.destination.port()
        );
        for (option, to) in ["--src-nat", "--dst-nat"].into_iter().zip(self.nat) {
            words += &to.map(|to| format!(" {option} {to}")).unwrap_or_default();
        }
        let output = lab.conntrack(&words.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{words}: {}", text(&output.stderr));
    }
}

/// How packets come out of the router, by case and sender.
type Seen = BTreeMap<(u64, From), BTreeSet<(SocketAddrV4, SocketAddrV4)>>;

/// Sends a packet of each case from each side, and adds to `seen` how they arrive.
fn exchange(lab: &Lab, cases: &[Case], seen: &mut Seen) {
    let wires = [Capture::open(&lab.client, "eth0"), Capture::open(&lab.server, "eth0")];
    let send = |wire: &Capture, macs: ([u8; 6], [u8; 6]), tuple: Tuple, number: u64| {
        let packet = Packet::of(tuple).mac(macs.0, macs.1);
        wire.send_frame(&packet.payload(&number.to_be_bytes()).build());
    };
    for from in [From::Client, From::Server] {
        let (sender, receiver) = match from {
            From::Client => (&wires[0], &wires[1]),
            From::Server => (&wires[1], &wires[0]),
        };
        let macs = match from {
            From::Client => (CLIENT_MAC, ROUTER_LAN_MAC),
            From::Server => (SERVER_MAC, ROUTER_WAN_MAC),
        };
        for (number, case) in cases.iter().enumerate() {
            let tuple = if from == From::Client { case.original } else { case.reply() };
            send(sender, macs, tuple, number as u64);
        }
        let there = Tuple::new(Protocol::Udp, at(CLIENT, 9), at(DIALED, 9));
        let last = if from == From::Client { there } else { there.invert() };
        send(sender, macs, last, END);
        loop {
            let view = receiver.expect(LIMIT, "the last packet", |view| view.protocol == 17);
            let number = view.payload.first_chunk().map_or(END, |bytes| u64::from_be_bytes(*bytes));
            if number == END {
                break;
            }
            seen.entry((number, from)).or_default().insert((view.src, view.dst));
        }
    }
}

fn hazard_59_entries_are_translated_by_their_status(hook: &str, test: &str) {
    let lab = lab(hook, test, NAT_FOR_NONE);
    lab.static_neighbours();
    lab.router.ip(&format!(
        "neigh replace {DIALED} lladdr {} dev wan0 nud permanent\n",
        show(SERVER_MAC)
    ));
    let cases = Case::all();
    let insert = || cases.iter().for_each(|case| case.insert(&lab));
    insert();
    let mut kernel = Seen::new();
    exchange(&lab, &cases, &mut kernel);
    lab.conntrack(&["-F"]);

    let daemon = start(&lab, hook, &[]);
    insert();
    let maps = Maps::of(daemon.pid());
    let (consistent, others): (Vec<&Case>, Vec<&Case>) =
        cases.iter().partition(|case| case.is_consistent());
    assert!(consistent.len() == 25 && others.len() == 39, "{} cases", consistent.len());
    let mut fast = Seen::new();
    eventually(LIMIT, "what the kernel translates as its tuples say is offloaded", || {
        exchange(&lab, &cases, &mut fast);
        consistent.iter().all(|case| maps.has_connection(case.original))
    });
    for _ in 0..ROUNDS {
        exchange(&lab, &cases, &mut fast);
    }
    for (key, ways) in &fast {
        let case = &cases[key.0 as usize];
        let shown = (case.original, case.reply(), case.nat);
        assert_eq!(Some(ways), kernel.get(key), "{key:?}: {shown:?}");
    }
    assert_eq!(fast.len(), kernel.len(), "packets are lost that the kernel forwards");
    for case in others {
        assert!(!maps.has_connection(case.original), "{} is offloaded", case.original);
    }
}
