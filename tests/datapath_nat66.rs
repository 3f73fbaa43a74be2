// SPDX-License-Identifier: GPL-2.0-only
//! What only translated IPv6 has: an entry whose translation stands in a map of its own.

mod support;

use bpfw::abi::{self, Pod, bpfw_translation, bpfw_tuple};
use bpfw::datapath::cells::{hash, loaded_settings};
use bpfw::datapath::conn_map::{Added, Connection};
use bpfw::datapath::map_names::TRANSLATION_MAP;
use bpfw::datapath::typed_map::TypedMap;
use bpfw::flow::tuple::Protocol;
use support::datapath::{Datapath, Input, on_both_hooks};
use support::flow::{Flow, HOST2, LAN, PROTOCOLS, WAN, ipv6_of};
use support::packet::tcp;

const DIRECTIONS: [bool; 2] = [false, true];

fn translations(datapath: &Datapath<'_>) -> TypedMap<u64, bpfw_translation> {
    TypedMap::new(datapath.object.object(), TRANSLATION_MAP).expect("the map")
}

fn key(datapath: &Datapath<'_>, flow: &Flow, reply: bool) -> u64 {
    let settings = loaded_settings(datapath.object.object()).expect("settings");
    hash(&bpfw_tuple::from(flow.tuple(reply)), &settings)
}

/// A packet of the flow goes up, and nothing is written.
#[track_caller]
fn expect_reused(datapath: &Datapath<'_>, flow: &Flow) {
    let entry = datapath.entry(flow, false);
    let frame = flow.incoming(false).build();
    datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_REUSED);
    assert_eq!(datapath.entry(flow, false), entry, "not ours to write to");
}

/// As if the memory had become another connection's, in part or as a whole, before or after the program
/// has found it. Or as if the translation had just gone.
#[test]
fn hazard_28_a_translation_of_another_is_never_used() {
    on_both_hooks("nat66-reused", |datapath| {
        let map = translations(datapath);
        for protocol in PROTOCOLS {
            let (flow, other) = (Flow::nat66(protocol), other(protocol));
            datapath.add(&flow);
            datapath.add(&other);
            datapath.expect_flow(&flow, false);
            let key_of_flow = key(datapath, &flow, false);
            let right = map.get(&key_of_flow).expect("reading").expect("a translation");
            for bit in 0..8 * right.bytes().len() {
                let mut bytes = right.bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let wrong = bpfw_translation::from_bytes(&bytes).expect("as many bytes");
                map.set(&key_of_flow, &wrong).expect("writing");
                expect_reused(datapath, &flow);
            }
            let of_other = map.get(&key(datapath, &other, false)).expect("reading");
            for wrong in [of_other.expect("a translation"), bpfw_translation::default()] {
                map.set(&key_of_flow, &wrong).expect("writing");
                expect_reused(datapath, &flow);
            }
            assert!(map.remove(&key_of_flow).expect("removing"));
            expect_reused(datapath, &flow);
            map.set(&key_of_flow, &right).expect("writing");
            let entry = datapath.entry(&flow, false);
            let mut wrong = [entry; 2];
            wrong[0].cell.seal ^= 1;
            wrong[1].cell.head.idle ^= 1;
            for wrong in wrong {
                datapath.overwrite(&wrong);
                expect_reused(datapath, &flow);
            }
            datapath.overwrite(&entry);
            datapath.expect_flow(&flow, false);
            datapath.remove(&flow);
            datapath.remove(&other);
        }
    });
}

/// Another translated connection.
fn other(protocol: Protocol) -> Flow {
    let ends = ((LAN.at(40002), WAN.at(443)), (WAN.router_at(61002), WAN.at(443)));
    Flow { ipv6: true, id: 4712, ..Flow::new(protocol, ends.0, ends.1) }
}

/// With the tuple of `Flow::ipv6`.
fn translated(protocol: Protocol) -> Flow {
    Flow { ipv6: true, ..Flow::snat(protocol) }
}

/// One tuple, with and without translation by turns: whatever the former owner has left.
#[test]
fn a_tuple_may_be_translated_or_not() {
    on_both_hooks("nat66-turns", |datapath| {
        for protocol in PROTOCOLS {
            for flow in [Flow::ipv6, translated, Flow::ipv6, translated].map(|of| of(protocol)) {
                datapath.add(&flow);
                for reply in DIRECTIONS {
                    for _ in 0..2 {
                        datapath.expect_flow(&flow, reply);
                    }
                }
                datapath.remove(&flow);
            }
        }
    });
}

