// SPDX-License-Identifier: GPL-2.0-only
//! Which IPsec policies may apply to forwarded packets (ip-xfrm(8), linux/xfrm.h).
//!
//! A route look-up does not ask the policies: what they would encrypt or drop would leave in the
//! clear.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::libc::{EINVAL, EPROTONOSUPPORT};

use super::message::messages;
use super::request::Request;
use super::socket::{NETLINK_XFRM, Received, Socket};
use super::xfrm_selector;
use crate::error::{Error, Result};
use crate::flow::family::Families;
use crate::flow::selector::{self, Selectors};

const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_MSG_EXPIRE: u16 = 0x18;
const XFRM_MSG_GETDEFAULT: u16 = 0x28;

/// Only the group of expiries hears of a policy whose time is over.
const XFRMNLGRP_EXPIRE: u32 = 2;
/// Added, changed, deleted and flushed policies, and changed defaults.
const XFRMNLGRP_POLICY: u32 = 4;

/// struct xfrm_userpolicy_default: one byte each for in, fwd and out.
const DEFAULTS: usize = 3;
const DEFAULT_FWD: usize = 1;
const DEFAULT_OUT: usize = 2;
const XFRM_USERPOLICY_BLOCK: u8 = 1;

/// Bytes of events that may wait. Losing some costs nothing: any event has everything read again.
const EVENT_ROOM: usize = 256 << 10;
const READING_EVENTS: &str = "reading IPsec policy changes";
const READING_POLICIES: &str = "reading the IPsec policies";
const READING_DEFAULTS: &str = "reading the default IPsec policies";

/// What the policies of a network namespace mean for forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// What those of direction out or fwd select of the packets.
    pub selectors: Selectors,
    /// Forwarded packets that match no policy are blocked.
    pub blocked_by_default: bool,
}

impl Policies {
    fn read(families: Families) -> Result<Self> {
        let mut socket = Socket::open(NETLINK_XFRM)?;
        let all = Request::new(XFRM_MSG_GETPOLICY, &[]);
        let selectors = socket.dump(READING_POLICIES, all, Vec::new, |found, message| {
            // One more than can be compared with shows that there are too many.
            if message.kind == XFRM_MSG_NEWPOLICY && found.len() <= selector::LIMIT {
                found.extend(xfrm_selector::decode(message.payload, families));
            }
        })?;
        let blocked_by_default = blocked_by_default(&mut socket)?;
        Ok(Self { selectors: Selectors::new(selectors), blocked_by_default })
    }
}

/// The policies and the events that change them.
pub struct Xfrm {
    /// None if the kernel has no IPsec (CONFIG_XFRM_USER).
    events: Option<Socket>,
    families: Families,
    policies: Policies,
    /// The policies changed, and were not read again yet.
    stale: bool,
}

impl Xfrm {
    /// Subscribes to changes, and only then reads the policies of the calling thread's namespace
    /// for packets of these families: nothing is missed in between. A kernel without IPsec has no
    /// policies.
    pub fn open(families: Families) -> Result<Self> {
        let events = subscribe()?;
        let policies = events.as_ref().map(|_| Policies::read(families)).transpose()?;
        Ok(Self { events, families, policies: policies.unwrap_or_default(), stale: false })
    }

    /// What to poll; nothing if the kernel has no IPsec.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(Socket::as_fd)
    }

    /// Takes the events that are waiting, until none is or the time is over, and after any of them
    /// reads the policies again, once. True if [`policies`](Self::policies) changed. After an error,
    /// what could not be read is tried again by the next call.
    pub fn read(&mut self, until: Instant) -> Result<bool> {
        let Some(events) = &mut self.events else {
            return Ok(false);
        };
        while let Some(changed) = read_one(events)? {
            self.stale |= changed;
            if Instant::now() >= until {
                break;
            }
        }
        if !self.stale {
            return Ok(false);
        }
        let policies = Policies::read(self.families)?;
        self.stale = false;
        let changed = self.policies != policies;
        self.policies = policies;
        Ok(changed)
    }

    /// The policies as of the last [`read`](Self::read).
    pub fn policies(&self) -> &Policies {
        &self.policies
    }
}

/// None if the kernel has no IPsec.
fn subscribe() -> Result<Option<Socket>> {
    let groups = [XFRMNLGRP_POLICY, XFRMNLGRP_EXPIRE];
    match Socket::subscribe(NETLINK_XFRM, &groups, EVENT_ROOM) {
        Err(Error::System { cause, .. }) if cause.raw_os_error() == Some(EPROTONOSUPPORT) => {
            Ok(None)
        }
        subscribed => subscribed.map(Some),
    }
}

/// Takes one datagram, if any is waiting: whether the policies may have changed.
fn read_one(events: &mut Socket) -> Result<Option<bool>> {
    let mut changed = false;
    let received = events.receive(|datagram| {
        // Only the expiry of a security association has nothing to do with policies.
        changed = messages(datagram)
            .any(|message| message.is_none_or(|message| message.kind != XFRM_MSG_EXPIRE));
    });
    match received.map_err(|cause| Error::system(READING_EVENTS, cause))? {
        Received::Datagrams => Ok(Some(changed)),
        Received::Empty => Ok(None),
        Received::Lost => Ok(Some(true)),
    }
}

/// Whether packets that match no policy are blocked. Kernels before 5.15 know no such default and
/// refuse the question.
fn blocked_by_default(socket: &mut Socket) -> Result<bool> {
    let mut blocked = false;
    let request = Request::new(XFRM_MSG_GETDEFAULT, &[0; DEFAULTS]);
    let answered = socket.ask(READING_DEFAULTS, request, |message| {
        blocked |= message.kind == XFRM_MSG_GETDEFAULT && blocks_forwarding(message.payload);
    });
    match answered {
        Err(Error::System { cause, .. }) if cause.raw_os_error() == Some(EINVAL) => Ok(false),
        answered => answered.map(|()| blocked),
    }
}

/// Whether forwarded packets that match no policy are blocked; so they are if this is cut off.
pub(super) fn blocks_forwarding(defaults: &[u8]) -> bool {
    [DEFAULT_FWD, DEFAULT_OUT]
        .iter()
        .any(|&at| defaults.get(at).is_none_or(|&action| action == XFRM_USERPOLICY_BLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_13_defaults_block_or_not() {
        let [accept, block] = [2, XFRM_USERPOLICY_BLOCK];
        assert!(!blocks_forwarding(&[block, accept, accept]));
        assert!(blocks_forwarding(&[accept, block, accept]));
        assert!(blocks_forwarding(&[accept, accept, block]));
        assert!(!blocks_forwarding(&[0; DEFAULTS]));
        assert!((0..DEFAULTS).all(|length| blocks_forwarding(&[accept; DEFAULTS][..length])));
    }
}
