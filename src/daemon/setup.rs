// SPDX-License-Identifier: GPL-2.0-only
//! The start: all of it, or none.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use nix::sys::sysinfo::sysinfo;

use super::datapath::Datapath;
use super::events::Connections;
use super::firewall::Rules;
use super::generations::Generations;
use super::interfaces::Interfaces;
use super::pause::FastPath;
use super::policy::Policy;
use super::schedule::Schedule;
use super::{Daemon, Request, period};

use crate::clock::{Hz, Jiffies};
use crate::connections::{Offload, topology};
use crate::conntrack::events::Events;
use crate::conntrack::sysctl::Sysctls;
use crate::datapath::Hook;
use crate::datapath::attachment::Interface;
use crate::datapath::instance_lock::Claims;
use crate::datapath::object::{BpfLogLevel, LoadedObject, Settings};
use crate::datapath::ppp;
use crate::datapath::probe;
use crate::datapath::sizing::cells_number;
use crate::datapath::skeleton::Storage;
use crate::error::{Error, Result};
use crate::limits;
use crate::netlink::drivers::Drivers;
use crate::netlink::link;
use crate::netlink::link_layer::LinkLayer;
use crate::netlink::monitor::Monitor;
use crate::netlink::routing_sysctls::RoutingSysctls;
use crate::netlink::xfrm::Xfrm;
use crate::reasons::interface::Problem;
use crate::reasons::pause::Pause;
use crate::shutdown::Shutdown;

/// How many heartbeats may be missed, and how much time they are given at least.
const MISSED_HEARTBEATS: u32 = 10;
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
        let wanted = find_interfaces(&monitor, request)?;
        let claims = Claims::take(&wanted)?;
        let sysctls = Sysctls::read()?;
        let limit = (request.options.interval() * MISSED_HEARTBEATS).max(SHORTEST_LIMIT);
        let drivers = Drivers::open()?;
        probe::list(&drivers);
        let beat_limit = hz.count_u32(limit);
        let links = monitor.network().links.len();
        let settings = settings(request, &sysctls, beat_limit, links)?;
        let route_mark = settings.route_mark;
        let object = LoadedObject::load(request.object.as_deref(), &settings, storage)?;
        let mark = request.options.offload_mark;
        let mut offload = Offload::new(object.object(), mark, route_mark, &sysctls, hz)?;
        offload.set_local_addresses(&monitor.network().local_addresses);
        // Listening begins before the dump, so that nothing falls between the two.
        let events = Events::open(EVENT_BUFFER, offload.own_port())?;
        let fast_path = FastPath::starting(offload.start_resync()?, Instant::now());
        let attached = |index| wanted.iter().any(|interface| interface.index == index);
        let names = topology::named(&monitor.network().links, &attached);
        let routing_sysctls = RoutingSysctls::read(names)?;
        let hook = (request.hook, request.options.xdp_mode);
        let interfaces = Interfaces::new(&object, hook, drivers, wanted, claims)?;
        let now = Instant::now();
        let mut daemon = Self {
            schedule: Schedule::new(request.options.interval(), now),
            monitor,
            policy: Policy { xfrm, rules, sysctls: routing_sysctls, route_mark },
            interfaces,
            connections: Connections::new(offload, events),
            datapath: Datapath::new(object, request.hook, hz, limit)?,
            fast_path,
            generations: Generations::new(now),
            request,
            shutdown,
        };
        let period = period::period(request.options.prove_every(), sysctls.count as usize);
        daemon.datapath.state.set_period(period::shift(period, hz), Jiffies(0));
        daemon.begin(now + START)?;
        Ok(daemon)
    }

    /// Attaches to all interfaces, or to as many as fit in this time, and tells the datapath.
    fn begin(&mut self, until: Instant) -> Result<()> {
        tracing::debug!("pausing: {}", Pause::Start);
        self.forbid_by_policy()?;
        self.read_rules()?;
        self.datapath.priority.follow()?;
        self.interfaces.attach_until(until)?;
        let unattached = self.interfaces.unattached();
        if unattached != 0 {
            tracing::info!("attaching to {unattached} more interfaces");
        }
        self.scan()?;
        self.heartbeat()?;
        Ok(())
    }
}

/// What the datapath must be told, on a machine with so many interfaces.
fn settings(
    request: &Request,
    sysctls: &Sysctls,
    beat_limit: u32,
    interfaces: usize,
) -> Result<Settings> {
    let max_connections = max_connections(request, sysctls);
    let memory = sysinfo().map_err(|error| Error::system("asking for the memory's size", error))?;
    let cells = cells_number(max_connections, memory.ram_total());
    limits::ensure_memory(cells)?;
    Ok(Settings {
        hook: request.hook,
        log_level: log_level(request)?,
        beat_limit,
        route_mark: route_mark(request),
        max_connections,
        interfaces,
        cells,
        // A random number: what a hasher with random keys makes of nothing.
        seed: RandomState::new().build_hasher().finish(),
    })
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

/// Why an interface with such packets cannot be attached to.
fn refusal(layer: LinkLayer, hook: Hook) -> Option<Problem> {
    match (layer, hook) {
        (LinkLayer::Ethernet, _) => None,
        (LinkLayer::None | LinkLayer::Ppp, Hook::Xdp) => Some(Problem::NoHeaderAtXdp),
        (LinkLayer::None | LinkLayer::Ppp, Hook::Tc) if !probe::can_read_without_header() => {
            Some(Problem::NeedsAlignment)
        }
        (LinkLayer::None, Hook::Tc) => None,
        (LinkLayer::Ppp, Hook::Tc) => (!ppp::loses_header()).then_some(Problem::PppKeepsHeader),
        (LinkLayer::Tunnel, _) => Some(Problem::TunnelAnswers),
        (LinkLayer::Unknown, _) => Some(Problem::UnknownLinkLayer),
    }
}

/// The interfaces by their names, each of them fit to be attached to.
fn find_interfaces(monitor: &Monitor, request: &Request) -> Result<Vec<Interface>> {
    let links = &monitor.network().links;
    let find = |name: &String| {
        let Some(link) = links.values().find(|link| link.name == *name) else {
            let mut known: Vec<&str> = links.values().map(|link| link.name.as_str()).collect();
            known.sort_unstable();
            return Err(Error::refused(format!("there is no interface {name}"))
                .with_advice(format!("there are {}", known.join(", "))));
        };
        if let Some(problem) = refusal(LinkLayer::of(link), request.hook) {
            let reason = problem.reason();
            let error = Error::refused(format!("{name}: {}", reason.words));
            return Err(match reason.advice {
                Some(advice) => error.with_advice(advice),
                None => error,
            });
        }
        let stacked = link::stacked_with(links, link.index);
        Ok(Interface {
            index: link.index,
            name: name.clone(),
            mtu: link.mtu,
            depth: link::depth(links, link.index),
            headerless: LinkLayer::of(link).is_headerless(),
            stacked_with: stacked.map(|other| (other.index, other.name.clone())).collect(),
        })
    };
    let mut interfaces: Vec<Interface> =
        request.interfaces.iter().map(find).collect::<Result<_>>()?;
    // The kernel attaches no XDP below an interface that has some.
    interfaces.sort_by_key(|interface| interface.depth);
    Ok(interfaces)
}
