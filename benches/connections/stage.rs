// SPDX-License-Identifier: GPL-2.0-only
//! The lab with bpfw in its router, and who makes its connections come and go.

use super::crowd::{Member, Side};
use super::line::Line;
use super::scissors::Scissors;
use crate::packets::generator::{Generator, Timed};
use crate::packets::plan::{LAN_HOSTS, Plan, WAN_HOSTS};
use crate::packets::subject::program_of;
use crate::stop::Stop;
use crate::support::compile::compile_file;
use crate::support::daemon::Daemon;
use crate::support::lab::{CLIENT, Lab, SERVER};
use crate::support::maps::Maps;
use crate::support::router::{lab, start};
use crate::support::rules::snat_rules;
use bpfw::abi;
use libbpf_rs::Program;
use std::os::fd::AsFd;

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
    stop: Stop,
}

impl Stage {
    /// A router that masquerades, with bpfw at the hook xdp, which offloads so many at most.
    pub fn set(stop: &Stop, connections: u32) -> Result<Self, String> {
        let lab = lab("xdp", "connections", &snat_rules());
        lab.static_neighbours();
        lab.router.ip(&format!(
            "route add {LAN_HOSTS}/16 via {CLIENT}\nroute add {WAN_HOSTS}/16 via {SERVER}\n"
        ));
        let generator = Generator::new(&lab, &compile_file("benches/bpf/generator.bpf.c"))?;
        let number = connections.to_string();
        let daemon = start(&lab, "xdp", &["--log-level", "info", "--max-connections", &number]);
        let program = program_of(daemon.pid(), "bpfw_xdp")?;
        let program = Program::fd_from_id(program.id).map_err(|error| error.to_string())?;
        generator.set_next(program.as_fd())?;
        let maps = Maps::of(daemon.pid());
        let lan = Line::open(&lab.client, "eth0");
        let wan = Line::open(&lab.server, "eth0");
        let scissors = Scissors::open(&lab.router);
        Ok(Self { daemon, maps, lab, generator, lan, wan, scissors, stop: stop.clone() })
    }

    /// An error once the benchmark is asked to end.
    pub fn check(&self) -> Result<(), String> {
        self.stop.check()
    }

    /// Sends one packet of each of these connections, straight into the router. Says how many took
    /// the fast path.
    pub fn generate(&self, plan: &Plan, frames: u32) -> Result<u64, String> {
        self.check()?;
        let before = self.maps.packets(abi::BPFW_FORWARDED);
        let sent = self.generator.run(&self.lab.router, plan, Timed::only(frames));
        sent.map_err(|error| format!("running the generator: {error}"))?;
        Ok(self.maps.packets(abi::BPFW_FORWARDED) - before)
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
