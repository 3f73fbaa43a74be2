// SPDX-License-Identifier: GPL-2.0-only
//! The benchmark: `cargo bench -- packets --help`, `connections --help`, `scale --help`,
//! `throughput --help`. docs/performance.md says what its figures mean.

mod connections;
mod packets;
mod report;
mod scale;
mod stop;
#[path = "../tests/support/mod.rs"]
mod support;
mod throughput;
mod usage;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use stop::Stop;

/// Measures bpfw in network namespaces of its own, as root.
#[derive(Parser)]
#[command(name = "bpfw-bench")]
struct Options {
    #[command(subcommand)]
    part: Part,
    /// What `cargo bench` adds.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Part {
    /// What one packet costs
    Packets(packets::Options),
    /// What one connection costs
    Connections(connections::Options),
    /// What a router takes that has very much of something
    Scale(scale::Options),
    /// What one TCP connection notices of periodic proofs
    Throughput(throughput::Options),
}

fn run(part: Part) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("this needs root, for network namespaces and BPF".into());
    }
    let stop = Stop::watch()?;
    match part {
        Part::Packets(options) => packets::run(&options, &stop),
        Part::Connections(options) => connections::run(&options, &stop),
        Part::Scale(options) => scale::run(&options, &stop),
        Part::Throughput(options) => throughput::run(&options, &stop),
    }
}

fn main() -> ExitCode {
    match run(Options::parse().part) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
