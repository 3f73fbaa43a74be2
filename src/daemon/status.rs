// SPDX-License-Identifier: GPL-2.0-only
//! The daemon's answer to `bpfw status`: only what it knows without a walk through any map.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags};

use super::Daemon;
use super::pause::FastPath;
use super::pauses::{PauseHistory, milliseconds};
use crate::abi;
use crate::datapath::counters;
use crate::datapath::instance_lock::namespace;
use crate::error::Result;
use crate::flow::family::{Families, Family};
use crate::netlink::routing_sysctls::kernel_forwards;
use crate::reasons::packet::{TESTIMONIES, VERDICTS};
use crate::status::feed::Feed;
use crate::status::listener::Listener;
use crate::status::socket::Stem;
use crate::status::{About, Cause, Heartbeat, Options, Reload, State, Status, Usage};

/// A longer answer might not fit into a socket's buffer, whose size is 208 KiB by default.
const LONGEST: usize = 64 << 10;
/// So many interfaces are told of at most.
const INTERFACES: usize = 128;

/// What clients ask, and what only they want to know.
pub(super) struct Clients {
    /// None if it could not be made.
    pub(super) listener: Option<Listener>,
    /// The same.
    pub(super) feed: Option<Feed>,
    pub(super) pauses: PauseHistory,
    /// What became of the last reload.
    pub(super) reload: Reload,
    started_at: Instant,
    netns: u64,
}

impl Clients {
    /// Opens the sockets. Without them all else works.
    pub(super) fn new(now: Instant) -> Result<Self> {
        let netns = namespace()?.into();
        let open = || -> Result<_> {
            let stem = Stem::new(netns)?;
            // Who finds the one to ask at finds the other one beside it.
            let feed = Feed::open(&stem)?;
            Ok((Listener::open(&stem)?, feed))
        };
        let sockets = open().map_err(|error| {
            tracing::warn!("bpfw status will not find this daemon: {error}");
        });
        let (listener, feed) = sockets.ok().unzip();
        Ok(Self {
            listener,
            feed,
            pauses: PauseHistory::default(),
            reload: Reload::default(),
            started_at: now,
            netns,
        })
    }

    /// All that wakes the daemon for a client.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let own = self.listener.iter().map(AsFd::as_fd).chain(self.feed.iter().map(AsFd::as_fd));
        let others = self.feed.iter().flat_map(Feed::clients);
        let waits = own.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // They say nothing. That they have gone is told even so.
        waits.chain(others.map(|fd| PollFd::new(fd, PollFlags::empty())))
    }
}

impl Daemon<'_> {
    /// Answers those who ask. What fails here is no reason to stop forwarding.
    pub(super) fn answer_clients(&self) {
        let Some(listener) = &self.clients.listener else { return };
        match self.answer() {
            Ok(answer) => listener.answer(&answer),
            Err(error) => {
                tracing::debug!("making an answer: {error}");
                listener.answer(b"\n");
            }
        }
    }

    /// One line.
    fn answer(&self) -> serde_json::Result<Vec<u8>> {
        let mut status = self.status(Instant::now());
        let mut answer = serde_json::to_vec(&status)?;
        if answer.len() >= LONGEST {
            status.more_interfaces += status.interfaces.len();
            status.interfaces.clear();
            answer = serde_json::to_vec(&status)?;
        }
        answer.push(b'\n');
        Ok(answer)
    }

    fn status(&self, now: Instant) -> Status {
        let offload = &self.connections.offload;
        let (state, reason) = self.state();
        let (interfaces, more_interfaces) =
            self.interfaces.tell(&self.monitor.network().links, INTERFACES);
        let mark = self.settings.options.offload_mark;
        let next_hops = self.datapath.hops.used().unwrap_or_default();
        Status {
            bpfw: self.about(now),
            state,
            paused_ms: match &self.fast_path {
                FastPath::Forwarding => None,
                FastPath::Paused(paused) => Some(milliseconds(now - paused.since)),
            },
            reason,
            forbidden: self.forbidden(),
            interfaces,
            more_interfaces,
            connections: Usage {
                used: offload.connections() as u64,
                limit: offload.limit() as u64,
            },
            next_hops: Usage { used: next_hops.into(), limit: abi::BPFW_HOP_SLOTS.into() },
            packets: self.packets(),
            refusals: offload
                .refusals()
                .iter()
                .map(|(refusal, times)| (refusal.reason().name.to_owned(), times))
                .collect(),
            pauses: self.clients.pauses.tell(now),
            heartbeat: Heartbeat {
                age_ms: milliseconds(self.datapath.heartbeat_age()),
                limit_ms: milliseconds(self.datapath.heartbeat_limit()),
                interval_ms: milliseconds(self.settings.options.interval()),
            },
            configuration: self.source.as_ref().map(|source| source.path().display().to_string()),
            reload: self.clients.reload.clone(),
            warnings: self.policy.rules.warnings(),
            options: Options {
                offload_mark: mark.map(|mark| (mark.value, mark.mask)),
                offload_mark_negated: mark.is_some_and(|mark| mark.negated),
                route_mark_mask: self.policy.route_mark,
                route_mark_required: Families::FORWARDED
                    .iter()
                    .filter(|family| offload.requires_route_mark(*family))
                    .map(|family| family.name().to_owned())
                    .collect(),
            },
        }
    }

    fn about(&self, now: Instant) -> About {
        About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: abi::BPFW_ABI_VERSION,
            pid: std::process::id(),
            netns: self.clients.netns,
            hook: self.settings.hook.name().to_owned(),
            up_ms: milliseconds(now - self.clients.started_at),
        }
    }

    /// What the fast path does, and why it does not forward, if so.
    pub(super) fn state(&self) -> (State, Option<Cause>) {
        if let FastPath::Paused(paused) = &self.fast_path {
            return (State::Paused, Some(paused.reason.reason().into()));
        }
        let forbidden = self.forbidden();
        // A router of IPv4 alone forwards nothing if nothing of IPv4 is offloaded.
        let mut forwarded = Families::FORWARDED.iter().filter(|family| kernel_forwards(*family));
        let all_forbidden = forwarded.all(|family| forbidden.contains_key(family.name()));
        match forbidden.into_values().next().filter(|_| all_forbidden) {
            Some(cause) => (State::Forbidden, Some(cause)),
            None if !self.interfaces.is_any_used() => (State::NothingUsable, None),
            None => (State::Forwarding, None),
        }
    }

    /// Why no connection of an address family is offloaded.
    fn forbidden(&self) -> BTreeMap<String, Cause> {
        let forbidden = |family: Family| {
            let refusal = self.connections.offload.forbidden(family)?;
            Some((family.name().to_owned(), refusal.reason().into()))
        };
        Families::FORWARDED.iter().filter_map(forbidden).collect()
    }

    /// By verdict. Nothing if the kernel does not say; it always has.
    fn packets(&self) -> BTreeMap<String, u64> {
        let read = self.datapath.counters.read().unwrap_or_default();
        let reasons = VERDICTS.iter().chain(&TESTIMONIES);
        reasons
            .map(|reason| (reason.name.to_owned(), counters::sum(&read, reason.number)))
            .collect()
    }
}
