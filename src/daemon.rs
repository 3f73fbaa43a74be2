// SPDX-License-Identifier: GPL-2.0-only
//! The daemon: sets everything up, then one thread in one loop until it is asked to end.

mod rest;
mod setup;
mod stop;
mod tick;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::Run;
use crate::conntrack::events::{Drained, Events};
use crate::datapath::attachment::{Attachment, Kind, can_transmit};
use crate::datapath::claim::Claim;
use crate::datapath::counters::Counters;
use crate::datapath::hop_map::HopMap;
use crate::datapath::object::LoadedObject;
use crate::datapath::skeleton::Storage;
use crate::datapath::state::State;
use crate::datapath::{Hook, devices};
use crate::error::{Error, Result};
use crate::flow::decision::Refusal;
use crate::netlink::monitor::Monitor;
use crate::netlink::xfrm::Xfrm;
use crate::offload::Offload;
use crate::offload::topology::{self, View};
use crate::shutdown::Shutdown;

use rest::Rest;

/// The longest piece of work between two looks at the events.
const SLICE: Duration = Duration::from_millis(10);
/// At most one bump in this time, however fast the topology changes.
const BUMP_PAUSE: Duration = Duration::from_millis(20);

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

/// Runs until SIGINT or SIGTERM, and leaves nothing behind.
pub fn run(request: &Request, storage: &mut Storage) -> Result<()> {
    let shutdown = Shutdown::watch()?;
    let mut daemon = Daemon::start(request, storage, shutdown)?;
    let result = daemon.turns();
    let stopped = daemon.stop();
    result.and(stopped)
}

struct Daemon<'obj> {
    request: &'obj Request,
    object: LoadedObject<'obj>,
    attachments: Vec<Attachment>,
    _claims: Vec<Claim>,
    state: State,
    hops: HopMap,
    counters: Counters,
    device_maps: devices::Devices,
    devices: topology::Devices,
    offload: Offload,
    events: Events,
    monitor: Monitor,
    xfrm: Xfrm,
    shutdown: Shutdown,
    rest: Rest,
    /// The age at which the datapath takes a heartbeat for too old.
    limit: Duration,
    last_tick: Instant,
    last_beat: Instant,
    last_bump: Instant,
    last_device_check: Instant,
    must_bump: bool,
    /// Housekeeping has more to do than fitted in its slice.
    busy: bool,
    /// Slots of next hops whose neighbors are to be kept in use.
    neighbors_due: Vec<u32>,
    pending: Pending,
}

/// Whose events wait.
struct Ready {
    conntrack: bool,
    network: bool,
}

/// Whether everything that conntrack had told is handled.
#[derive(Default)]
struct Pending {
    bytes_read: u64,
    queue_was_empty: bool,
}

