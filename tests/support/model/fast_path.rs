// SPDX-License-Identifier: GPL-2.0-only
//! bpfw in the model's lab: its process, its maps, and whether they are what the model says.

use super::expect::{Model, REFUSED_MARK};
use super::op::{CONNS, Conn};
use super::router;
use super::tracked;
use crate::support::daemon::Daemon;
use crate::support::lab::Lab;
use crate::support::maps::Maps;
use crate::support::router::LIMIT;
use crate::support::wait::{becomes_true, eventually};
use bpfw::abi::{self, bpfw_conn};
use bpfw::conntrack::entry::Entry;
use bpfw::flow::tuple::Tuple;
use bpfw::reasons::packet::{self, VERDICTS};
use nix::sys::signal::Signal;

/// How much the daemon may grow after its start, in KiB. A resync after a flood holds some ten
/// thousand connections for a moment.
const GROWTH: u64 = 32 << 10;

/// In which each direction proves itself anew, in seconds: short, so that there are many.
pub const PERIOD: u64 = 1;

/// A daemon, dead or alive.
pub struct FastPath {
    daemon: Daemon,
    maps: Maps,
    programs: Vec<u32>,
    resident: u64,
}

impl FastPath {
    /// Starts it and waits until it forwards.
    pub fn start(lab: &Lab, hook: &str) -> Self {
        let mark = format!("0/{REFUSED_MARK:#x}");
        let period = PERIOD.to_string();
        let options = ["--log-level", "debug", "--offload-mark", &mark, "--prove-every", &period];
        let args = [&[hook][..], &options, &["lan0", "wan0", "dmz0"]].concat();
        let daemon = Daemon::start(&lab.router, &args);
        daemon.wait_for_line("forwarding", LIMIT);
        let (maps, programs) = (Maps::of(daemon.pid()), programs(daemon.pid()));
        let resident = resident(daemon.pid());
        Self { daemon, maps, programs, resident }
    }

    /// Packets forwarded; the counter outlives the daemon.
    pub fn forwarded(&self) -> u64 {
        self.maps.packets(abi::BPFW_FORWARDED)
    }

    /// Whether a connection's direction is in the map.
    pub fn holds(&self, tuple: Tuple) -> bool {
        self.maps.has_connection(tuple)
    }

    /// Packets by verdict.
    pub fn verdicts(&self) -> String {
        let counts = VERDICTS.iter().map(|reason| (self.maps.packets(reason.number), reason));
        let counts = counts.filter(|(packets, _)| *packets != 0);
        counts.map(|(packets, reason)| packet::summary(reason, packets) + "\n").collect()
    }

    pub fn lines(&self) -> Vec<String> {
        self.daemon.lines()
    }

    pub fn signal(&self, signal: Signal) {
        self.daemon.signal(signal);
    }

    /// An awake daemon lives, and has kept its size.
    pub fn check_health(&mut self) -> Result<(), String> {
        if let Some(status) = self.daemon.exited() {
            return Err(format!("the daemon has ended: {status}"));
        }
        let resident = resident(self.daemon.pid());
        if resident > self.resident + GROWTH {
            return Err(format!("the daemon has grown from {} to {resident} KiB", self.resident));
        }
        Ok(())
    }

    /// Ends it by this signal. Nothing of it is left at the interfaces.
    pub fn end(&mut self, lab: &Lab, signal: Signal, before: &str) -> Result<(), String> {
        self.daemon.signal(signal);
        let status = self.daemon.wait_exit(LIMIT);
        if signal == Signal::SIGTERM && !status.success() {
            return Err(format!("the daemon ended with {status}"));
        }
        let is_loaded = |id: &u32| libbpf_rs::ProgramHandle::from_prog_id(*id).is_ok();
        eventually(LIMIT, "its programs are gone", || !self.programs.iter().any(is_loaded));
        let after = router::attached(lab);
        if after == before { Ok(()) } else { Err(format!("before: {before}\nafter: {after}")) }
    }

    /// Waits until the map holds what it may hold, and nothing else.
    pub fn settle(&self, lab: &Lab, model: &Model) -> Result<(), String> {
        let mut found = Ok(());
        becomes_true(LIMIT, || {
            found = self.check_map(model, &tracked::entries(lab));
            found.is_ok()
        });
        found
    }

    fn check_map(&self, model: &Model, entries: &[Entry]) -> Result<(), String> {
        let conns = self.maps.connections();
        for conn in &conns {
            let tuple = conn.tuple().decode().ok_or("a tuple of no protocol")?;
            let (known, reply) =
                owner(tuple).ok_or_else(|| format!("a stranger in the map: {tuple}"))?;
            let entry = tracked::entry_of(entries, known)
                .ok_or_else(|| format!("conntrack does not know {known:?}: {tuple}"))?;
            if entry.id != conn.rest.id {
                return Err(format!("{known:?} is another connection than conntrack's"));
            }
            if !tracked::is_established(entry) || !model.eligible(known) {
                return Err(format!("{known:?} must not be in the map: {entry:?}"));
            }
            check_translation(conn, known, reply)?;
            if !conns.iter().any(|other| Some(other.tuple()) == conn.reverse()) {
                return Err(format!("{known:?} has one direction only"));
            }
        }
        Ok(())
    }
}

/// Whose tuple this is, and whether of its reply direction.
fn owner(tuple: Tuple) -> Option<(Conn, bool)> {
    let all = CONNS.into_iter().flat_map(|conn| [(conn, false), (conn, true)]);
    all.into_iter().find(|(conn, reply)| conn.flow().tuple(*reply) == tuple)
}

/// What leaves is the other direction's tuple, turned around.
fn check_translation(conn: &bpfw_conn, known: Conn, reply: bool) -> Result<(), String> {
    let right = abi::bpfw_tuple::from(known.flow().tuple(!reply));
    let direction = if reply { "reply" } else { "original" };
    let is_right = conn.reverse() == Some(right);
    let marked = conn.is_reply() == reply;
    if is_right && marked {
        Ok(())
    } else {
        Err(format!("the {direction} direction of {known:?} is wrong: {conn:?}"))
    }
}

/// Ids of the BPF programs that a process holds. Attached ones stay loaded without it.
fn programs(pid: u32) -> Vec<u32> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the daemon runs");
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let id = |text: String| {
        text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
    };
    texts.filter_map(id).collect()
}

/// Resident memory in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
