// SPDX-License-Identifier: GPL-2.0-only
//! The start: all of it, or none.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use nix::sys::sysinfo::sysinfo;

use super::backlog::Backlog;
use super::firewall::Rules;
use super::rest::Rest;
use super::stamps::Stamps;
use super::unseen::Unseen;
use super::{Daemon, Request, period};
use crate::clock::{Hz, Jiffies};
use crate::connections::{Offload, topology};
use crate::conntrack::events::Events;
use crate::conntrack::sysctl::Sysctls;
use crate::datapath::attachment::{Attachment, Interface};
use crate::datapath::counters::Counters;
use crate::datapath::devices;
use crate::datapath::hops::Hops;
use crate::datapath::instance_lock::Claims;
use crate::datapath::object::{BpfLogLevel, LoadedObject, Settings};
use crate::datapath::priority::Priority;
use crate::datapath::probe;
use crate::datapath::sizing::cells_number;
use crate::datapath::skeleton::Storage;
use crate::datapath::state::{Change, State};
use crate::error::{Error, Result};
use crate::limits;
use crate::netlink::drivers::Drivers;
use crate::netlink::link;
use crate::netlink::monitor::Monitor;
use crate::netlink::routing_sysctls::RoutingSysctls;
use crate::netlink::tc::Qdiscs;
use crate::netlink::xfrm::Xfrm;
use crate::reasons::interface::Problem;
use crate::reasons::pause::Pause;
use crate::shutdown::Shutdown;

/// The heartbeat's limit, in intervals, and at least.
const MISSED_BEATS: u32 = 10;
const SHORTEST_LIMIT: Duration = Duration::from_secs(1);
/// The kernel waits for a grace period of RCU, some 10 ms, whenever a program is attached. Interfaces
/// that are not attached after this time are attached while the others forward already.
const START: Duration = Duration::from_secs(1);
/// Room for some tens of thousands of conntrack events.
const EVENT_BUFFER: usize = 16 << 20;
/// Used where conntrack's table has no limit.
const DEFAULT_CONNECTIONS: u32 = 262_144;

impl<'obj> Daemon<'obj> {
    pub(super) fn start(
        request: &'obj Request,
        storage: &'obj mut Storage,
        shutdown: Shutdown,
    ) -> Result<Self> {
        let hz = Hz::from_kernel()?;
        let monitor = Monitor::open()?;
        let xfrm = Xfrm::open()?;
        let rules = Rules::open()?;
        let interfaces = find_interfaces(&monitor, &request.interfaces)?;
        let claims = Claims::take(&interfaces)?;
        let sysctls = Sysctls::read()?;
        let limit = (request.options.interval() * MISSED_BEATS).max(SHORTEST_LIMIT);
        let drivers = Drivers::open()?;
        probe::list(&drivers);
        let route_mark = route_mark(request);
        let max_connections = max_connections(request, &sysctls);
        let memory =
            sysinfo().map_err(|error| Error::system("asking for the memory's size", error))?;
        let settings = Settings {
            hook: request.hook,
            log_level: log_level(request)?,
            beat_limit: hz.count_u32(limit),
            route_mark,
            max_connections,
            interfaces: monitor.network().links.len(),
            cells: cells_number(max_connections, memory.ram_total()),
            // A random number: what a hasher with random keys makes of nothing.
            seed: RandomState::new().build_hasher().finish(),
        };
        limits::ensure_memory(settings.cells)?;
        let object = LoadedObject::load(request.object.as_deref(), &settings, storage)?;
        let mark = request.options.offload_mark;
        let mut offload = Offload::new(object.object(), mark, route_mark, &sysctls, hz)?;
        offload.set_local_addresses(&monitor.network().local_addresses);
        // Listening begins before the dump, so that nothing falls between the two.
        let events = Events::open(EVENT_BUFFER, offload.own_port())?;
        let now = Instant::now();
        let mut state = State::new(object.object())?;
        let asked = request.options.prove_every();
        let period = period::period(asked, sysctls.count as usize);
        state.set_period(period::shift(period, hz), Jiffies(0));
        let attached = |index| interfaces.iter().any(|interface| interface.index == index);
        let names = topology::named(&monitor.network().links, &attached);
        let routing_sysctls = RoutingSysctls::read(names)?;
        let mut daemon = Self {
            state,
            hops: Hops::new(object.object())?,
            counters: Counters::new(object.object())?,
            priority: Priority::new(object.object(), request.hook)?,
            unseen: Unseen::new(object.object(), request.hook)?,
            device_maps: devices::Devices::new(object.object())?,
            devices: None,
            rest: Rest::Resync(offload.start_resync()?),
            doubted: Change::Policy,
            programs: object.programs(request.hook)?,
            request,
            object,
            attachments: Vec::new(),
            unattached: interfaces.into(),
            _claims: claims,
            offload,
            route_mark,
            events,
            monitor,
            xfrm,
            rules,
            shutdown,
            hz,
            limit,
            last_tick: now,
            last_beat: now,
            last_bump: now,
            last_policy_bump: now,
            elements_changed: false,
            look: None,
            last_look_around: now,
            last_sysctls: now,
            next_drivers: now,
            last_look_took: Duration::ZERO,
            period_due: None,
            bump_due: None,
            must_look_around: false,
            left_out: BTreeMap::new(),
            without_room: 0,
            shapers: BTreeMap::new(),
            stamps: Stamps::default(),
            drivers,
            transmitting: Vec::new(),
            routing_sysctls,
            unusable: HashSet::new(),
            busy: false,
            hops_in_use: BTreeSet::new(),
            last_neighbors: now,
            neighbors_due: Vec::new(),
            pending: Backlog::of(0),
            behind: None,
        };
        tracing::debug!("pausing: {}", Pause::Start);
        daemon.forbid_by_policy()?;
        daemon.read_firewall()?;
        daemon.priority.follow()?;
        daemon.attach_until(now + START)?;
        if !daemon.unattached.is_empty() {
            tracing::info!("attaching to {} more interfaces", daemon.unattached.len());
        }
        daemon.look_around()?;
        daemon.beat()?;
        Ok(daemon)
    }

