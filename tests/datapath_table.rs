// SPDX-License-Identifier: GPL-2.0-only
//! The table of connections is a map like any other. What was added is there once, until it is
//! removed, whether in a cell or in `conn_map`.

mod support;

use bpfw::abi::bpfw_tuple;
use bpfw::datapath::Hook;
use bpfw::datapath::conn_map::{Added, ConnMap, Connection, Walk};
use bpfw::datapath::map_names::{CONN_CELLS, CONN_RESTS};
use bpfw::datapath::sys::{Batch, Then, next_batch};
use bpfw::flow::tuple::{Protocol, Tuple};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use libbpf_sys::bpf_map_create_opts;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use support::datapath::{CELLS, Datapath, on_hook};
use support::flow::{Flow, LAN, WAN};
use support::live::root_or_skip;
use support::random::Random;

/// Some four times as many entries as there are cells.
const FLOWS: usize = 128;
const STEPS: usize = 3_000;
/// What the tests' objects are loaded for.
const MOST: usize = 4096;

fn connection(number: usize) -> Connection {
    let port = number as u16;
    Flow {
        id: 1 + port as u32,
        ..Flow::new(Protocol::Udp, (LAN.at(port), WAN.at(53)), (WAN.at(port), WAN.at(53)))
    }
    .connection()
}

fn tuples(connection: &Connection) -> [bpfw_tuple; 2] {
    [connection.original.into(), connection.reply.into()]
}

/// The connections by id, with how many entries of each the walk has come to.
fn walk(table: &ConnMap) -> BTreeMap<u32, Vec<Tuple>> {
    let (mut walk, mut found) = (Walk::default(), BTreeMap::<u32, Vec<Tuple>>::new());
    let mut note = |conn: bpfw::abi::bpfw_conn| {
        found.entry(conn.rest.id).or_default().push(conn.tuple().decode().expect("a tuple"));
    };
    while !table.walk_batch(&mut walk, &mut note).expect("walking") {}
    found
}

#[track_caller]
fn expect(table: &ConnMap, model: &BTreeMap<u32, Connection>) {
    assert_eq!(table.len(), 2 * model.len());
    let found = walk(table);
    assert!(found.keys().eq(model.keys()), "{:?} instead of {:?}", found.keys(), model.keys());
    for (id, connection) in model {
        assert_eq!(found[id].len(), 2, "{:?}", found[id]);
        for tuple in [connection.original, connection.reply] {
            assert!(found[id].contains(&tuple), "{tuple} is missing");
            let entry = table.get(&tuple.into()).expect("reading").expect("an entry");
            assert_eq!((entry.rest.id, entry.tuple().decode()), (*id, Some(tuple)));
        }
    }
}

fn is_a_map(datapath: &mut Datapath<'_>) {
    let mut table = ConnMap::new(datapath.object.object()).expect("the table");
    let (mut model, mut random) = (BTreeMap::new(), Random::new(7));
    let (mut spilled, mut refused) = (0, 0);
    for step in 0..STEPS {
        let connection = connection(random.below(FLOWS));
        let known = model.contains_key(&connection.id);
        match random.below(5) {
            0..3 => {
                let added = table.add(&connection).expect("adding");
                assert_eq!(added, if known { Added::Exists } else { Added::Added });
                model.insert(connection.id, connection);
                refused += usize::from(known);
            }
            3 => {
                let [first, second] = tuples(&connection);
                assert_eq!(table.remove(&first, &second).expect("removing"), known);
                model.remove(&connection.id);
            }
            _ => {
                let both = tuples(&connection);
                let others = model.values().next().map(tuples).unwrap_or(both);
                table.remove_all(&[both, others].concat()).expect("removing");
                model.retain(|_, known| ![both, others].contains(&tuples(known)));
            }
        }
        spilled = spilled.max(table.len() - table.in_cells());
        if step % 100 == 0 {
            expect(&table, &model);
        }
    }
    expect(&table, &model);
    assert!(spilled > 20 && refused > 20, "{spilled} in conn_map, {refused} refused");
    assert!(table.in_cells() > CELLS as usize / 2, "{} in cells", table.in_cells());
    for each in model.values() {
        table.remove_all(&tuples(each)).expect("removing");
    }
    expect(&table, &BTreeMap::new());
}

