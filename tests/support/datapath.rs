// SPDX-License-Identifier: GPL-2.0-only
//! Single frames through the datapath, by `BPF_PROG_TEST_RUN`. Nothing is sent for real. The
//! routing look-ups are the kernel's own, in a namespace with one router and no hosts.

use super::flow::{DMZ, Flow, LAN, Side, WAN, ipv6_of};
use super::lab::show;
use super::live::root_or_skip;
use super::netns::Namespace;
use super::prelude::Prelude;
use bpfw::abi::{
    BPFW_EGRESS_REDIRECT, BPFW_FACTOR, BPFW_FORWARDED, BPFW_PROBES, BPFW_VERDICTS, bpfw_cell,
    bpfw_conn, bpfw_egress, bpfw_link, bpfw_link_key, bpfw_rest, bpfw_testimony, bpfw_tuple,
    bpfw_verdict,
};
use bpfw::datapath::cells::{hash, loaded_settings};
use bpfw::datapath::conn_map::{Added, ConnMap};
use bpfw::datapath::counters::Counters;
use bpfw::datapath::devices::Devices;
use bpfw::datapath::object::{BpfLogLevel, LoadedObject, Settings};
use bpfw::datapath::signals::Signals;
use bpfw::datapath::skeleton::Storage;
use bpfw::datapath::state::{Change, NO_PERIODS, State};
use bpfw::datapath::typed_map::TypedMap;
use bpfw::datapath::{Hook, map_names};
use bpfw::flow::tuple::Protocol;
use bpfw::reasons::packet::{TESTIMONIES, VERDICTS};
use libbpf_rs::{ProgramInput, TC_INGRESS, TcHookBuilder};
use libbpf_sys::xdp_md;
use std::cell::RefCell;
use std::mem::offset_of;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

pub const HOOKS: [Hook; 2] = [Hook::Xdp, Hook::Tc];

/// A heartbeat never gets too old within a test.
const PATIENT: u32 = 10_000_000;

/// Few enough to fill them all.
pub const CELLS: u32 = 64;
const ALL_CELLS: u32 = CELLS + BPFW_PROBES - 1;

/// Larger than any frame here, with room for a tag.
const OUTPUT: usize = 4096;

/// Where the fields are in `struct __sk_buff` of linux/bpf.h, which libbpf-sys does not have.
mod skb {
    pub const PRIORITY: usize = 32;
    pub const INGRESS_IFINDEX: usize = 36;
    pub const IFINDEX: usize = 40;
    pub const CB: usize = 48;
    pub const GSO_SIZE: usize = 176;
    pub const SIZE: usize = 192;
}

/// An entry of `link_map`.
pub type Link = (bpfw_link_key, bpfw_link);

