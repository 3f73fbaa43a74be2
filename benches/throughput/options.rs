// SPDX-License-Identifier: GPL-2.0-only
//! What is to be compared.

use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;

/// What to compare.
#[derive(Args)]
pub struct Options {
    /// Where bpfw is attached
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Hook::Xdp, Hook::Tc])]
    pub hooks: Vec<Hook>,
    /// Seconds between two proofs of a direction (--prove-every), against none
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub prove_every: u32,
    /// Seconds of each run of iperf3, after one that does not count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,
    /// Rounds, in each of which both are measured
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// XDP
    Xdp,
    /// TC ingress
    Tc,
}

impl Hook {
    /// As bpfw's command line has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}
