// SPDX-License-Identifier: GPL-2.0-only
//! What the daemon tells about itself: one JSON object over a socket, for `bpfw status` and all that asks
//! like it.
//!
//! Names stay the same for good, and new ones may come: a client takes no notice of those that it does not
//! know.

pub mod check;
pub mod client;
pub mod event;
pub mod feed;
pub mod listener;
pub mod socket;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::sys::socket::SockType;
use serde::{Deserialize, Serialize};

use crate::reasons::Reason;
use crate::reasons::interface::Found;

/// A socket's name is the number of the network namespace, this, and a number of its own.
const SEPARATOR: char = '-';

/// All that the daemon tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Who answers.
    pub bpfw: About,
    /// What the fast path as a whole does.
    pub state: State,
    /// For how long it has been pausing.
    pub paused_ms: Option<u64>,
    /// Why it does not forward, if so.
    pub reason: Option<Cause>,
    /// Why no connection of an address family is offloaded, by the family's name.
    pub forbidden: BTreeMap<String, Cause>,
    /// The interfaces that were named and VLAN devices on them; those with problems come first.
    pub interfaces: Vec<Interface>,
    /// How many more interfaces there are than an answer has room for.
    pub more_interfaces: usize,
    /// The offloaded connections.
    pub connections: Usage,
    /// The next hops that they use, or have used.
    pub next_hops: Usage,
    /// Packets by the short name of their verdict.
    pub packets: BTreeMap<String, u64>,
    /// How often a connection was looked at and left to the stack, by the reason's short name.
    pub refusals: BTreeMap<String, u64>,
    /// The pauses that have ended.
    pub pauses: Pauses,
    /// The daemon's sign of life.
    pub heartbeat: Heartbeat,
    /// The configuration file, if there is one.
    pub configuration: Option<String>,
    /// What became of the last reload of this file.
    pub reload: Reload,
    /// What the rules of the firewall do that offloaded packets do not meet.
    pub warnings: Vec<Warning>,
    /// What the command line asked for, as far as it decides about connections.
    pub options: Options,
}

/// Which bpfw this is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Its version.
    pub version: String,
    /// The version of what it shares with its BPF programs.
    pub abi: u32,
    /// Its process.
    pub pid: u32,
    /// The number of its network namespace.
    pub netns: u64,
    /// The hook's word on the command line.
    pub hook: String,
    /// For how long it has been running.
    pub up_ms: u64,
}

/// What the fast path as a whole does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Packets take the fast path, at one interface at least.
    Forwarding,
    /// All packets go to the stack for a while.
    Paused,
    /// Policies stand against offloading any connection.
    Forbidden,
    /// There is no interface whose packets could be forwarded.
    NothingUsable,
    /// The daemon does not answer. Only a client says this.
    Late,
    /// Another version's word.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A reason, as in docs/reasons.md.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// Its short name.
    pub name: String,
    /// What it means.
    pub words: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// What it is about in this case: a chain, a program, an error.
    pub detail: Option<String>,
}

/// An interface, and what becomes of its packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub device: String,
    /// Its kind, as its driver registers it: veth, vlan, bridge, ...; hardware has none.
    pub kind: Option<String>,
    /// How programs are attached: xdp, tcx or clsact. None if its port's programs serve it, or before they
    /// are attached.
    pub attached: Option<String>,
    /// Of XDP: native or generic.
    pub mode: Option<String>,
    /// A port's name may stand for its bridge or bond, or for VLAN devices: their packets are forwarded.
    pub stands_for: Vec<String>,
    /// Packets that come in here are forwarded.
    pub forwards_from: bool,
    /// Packets that leave here are forwarded.
    pub forwards_to: bool,
    /// Why one of the two is not so.
    pub reason: Option<Cause>,
    /// What else its user should know.
    pub notices: Vec<Cause>,
}

/// How much of something is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// So many.
    pub used: u64,
    /// And so many at most.
    pub limit: u64,
}

/// The pauses that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pauses {
    /// How many.
    pub count: u64,
    /// How long all of them took.
    pub ms: u64,
    /// By the short name of their last reason.
    pub by_reason: BTreeMap<String, PausesOfReason>,
    /// The last one.
    pub last: Option<LastPause>,
}

/// The pauses for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PausesOfReason {
    /// How many.
    pub count: u64,
    /// How long they took.
    pub ms: u64,
}

/// The pause that has ended last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastPause {
    /// Its last reason.
    pub reason: Cause,
    /// How long it took.
    pub ms: u64,
    /// How long ago it ended.
    pub ago_ms: u64,
}

/// The daemon's sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// How long ago the last one was.
    pub age_ms: u64,
    /// When it is too old: all packets go to the stack.
    pub limit_ms: u64,
    /// How often one is sent.
    pub interval_ms: u64,
}

