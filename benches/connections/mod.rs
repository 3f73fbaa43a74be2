// SPDX-License-Identifier: GPL-2.0-only
//! What one connection costs.

mod crowd;
mod latency;
mod line;
mod options;
mod rate;
mod scissors;
mod stage;
mod usage;

pub use options::Options;

use super::report::{Machine, table, write_json};
use super::stop::Stop;
use latency::Latency;
use options::Part;
use rate::Rate;
use serde::Serialize;
use stage::Stage;
use std::time::Duration;

/// All that was measured.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    latency: Vec<Latency>,
    rate: Vec<Rate>,
}

/// Measures, and prints.
pub fn run(options: &Options, stop: &Stop) -> Result<(), String> {
    let machine = Machine::here();
    println!("{machine}");
    let mut report = Report { machine, latency: Vec::new(), rate: Vec::new() };
    if options.wants(Part::Latency) {
        report.latency = latencies(options, stop)?;
        show(&latency::HEAD, report.latency.iter().map(Latency::line));
    }
    if options.wants(Part::Rate) {
        report.rate = rates(options, stop)?;
        show(&rate::HEAD, report.rate.iter().map(Rate::line));
    }
    options.json.as_deref().map_or(Ok(()), |path| write_json(path, &report))
}

fn show(head: &[&str], lines: impl Iterator<Item = Vec<String>>) {
    println!("\n{}", table(head, &lines.collect::<Vec<_>>()).trim_end());
}

fn latencies(options: &Options, stop: &Stop) -> Result<Vec<Latency>, String> {
    let mut all = Vec::new();
    for &transport in &options.transports {
        let stage = Stage::set(stop);
        for others in latency::OTHERS {
            all.push(latency::measure(&stage, transport, options.probes, others)?);
        }
    }
    Ok(all)
}

fn rates(options: &Options, stop: &Stop) -> Result<Vec<Rate>, String> {
    let time = Duration::from_secs(options.seconds);
    let measure = |&transport| rate::measure(&Stage::set(stop), transport, time);
    options.transports.iter().map(measure).collect()
}
