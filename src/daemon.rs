// SPDX-License-Identifier: GPL-2.0-only
//! The daemon: sets everything up, then one thread in one loop until it is asked to end.

mod backlog;
mod firewall;
mod foreign_programs;
mod housekeeping;
mod mtu;
mod period;
mod rest;
mod setup;
mod shapers;
mod stamps;
mod stop;
mod unseen;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::abi::bpfw_hop;
use crate::cli::Run;
use crate::clock::Hz;
use crate::connections::Offload;
use crate::connections::topology::{self, View};
use crate::conntrack::events::{Drained, Events};
use crate::datapath::attachment::{Attachment, Interface, Kind, Programs, Transmitting};
use crate::datapath::counters::Counters;
use crate::datapath::hops::Hops;
use crate::datapath::instance_lock::Claims;
use crate::datapath::object::LoadedObject;
use crate::datapath::priority::Priority;
use crate::datapath::skeleton::Storage;
use crate::datapath::state::{Change, State};
use crate::datapath::{Hook, devices};
use crate::error::{Error, Result};
use crate::limits;
use crate::netlink::drivers::Drivers;
use crate::netlink::link::Link;
use crate::netlink::monitor::{Changes, Monitor, Network};
use crate::netlink::routing_sysctls::RoutingSysctls;
use crate::netlink::xfrm::Xfrm;
use crate::reasons::connection::Refusal;
use crate::reasons::interface::{Found, Problem};
use crate::reasons::pause::Pause;
use crate::shutdown::Shutdown;

use backlog::Backlog;
use firewall::Rules;
use foreign_programs::Look;
use rest::Rest;
use stamps::Stamps;
use unseen::Unseen;

/// The longest piece of work between two looks at the events.
const SLICE: Duration = Duration::from_millis(10);
/// The longest piece of housekeeping: events, and new connections, do not wait for more of it.
const CHORE: Duration = Duration::from_millis(2);
/// No event of conntrack's may wait for longer, after a read has left it, while the fast path goes on.
const PATIENCE: Duration = Duration::from_millis(50);
/// At most one bump in this time, however fast the topology changes.
const BUMP_PAUSE: Duration = Duration::from_millis(20);
/// How soon signals are looked at while connections come, whose first segments pass up.
const SOON: Duration = Duration::from_millis(10);
/// Sets may change many times a second, by programs that ban or resolve names. All connections
/// would have to prove themselves as often. With an interval, this is less than a second.
const ELEMENTS_PAUSE: Duration = Duration::from_millis(800);

/// What the command line asks for.
#[derive(Debug)]
pub struct Request {
    /// The hook.
    pub hook: Hook,
    /// The object file, or the embedded object.
    pub object: Option<PathBuf>,
    /// The names of the interfaces.
    pub interfaces: Vec<String>,
    /// All options.
    pub options: Run,
}

/// Runs until a signal asks for the end, and detaches from all interfaces.
pub fn run(request: &Request, storage: &mut Storage) -> Result<()> {
    limits::ensure_files(request.interfaces.len())?;
    let shutdown = Shutdown::watch()?;
    let mut daemon = Daemon::start(request, storage, shutdown)?;
    let result = daemon.turns();
    let stopped = daemon.stop();
    result.and(stopped)
}