/// Runs `check` on each hook, with connections in cells and then in `conn_map`; each time with a
/// namespace and a loaded object of its own.
pub fn on_both_hooks(test: &str, check: impl Fn(&mut Datapath<'_>) + Sync) {
    for hook in HOOKS {
        on_hook(test, hook, &check);
    }
}

/// The same on one hook.
pub fn on_hook(test: &str, hook: Hook, check: impl Fn(&mut Datapath<'_>) + Sync) {
    on_hook_with(test, hook, PATIENT, check);
}

/// As `on_hook`; a heartbeat is too old after `beat_limit` jiffies.
pub fn on_hook_with(
    test: &str,
    hook: Hook,
    beat_limit: u32,
    check: impl Fn(&mut Datapath<'_>) + Sync,
) {
    if !root_or_skip(&format!("{test} on {}", hook.name())) {
        return;
    }
    for spilled in [false, true] {
        let place = if spilled { "conn_map" } else { "cells" };
        // The harness shows this only if the test fails.
        eprintln!("{test} on hook {}, connections in {place}", hook.name());
        let namespace = router(&format!("{}-{test}", hook.name()));
        namespace.enter(|| {
            let mut storage = Storage::uninit();
            let settings = settings(hook, beat_limit);
            let object = LoadedObject::load(None, &settings, &mut storage).expect("loading");
            let mut datapath = Datapath::new(hook, &namespace, object);
            if spilled {
                datapath.fill_cells();
            }
            check(&mut datapath);
        });
    }
}

/// As `on_hook` with the programs of another object, and connections in cells.
pub fn on_hook_from(
    test: &str,
    hook: Hook,
    object: &Path,
    check: impl Fn(&mut Datapath<'_>) + Sync,
) {
    let namespace = router(&format!("{}-{test}", hook.name()));
    namespace.enter(|| {
        let mut storage = Storage::uninit();
        let settings = settings(hook, PATIENT);
        let object = LoadedObject::load(Some(object), &settings, &mut storage).expect("loading");
        check(&mut Datapath::new(hook, &namespace, object));
    });
}

fn settings(hook: Hook, beat_limit: u32) -> Settings {
    Settings {
        hook,
        log_level: BpfLogLevel::Off,
        beat_limit,
        route_mark: 0,
        max_connections: 4096,
        interfaces: 3,
        cells: CELLS,
        seed: 0x5eed,
    }
}

/// A router with three interfaces; their peers swallow what might come.
fn router(name: &str) -> Namespace {
    let namespace = Namespace::new(name);
    namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "0");
    // No addresses of the kernel's own, for which it would send packets.
    namespace.sysctl("net/ipv6/conf/default/addr_gen_mode", "1");
    let mut commands = String::new();
    for side in [LAN, WAN, DMZ] {
        let (device, mac) = (side.device, show(side.router_mac));
        let host_mac = show(side.host_mac);
        commands += &format!(
            "link add {device} address {mac} type veth peer name {device}-peer\n\
             link set {device}-peer up\nlink set {device} up\n\
             addr add {}/24 dev {device}\n\
             neigh add {} lladdr {host_mac} dev {device} nud permanent\n\
             addr add {}/120 dev {device} nodad\n\
             neigh add {} lladdr {host_mac} dev {device} nud permanent\n",
            side.router,
            side.host,
            ipv6_of(side.router),
            ipv6_of(side.host),
        );
    }
    commands += &format!(
        "neigh add {} lladdr {} dev {} nud permanent\n",
        super::flow::HOST2.host,
        show(super::flow::HOST2.host_mac),
        LAN.device
    );
    commands += &format!("route add default via {}\n", WAN.host);
    commands += &format!("route add default via {}\n", ipv6_of(WAN.host));
    let inside = Ipv4Addr::new(10, 0, 0, 0);
    commands += &format!("route add {inside}/8 via {}\n", LAN.host);
    commands += &format!("route add {}/104 via {}\n", ipv6_of(inside), ipv6_of(LAN.host));
    namespace.ip(&commands);
    namespace.sysctl("net/ipv4/ip_forward", "1");
    namespace.sysctl("net/ipv6/conf/all/forwarding", "1");
    // Only then have the devices the receive queues that an XDP test run asks for.
    namespace.sh("for device in lan0 wan0 dmz0; do ethtool -K $device gro on; done");
    namespace
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whose counter went up.
    pub verdict: bpfw_verdict,
    /// The program's answer.
    pub action: i32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// TC: the packet's priority; 0 on XDP.
    pub priority: u32,
}

/// A frame and what the kernel knows about it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    pub side: Side,
    pub frame: &'a [u8],
    /// TC: bytes of payload in each segment, 0: one packet.
    pub gso_size: u32,
    /// TC: the priority that someone has given the packet.
    pub priority: u32,
    /// TC: the kernel follows a sum over the packet, and checks it after the run.
    pub complete: bool,
    /// TC: tags that lie beside the frame, by protocol and the tag's word; 0: none.
    pub tags: [(u16, u16); 2],
    /// How much of the frame the program gets to see; `None`: all.
    pub cut: Option<u32>,
}

impl<'a> Input<'a> {
    pub fn new(side: Side, frame: &'a [u8]) -> Self {
        Self {
            side,
            frame,
            gso_size: 0,
            priority: 0,
            complete: false,
            tags: [(0, 0); 2],
            cut: None,
        }
    }
}

/// A packet at the way out.
pub struct Sent<'a> {
    pub frame: &'a [u8],
    /// The index of the interface where it came in.
    pub ingress: u32,
    /// The index of the device that it leaves by.
    pub egress: u32,
    /// The tag beside it, by protocol and word; 0: none.
    pub tag: (u16, u16),
    pub stamp: u16,
}

/// What a stamp is made of (`stamp_of` in bpf/proof.h).
#[derive(Clone, Copy, Debug)]
pub struct Stamped {
    pub generation: u32,
    pub period: u32,
    pub way_back: u32,
    pub id: u32,
    pub mark: u32,
}

impl Stamped {
    fn stamp(self) -> u16 {
        let mix = |hash: u64, word: u32| {
            let hash = (hash ^ u64::from(word)).wrapping_mul(BPFW_FACTOR as u64);
            hash ^ hash >> 32
        };
        let known = mix(mix(self.way_back.into(), self.id), self.mark) as u32;
        self.generation.wrapping_add(self.period).wrapping_add(known) as u16 | 1 << 15
    }
}

/// A hook's loaded program and its maps.
pub struct Datapath<'obj> {
    pub hook: Hook,
    pub namespace: &'obj Namespace,
    pub object: LoadedObject<'obj>,
    pub state: State,
    pub connections: RefCell<ConnMap>,
    pub devices: Devices,
    pub signals: RefCell<Signals>,
    counters: Counters,
    pusher: Option<Prelude>,
    cutter: Option<Prelude>,
    stamper: Prelude,
    /// For programs whose stamps lack something: takes it away.
    pub lacking: fn(&mut Stamped),
}

