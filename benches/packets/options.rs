// SPDX-License-Identifier: GPL-2.0-only
//! What is to be measured.

use super::plan::{Connections, Family, Nat, Transport};
use super::row::Row;
use super::way::Way;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// The ways that are compared [default: all that the machine has]
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Bytes of each frame, without the check sequence; at least 60
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1500],
          value_parser = clap::value_parser!(u16).range(60..=1514))]
    pub sizes: Vec<u16>,
    /// Numbers of connections, up to 1,000,000
    #[arg(long, value_delimiter = ',', default_values_t = [64, 100_000],
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: Vec<u32>,
    /// Transport protocols
    #[arg(long, value_enum, value_delimiter = ',',
          default_values_t = [Transport::Udp, Transport::Tcp])]
    transports: Vec<Transport>,
    /// Address families
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Family::Ipv4])]
    family: Vec<Family>,
    /// What is translated of IPv4
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Nat::Snat])]
    nat: Vec<Nat>,
    /// What the router's interfaces stand on; other ways than from port to port with IPv4 and TC only
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Way::Port])]
    ways: Vec<Way>,
    /// Each of 1, 64, 10,000, 100,000 and 1,000,000 connections, with each translation
    #[arg(long, conflicts_with_all = ["connections", "nat"])]
    full: bool,
    /// How one packet's connection follows another's
    #[arg(long, value_enum, default_value_t = Order::Scattered)]
    pub order: Order,
    /// Rounds, in each of which every row is measured once
    #[arg(long, default_value_t = 41, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Packets of each row in a round, rounded up to a multiple of 64
    #[arg(long, default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub frames: u32,
    /// Also TC by filters of clsact, as before Linux 6.6
    #[arg(long)]
    clsact: bool,
    /// Another XDP program to measure: an object's first, or the one named after a colon
    #[arg(long, value_name = "FILE[:PROGRAM]")]
    pub xdp_object: Option<PathBuf>,
    /// The generator's object, if it was compiled before (make bench-object)
    #[arg(long, value_name = "FILE")]
    pub generator: Option<PathBuf>,
    /// What a nanosecond of this machine is: under qemu's -icount shift=0, an instruction
    #[arg(long, value_enum, default_value_t = Unit::Nanoseconds)]
    pub unit: Unit,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// How one packet's connection follows another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// In the order in which they were made
    InTurn,
    /// Far from one to the next
    Scattered,
}

/// What the figures count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Time
    Nanoseconds,
    /// Instructions
    Instructions,
}

impl Unit {
    /// The table's word.
    pub fn short(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Instructions => "instructions",
        }
    }
}

impl Options {
    /// The rows, in the table's order.
    pub fn rows(&self) -> Vec<Row> {
        let wanted = |row: &Row| {
            if self.rows.is_empty() {
                (*row != Row::XdpObject || self.xdp_object.is_some())
                    && (!row.is_clsact() || self.clsact)
            } else {
                self.rows.contains(row)
            }
        };
        Row::value_variants().iter().copied().filter(wanted).collect()
    }

    /// All kinds of connections that are measured.
    pub fn connections(&self) -> Vec<Connections> {
        let (numbers, nat) = if self.full {
            (&[1, 64, 10_000, 100_000, 1_000_000][..], Nat::value_variants())
        } else {
            (&self.connections[..], &self.nat[..])
        };
        let mut all = Vec::new();
        for (&family, &way) in
            self.family.iter().flat_map(|it| self.ways.iter().map(move |way| (it, way)))
        {
            if family == Family::Ipv6 && way != Way::Port {
                continue;
            }
            let nat = if family == Family::Ipv6 { &[Nat::None] } else { nat };
            for &transport in &self.transports {
                for &nat in nat {
                    let of = |&number| Connections { family, transport, nat, way, number };
                    all.extend(numbers.iter().map(of));
                }
            }
        }
        all
    }
}
