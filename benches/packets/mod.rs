// SPDX-License-Identifier: GPL-2.0-only
//! What one packet costs.

mod generator;
mod plan;
mod rounds;
mod row;
mod site;
mod warm_up;

use super::report::{median, table};
use super::support;
use clap::Args;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use plan::{Connections, Nat, Transport};
use rounds::{Extent, Series, measure};
use row::Row;
use site::Site;
use warm_up::warm_up;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// The ways that are compared [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Bytes of each frame, without the check sequence
    #[arg(long, value_delimiter = ',', default_values_t = [64])]
    sizes: Vec<u16>,
    /// Numbers of connections
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64])]
    connections: Vec<u32>,
    /// Transport protocols
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Transport::Udp])]
    transports: Vec<Transport>,
    /// What is translated
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Nat::Snat])]
    nat: Vec<Nat>,
    /// Rounds, in each of which every row is measured once
    #[arg(long, default_value_t = 41)]
    rounds: u32,
    /// Packets of each row in a round
    #[arg(long, default_value_t = 16_384)]
    frames: u32,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<(), String> {
    stay_on_one_cpu()?;
    for &transport in &options.transports {
        for &nat in &options.nat {
            for &number in &options.connections {
                run_connections(options, Connections { transport, nat, number })?;
            }
        }
    }
    Ok(())
}

fn run_connections(options: &Options, connections: Connections) -> Result<(), String> {
    let rows = if options.rows.is_empty() { &Row::ALL[..] } else { &options.rows };
    let sites: Vec<_> = rows.iter().map(|&row| Site::new(row, connections)).collect();
    for site in &sites {
        warm_up(site, connections, options.sizes[0].into())?;
    }
    for &size in &options.sizes {
        let extent = Extent { rounds: options.rounds, frames: options.frames };
        let all = measure(&sites, connections, size.into(), extent)?;
        println!("{connections:?}, {size} bytes");
        print!("{}", show(&all));
    }
    Ok(())
}

/// The CPU's caches and queues are those of one packet after the other.
fn stay_on_one_cpu() -> Result<(), String> {
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(1);
    let mut set = CpuSet::new();
    set.set(online as usize - 1)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|error| format!("staying on one CPU: {error}"))
}

fn show(all: &[Series]) -> String {
    let costs_of = |row: Row| all.iter().find(|each| each.row == row).map(Series::costs);
    let line = |series: &Series| {
        let costs = series.costs();
        let pairs = |other: Row, how: fn(f64, f64) -> f64| {
            let values = costs_of(other)?.into_iter().zip(&costs).map(|(b, a)| how(*a, b));
            Some(median(values.collect()))
        };
        let cell = |value: Option<f64>, digits| {
            value.map_or("-".into(), |value| format!("{value:.digits$}"))
        };
        vec![
            series.row.name().into(),
            format!("{:.1}", median(costs.clone())),
            cell(pairs(Row::Generator, |a, b| a - b), 1),
            cell(pairs(series.row.limit(), |a, b| a / b), 3),
            format!("{:.4}", series.share(|sample| sample.arrived)),
            cell(series.verified.map(|_| series.share(|sample| sample.forwarded)), 4),
            cell(series.verified.map(f64::from), 0),
        ]
    };
    let lines: Vec<_> = all.iter().map(line).collect();
    table(&["row", "ns", "above generator", "of limit", "arrived", "fast", "verified"], &lines)
}