impl<'obj> Datapath<'obj> {
    fn new(hook: Hook, namespace: &'obj Namespace, object: LoadedObject<'obj>) -> Self {
        let inner = object.object();
        let mut state = State::new(inner).expect("state");
        state.bump(Change::Topology).expect("bump");
        object.beat().expect("beat");
        let egress = object.program("bpfw_egress").expect("the program");
        let egress = egress.as_fd().try_clone_to_owned().expect("a descriptor");
        let stamper = Prelude::load("stamp", &egress);
        let datapath = Self {
            hook,
            namespace,
            state,
            connections: RefCell::new(ConnMap::new(inner).expect("connections")),
            devices: Devices::new(inner).expect("devices"),
            signals: RefCell::new(Signals::new(inner).expect("signals")),
            counters: Counters::new(inner).expect("counters"),
            object,
            pusher: None,
            cutter: None,
            stamper,
            lacking: |_| (),
        };
        datapath.devices.set(&links(), &egresses()).expect("devices");
        datapath
    }

    /// Lets `Input::tags` work, which needs a program of the tests' own.
    pub fn prepare_tags(&mut self) {
        let program = self.object.hook_program(self.hook).expect("the hook's program");
        self.pusher = Some(Prelude::load("push_tag", &program));
    }

    /// Lets `Input::cut` work, likewise.
    pub fn prepare_cuts(&mut self) {
        let program = self.object.hook_program(self.hook).expect("the hook's program");
        let name = format!("shrink_{}", self.hook.name());
        self.cutter = Some(Prelude::load(&name, &program));
    }

    /// Puts TC's program to work on an interface; it goes with the namespace.
    pub fn attach_tc(&self, side: Side) {
        let program = self.object.program(Hook::Tc.program_name()).expect("the program");
        let mut builder = TcHookBuilder::new(program.as_fd());
        builder.ifindex(side.ifindex() as i32).handle(1).priority(1);
        let mut hook = builder.hook(TC_INGRESS);
        hook.create().expect("clsact");
        hook.attach().expect("attaching");
    }

    /// Offloads a connection, which the stack forwards as routing is now.
    pub fn add(&self, flow: &Flow) {
        self.add_unproven(flow);
        for reply in [false, true] {
            self.ask_and_prove(flow, reply);
        }
    }

    /// Offloads a connection of which the stack has sent nothing.
    pub fn add_unproven(&self, flow: &Flow) {
        let added = self.connections.borrow_mut().add(&flow.connection()).expect("adding");
        assert_eq!(added, Added::Added);
    }

    /// A packet of a direction comes in and goes up, and the stack sends it. No other trace of that
    /// is left in the entry.
    pub fn ask_and_prove(&self, flow: &Flow, reply: bool) {
        let tag = self.tag_of(flow.ingress(reply));
        let before = flow.incoming(reply);
        let before = if tag.0 == 0 { before } else { before.vlan(tag.1, 0, tag.0) }.build();
        let passed_up = self.entry(flow, reply).rest.passed_up;
        self.run_uncounted(Input::new(flow.ingress(reply), &before)).expect("a test run");
        self.take_signals();
        let mut entry = self.entry(flow, reply);
        entry.rest.passed_up = passed_up;
        self.overwrite(&entry);
        self.prove(flow, reply);
    }