    /// Attaches to the interfaces that are left, until this time, and to one at least. All or none: with
    /// an error the daemon ends, and what is attached already goes with it.
    pub(super) fn attach_until(&mut self, until: Instant) -> Result<()> {
        if self.unattached.is_empty() {
            return Ok(());
        }
        let mut qdiscs = Qdiscs::read()?;
        while let Some(interface) = self.unattached.pop_front() {
            let mode = self.request.options.xdp_mode;
            let attachment = Attachment::attach(&self.programs, &interface, mode, &mut qdiscs)?;
            self.attachments.push(attachment);
            if Instant::now() >= until {
                break;
            }
        }
        // The last ones do not wait for the next look.
        self.must_look_around |= self.unattached.is_empty();
        Ok(())
    }
}

/// How much the datapath logs, if programs can here; else the kernel would refuse all of the object.
fn log_level(request: &Request) -> Result<BpfLogLevel> {
    let level = request.options.bpf_log_level;
    if level == BpfLogLevel::Off || probe::programs_can_log()? {
        return Ok(level);
    }
    Err(Error::refused("--bpf-log-level: this kernel has no bpf_trace_printk").with_advice(
        "build it with CONFIG_BPF_EVENTS, OpenWrt with CONFIG_KERNEL_BPF_EVENTS=y, or leave the \
         option out",
    ))
}

/// The bits of conntrack's mark that packets are routed by, as far as look-ups heed them here.
fn route_mark(request: &Request) -> u32 {
    let Some(mask) = request.options.route_mark_mask else {
        return 0;
    };
    if probe::look_ups_heed_marks() {
        return mask;
    }
    tracing::warn!("--route-mark-mask has no effect: this kernel's look-ups heed no marks");
    0
}

fn max_connections(request: &Request, sysctls: &Sysctls) -> u32 {
    match (request.options.max_connections, sysctls.max) {
        (Some(number), _) => number,
        (None, 0) => DEFAULT_CONNECTIONS,
        (None, number) => number,
    }
}

/// The interfaces by their names, each of them fit to be attached to.
fn find_interfaces(monitor: &Monitor, names: &[String]) -> Result<Vec<Interface>> {
    let links = &monitor.network().links;
    let find = |name: &String| {
        let Some(link) = links.values().find(|link| link.name == *name) else {
            let mut known: Vec<&str> = links.values().map(|link| link.name.as_str()).collect();
            known.sort_unstable();
            return Err(Error::refused(format!("there is no interface {name}"))
                .with_advice(format!("there are {}", known.join(", "))));
        };
        if !link.ethernet {
            return Err(Error::refused(format!("{name} is not an Ethernet interface"))
                .with_advice("tunnels and PPP are not supported yet"));
        }
        if link.master.is_some() {
            let line = Problem::Port.reason().line();
            tracing::warn!("packets of {name} stay with the stack: {line}");
        }
        let stacked = link::stacked_with(links, link.index);
        Ok(Interface {
            index: link.index,
            name: name.clone(),
            mtu: link.mtu,
            depth: link::depth(links, link.index),
            stacked_with: stacked.map(|other| (other.index, other.name.clone())).collect(),
        })
    };
    let mut interfaces: Vec<Interface> = names.iter().map(find).collect::<Result<_>>()?;
    // The kernel attaches no XDP below an interface that has some.
    interfaces.sort_by_key(|interface| interface.depth);
    Ok(interfaces)
}
