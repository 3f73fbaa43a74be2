// SPDX-License-Identifier: GPL-2.0-only
//! What is to be measured.

use crate::packets::plan::{Family, Transport};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// What is measured [default: all]
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Transport protocols
    #[arg(long, value_enum, value_delimiter = ',',
          default_values_t = [Transport::Udp, Transport::Tcp])]
    pub transports: Vec<Transport>,
    /// The address family; routes and bans are changed with IPv4 only
    #[arg(long, value_enum, default_value_t = Family::Ipv4)]
    pub family: Family,
    /// Seconds that the rate is kept up, or rules change
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Numbers of connections that stay, up to 1,000,000
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000],
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: Vec<u32>,
    /// Seconds that they are watched while idle, before UDP's end; active ones longer in proportion
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=90))]
    pub upkeep_seconds: u64,
    /// Short UDP connections that come beside them in each second
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=5))]
    pub questions: u32,
    /// With 1,000,000 connections, too
    #[arg(long, conflicts_with = "connections")]
    full: bool,
    /// Connections of which the latency is measured
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub probes: u32,
    /// Bans of each kind
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub bans: u32,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// From a connection's establishment to the fast path
    Latency,
    /// Connections that come and go
    Rate,
    /// The daemon's CPU time and memory, with connections that stay
    Upkeep,
    /// From a change of routing until all follow
    Reroute,
    /// A comparison of all with conntrack
    Resync,
    /// From a restart until all are fast again
    Restart,
    /// From a ban to the last packet, and until all others are fast again
    Ban,
    /// A change of rules every second
    Changes,
    /// What renewed proofs take of a core, together with the daemon
    Period,
}

impl Options {
    /// Numbers of connections that stay.
    pub fn connections(&self) -> Vec<u32> {
        if self.full { vec![1_000, 100_000, 1_000_000] } else { self.connections.clone() }
    }

    /// Whether this is to be measured.
    pub fn wants(&self, part: Part) -> bool {
        // Their routes and rules are IPv4's.
        let is_possible = self.family == Family::Ipv4 || !matches!(part, Part::Reroute | Part::Ban);
        is_possible && (self.parts.is_empty() || self.parts.contains(&part))
    }
}