    /// The tag of frames that come in at this interface, by protocol and number; 0: none.
    fn tag_of(&self, side: Side) -> (u16, u16) {
        let map =
            TypedMap::<bpfw_link_key, bpfw_link>::new(self.object.object(), map_names::LINK_MAP);
        let entries = map.expect("a map").entries().expect("readable");
        let found = entries.into_iter().find(|(_, link)| link.ifindex == side.ifindex());
        found.map_or((0, 0), |(key, _)| (u16::from(key.vlan_proto), key.vlan_id))
    }

    /// The stack sends a packet of a direction that has come in since the last change.
    pub fn prove(&self, flow: &Flow, reply: bool) {
        self.prove_with(flow, reply, &self.entry(flow, reply).rest);
    }

    /// The same, if the packet came in when this was known of it.
    pub fn prove_with(&self, flow: &Flow, reply: bool, rest: &bpfw_rest) {
        let frame = flow.outgoing(reply).build();
        let interface = flow.egress(reply).ifindex();
        let egresses =
            TypedMap::<u32, bpfw_egress>::new(self.object.object(), map_names::EGRESS_MAP);
        let found = egresses.expect("a map").get(&interface).expect("reading");
        // At TC the device puts the tag on, behind the way out.
        let port = found.filter(|found| self.hook == Hook::Xdp && u16::from(found.vlan_proto) != 0);
        self.send(&Sent {
            frame: &frame,
            ingress: flow.ingress(reply).ifindex(),
            egress: port.map_or(interface, |port| port.port),
            tag: port.map_or((0, 0), |port| (u16::from(port.vlan_proto), port.vlan_id)),
            stamp: self.stamp(rest, rest.way_back),
        });
    }

    /// The stamp that packets get now.
    pub fn stamp(&self, rest: &bpfw_rest, way_back: u32) -> u16 {
        let period = match self.state.period() {
            NO_PERIODS => 0,
            shift => (self.now() >> shift) as u32,
        };
        let generation = self.state.generation().0;
        let (id, mark) = (rest.id, rest.mark);
        let mut stamped = Stamped { generation, period, way_back, id, mark };
        (self.lacking)(&mut stamped);
        stamped.stamp()
    }

    /// Runs the program at the way out; says which counter went up, if one did.
    pub fn send(&self, sent: &Sent<'_>) -> Option<bpfw_testimony> {
        let before = self.count_testimonies();
        let mut context = vec![0; skb::SIZE];
        put(&mut context, skb::IFINDEX, sent.egress);
        put(&mut context, skb::INGRESS_IFINDEX, sent.ingress);
        let mut frame = vec![0; OUTPUT];
        self.stamper.set("stamp", u32::from(sent.stamp).to_ne_bytes());
        let tag = u32::from(sent.tag.0) << 16 | u32::from(sent.tag.1);
        self.stamper.set("tag", tag.to_ne_bytes());
        let run = ProgramInput {
            context_in: Some(&mut context),
            data_in: Some(sent.frame),
            data_out: Some(&mut frame),
            ..Default::default()
        };
        let output = self.stamper.run(run).expect("a test run");
        assert_eq!(output.return_value as i32, -1, "the next program has its say");
        let length = output.data.map_or(0, |data| data.len());
        if sent.tag.0 == 0 {
            assert_eq!(&frame[..length], sent.frame, "the way out changes nothing");
        }
        let after = self.count_testimonies();
        let mut counted = (0..before.len()).filter(|at| before[*at] != after[*at]);
        let first = counted.next();
        assert_eq!(counted.next(), None, "one packet, one testimony");
        first.map(|at| TESTIMONIES[at].number)
    }

    /// Ends the offload of a connection.
    pub fn remove(&self, flow: &Flow) {
        let tuples = [false, true].map(|reply| bpfw_tuple::from(flow.tuple(reply)));
        assert!(self.connections.borrow_mut().remove(&tuples[0], &tuples[1]).expect("removing"));
    }

    /// The entry of one direction.
    pub fn entry(&self, flow: &Flow, reply: bool) -> bpfw_conn {
        let tuple = bpfw_tuple::from(flow.tuple(reply));
        self.connections.borrow().get(&tuple).expect("reading").expect("an entry")
    }

    /// Whether who is added goes to `conn_map`, because no cell is free.
    pub fn is_full(&self) -> bool {
        self.connections.borrow().in_cells() == ALL_CELLS as usize
    }