struct Daemon<'obj> {
    request: &'obj Request,
    object: LoadedObject<'obj>,
    programs: Programs,
    attachments: Vec<Attachment>,
    /// Those that are still to be attached to, in this order.
    unattached: VecDeque<Interface>,
    _claims: Claims,
    state: State,
    hops: Hops,
    counters: Counters,
    priority: Priority,
    /// Interfaces whose frames XDP may not see.
    unseen: Unseen,
    device_maps: devices::Devices,
    /// What the device maps hold, if that is known.
    devices: Option<topology::Devices>,
    offload: Offload,
    /// The bits of conntrack's mark that look-ups heed.
    route_mark: u32,
    events: Events,
    monitor: Monitor,
    xfrm: Xfrm,
    rules: Rules,
    shutdown: Shutdown,
    hz: Hz,
    rest: Rest,
    /// What may have changed unnoticed before the fast path goes on.
    doubted: Change,
    /// The age at which the datapath takes a heartbeat for too old.
    limit: Duration,
    last_tick: Instant,
    last_beat: Instant,
    last_bump: Instant,
    last_policy_bump: Instant,
    /// Elements of nftables' sets changed, and nothing else of the ruleset.
    elements_changed: bool,
    /// A look at who else is at the interfaces.
    look: Option<Look>,
    /// When the last one ended, and what it took.
    last_look_around: Instant,
    last_look_took: Duration,
    last_sysctls: Instant,
    /// When drivers are asked again what they can do.
    next_drivers: Instant,
    /// The period that the datapath gets at the end of a pause.
    period_due: Option<u32>,
    /// All must look up again because of this.
    bump_due: Option<Change>,
    /// Something changed at TC, and it was not looked at yet.
    must_look_around: bool,
    /// Interfaces whose packets are the stack's, with the reason.
    left_out: BTreeMap<u32, Found>,
    /// How many interfaces the device maps have no room for, as was warned.
    without_room: usize,
    drivers: Drivers,
    /// Which of the attached interfaces take redirected XDP frames.
    transmitting: Vec<Transmitting>,
    /// Interfaces with a queueing discipline that XDP gets around, as was warned.
    shapers: BTreeMap<u32, String>,
    stamps: Stamps,
    routing_sysctls: RoutingSysctls,
    /// Attached interfaces that nothing can be redirected to, as was warned.
    unusable: HashSet<(u32, Problem)>,
    /// Housekeeping has more to do than fitted in its slice.
    busy: bool,
    /// Slots of next hops of connections with traffic, as the last round found them.
    hops_in_use: BTreeSet<u32>,
    last_neighbors: Instant,
    /// Those whose neighbors are still to be kept in use this time.
    neighbors_due: Vec<bpfw_hop>,
    /// Of conntrack's events, since the last heartbeat, or since a pause began or may end.
    pending: Backlog,
    /// The same, if the last read has left some: since then, or since these were handled.
    behind: Option<Backlog>,
}

/// Whose events wait.
struct Ready {
    conntrack: bool,
    network: bool,
}

