// SPDX-License-Identifier: GPL-2.0-only
//! What `bpfw flows` and `bpfw why` read of a datapath is what the daemon has put there, in cells and in
//! `conn_map`; and how long that takes. `BPFW_FLOWS=1000000` for more connections.

mod support;

use bpfw::abi::{Pod, bpfw_cell, bpfw_conn, bpfw_tuple};
use bpfw::datapath::Hook;
use bpfw::datapath::conn_map::{Added, ConnMap, Connection};
use bpfw::datapath::map_names;
use bpfw::datapath::object::{BpfLogLevel, LoadedObject, Settings};
use bpfw::datapath::rates::Rates;
use bpfw::datapath::reader::Reader;
use bpfw::datapath::skeleton::Storage;
use bpfw::datapath::typed_map::TypedMap;
use bpfw::flow::tuple::{Protocol, Tuple};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use support::flow::{Flow, WAN};
use support::live::root_or_skip;
use support::router::at;

/// A process's maps are found by name, so there can be one object at a time.
static ALONE: Mutex<()> = Mutex::new(());

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

/// The table with so many connections, which are in cells and in `conn_map`.
fn filled(object: &LoadedObject<'_>, number: u32) -> (ConnMap, Vec<Connection>) {
    let mut table = ConnMap::new(object.object()).expect("the table");
    let connections: Vec<_> = (0..number).map(connection).collect();
    for some in connections.chunks(1024) {
        let added = table.add_all(some).expect("adding");
        assert!(added.iter().all(|added| *added == Added::Added));
    }
    assert!(table.in_cells() < table.len(), "some are in conn_map");
    (table, connections)
}

#[test]
fn another_process_reads_what_the_daemon_has_added() {
    if !root_or_skip("another_process_reads_what_the_daemon_has_added") {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let number = number();
    let mut storage = Storage::uninit();
    let object = LoadedObject::load(None, &settings(number), &mut storage).expect("loaded");
    let (_table, connections) = filled(&object, number);
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

/// What this thread has used.
fn cpu_time() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_THREAD).expect("figures");
    let time = [used.user_time(), used.system_time()]
        .map(|time| Duration::from_micros(u64::try_from(time.num_microseconds()).expect("a time")));
    time[0] + time[1]
}

/// Reads all of it in so many turns.
fn read_all(rates: &mut Rates, reader: &Reader) -> HashMap<Tuple, u64> {
    let parts = (0..rates.parts()).map(|_| rates.read(reader).expect("read"));
    let all = parts.flat_map(|(_, traffic)| traffic);
    all.map(|one| (one.conn.tuple().decode().expect("a tuple"), one.rate)).collect()
}

/// Adds what one packet of 1,000 bytes would.
fn forward_one(cells: &TypedMap<u32, bpfw_cell>, others: &TypedMap<u64, bpfw_conn>) -> Vec<Tuple> {
    let mut grown = Vec::new();
    for number in (0..cells.room()).step_by(1_000) {
        let cell = cells.get(&number).expect("read").expect("each cell has a value");
        if cell.head.protocol != 0 {
            let cell = bpfw_cell { volume: cell.volume + (1 << 32 | 1_000), ..cell };
            cells.set(&number, &cell).expect("written");
            grown.extend(cell.tuple().decode());
        }
    }
    for (key, mut conn) in others.entries().expect("read").into_iter().take(3) {
        conn.cell.volume += 1 << 32 | 1_000;
        others.set(&key, &conn).expect("written");
        grown.extend(conn.tuple().decode());
    }
    grown
}

#[test]
fn traffic_is_what_has_grown() {
    if !root_or_skip("traffic_is_what_has_grown") {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let number = number();
    let mut storage = Storage::uninit();
    let object = LoadedObject::load(None, &settings(number), &mut storage).expect("loaded");
    let _table = filled(&object, number);
    let reader = Reader::of(std::process::id()).expect("our own maps");
    let cells = TypedMap::new(object.object(), map_names::CONN_CELLS).expect("a map");
    let others = TypedMap::new(object.object(), map_names::CONN_MAP).expect("a map");
    for parts in [1, 8] {
        let mut rates = Rates::new(&reader, parts);
        assert!(read_all(&mut rates, &reader).is_empty(), "it is the first reading");
        let before = cpu_time();
        assert!(read_all(&mut rates, &reader).is_empty(), "nothing has come");
        let took = (cpu_time() - before) / parts as u32;
        println!(
            "{number} silent connections: a reading takes {took:?} of a CPU, 1/{parts} of all"
        );
        let grown = forward_one(&cells, &others);
        let found = read_all(&mut rates, &reader);
        assert!(grown.len() > 3 && found.len() == grown.len());
        assert!(grown.iter().all(|tuple| found.get(tuple).is_some_and(|rate| *rate > 0)));
    }
}
