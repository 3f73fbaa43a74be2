// SPDX-License-Identifier: GPL-2.0-only
//! What is to be measured.

use super::row::Row;
use clap::Args;
use std::path::PathBuf;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// What there is much of [default: each of them]
    #[arg(value_enum)]
    rows: Vec<Row>,
    /// Hooks
    #[arg(long, value_delimiter = ',', default_values_t = ["xdp".to_owned(), "tc".to_owned()],
          value_parser = ["xdp", "tc"])]
    pub hooks: Vec<String>,
    /// Attached interfaces
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    interfaces: u32,
    /// Routes
    #[arg(long, default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    routes: u32,
    /// Neighbors
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    neighbors: u32,
    /// Elements of an nftables set
    #[arg(long, default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    elements: u32,
    /// Rules of an nftables chain
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    rules: u32,
    /// Seconds that the daemon is watched, first without changes, then with
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Options {
    /// The rows that are asked for, each with its number.
    pub fn rows(&self) -> Vec<(Row, u32)> {
        let all = [
            (Row::Interfaces, self.interfaces),
            (Row::Routes, self.routes),
            (Row::Neighbors, self.neighbors),
            (Row::Elements, self.elements),
            (Row::Rules, self.rules),
        ];
        let wants = |row| self.rows.is_empty() || self.rows.contains(&row);
        all.into_iter().filter(|(row, _)| wants(*row)).collect()
    }
}