    /// No cell is free afterwards: who is added now goes to `conn_map`.
    fn fill_cells(&self) {
        let mut connections = self.connections.borrow_mut();
        let mut others = (0..=u16::MAX).map(|port| {
            let ends = (LAN.at(port), DMZ.at(port));
            Flow::new(Protocol::Udp, ends, ends).connection()
        });
        while connections.in_cells() < ALL_CELLS as usize {
            connections.add(&others.next().expect("enough")).expect("adding");
        }
    }

    /// Writes over an entry, where it stands.
    pub fn overwrite(&self, entry: &bpfw_conn) {
        let object = self.object.object();
        let cells = TypedMap::<u32, bpfw_cell>::new(object, map_names::CONN_CELLS).expect("map");
        let rests = TypedMap::<u32, bpfw_rest>::new(object, map_names::CONN_RESTS).expect("map");
        let tuple = &entry.tuple();
        let holds = |number: &u32| {
            let cell = cells.get(number).expect("reading").expect("a cell");
            cell.tuple() == *tuple
        };
        match (0..ALL_CELLS).find(holds) {
            Some(number) => {
                rests.set(&number, &entry.rest).expect("writing");
                cells.set(&number, &entry.cell).expect("writing");
            }
            None => {
                let map =
                    TypedMap::<u64, bpfw_conn>::new(object, map_names::CONN_MAP).expect("map");
                let key = hash(tuple, &loaded_settings(object).expect("settings"));
                assert!(map.get(&key).expect("reading").is_some(), "no such entry");
                map.set(&key, entry).expect("writing");
            }
        }
    }

    /// The kernel's jiffies64, more or less now.
    pub fn now(&self) -> u64 {
        self.object.beat().expect("beat");
        self.state.last_beat().expect("beat").0
    }

    /// The signals since the last time.
    pub fn take_signals(&self) -> Vec<bpfw_tuple> {
        let until = Instant::now() + Duration::from_secs(10);
        let signals = self.signals.borrow_mut().take(until).expect("signals");
        signals.into_iter().map(|signal| signal.tuple).collect()
    }

    /// Runs one frame, and finds out the verdict.
    pub fn run(&self, input: Input<'_>) -> Outcome {
        let before = self.count();
        let mut outcome = self.run_uncounted(input).expect("a test run");
        let after = self.count();
        let counted: Vec<_> = (0..before.len()).filter(|i| before[*i] != after[*i]).collect();
        assert_eq!(counted.len(), 1, "one frame, one verdict: {counted:?}");
        assert_eq!(after[counted[0]], before[counted[0]] + 1);
        outcome.verdict = VERDICTS[counted[0]].number;
        outcome
    }

    /// As `run`, in the simplest case.
    pub fn run_frame(&self, side: Side, frame: &[u8]) -> Outcome {
        self.run(Input::new(side, frame))
    }

    /// As `run` without the verdict, which is left 0; says what the kernel refuses.
    pub fn run_uncounted(&self, input: Input<'_>) -> libbpf_rs::Result<Outcome> {
        let mut context = match self.hook {
            Hook::Xdp => xdp_context(input),
            Hook::Tc => skb_context(input),
        };
        let mut frame = vec![0; OUTPUT];
        let mut context_out = vec![0; context.len()];
        let run = ProgramInput {
            context_in: Some(&mut context),
            context_out: Some(&mut context_out),
            data_in: Some(input.frame),
            data_out: Some(&mut frame),
            flags: if input.complete { libbpf_sys::BPF_F_TEST_SKB_CHECKSUM_COMPLETE } else { 0 },
            ..Default::default()
        };
        let output = match (&self.pusher, &self.cutter, input.cut) {
            (Some(pusher), ..) if input.tags[0].0 != 0 => pusher.run(run)?,
            (_, Some(cutter), Some(length)) => {
                cutter.set("length", length.to_ne_bytes());
                cutter.run(run)?
            }
            _ => self
                .object
                .program(self.hook.program_name())
                .expect("the hook's program")
                .test_run(run)?,
        };
        let (action, length) = (output.return_value as i32, output.data.map_or(0, |d| d.len()));
        frame.truncate(length);
        let priority = match self.hook {
            Hook::Xdp => 0,
            Hook::Tc => get(&context_out, skb::PRIORITY),
        };
        Ok(Outcome { verdict: 0, action, frame, priority })
    }

