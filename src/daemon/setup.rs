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
use super::interfaces::follow::first_interfaces;
use super::interfaces::wanted::Wanted;
use super::pause::FastPath;
use super::policy::Policy;
use super::schedule::Schedule;
use super::status::Clients;
use super::{Daemon, Request, period};

use crate::clock::{Hz, Jiffies};
use crate::config;
use crate::connections::{Offload, topology};
use crate::conntrack::events::Events;
use crate::conntrack::sysctl::Sysctls;
use crate::datapath::instance_lock::Claims;
use crate::datapath::object::{BpfLogLevel, LoadedObject, Settings};
use crate::datapath::probe;
use crate::datapath::sizing::cells_number;
use crate::datapath::skeleton::Storage;
use crate::error::{Error, Result};
use crate::flow::family::Families;
use crate::limits;
use crate::netlink::drivers::Drivers;
use crate::netlink::monitor::Monitor;
use crate::netlink::routing_sysctls::RoutingSysctls;
use crate::netlink::xfrm::Xfrm;
use crate::notify::Notify;
use crate::reasons::pause::Pause;
use crate::shutdown::Shutdown;

/// How many heartbeats may be missed, and how much time they are given at least.
pub(super) const MISSED_HEARTBEATS: u32 = 10;
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
        request: Request<'obj>,
        wanted: Wanted,
        storage: &'obj mut Storage,
        shutdown: Shutdown,
    ) -> Result<Self> {
        let Request { settings: asked, source, log } = request;
        let hz = Hz::from_kernel()?;
        let monitor = Monitor::open(Families::FORWARDED)?;
        let xfrm = Xfrm::open(Families::FORWARDED)?;
        let rules = Rules::open()?;
        let links = &monitor.network().links;
        let first = first_interfaces(&wanted, links, asked.hook)?;
        let claims = Claims::open()?;
        if !wanted.may_come_later {
            claims.claim_all(&first)?;
        }
        let sysctls = Sysctls::read()?;
        let limit = heartbeat_limit(&asked);
        let drivers = Drivers::open()?;
        probe::list(&drivers);
        let beat_limit = hz.count_u32(limit);
        let settings = settings(&asked, &sysctls, beat_limit, links.len())?;
        let route_mark = settings.route_mark;
        let object = LoadedObject::load(asked.object.as_deref(), &settings, storage)?;
        let mark = asked.options.offload_mark;
        let mut offload = Offload::new(object.object(), mark, route_mark, &sysctls, hz)?;
        offload.set_local_addresses(&monitor.network().local_addresses);
        // Listening begins before the dump, so that nothing falls between the two.
        let events = Events::open(Families::FORWARDED, EVENT_BUFFER, offload.own_port())?;
        let fast_path = FastPath::starting(offload.start_resync()?, Instant::now());
        let attached = |index| first.iter().any(|interface| interface.index == index);
        let names: Vec<_> = topology::named(&monitor.network().links, &attached).collect();
        let routing_sysctls = RoutingSysctls::read(Families::FORWARDED, &names)?;
        let hook = (asked.hook, asked.xdp_modes.clone());
        let now = Instant::now();
        let clients = Clients::new(now)?;
        let interfaces = Interfaces::new(&object, hook, drivers, (wanted, first), claims)?;
        let mut daemon = Self {
            schedule: Schedule::new(asked.options.interval(), now),
            monitor,
            policy: Policy { xfrm, rules, sysctls: routing_sysctls, route_mark },
            interfaces,
            connections: Connections::new(offload, events),
            datapath: Datapath::new(object, asked.hook, hz, limit)?,
            fast_path,
            generations: Generations::new(now),
            settings: asked,
            source,
            log,
            manager: Notify::from_environment(),
            clients,
            shutdown,
        };
        let period = period::period(daemon.settings.options.prove_every(), sysctls.count as usize);
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
        self.interfaces.follow_links(&self.monitor.network().links);
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

/// When a heartbeat is too old.
pub(super) fn heartbeat_limit(asked: &config::Settings) -> Duration {
    (asked.options.interval() * MISSED_HEARTBEATS).max(SHORTEST_LIMIT)
}

/// What the datapath must be told, on a machine with so many interfaces.
pub(super) fn settings(
    asked: &config::Settings,
    sysctls: &Sysctls,
    beat_limit: u32,
    interfaces: usize,
) -> Result<Settings> {
    let max_connections = max_connections(asked, sysctls);
    let memory = sysinfo().map_err(|error| Error::system("asking for the memory's size", error))?;
    let cells = cells_number(max_connections, memory.ram_total());
    limits::ensure_memory(cells)?;
    Ok(Settings {
        hook: asked.hook,
        log_level: log_level(asked)?,
        beat_limit,
        route_mark: route_mark(asked),
        max_connections,
        interfaces,
        cells,
        // A random number: what a hasher with random keys makes of nothing.
        seed: RandomState::new().build_hasher().finish(),
    })
}

/// How much the datapath logs, if programs can here; else the kernel would refuse all of the object.
fn log_level(asked: &config::Settings) -> Result<BpfLogLevel> {
    let level = asked.options.bpf_log_level;
    if level == BpfLogLevel::Off || probe::programs_can_log()? {
        return Ok(level);
    }
    Err(Error::refused("--bpf-log-level: this kernel has no bpf_trace_printk").with_advice(
        "build it with CONFIG_BPF_EVENTS, OpenWrt with CONFIG_KERNEL_BPF_EVENTS=y, or leave the \
         option out",
    ))
}

/// The bits of conntrack's mark that packets are routed by, as far as look-ups heed them here.
fn route_mark(asked: &config::Settings) -> u32 {
    let Some(mask) = asked.options.route_mark_mask else {
        return 0;
    };
    if probe::look_ups_heed_marks() {
        return mask;
    }
    tracing::warn!("--route-mark-mask has no effect: this kernel's look-ups heed no marks");
    0
}

fn max_connections(asked: &config::Settings, sysctls: &Sysctls) -> u32 {
    match (asked.options.max_connections, sysctls.max) {
        (Some(number), _) => number,
        (None, 0) => DEFAULT_CONNECTIONS,
        (None, number) => number,
    }
}