/// What became of the last reload of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reload {
    /// How many reloads there were.
    pub number: u64,
    /// How this one went.
    pub result: Reloaded,
    /// What has changed and what has not, or what is wrong.
    pub text: String,
}

/// How a reload went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reloaded {
    /// All that the file says is so.
    Applied,
    /// Some of it needs a restart.
    NeedsRestart,
    /// The file has a mistake, and nothing has changed.
    Refused,
    /// There was none, or this is another version's word.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Rules that do not meet offloaded packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Warning {
    /// What they do.
    pub what: String,
    /// The first chain in which there are some.
    pub chain: Option<String>,
}

/// What the command line asked for, as far as it decides about connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// `--offload-mark`: value and mask.
    pub offload_mark: Option<(u32, u32)>,
    /// Only connections with other marks are offloaded.
    pub offload_mark_negated: bool,
    /// The bits of conntrack's mark that packets are routed by; 0 for none.
    pub route_mark_mask: u32,
    /// The address families for which there are rules that go by these bits.
    pub route_mark_required: Vec<String>,
}

impl Status {
    /// Whether all packets can take the fast path at all interfaces.
    pub fn is_complete(&self) -> bool {
        self.state == State::Forwarding && self.interfaces.iter().all(Interface::is_used)
    }
}

impl Interface {
    /// Whether packets from it and to it are forwarded.
    pub fn is_used(&self) -> bool {
        self.forwards_from && self.forwards_to
    }
}

impl From<Reason> for Cause {
    fn from(reason: Reason) -> Self {
        Self {
            name: reason.name.to_owned(),
            words: reason.words.to_owned(),
            advice: reason.advice.map(str::to_owned),
            detail: None,
        }
    }
}

impl From<&Found> for Cause {
    fn from(found: &Found) -> Self {
        Self { detail: found.detail.clone(), ..found.problem.reason().into() }
    }
}

impl Cause {
    /// The words, with what they are about in this case.
    pub fn text(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.words),
            None => self.words.clone(),
        }
    }
}

/// What a daemon has a socket for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// A stream: the answer to `bpfw status`.
    Status,
    /// Packets: what begins and ends, see [`event::Event`].
    Events,
}

impl Service {
    /// What the name of such a socket ends in.
    fn ending(self) -> &'static str {
        match self {
            Self::Status => "sock",
            Self::Events => "events",
        }
    }

    fn socket_type(self) -> SockType {
        match self {
            Self::Status => SockType::Stream,
            Self::Events => SockType::SeqPacket,
        }
    }

    /// The socket with this stem, or beside this other one.
    fn path(self, stem: &Path) -> PathBuf {
        stem.with_extension(self.ending())
    }

    /// What a socket is for, by its path; `None` if it is none of bpfw's.
    fn of(path: &Path) -> Option<Self> {
        namespace_of(path)?;
        let ending = path.extension()?;
        [Self::Status, Self::Events].into_iter().find(|service| service.ending() == ending)
    }
}

/// Where a daemon can be asked, without an ending. Not its process is in the name: in two containers it may be
/// the same.
fn stem_of(directory: &Path, namespace: u64, own: u64) -> PathBuf {
    directory.join(format!("{namespace}{SEPARATOR}{own:016x}"))
}

/// The network namespace of a socket, by its path; `None` if it has another name.
fn namespace_of(path: &Path) -> Option<u64> {
    let (namespace, _) = path.file_stem()?.to_str()?.split_once(SEPARATOR)?;
    namespace.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_tells_its_namespace() {
        let stem = stem_of(Path::new("/run/bpfw"), 4_026_531_840, 0xabc);
        let path = Service::Status.path(&stem);
        assert_eq!(path, Path::new("/run/bpfw/4026531840-0000000000000abc.sock"));
        assert_eq!(namespace_of(&path), Some(4_026_531_840));
        assert_eq!(Service::of(&path), Some(Service::Status));
        assert_eq!(Service::of(&Service::Events.path(&path)), Some(Service::Events));
        for other in ["/run/bpfw/lock", "/run/bpfw/7-3.new", "/run/bpfw/x-3.sock"] {
            assert_eq!(Service::of(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn what_another_version_says_is_read_as_far_as_it_is_known() {
        let status: Status = serde_json::from_str(
            r#"{"bpfw":{"pid":7,"color":"red"},"state":"dreaming","extra":[1]}"#,
        )
        .unwrap();
        assert_eq!((status.bpfw.pid, status.state), (7, State::Unknown));
        let whole = Status { paused_ms: Some(7), state: State::NothingUsable, ..status };
        let text = serde_json::to_string(&whole).unwrap();
        assert!(text.contains(r#""state":"nothing-usable""#), "{text}");
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), whole);
    }
}