#[test]
fn what_is_added_is_there_until_it_is_removed() {
    on_hook("table", Hook::Xdp, |datapath| {
        // Once is enough: it fills the cells itself.
        if datapath.connections.borrow().is_empty() {
            is_a_map(datapath);
        }
    });
}

#[test]
fn a_batch_never_exceeds_its_buffers() {
    if !root_or_skip("a_batch_never_exceeds_its_buffers") {
        return;
    }
    let create = |kind| {
        let options =
            bpf_map_create_opts { sz: size_of::<bpf_map_create_opts>() as _, ..Default::default() };
        let map = MapHandle::create(kind, Some("batch"), 4, 8, 16, &options).expect("a map");
        map.update(&1_u32.to_ne_bytes(), &[7; 8], MapFlags::ANY).expect("written");
        map
    };
    let read = |map: &MapHandle, keys: usize, values: usize| {
        let (keys, values) = (&mut vec![0; keys][..], &mut vec![0; values][..]);
        let batch = Batch { position: &mut None, keys, values, room: 16 };
        next_batch(map, batch, Then::Stay).map_err(|error| error.kind())
    };
    let hash = create(MapType::Hash);
    assert_eq!(read(&hash, 64, 128), Ok((1, true)));
    for (keys, values) in [(63, 128), (64, 127), (0, 0)] {
        assert_eq!(read(&hash, keys, values), Err(ErrorKind::InvalidInput), "{keys} {values}");
    }
    assert_eq!(read(&create(MapType::Array), 64, 128), Err(ErrorKind::InvalidInput));
}

/// A map that user space can no longer write to: each write fails.
fn freeze(datapath: &Datapath<'_>, name: &str) {
    let map = datapath.object.object().maps().find(|map| map.name() == name).expect("the map");
    MapHandle::try_from(&map).expect("a descriptor").freeze().expect("frozen");
}

/// As many connections as find room in cells, and some that do not.
fn crowd() -> Vec<Connection> {
    (0..FLOWS).map(connection).collect()
}

#[test]
fn hazard_28_a_failed_write_leaves_nothing_of_its_connections() {
    on_hook("table-failed", Hook::Xdp, |datapath| {
        if !datapath.connections.borrow().is_empty() {
            return;
        }
        let mut table = ConnMap::new(datapath.object.object()).expect("the table");
        freeze(datapath, CONN_RESTS);
        table.add_all(&crowd()).expect_err("cells need their rests");
        expect(&table, &BTreeMap::new());
        for each in crowd() {
            table.add(&each).expect_err("cells need their rests");
            expect(&table, &BTreeMap::new());
        }
        assert_eq!(table.in_cells(), 0);
    });
}

/// A cell that cannot be written may hold anything. It stays taken, so that nobody else gets it.
#[test]
fn hazard_28_a_cell_that_cannot_be_freed_stays_taken() {
    on_hook("table-taken", Hook::Xdp, |datapath| {
        if !datapath.connections.borrow().is_empty() {
            return;
        }
        let mut table = ConnMap::new(datapath.object.object()).expect("the table");
        let [one, two] = [connection(0), connection(1)];
        assert_eq!(table.add_all([&one, &two]).expect("adding"), [Added::Added; 2]);
        freeze(datapath, CONN_CELLS);
        table.remove_all(&[tuples(&one), tuples(&two)].concat()).expect_err("frozen");
        expect(&table, &[one, two].into_iter().map(|each| (each.id, each)).collect());
    });
}

#[test]
fn there_is_an_end_to_it() {
    on_hook("table-end", Hook::Tc, |datapath| {
        let mut table = datapath.connections.borrow_mut();
        let before = table.len() / 2;
        for number in 0..MOST - before {
            assert_eq!(table.add(&connection(number)).expect("adding"), Added::Added);
        }
        assert_eq!(table.add(&connection(MOST)).expect("adding"), Added::Full);
        let [first, second] = tuples(&connection(0));
        assert!(table.remove(&first, &second).expect("removing"));
        assert_eq!(table.add(&connection(MOST)).expect("adding"), Added::Added);
        assert_eq!(table.len(), 2 * MOST);
    });
}