impl Daemon<'_> {
    fn turns(&mut self) -> Result<()> {
        loop {
            let ready = self.wait()?;
            if self.shutdown.is_asked() {
                return Ok(());
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
        if ready.conntrack || self.rest.must_discard() {
            self.read_conntrack()?;
        } else {
            self.pending.queue_was_empty = true;
        }
        // Once a tick in any case: what failed before is tried again.
        if ready.network || tick {
            self.read_network()?;
        }
        self.follow_topology()?;
        if tick {
            self.last_tick = Instant::now();
            self.tick()?;
        }
        self.busy = self.keep_house()?;
        self.go_on_resting()
    }

    /// Sleeps until something happens or the next piece of work is due.
    fn wait(&self) -> Result<Ready> {
        let mut fds: Vec<PollFd<'_>> =
            [self.shutdown.as_fd(), self.events.as_fd(), self.monitor.as_fd()]
                .into_iter()
                .chain(self.xfrm.as_fd())
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
        let mut timeout = self.request.options.interval().saturating_sub(self.last_tick.elapsed());
        if self.must_bump {
            timeout = timeout.min(BUMP_PAUSE);
        }
        if self.busy || self.rest.wants_time() {
            timeout = Duration::ZERO;
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
        Ok(Ready { conntrack: is_ready(&fds[1]), network: fds[2..].iter().any(is_ready) })
    }

    fn read_conntrack(&mut self) -> Result<()> {
        if self.rest.must_discard() {
            return self.discard_events();
        }
        let before = self.events.bytes_read();
        let ports = self.offload.own_ports();
        let mut failed = None;
        let offload = &mut self.offload;
        let drained = self.events.read(&ports, Instant::now() + SLICE, &mut |event| {
            if let Err(error) = offload.on_event(event) {
                failed.get_or_insert(error);
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        self.offload.flush()?;
        self.pending.bytes_read += self.events.bytes_read().wrapping_sub(before);
        match drained {
            Drained::Empty => self.pending.queue_was_empty = true,
            Drained::More => {}
            Drained::Overrun => {
                tracing::warn!("conntrack events were lost: comparing with conntrack");
                self.distrust()?;
            }
        }
        Ok(())
    }

    /// Whether all that was waiting in conntrack's queue is handled. Its messages come in order:
    /// when more has been read than it can hold, what was waiting is among it.
    fn has_caught_up(&self) -> Result<bool> {
        Ok(self.pending.queue_was_empty || self.pending.bytes_read > self.events.capacity()? as u64)
    }

    fn read_network(&mut self) -> Result<()> {
        let changes = self.monitor.read(Instant::now() + SLICE)?;
        if changes.addresses {
            self.offload.set_local_addresses(&self.monitor.network().local_addresses);
        }
        if changes.links {
            self.update_devices()?;
        }
        if self.xfrm.read(Instant::now() + SLICE)? || changes.forwarding {
            self.check_policies()?;
        }
        self.must_bump |= changes.forwarding;
        Ok(())
    }

    /// Makes all connections look up again, once in a while at most.
    fn follow_topology(&mut self) -> Result<()> {
        if self.must_bump && self.last_bump.elapsed() >= BUMP_PAUSE {
            self.bump()?;
        }
        Ok(())
    }

    /// Some kinds of policy are not looked at packet by packet: with them nothing is offloaded.
    fn check_policies(&mut self) -> Result<()> {
        let rules = &self.monitor.network().rules;
        let reason = if self.xfrm.covers_forwarding() {
            Some(Refusal::Ipsec)
        } else {
            (rules.fwmark || rules.tos).then_some(Refusal::PolicyRouting)
        };
        if self.offload.forbid(reason) {
            match reason {
                Some(reason) => tracing::warn!("nothing is offloaded: {reason}"),
                None => tracing::info!("nothing stands against offloading any more"),
            }
            self.distrust()?;
        }
        Ok(())
    }

    fn bump(&mut self) -> Result<()> {
        self.must_bump = false;
        self.last_bump = Instant::now();
        // At rest it is bumped anyway, at the end.
        if matches!(self.rest, Rest::Awake) { self.state.bump() } else { Ok(()) }
    }

    /// Brings the device maps up to date, at rest: a packet must not see half of the change.
    fn update_devices(&mut self) -> Result<()> {
        self.last_device_check = Instant::now();
        let network = self.monitor.network();
        let attached = |ifindex| self.attachments.iter().any(|a| a.ifindex() == ifindex);
        let all_generic = self.attachments.iter().all(|a| a.kind() == Kind::XdpGeneric);
        let devices = View {
            hook: self.request.hook,
            links: &network.links,
            attached: &attached,
            // Generic XDP hands the sk_buff over, which every driver sends.
            can_transmit: &|link| all_generic || can_transmit(link.index, &link.name),
            route_mtu: &|ifindex| network.route_mtus.smallest_mtu(ifindex),
        }
        .devices();
        if devices == self.devices {
            return Ok(());
        }
        self.state.rest()?;
        self.device_maps.set(&devices.links, &devices.egresses)?;
        self.devices = devices;
        self.report_devices();
        self.offload.resend_flags();
        self.bump()
    }

    /// What the user would wonder about otherwise.
    fn report_devices(&self) {
        for attachment in &self.attachments {
            let name = attachment.name();
            let index = attachment.ifindex();
            let is_egress = |(_, egress): &(u32, crate::abi::bpfw_egress)| egress.port == index;
            if !self.monitor.network().links.contains_key(&index) {
                tracing::warn!("{name} is gone: restart bpfw when it is back");
            } else if self.request.hook == Hook::Xdp && !self.devices.egresses.iter().any(is_egress)
            {
                tracing::warn!(
                    "{name} takes no redirected frames now: packets to it go by the stack. It is \
                     down, or its driver cannot (a veth can while its peer has GRO or XDP)"
                );
            }
        }
    }
}
