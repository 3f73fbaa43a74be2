// SPDX-License-Identifier: GPL-2.0-only
//! The lab with bpfw in its router, and who makes its connections come and go.

use super::crowd::{Member, Side};
use super::line::Line;
use super::scissors::Scissors;
use crate::packets::generator::{Generator, Timed};
use crate::packets::plan::{Action, Connections, Family, Plan, Step};
use crate::packets::router::{add_hosts, of_family};
use crate::packets::subject::program_of;
use crate::packets::way::Way;
use crate::stop::Stop;
use crate::support::compile::compile_file;
use crate::support::daemon::Daemon;
use crate::support::lab::Lab;
use crate::support::maps::Maps;
use crate::support::process::Running;
use crate::support::router::{LIMIT, lab};
use crate::support::rules::{no_nat_rules, snat_rules};
use bpfw::abi;
use libbpf_rs::Program;
use nix::sys::signal::Signal;
use std::ops::Range;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// No byte of payload.
const FRAME: usize = 60;

/// How often each direction of a connection proves itself anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proofs {
    /// Once, and after changes (`--prove-every 0`).
    Once,
    /// Also once a period, which the daemon chooses by the number of connections.
    Periodic,
}

/// What became of packets.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// How many took the fast path.
    pub fast: u64,
    /// From the first one to the last: what the generator's CPU had to do for them.
    pub time: Duration,
}

/// Everything that a measurement needs; gone when dropped.
pub struct Stage {
    // Before the lab: the daemon ends before its namespace.
    pub daemon: Daemon,
    pub maps: Maps,
    pub lab: Lab,
    generator: Generator,
    lan: Line,
    wan: Line,
    scissors: Scissors,
    pub family: Family,
    /// The daemon's.
    arguments: Vec<String>,
    proofs: Proofs,
    stop: Stop,
}

/// What the daemon says when it begins to forward.
const FORWARDING: &str = "forwarding";

fn arguments(connections: u32, proofs: Proofs) -> Vec<String> {
    let mut arguments = format!("xdp --log-level info --max-connections {connections}");
    if proofs == Proofs::Once {
        arguments += " --prove-every 0";
    }
    arguments += " lan0 wan0";
    arguments.split(' ').map(str::to_owned).collect()
}

fn start(lab: &Lab, arguments: &[String]) -> Daemon {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    Daemon::start(&lab.router, &arguments)
}

impl Stage {
    /// A router that masquerades IPv4, with bpfw at the hook xdp, which offloads so many at most.
    pub fn set(
        stop: &Stop,
        family: Family,
        connections: u32,
        proofs: Proofs,
    ) -> Result<Self, String> {
        let rules = match family {
            Family::Ipv4 => snat_rules(),
            Family::Ipv6 => of_family(&no_nat_rules(), family),
        };
        let lab = lab("xdp", "connections", &rules);
        add_hosts(&lab, family);
        let object = compile_file("benches/bpf/generator.bpf.c");
        let generator = Generator::new(&lab, Way::Port, &object)?;
        let arguments = arguments(connections, proofs);
        let daemon = start(&lab, &arguments);
        daemon.wait_for_line(FORWARDING, LIMIT);
        let maps = Maps::of(daemon.pid());
        let lan = Line::open(&lab.client, "eth0");
        let wan = Line::open(&lab.server, "eth0");
        let scissors = Scissors::open(&lab.router);
        let stop = stop.clone();
        let stage = Self {
            daemon,
            maps,
            lab,
            generator,
            lan,
            wan,
            scissors,
            family,
            arguments,
            proofs,
            stop,
        };
        stage.call_daemon()?;
        Ok(stage)
    }

