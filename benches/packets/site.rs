// SPDX-License-Identifier: GPL-2.0-only
//! A lab of its own for each row, so that rows can be run in turn.

use super::generator::Generator;
use super::plan::{Action, Connections, LAN_HOSTS, Nat, Plan, WAN_HOSTS};
use super::row::Row;
use super::support::daemon::Daemon;
use super::support::lab::{CLIENT, Lab, Offloads, SERVER};
use super::support::maps::Maps;
use super::support::router::start;
use super::support::rules;
use bpfw::abi;
use bpfw::datapath::sys::AttachType;
use libbpf_rs::Program;
use libbpf_rs::query::{ProgInfoIter, ProgramInfo};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Seconds until conntrack forgets: longer than the benchmark.
const TIMEOUT: &str = "36000";

/// A router, its hosts, and what stands at the router's interfaces.
pub struct Site {
    pub row: Row,
    lab: Lab,
    generator: Generator,
    daemon: Option<(Daemon, Maps)>,
    verified: Option<u32>,
    _link: Option<OwnedFd>,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Nanoseconds per frame.
    pub cost: f64,
    pub sent: u64,
    pub arrived: u64,
    /// By bpfw's fast path, if it is there.
    pub forwarded: u64,
}

impl Site {
    /// Builds what the row needs.
    pub fn new(row: Row, connections: Connections) -> Self {
        let lab = lab(connections.nat);
        let generator = Generator::new(&lab);
        let mut site = Self { row, lab, generator, daemon: None, verified: None, _link: None };
        if row == Row::TcRedirect {
            let attach = AttachType::TcxIngress;
            site._link =
                Some(site.generator.attach("redirect_tc", &site.lab.router, "lan0", attach));
        }
        if let Some(hook) = row.hook() {
            let number = connections.number.to_string();
            let options = ["--max-connections", &number, "--log-level", "info"];
            let daemon = start(&site.lab, hook, &options);
            site.use_program(&daemon, &format!("bpfw_{hook}"));
            let maps = Maps::of(daemon.pid());
            site.daemon = Some((daemon, maps));
        }
        site
    }

    /// The daemon's program, which the generator calls in XDP's case.
    fn use_program(&mut self, daemon: &Daemon, name: &str) {
        let info = program_of(daemon.pid(), name);
        self.verified = Some(info.verified_insns);
        if self.row == Row::BpfwXdp {
            let program = Program::fd_from_id(info.id).expect("the daemon runs");
            self.generator.set_next(program.as_fd());
        }
    }

    /// What becomes of the generator's frames when it is measured.
    pub fn action(&self) -> Action {
        match self.row {
            Row::Generator => Action::Drop,
            Row::XdpRedirect => Action::Redirect,
            Row::BpfwXdp => Action::Call,
            Row::TcRedirect | Row::BpfwTc => Action::Pass,
        }
    }

    /// Whether there must be connections in conntrack.
    pub fn has_connections(&self) -> bool {
        self.daemon.is_some()
    }

    /// Whether this connection is on bpfw's fast path; `None`: there is no bpfw.
    pub fn is_offloaded(&self, connections: Connections, number: u32) -> Option<bool> {
        let (_, maps) = self.daemon.as_ref()?;
        Some(maps.has_connection(connections.tuple(number)))
    }

    /// The instructions that the verifier went through, of bpfw's program.
    pub fn verified(&self) -> Option<u32> {
        self.verified
    }

    /// Sends frames and counts what became of them.
    pub fn send(&self, plan: &Plan, frames: u32) -> Result<Sample, String> {
        let before = (self.generator.arrived(), self.forwarded());
        let run = self
            .generator
            .run(&self.lab.router, plan, frames)
            .map_err(|error| format!("running the generator: {error}"))?;
        // Softirqs may have left some to their thread.
        std::thread::sleep(Duration::from_millis(2));
        Ok(Sample {
            cost: run.cost,
            sent: run.sent,
            arrived: self.generator.arrived() - before.0,
            forwarded: self.forwarded() - before.1,
        })
    }

    fn forwarded(&self) -> u64 {
        self.daemon.as_ref().map_or(0, |(_, maps)| maps.packets(abi::BPFW_FORWARDED))
    }
}

/// A router with hosts beyond its neighbors, and with nobody who counts packets.
fn lab(nat: Nat) -> Lab {
    let lab = Lab::new("bench", Offloads::Plain);
    lab.static_neighbours();
    lab.router.ip(&format!(
        "route add {LAN_HOSTS}/16 via {CLIENT}\nroute add {WAN_HOSTS}/16 via {SERVER}\n"
    ));
    for name in ["udp_timeout", "udp_timeout_stream", "tcp_timeout_unacknowledged"] {
        lab.router.sysctl(&format!("net/netfilter/nf_conntrack_{name}"), TIMEOUT);
    }
    lab.nft(&match nat {
        Nat::None => rules::no_nat_rules(),
        Nat::Snat => rules::snat_rules(),
        Nat::Dnat => format!("{}{}", rules::no_nat_rules(), dnat()),
    });
    lab.nft("delete table inet seen\n");
    lab
}

/// All that the LAN sends to the WAN's hosts goes to the server.
fn dnat() -> String {
    format!(
        "table ip bench {{
            chain prerouting {{
                type nat hook prerouting priority -100; policy accept;
                iifname lan0 ip daddr {WAN_HOSTS}/16 dnat to {SERVER}
            }}
        }}\n"
    )
}

/// The program of this name that a process holds open.
fn program_of(pid: u32, name: &str) -> ProgramInfo {
    let directory = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the daemon runs");
    let texts = directory.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    let ids: Vec<u32> = texts
        .filter_map(|text| {
            text.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
        })
        .collect();
    let mut all = ProgInfoIter::default();
    let found = all.find(|each| ids.contains(&each.id) && each.name.to_str() == Some(name));
    found.unwrap_or_else(|| panic!("process {pid} has no program {name}"))
}
