// SPDX-License-Identifier: GPL-2.0-only
//! What `bpfw flows` and `bpfw why` read of a datapath is what the daemon has put there, in cells and in
//! `conn_map`; and how long that takes. `BPFW_FLOWS=1000000` for more connections.

mod support;

use bpfw::abi::{Pod, bpfw_tuple};
use bpfw::datapath::Hook;
use bpfw::datapath::conn_map::{Added, ConnMap, Connection};
use bpfw::datapath::object::{BpfLogLevel, LoadedObject, Settings};
use bpfw::datapath::reader::Reader;
use bpfw::datapath::skeleton::Storage;
use bpfw::flow::tuple::Protocol;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Instant;
use support::flow::{Flow, WAN};
use support::live::root_or_skip;
use support::router::at;

fn number() -> u32 {
    let number = std::env::var("BPFW_FLOWS").ok().and_then(|value| value.parse().ok());
    number.unwrap_or(20_000)
}

fn connection(number: u32) -> Connection {
    let host = at(Ipv4Addr::from(0x0a00_0000 + number), 1024);
    let ends = (host, WAN.at(443));
    Flow { id: number + 1, ..Flow::new(Protocol::Udp, ends, ends) }.connection()
}

/// Nearly as many entries as cells: some find none free.
fn settings(connections: u32) -> Settings {
    Settings {
        hook: Hook::Tc,
        log_level: BpfLogLevel::Off,
        beat_limit: 250,
        route_mark: 0,
        max_connections: connections,
        interfaces: 2,
        cells: (connections * 2).next_power_of_two(),
        seed: 0x1234_5678_9abc_def1,
    }
}

#[test]
fn another_process_reads_what_the_daemon_has_added() {
    if !root_or_skip("another_process_reads_what_the_daemon_has_added") {
        return;
    }
    let number = number();
    let mut storage = Storage::uninit();
    let object = LoadedObject::load(None, &settings(number), &mut storage).expect("loaded");
    let mut table = ConnMap::new(object.object()).expect("the table");
    let connections: Vec<_> = (0..number).map(connection).collect();
    for some in connections.chunks(1024) {
        let added = table.add_all(some).expect("adding");
        assert!(added.iter().all(|added| *added == Added::Added));
    }
    assert!(table.in_cells() < table.len(), "some are in conn_map");
    let start = Instant::now();
    let reader = Reader::of(std::process::id()).expect("our own maps");
    let mut found = HashMap::<u32, u32>::new();
    let counted = reader.entries(|conn| {
        let other = reader.entry(&reader.reverse(&conn)?)?.expect("the other direction");
        assert_eq!(other.rest.id, conn.rest.id);
        *found.entry(conn.rest.id).or_default() += 1;
        Ok(true)
    });
    counted.expect("read");
    println!("{number} connections, read and paired in {:?}", start.elapsed());
    assert_eq!(found.len(), connections.len());
    assert!(found.values().all(|entries| *entries == 2));
    let first = &connections[0];
    let entry = reader.entry(&first.original.into()).expect("read").expect("the first one");
    assert_eq!(entry.tuple().bytes(), bpfw_tuple::from(first.original).bytes());
    assert!(reader.entry(&connection(number).original.into()).expect("read").is_none());
    let mut seen = 0;
    reader
        .entries(|_| {
            seen += 1;
            Ok(seen < 3)
        })
        .expect("read");
    assert_eq!(seen, 3, "whoever has seen enough is asked no more");
}