    /// Ends the daemon and starts another one; says when that went on forwarding, or a little earlier.
    /// `meanwhile` is called again and again.
    pub fn restart(
        &mut self,
        mut meanwhile: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<Instant, String> {
        self.daemon.signal(Signal::SIGTERM);
        while self.daemon.exited().is_none() {
            meanwhile(self)?;
        }
        self.daemon = start(&self.lab, &self.arguments);
        let mut looked = Instant::now();
        while !self.daemon.lines().iter().any(|line| line.contains(FORWARDING)) {
            looked = Instant::now();
            meanwhile(self)?;
        }
        self.maps = Maps::of(self.daemon.pid());
        self.call_daemon()?;
        Ok(looked)
    }

    /// The least share of packets that is fast when all connections are.
    pub fn most(&self) -> f64 {
        match self.proofs {
            // At XDP, one packet in 65,536 has a checksum that may be half done, and goes up.
            Proofs::Once => 0.9999,
            // Passes follow one another so fast that fewer prove themselves anew.
            Proofs::Periodic => 0.8,
        }
    }

    /// The generator's frames go to the daemon's program.
    fn call_daemon(&self) -> Result<(), String> {
        let program = program_of(self.daemon.pid(), "bpfw_xdp")?;
        let program = Program::fd_from_id(program.id).map_err(|error| error.to_string())?;
        self.generator.set_next(program.as_fd())
    }

    /// An error once the benchmark is asked to end.
    pub fn check(&self) -> Result<(), String> {
        self.stop.check()
    }

    /// Each of these connections sends a packet in both directions, as it would come from the network.
    pub fn speak(&self, connections: Connections, which: Range<u32>) -> Result<Sent, String> {
        let data = self.run(connections, Step::Data, Action::Call, which.clone())?;
        let reply = self.run(connections, Step::Reply, Action::Call, which)?;
        Ok(Sent { fast: data.fast + reply.fast, time: data.time + reply.time })
    }

    /// Each of these connections sends this packet, straight into the router.
    pub fn run(
        &self,
        connections: Connections,
        step: Step,
        action: Action,
        which: Range<u32>,
    ) -> Result<Sent, String> {
        self.check()?;
        let (start, frames) = (which.start, which.len() as u32);
        let plan = Plan { connections, step, action, frame_len: FRAME, start, stride: 1 };
        let before = self.maps.packets(abi::BPFW_FORWARDED);
        let sent = self.generator.run(&self.lab.router, &plan, Timed::only(frames));
        let each = sent.map_err(|error| format!("running the generator: {error}"))?;
        let fast = self.maps.packets(abi::BPFW_FORWARDED) - before;
        // Not a number for one frame, which has no time from the first one to the last.
        let time = Duration::try_from_secs_f64(each * f64::from(frames) / 1e9).unwrap_or_default();
        Ok(Sent { fast, time })
    }

    /// Starts nft in the router.
    pub fn nft(&self, words: &str) -> Running {
        let mut command = self.lab.router.command("nft");
        let child = command.arg(words).stdin(Stdio::null()).spawn();
        Running::new(child.unwrap_or_else(|error| panic!("starting nft: {error}")))
    }

    /// Sends frames of one side.
    pub fn send<'a>(&self, side: Side, frames: impl IntoIterator<Item = &'a [u8]>) {
        let line = if side == Side::Lan { &self.lan } else { &self.wan };
        line.send(frames);
    }

    /// Makes connections: first each one's first frame is sent, then each one's second, and so on.
    pub fn open(&self, openings: &[&[(Side, Vec<u8>)]]) {
        let steps = openings.first().map_or(0, |opening| opening.len());
        for step in 0..steps {
            let side = openings[0][step].0;
            self.send(side, openings.iter().map(|opening| &opening[step].1[..]));
        }
    }

    /// Ends connections in conntrack.
    pub fn close(&self, members: impl IntoIterator<Item = Member>) {
        self.scissors.cut(members);
    }

    /// Whether packets of both directions would take the fast path.
    pub fn is_offloaded(&self, member: Member) -> bool {
        // The daemon adds this direction after the other one, or some microseconds before it.
        self.maps.has_connection(member.reply())
    }

    /// Packets of the original direction that took the fast path.
    pub fn forwarded(&self, member: Member) -> u64 {
        self.maps.connection(member.original()).map_or(0, |conn| conn.volume().0)
    }
}

impl Drop for Stage {
    /// Says what the daemon has warned of, which may explain a figure.
    fn drop(&mut self) {
        let lines = self.daemon.lines();
        lines.iter().filter(|line| line.contains("WARN")).for_each(|line| println!("{line}"));
    }
}
