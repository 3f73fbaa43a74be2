// SPDX-License-Identifier: GPL-2.0-only
//! The loop: one turn after the other, until a Unix signal asks for the end.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Daemon, SLICE};
use crate::error::{Error, Result};

/// How soon the daemon takes the datapath's signals while new connections come, because their first
/// segments pass up.
const SIGNALS: Duration = Duration::from_millis(10);

/// Whose events wait.
struct Ready {
    conntrack: bool,
    network: bool,
    clients: bool,
}

impl Daemon<'_> {
    pub(super) fn run(&mut self) -> Result<()> {
        loop {
            let ready = self.wait()?;
            self.manager.alive(Instant::now());
            if self.shutdown.is_asked() {
                return Ok(());
            }
            if self.shutdown.must_reload() {
                self.reload()?;
            }
            self.interfaces.attach_until(Instant::now())?;
            // A failure in a turn is no reason to give up. The stack takes over, and the daemon
            // compares everything.
            let turned = if self.must_turn(&ready) { self.turn(&ready) } else { Ok(()) };
            if let Err(error) = turned {
                self.recover(&error)?;
            }
            // Clients come last, so that they delay nothing that forwarding depends on. They hear what has happened
            // before they hear what is the case now.
            self.tell_news();
            if ready.clients {
                self.welcome_clients();
                self.answer_clients();
            }
        }
    }

    /// Whether there is more to do than to answer clients, and no error to wait after.
    fn must_turn(&self, ready: &Ready) -> bool {
        let only_clients = ready.clients && !ready.conntrack && !ready.network;
        self.fast_path.retry_in(Instant::now()).is_none()
            && (!only_clients || self.until_next_turn().is_zero())
    }

    /// Work that restricts the fast path comes before work that extends it.
    fn turn(&mut self, ready: &Ready) -> Result<()> {
        let tick = self.schedule.is_tick_due(Instant::now());
        let has_expired = self.monitor.wait(Instant::now()).is_some_and(|wait| wait.is_zero());
        // Once a tick in any case: what failed before is tried again.
        let network = ready.network || has_expired || tick;
        self.notice_lateness()?;
        if network {
            self.read_firewall()?;
        }
        if ready.conntrack || self.fast_path.must_discard() {
            self.read_conntrack()?;
        } else {
            self.connections.backlogs.emptied();
        }
        if network {
            self.read_network()?;
        }
        self.follow_topology()?;
        if tick {
            self.tick()?;
        }
        self.go_on_scanning(Instant::now() + SLICE)?;
        if tick || self.connections.offload.expects_signals() {
            self.take_signals()?;
        }
        let admitting = self.admit()?;
        self.schedule.busy = self.keep_house()? || admitting;
        self.work_towards_the_end()
    }

    /// Sleeps until something happens or the next piece of work is due.
    fn wait(&self) -> Result<Ready> {
        let poll_in = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![poll_in(self.shutdown.as_fd())];
        fds.extend(self.clients.poll_fds());
        let first = fds.len();
        let timeout = match self.fast_path.retry_in(Instant::now()) {
            Some(wait) => wait,
            None => {
                let policy = &self.policy;
                fds.extend([self.connections.events.as_fd(), self.monitor.as_fd()].map(poll_in));
                fds.push(poll_in(policy.rules.firewall.as_fd()));
                fds.extend(policy.xfrm.as_fd().map(poll_in));
                self.until_next_turn()
            }
        };
        let timeout = self.manager.wait(Instant::now()).map_or(timeout, |wait| timeout.min(wait));
        // Rounded up: a poll that returns a little early would spin.
        let timeout = timeout.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => {
                return Ok(Ready { conntrack: true, network: true, clients: false });
            }
            Err(errno) => return Err(Error::system("waiting for events", errno)),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        Ok(Ready {
            conntrack: fds.get(first).is_some_and(is_ready),
            network: fds.iter().skip(first + 1).any(is_ready),
            clients: fds.iter().take(first).skip(1).any(is_ready),
        })
    }

    /// How long the daemon may sleep if there are no events.
    fn until_next_turn(&self) -> Duration {
        let now = Instant::now();
        if self.schedule.busy || self.interfaces.is_busy() || self.fast_path.is_urgent(now) {
            return Duration::ZERO;
        }
        let signals = self.connections.offload.expects_signals().then_some(SIGNALS);
        let scan = self.interfaces.scans.wait();
        let due = [signals, scan, self.generations.wait(now), self.monitor.wait(now)];
        let due = due.into_iter().flatten();
        due.chain([self.schedule.until_tick(now)]).min().unwrap_or_default()
    }
}
