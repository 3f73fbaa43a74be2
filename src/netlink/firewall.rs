// SPDX-License-Identifier: GPL-2.0-only
//! The nftables ruleset and the timeout policies of conntrack, read from the kernel when they
//! change (nfnetlink, nft(8), nfct(8)).

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc::EINVAL;

use super::message::{Message, messages};
use super::request::Request;
use super::ruleset::{Chain, Object, Rule, Ruleset};
use super::socket::{NETLINK_NETFILTER, Received, Socket};
use crate::error::{Error, Result};

/// The subsystem is the upper byte of a message's type.
const NFTABLES: u16 = 10 << 8;
const TIMEOUTS: u16 = 8 << 8;
const NFT_MSG_NEWTABLE: u16 = NFTABLES;
const NFT_MSG_DELTABLE: u16 = NFTABLES | 2;
const NFT_MSG_NEWCHAIN: u16 = NFTABLES | 3;
const NFT_MSG_GETCHAIN: u16 = NFTABLES | 4;
const NFT_MSG_DELCHAIN: u16 = NFTABLES | 5;
const NFT_MSG_NEWRULE: u16 = NFTABLES | 6;
const NFT_MSG_GETRULE: u16 = NFTABLES | 7;
const NFT_MSG_DELRULE: u16 = NFTABLES | 8;
const NFT_MSG_NEWSETELEM: u16 = NFTABLES | 12;
const NFT_MSG_DELSETELEM: u16 = NFTABLES | 14;
const NFT_MSG_NEWGEN: u16 = NFTABLES | 15;
const NFT_MSG_NEWOBJ: u16 = NFTABLES | 18;
const NFT_MSG_GETOBJ: u16 = NFTABLES | 19;
const NFT_MSG_DELOBJ: u16 = NFTABLES | 20;
const TIMEOUT_NEW: u16 = TIMEOUTS;
const TIMEOUT_GET: u16 = TIMEOUTS | 1;
const NFNLGRP_NFTABLES: u32 = 7;
/// struct nfgenmsg with AF_UNSPEC.
const ALL_FAMILIES: [u8; 4] = [0; 4];

/// Bytes of events that may wait. Losing some costs nothing: the ruleset is read again.
const EVENT_ROOM: usize = 256 << 10;
/// At least so long lies between two readings, and so many times what the last one took; where it
/// is urgent, the latter alone.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_TIMES: u32 = 10;
/// How long a ruleset that changes meanwhile is read again and again: well below the heartbeat's limit.
const ATTEMPTS: Duration = Duration::from_millis(200);
/// Loaded modules.
const MODULES: &str = "/sys/module";
const READING_EVENTS: &str = "reading ruleset changes";

/// What tells when the ruleset changes.
pub struct Firewall {
    events: Socket,
    questions: Socket,
    /// The ruleset changed, and was not read again yet.
    stale: bool,
    /// So did what packets must not get around: it is read again as soon as possible.
    urgent: bool,
    /// What has changed and was not reported yet.
    changed: Option<Changed>,
    transaction: Transaction,
    /// There are timeout policies of nftables', of ctnetlink's own.
    policies: [bool; 2],
    /// The kernel knows of no policies of ctnetlink's.
    no_ctnetlink_policies: bool,
    /// When the ruleset was read, and how long that took.
    last_reading: Option<(Instant, Duration)>,
    next_policies: Instant,
}

