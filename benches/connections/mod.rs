// SPDX-License-Identifier: GPL-2.0-only
//! What one connection costs.

mod crowd;
mod latency;
mod line;
mod multitude;
mod options;
mod questions;
mod rate;
mod reroute;
mod resync;
mod scissors;
mod stage;
mod upkeep;

pub use options::Options;

use super::packets::plan::Transport;
use super::packets::room::Room;
use super::report::{Machine, table, write_json};
use super::stop::Stop;
use super::usage::kernel_memory;
use latency::Latency;
use multitude::Multitude;
use options::Part;
use questions::Questions;
use rate::Rate;
use reroute::Reroute;
use resync::Resync;
use serde::Serialize;
use stage::Stage;
use std::time::Duration;
use upkeep::Upkeep;

/// More than are there at a time where connections come and go.
const FEW: u32 = 100_000;

/// All that was measured.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    latency: Vec<Latency>,
    rate: Vec<Rate>,
    upkeep: Vec<Upkeep>,
    reroute: Vec<Reroute>,
    resync: Vec<Resync>,
}

/// Measures, and prints.
pub fn run(options: &Options, stop: &Stop) -> Result<(), String> {
    let machine = Machine::here();
    println!("{machine}");
    let bench = Bench { options, stop };
    let (latency, rate) = (bench.latency()?, bench.rate()?);
    let (upkeep, reroute, resync) = (Vec::new(), Vec::new(), Vec::new());
    let mut report = Report { machine, latency, rate, upkeep, reroute, resync };
    let result = bench.multitudes(&mut report);
    // What has been measured before an error counts.
    options.json.as_deref().map_or(Ok(()), |path| write_json(path, &report))?;
    result
}

fn show(head: &[&str], lines: impl IntoIterator<Item = Vec<String>>) {
    println!("\n{}", table(head, &lines.into_iter().collect::<Vec<_>>()).trim_end());
}

/// What all measurements have in common.
struct Bench<'a> {
    options: &'a Options,
    stop: &'a Stop,
}

impl Bench<'_> {
    fn latency(&self) -> Result<Vec<Latency>, String> {
        let mut all = Vec::new();
        if !self.options.wants(Part::Latency) {
            return Ok(all);
        }
        for &transport in &self.options.transports {
            let stage = Stage::set(self.stop, FEW)?;
            for others in latency::OTHERS {
                all.push(latency::measure(&stage, transport, self.options.probes, others)?);
            }
        }
        show(&latency::HEAD, all.iter().map(Latency::line));
        Ok(all)
    }

    fn rate(&self) -> Result<Vec<Rate>, String> {
        let mut all = Vec::new();
        if !self.options.wants(Part::Rate) {
            return Ok(all);
        }
        let time = Duration::from_secs(self.options.seconds);
        for &transport in &self.options.transports {
            all.push(rate::measure(&Stage::set(self.stop, FEW)?, transport, time)?);
        }
        show(&rate::HEAD, all.iter().map(Rate::line));
        Ok(all)
    }

    /// What is measured with connections that stay.
    fn multitudes(&self, report: &mut Report) -> Result<(), String> {
        for number in self.options.connections() {
            for &transport in &self.options.transports {
                self.multitude(transport, number, report)?;
            }
        }
        Ok(())
    }

    /// What is measured with so many of them.
    fn multitude(
        &self,
        transport: Transport,
        number: u32,
        report: &mut Report,
    ) -> Result<(), String> {
        let wants = |part| self.options.wants(part);
        if ![Part::Upkeep, Part::Reroute, Part::Resync].into_iter().any(wants) {
            return Ok(());
        }
        // It outlives the stage, whose connections it is for.
        let _room = match Room::make(number, 1) {
            Ok(room) => room,
            Err(reason) => {
                println!("SKIPPED {number} connections: {reason}");
                return Ok(());
            }
        };
        let stage = Stage::set(self.stop, number + questions::MOST)?;
        let before = kernel_memory();
        let multitude = Multitude::gather(&stage, transport, number)?;
        let kernel = kernel_memory().saturating_sub(before);
        let mut questions = Questions::new(&stage, self.options.questions);
        if wants(Part::Upkeep) {
            let time = Duration::from_secs(self.options.upkeep_seconds);
            let both = upkeep::measure(&stage, &multitude, &mut questions, time, kernel)?;
            show(&upkeep::HEAD, both.iter().map(Upkeep::line));
            report.upkeep.extend(both);
        }
        if wants(Part::Reroute) {
            let reroute = reroute::measure(&stage, &multitude)?;
            show(&reroute::HEAD, [reroute.line()]);
            report.reroute.push(reroute);
        }
        if wants(Part::Resync) {
            let resync = resync::measure(&stage, &multitude, &questions)?;
            show(&resync::HEAD, [resync.line()]);
            report.resync.push(resync);
        }
        Ok(())
    }
}