impl Daemon<'_> {
    fn turns(&mut self) -> Result<()> {
        loop {
            let ready = self.wait()?;
            if self.shutdown.is_asked() {
                return Ok(());
            }
            self.attach_until(Instant::now())?;
            if self.rest.pause().is_some() {
                continue;
            }
            // Nothing that fails in a turn is a reason to give up: the stack takes over, and all
            // is compared anew.
            if let Err(error) = self.turn(ready) {
                self.recover(&error)?;
            }
        }
    }

    fn turn(&mut self, ready: Ready) -> Result<()> {
        let tick = self.last_tick.elapsed() >= self.request.options.interval();
        self.notice_pause()?;
        // Once a tick in any case: what failed before is tried again.
        if ready.network || tick {
            self.follow_firewall()?;
            self.read_firewall()?;
        }
        if ready.conntrack || self.rest.must_discard() {
            self.read_conntrack()?;
        } else {
            self.conntrack_is_silent();
        }
        if ready.network || tick {
            self.read_network()?;
        }
        self.follow_topology()?;
        if tick {
            self.last_tick = Instant::now();
            self.tick()?;
        }
        self.go_on_looking(Instant::now() + SLICE)?;
        let is_awake = matches!(self.rest, Rest::Awake);
        if is_awake && (tick || self.offload.expects_signals()) {
            self.offload.take_signals(SLICE)?;
        }
        let admitting = self.admit()?;
        self.busy = self.keep_house()? || admitting;
        self.go_on_resting()
    }

    /// Sleeps until something happens or the next piece of work is due.
    fn wait(&self) -> Result<Ready> {
        let mut fds: Vec<PollFd<'_>> =
            [self.shutdown.as_fd(), self.events.as_fd(), self.monitor.as_fd()]
                .into_iter()
                .chain([self.rules.firewall.as_fd()])
                .chain(self.xfrm.as_fd())
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
        let mut timeout = self.request.options.interval().saturating_sub(self.last_tick.elapsed());
        if self.bump_due.is_some() || self.must_look_around {
            timeout = timeout.min(BUMP_PAUSE);
        }
        if self.elements_changed {
            timeout = timeout.min(ELEMENTS_PAUSE.saturating_sub(self.last_policy_bump.elapsed()));
        }
        if self.offload.expects_signals() {
            timeout = timeout.min(SOON);
        }
        let looks_or_attaches = self.look.is_some() || !self.unattached.is_empty();
        if self.busy || looks_or_attaches || self.rest.wants_time() {
            timeout = Duration::ZERO;
        }
        if let Some(pause) = self.rest.pause() {
            fds.truncate(1);
            timeout = pause;
        }
        // Rounded up: a poll that returns a little early would spin.
        let timeout = timeout.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            // All are looked at.
            Err(nix::errno::Errno::EINTR) => return Ok(Ready { conntrack: true, network: true }),
            Err(errno) => return Err(Error::system("waiting for events", errno)),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        Ok(Ready {
            conntrack: fds.get(1).is_some_and(is_ready),
            network: fds.iter().skip(2).any(is_ready),
        })
    }

    fn read_conntrack(&mut self) -> Result<()> {
        if self.rest.must_discard() {
            return self.discard_events();
        }
        let before = self.events.bytes_read();
        let mut failed = None;
        let offload = &mut self.offload;
        let drained = self.events.read(Instant::now() + SLICE, &mut |event| {
            if let Err(error) = offload.on_event(event) {
                failed.get_or_insert(error);
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        self.offload.flush()?;
        let bytes = self.events.bytes_read().wrapping_sub(before);
        self.pending.handled(bytes);
        self.behind.iter_mut().for_each(|behind| behind.handled(bytes));
        match drained {
            Drained::Empty => self.conntrack_is_silent(),
            Drained::More => self.notice_backlog()?,
            Drained::Overrun => {
                tracing::warn!("pausing: {}", Pause::EventsLost);
                // Of rules and routes we would have heard by other sockets.
                self.distrust(Change::Topology)?;
            }
        }
        Ok(())
    }

    /// New connections can wait until conntrack's events are read. `true` if there is more to do at once.
    fn admit(&mut self) -> Result<bool> {
        if self.rest.must_discard() || self.is_pressed() {
            return Ok(false);
        }
        let time = if self.behind.is_some() { CHORE } else { SLICE };
        self.offload.admit(Instant::now() + time)
    }

    /// Events have been waiting for so long that there is no time for anything else.
    fn is_pressed(&self) -> bool {
        self.behind.is_some_and(|behind| behind.age() > PATIENCE / 2)
    }

    fn conntrack_is_silent(&mut self) {
        self.pending.emptied();
        self.behind = None;
    }

    /// The events that wait now.
    fn backlog(&self) -> Result<Backlog> {
        Ok(Backlog::of(self.events.waiting()?))
    }

    fn read_network(&mut self) -> Result<()> {
        // First of all: what a new IPsec policy covers must not leave in clear any longer.
        if self.xfrm.read(Instant::now() + SLICE)? {
            self.bump_due = Some(Change::Policy);
            self.check_policies()?;
        }
        let changes = self.monitor.read(Instant::now() + SLICE)?;
        if changes.addresses {
            self.offload.set_local_addresses(&self.monitor.network().local_addresses);
        }
        if changes.links {
            if self.follow_mtus()? {
                self.look_around()?;
            } else {
                self.update_devices()?;
            }
        }
        if changes.forwarding {
            self.check_policies()?;
        }
        self.must_look_around |= changes.tc;
        let change = match changes {
            Changes { policy: true, .. } => Some(Change::Policy),
            Changes { routing: true, .. } if self.has_foreign_rules() => Some(Change::Policy),
            Changes { forwarding: true, .. } => Some(Change::Topology),
            _ => None,
        };
        self.bump_due = self.bump_due.max(change);
        Ok(())
    }

    /// Makes all connections look up again, once in a while at most.
    fn follow_topology(&mut self) -> Result<()> {
        if self.must_look_around {
            self.start_due_look()?;
        }
        if self.elements_changed && self.last_policy_bump.elapsed() >= ELEMENTS_PAUSE {
            self.bump_due = Some(Change::Policy);
        }
        match self.bump_due {
            Some(change) if self.last_bump.elapsed() >= BUMP_PAUSE => self.bump(change),
            _ => Ok(()),
        }
    }

    fn check_policies(&mut self) -> Result<()> {
        if !self.forbid_by_policy()? {
            return Ok(());
        }
        tracing::debug!("pausing: {}", Pause::Policy);
        self.distrust(Change::Policy)
    }

    /// They change without an event.
    fn check_routing_sysctls(&mut self) -> Result<()> {
        let attachments = &self.attachments;
        let attached = |index| attachments.iter().any(|ours| ours.ifindex() == index);
        let names = topology::named(&self.monitor.network().links, &attached);
        let sysctls = RoutingSysctls::read(names)?;
        if self.routing_sysctls == sysctls {
            return Ok(());
        }
        self.routing_sysctls = sysctls;
        self.bump_due = Some(Change::Policy);
        self.check_policies()
    }

    /// Some kinds of policy are not looked at packet by packet: with them nothing is offloaded, or
    /// not the connections that they cover. `true` if that takes a resync.
    fn forbid_by_policy(&mut self) -> Result<bool> {
        let refusal = self.reason_against_all();
        let fwmark_bits = self.monitor.network().rules.fwmark_bits;
        let by_mark = self.offload.require_route_mark(fwmark_bits != 0 && self.route_mark != 0);
        let changed = self.offload.forbid(refusal);
        match refusal {
            Some(refusal) if changed => {
                tracing::warn!("nothing is offloaded: {}", refusal.reason().line());
            }
            None if changed => tracing::info!("nothing stands against offloading any more"),
            _ => {}
        }
        let selectors = &self.xfrm.policies().selectors;
        let covers_more = self.offload.set_ipsec_selectors(selectors, Instant::now() + SLICE)?;
        Ok(changed || by_mark || covers_more)
    }

    /// Why nothing is offloaded, if so.
    fn reason_against_all(&self) -> Option<Refusal> {
        let network = self.monitor.network();
        let Network { rules, routes, groups, .. } = network;
        let (sysctls, ipsec) = (&self.routing_sysctls, self.xfrm.policies());
        // Without anybody who marks forwarded packets, look-ups agree with the stack (Tailscale,
        // wg-quick), and where they do not, there is no proof.
        let unknown_marks = self.has_foreign_marks() && self.rules.marks_packets();
        let by_more = network.has_multipath() && !sysctls.spreads_by_address;
        let reasons = [
            (ipsec.blocked_by_default || ipsec.selectors.are_too_many(), Refusal::Ipsec),
            (unknown_marks, Refusal::PolicyRouting),
            (rules.tos || routes.any_by_tos(), Refusal::TypeOfService),
            (rules.unknown, Refusal::UnknownRule),
            (rules.realms || routes.any_with_realm(), Refusal::Realms),
            (by_more || groups.any_resilient(), Refusal::Multipath),
            (sysctls.forwards_by_path_mtu, Refusal::PathMtu),
            (sysctls.accepts_redirects, Refusal::Redirects),
            (self.rules.copies_packets(), Refusal::Copies),
        ];
        reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
    }

    /// The kernel may ask for the way back otherwise than a packet's look-up does. Then a change of routes may
    /// concern what a proof does not hold. rp_filter asks without the mark (`__fib_validate_source` in
    /// fib_frontend.c), nftables' `fib` also without ports (`nft_fib4_eval` in nft_fib_ipv4.c). Both take any next
    /// hop of several.
    fn has_foreign_rules(&self) -> bool {
        let network = self.monitor.network();
        let rules = &network.rules;
        rules.fwmark_bits != 0 || rules.interfaces || rules.ports || network.has_multipath()
    }

    /// The same, of bits of marks alone.
    fn has_foreign_marks(&self) -> bool {
        self.monitor.network().rules.fwmark_bits & !self.route_mark != 0
    }

    fn bump(&mut self, change: Change) -> Result<()> {
        // At rest it is bumped anyway, at the end.
        if !matches!(self.rest, Rest::Awake) {
            return Ok(());
        }
        let change = self.bump_due.take().map_or(change, |due| due.max(change));
        self.last_bump = Instant::now();
        if change == Change::Policy {
            self.last_policy_bump = self.last_bump;
            self.elements_changed = false;
        }
        self.state.bump(change)
    }

    /// Brings the device maps up to date, at rest: a packet must not see half of the change.
    fn update_devices(&mut self) -> Result<()> {
        let transmitting = self.ask_drivers();
        let network = self.monitor.network();
        let positions = self.positions();
        let stays_up = |link: &Link| self.rules.chain_at(link).is_some();
        let all_generic = self.attachments.iter().all(|a| a.kind() == Kind::XdpGeneric);
        let asked = self.attachments.iter().zip(transmitting);
        let trusted: HashSet<u32> =
            asked.filter(|(_, said)| said.is_trusted()).map(|(a, _)| a.ifindex()).collect();
        let devices = View {
            hook: self.request.hook,
            links: &network.links,
            attached: &|ifindex| positions.contains_key(&ifindex),
            // Generic XDP hands the sk_buff over, which every driver sends.
            can_transmit: &|ifindex| all_generic || trusted.contains(&ifindex),
            route_mtu: &|ifindex| network.routes.smallest_mtu(ifindex),
            left_out: &|ifindex| {
                self.left_out.contains_key(&ifindex)
                    || network.links.get(&ifindex).is_some_and(stays_up)
            },
            room: self.device_maps.room(),
        }
        .devices();
        self.report_room(&devices);
        self.report_left_out();
        // Also when nothing changes for the datapath: what was down, or left out, can vanish.
        self.report_devices(&devices);
        if self.devices.as_ref() == Some(&devices) {
            return Ok(());
        }
        self.pause(Pause::Interfaces)?;
        self.devices = None;
        self.device_maps.set(&devices.links, &devices.egresses)?;
        self.devices = Some(devices);
        self.offload.resend_flags();
        // With the others: links that come and go do not bump more often than routes.
        self.bump_due = self.bump_due.max(Some(Change::Topology));
        Ok(())
    }

    fn report_room(&mut self, devices: &topology::Devices) {
        let before = std::mem::replace(&mut self.without_room, devices.without_room);
        match devices.warning(self.device_maps.room()) {
            Some(warning) if before != devices.without_room => tracing::warn!("{warning}"),
            None if before != 0 => tracing::info!("the maps of interfaces have room for all again"),
            _ => {}
        }
    }

    /// What the user would wonder about otherwise.
    fn report_devices(&mut self, devices: &topology::Devices) {
        let ports: HashSet<u32> = devices.egresses.iter().map(|(_, egress)| egress.port).collect();
        let before = std::mem::take(&mut self.unusable);
        for attachment in &self.attachments {
            let index = attachment.ifindex();
            let there = self.monitor.network().links.contains_key(&index);
            let usable = there && ports.contains(&index);
            // Why it is left out was said.
            let left_out =
                self.left_out.contains_key(&index) || self.rules.is_left_out(attachment.name());
            let problem = if there { self.reason_for_no_egress(attachment) } else { Problem::Gone };
            let now = (index, problem);
            let known = before.contains(&now);
            if there && left_out {
                self.unusable.extend(known.then_some(now));
                continue;
            }
            if usable {
                continue;
            }
            self.unusable.insert(now);
            if known {
                continue;
            }
            let (name, line) = (attachment.name(), problem.reason().line());
            if there {
                tracing::warn!("packets to {name} go by the stack: {line}");
            } else {
                tracing::warn!("{name}: {line}");
            }
        }
    }
}