impl Firewall {
    /// Subscribes to changes. The ruleset of the calling thread's namespace counts as changed.
    pub fn open() -> Result<Self> {
        Ok(Self {
            events: Socket::subscribe(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES], EVENT_ROOM)?,
            questions: Socket::open(NETLINK_NETFILTER)?,
            stale: true,
            urgent: false,
            changed: None,
            transaction: Transaction::default(),
            policies: [false; 2],
            no_ctnetlink_policies: false,
            last_reading: None,
            next_policies: Instant::now(),
        })
    }

    /// Takes the events that are waiting, until none is or the time is over; says what they tell.
    pub fn read_events(&mut self, until: Instant) -> Result<Option<Changed>> {
        while self.read_one()? && Instant::now() < until {}
        Ok(self.changed.take())
    }

    /// If the ruleset has changed, reads it again, at most once in a while. `None` if there is
    /// nothing new. After an error, what could not be read is tried again by a later call.
    pub fn read(&mut self) -> Result<Option<Ruleset>> {
        let started = Instant::now();
        if started >= self.next_policies {
            self.policies[1] = self.has_ctnetlink_policies()?;
            self.next_policies = started + PAUSE;
        }
        if !self.is_due() {
            return Ok(None);
        }
        let ruleset = read_ruleset(&mut self.questions);
        self.last_reading = Some((Instant::now(), started.elapsed()));
        let Some(ruleset) = ruleset? else {
            return Ok(None);
        };
        self.policies[0] = ruleset.objects.iter().any(Object::is_timeout_policy);
        (self.stale, self.urgent) = (false, false);
        Ok(Some(ruleset))
    }

    fn is_due(&self) -> bool {
        let rested = self.last_reading.is_none_or(|(at, took)| {
            let least = if self.urgent { Duration::ZERO } else { PAUSE };
            at.elapsed() >= least.max(took * PAUSE_TIMES)
        });
        self.stale && rested
    }

    /// Nobody tells of these policies, so they are asked for again and again. Where nothing in the
    /// kernel knows of them, it would start a process for each question that looks for a module.
    fn has_ctnetlink_policies(&mut self) -> Result<bool> {
        if self.no_ctnetlink_policies && !is_loaded(Path::new(MODULES)) {
            return Ok(false);
        }
        let kinds = (TIMEOUT_GET, TIMEOUT_NEW);
        let until = Instant::now() + ATTEMPTS;
        let policies =
            try_dump(&mut self.questions, until, "timeout policies", kinds, |_| Some(()));
        self.no_ctnetlink_policies = policies.as_ref().is_err_and(is_unknown);
        match policies {
            Err(error) if is_unknown(&error) => Ok(false),
            // None: they change all the time, so there are some.
            policies => Ok(policies?.is_none_or(|policies| !policies.is_empty())),
        }
    }

    /// Whether there are policies that give some connections timeouts of their own.
    pub fn has_timeout_policies(&self) -> bool {
        self.policies.contains(&true)
    }

    /// Takes one datagram; false if none is waiting.
    fn read_one(&mut self) -> Result<bool> {
        let received = self.events.receive(|datagram| {
            for message in messages(datagram) {
                let kind = message.map(|message| message.kind);
                self.changed = self.changed.max(self.transaction.tells(kind));
                self.stale |= message.is_none_or(|message| is_change(message.kind));
                // At once: a connection may begin under it before the ruleset is read.
                self.policies[0] |= message.is_some_and(is_new_policy);
                self.urgent |= message.is_some_and(is_new_device_chain);
            }
        });
        let received = received.map_err(|cause| Error::system(READING_EVENTS, cause))?;
        if received == Received::Lost {
            (self.stale, self.urgent) = (true, true);
            self.changed = Some(Changed::Rules);
        }
        Ok(received != Received::Empty)
    }
}

impl AsFd for Firewall {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// What has changed for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// Elements of sets alone.
    Elements,
    /// Rules, or what they refer to.
    Rules,
}

/// The messages of a transaction so far; the one about the ruleset's new generation is its last.
#[derive(Debug, Default)]
struct Transaction {
    elements: bool,
    others: bool,
}