/// A translation that is left over concerns no entry without one.
#[test]
fn an_untranslated_entry_has_no_translation() {
    on_both_hooks("nat66-left-over", |datapath| {
        let map = translations(datapath);
        for protocol in PROTOCOLS {
            let (plain, translated) = (Flow::ipv6(protocol), translated(protocol));
            datapath.add(&translated);
            let at = key(datapath, &translated, false);
            let translation = map.get(&at).expect("reading").expect("a translation");
            datapath.remove(&translated);
            datapath.add(&plain);
            map.set(&at, &translation).expect("writing");
            for reply in DIRECTIONS {
                datapath.expect_flow(&plain, reply);
            }
            datapath.remove(&plain);
            assert!(map.remove(&at).expect("removing"));
        }
    });
}

#[test]
fn translations_come_and_go_with_their_entries() {
    on_both_hooks("nat66-number", |datapath| {
        let map = translations(datapath);
        let number = || map.entries().expect("readable").len();
        let flows =
            || PROTOCOLS.into_iter().flat_map(|protocol| [Flow::nat66(protocol), other(protocol)]);
        for _ in 0..3 {
            flows().for_each(|flow| datapath.add_unproven(&flow));
            datapath.add_unproven(&Flow { id: 1, ..third() });
            assert_eq!(number(), 8);
            let again = Flow::nat66(Protocol::Tcp).connection();
            let added = datapath.connections.borrow_mut().add(&again).expect("adding");
            assert_eq!(added, Added::Exists);
            assert_eq!(number(), 8);
            let tuples: Vec<_> = flows()
                .flat_map(|flow| DIRECTIONS.map(|reply| bpfw_tuple::from(flow.tuple(reply))))
                .collect();
            datapath.connections.borrow_mut().remove_all(&tuples).expect("removing");
            datapath.remove(&third());
            assert_eq!(number(), 0);
        }
    });
}

/// One without translation.
fn third() -> Flow {
    let ends = (LAN.at(40003), WAN.at(443));
    Flow { ipv6: true, ..Flow::new(Protocol::Udp, ends, ends) }
}

/// There is room for half of the connections; what is refused leaves nothing.
#[test]
fn who_finds_no_room_leaves_nothing() {
    on_both_hooks("nat66-full", |datapath| {
        let map = translations(datapath);
        let room = map.room() as u16;
        let connection = |port: u16| -> Connection {
            let ends = ((LAN.at(port), WAN.at(443)), (WAN.router_at(port), WAN.at(443)));
            Flow { ipv6: true, ..Flow::new(Protocol::Udp, ends.0, ends.1) }.connection()
        };
        let mut connections = datapath.connections.borrow_mut();
        for port in 0..room / 2 {
            assert_eq!(connections.add(&connection(port)).expect("adding"), Added::Added);
        }
        let before = connections.len();
        assert_eq!(connections.add(&connection(room)).expect("adding"), Added::Full);
        assert_eq!(
            (connections.len(), map.entries().expect("readable").len()),
            (before, room.into())
        );
        assert!(connections.get(&connection(room).original.into()).expect("reading").is_none());
        let first = connection(0);
        assert!(connections.remove(&first.original.into(), &first.reply.into()).expect("removing"));
        assert_eq!(connections.add(&connection(room)).expect("adding"), Added::Added);
    });
}

/// Both directions know each other, wherever they are.
#[test]
fn an_end_ends_both_directions() {
    on_both_hooks("nat66-end", |datapath| {
        let flow = Flow::nat66(Protocol::Tcp);
        for by in DIRECTIONS {
            datapath.add(&flow);
            let frame = flow.incoming(by).flags(tcp::FIN | tcp::ACK).build();
            datapath.expect_passed(Input::new(flow.ingress(by), &frame), abi::BPFW_PASS_TCP_FLAGS);
            for reply in DIRECTIONS {
                assert_eq!(datapath.entry(&flow, reply).rest.finished, 1);
                let other = datapath.connections.borrow().reverse(&datapath.entry(&flow, reply));
                assert_eq!(other.expect("reading"), flow.tuple(!reply).into());
            }
            datapath.remove(&flow);
        }
    });
}

/// Whether the stack sends a redirect of neighbor discovery depends on the kernel, so it decides.
#[test]
fn hazard_52_hairpin_over_ipv6_stays() {
    on_both_hooks("nat66-hairpin", |datapath| {
        datapath.namespace.ip(&format!(
            "neigh add {} lladdr 02:00:00:00:07:07 dev lan0 nud permanent\n",
            ipv6_of(HOST2.host)
        ));
        let (before, after) =
            ((LAN.at(40000), WAN.router_at(8080)), (LAN.router_at(50000), HOST2.at(80)));
        let flow = Flow { ipv6: true, far: HOST2, ..Flow::new(Protocol::Udp, before, after) };
        datapath.add_unproven(&flow);
        for reply in DIRECTIONS {
            let frame = flow.incoming(reply).build();
            datapath.expect_passed(Input::new(LAN, &frame), abi::BPFW_PASS_SAME_LINK);
        }
    });
}