    fn count_testimonies(&self) -> [u64; TESTIMONIES.len()] {
        TESTIMONIES.map(|reason| self.counters.packets(reason.number).expect("counters"))
    }

    fn count(&self) -> [u64; BPFW_VERDICTS as usize - 1] {
        VERDICTS.map(|reason| self.counters.packets(reason.number).expect("counters"))
    }

    /// The hook's word for "to the stack".
    pub fn pass(&self) -> i32 {
        if self.hook == Hook::Xdp { 2 } else { -1 }
    }

    /// The hook's word for "to another device".
    pub fn redirect(&self) -> i32 {
        if self.hook == Hook::Xdp { 4 } else { 7 }
    }

    /// The frame goes to the stack for this reason, as it was.
    #[track_caller]
    pub fn expect_passed(&self, input: Input<'_>, verdict: bpfw_verdict) {
        let outcome = self.run(input);
        assert_eq!(name(outcome.verdict), name(verdict));
        assert_eq!(outcome.action, self.pass());
        assert_eq!(outcome.frame, input.frame, "a frame for the stack must not change");
    }

    /// The frame is forwarded, and looks like this.
    #[track_caller]
    pub fn expect_forwarded(&self, input: Input<'_>, expected: &[u8]) {
        let outcome = self.run(input);
        assert_eq!(name(outcome.verdict), name(BPFW_FORWARDED));
        assert_eq!(outcome.action, self.redirect());
        assert_eq!(outcome.frame, expected);
    }

    /// A packet of this connection is forwarded as routing and translation want it.
    #[track_caller]
    pub fn expect_flow(&self, flow: &Flow, reply: bool) {
        let (before, after) = (flow.incoming(reply).build(), flow.outgoing(reply).build());
        self.expect_forwarded(Input::new(flow.ingress(reply), &before), &after);
    }
}

/// A verdict's name, for messages.
pub fn name(verdict: bpfw_verdict) -> &'static str {
    let reason = VERDICTS.iter().find(|reason| reason.number == verdict);
    reason.map_or("no verdict", |reason| reason.name)
}

/// The interfaces' entries for `link_map`, all untagged.
pub fn links() -> Vec<Link> {
    [LAN, WAN, DMZ].map(|side| link(side, side, 0, 0)).to_vec()
}

/// Frames that come in at `port` with this tag belong to the interface `interface`.
pub fn link(port: Side, interface: Side, vlan_id: u16, vlan_proto: u16) -> Link {
    let key = bpfw_link_key { ifindex: port.ifindex(), vlan_id, vlan_proto: vlan_proto.into() };
    let (ifindex, mac) = (interface.ifindex(), interface.router_mac);
    (key, bpfw_link { ifindex, ingress: ifindex, mac, ..Default::default() })
}

/// The interfaces' entries for `egress_map`, all untagged.
pub fn egresses() -> Vec<(u32, bpfw_egress)> {
    [LAN, WAN, DMZ].map(|side| egress(side, 0, 0, 1500)).to_vec()
}

/// Packets leave through `side` with this tag.
pub fn egress(side: Side, vlan_id: u16, vlan_proto: u16, mtu: u32) -> (u32, bpfw_egress) {
    let port = side.ifindex();
    let vlan_proto = vlan_proto.into();
    let flags = BPFW_EGRESS_REDIRECT;
    (port, bpfw_egress { port, mtu, mtu6: mtu, vlan_id, vlan_proto, flags, ..Default::default() })
}

fn put(bytes: &mut [u8], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
}

fn get(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn xdp_context(input: Input<'_>) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<xdp_md>()];
    put(&mut bytes, offset_of!(xdp_md, data_end), input.frame.len() as u32);
    put(&mut bytes, offset_of!(xdp_md, ingress_ifindex), input.side.ifindex());
    bytes
}

fn skb_context(input: Input<'_>) -> Vec<u8> {
    let mut bytes = vec![0; skb::SIZE];
    put(&mut bytes, skb::IFINDEX, input.side.ifindex());
    put(&mut bytes, skb::GSO_SIZE, input.gso_size);
    put(&mut bytes, skb::PRIORITY, input.priority);
    for (index, (protocol, word)) in input.tags.into_iter().enumerate() {
        let value = u32::from(protocol) << 16 | u32::from(word);
        put(&mut bytes, skb::CB + 4 * index, value);
    }
    bytes
}