impl Transaction {
    /// What a message tells; `None` as kind is one that could not be read.
    fn tells(&mut self, kind: Option<u16>) -> Option<Changed> {
        match kind {
            Some(NFT_MSG_NEWSETELEM | NFT_MSG_DELSETELEM) => self.elements = true,
            Some(NFT_MSG_NEWGEN) => {
                let Self { elements, others } = std::mem::take(self);
                // Whatever it was that had no message of its own.
                let only_elements = elements && !others;
                return Some(if only_elements { Changed::Elements } else { Changed::Rules });
            }
            // A quota that is used up says so without a new generation.
            None | Some(NFT_MSG_NEWOBJ) => return Some(Changed::Rules),
            Some(_) => self.others = true,
        }
        None
    }
}

/// Elements of sets come and go without a change of the rules.
fn is_change(kind: u16) -> bool {
    matches!(
        kind,
        NFT_MSG_NEWTABLE
            | NFT_MSG_DELTABLE
            | NFT_MSG_NEWCHAIN
            | NFT_MSG_DELCHAIN
            | NFT_MSG_NEWRULE
            | NFT_MSG_DELRULE
            | NFT_MSG_NEWOBJ
            | NFT_MSG_DELOBJ
    )
}

fn is_new_policy(message: Message<'_>) -> bool {
    message.kind == NFT_MSG_NEWOBJ
        && Object::decode(message.payload).is_some_and(|object| object.is_timeout_policy())
}

fn is_new_device_chain(message: Message<'_>) -> bool {
    message.kind == NFT_MSG_NEWCHAIN
        && Chain::decode(message.payload).is_some_and(|chain| chain.is_at_device())
}

/// `None` if it changes faster than it can be read.
fn read_ruleset(socket: &mut Socket) -> Result<Option<Ruleset>> {
    let until = Instant::now() + ATTEMPTS;
    let kinds = (NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN);
    let Some(chains) = dump(socket, until, "chains", kinds, Chain::decode)? else {
        return Ok(None);
    };
    let kinds = (NFT_MSG_GETRULE, NFT_MSG_NEWRULE);
    let Some(rules) = dump(socket, until, "rules", kinds, Rule::decode)? else {
        return Ok(None);
    };
    let kinds = (NFT_MSG_GETOBJ, NFT_MSG_NEWOBJ);
    let objects = dump(socket, until, "objects", kinds, Object::decode)?;
    Ok(objects.map(|objects| Ruleset { chains, rules, objects }))
}

/// Whether the module of ctnetlink's timeout policies is there by now, as far as can be seen.
fn is_loaded(modules: &Path) -> bool {
    !modules.exists() || modules.join("nfnetlink_cttimeout").exists()
}

/// What a kernel without the subsystem says (nfnetlink_rcv_msg in nfnetlink.c).
fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::System { cause, .. } if cause.raw_os_error() == Some(EINVAL))
}

/// All objects of a kind; none in a kernel that does not know them. `None` if they changed during
/// each attempt, the last of which begins before this time.
fn dump<T>(
    socket: &mut Socket,
    until: Instant,
    what: &str,
    kinds: (u16, u16),
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<Vec<T>>> {
    match try_dump(socket, until, what, kinds, decode) {
        Err(error) if is_unknown(&error) => Ok(Some(Vec::new())),
        dumped => dumped,
    }
}

/// The same, where a kernel that does not know them is an error.
fn try_dump<T>(
    socket: &mut Socket,
    until: Instant,
    what: &str,
    (ask, answer): (u16, u16),
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<Vec<T>>> {
    let doing = format!("reading the firewall's {what}");
    let request = Request::new(ask, &ALL_FAMILIES);
    let dumped = socket.dump_until(Some(until), &doing, request, Vec::new, |all, message| {
        all.extend(decode(message.payload).filter(|_| message.kind == answer));
    });
    match dumped {
        Err(Error::Refused { .. }) => Ok(None),
        dumped => dumped.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::is_loaded;
    use std::path::Path;

    #[test]
    fn a_module_is_looked_for_where_there_is_a_list() {
        assert!(is_loaded(Path::new("/nowhere")), "nobody can tell");
        assert!(!is_loaded(Path::new("/sys/module/kernel")));
    }
}
