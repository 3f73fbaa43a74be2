// SPDX-License-Identifier: GPL-2.0-only
//! What one connection costs.

mod ban;
mod changes;
mod crowd;
mod latency;
mod line;
mod multitude;
mod options;
mod period;
mod questions;
mod rate;
mod reroute;
mod restart;
mod resync;
mod scissors;
mod sender;
mod stage;
mod traffic;
mod upkeep;

pub use options::Options;

use super::packets::plan::Transport;
use super::packets::room::Room;
use super::packets::router::let_entries_last;
use super::report::{Machine, table, write_json};
use super::stop::Stop;
use super::usage::kernel_memory;
use ban::Bans;
use changes::RuleChanges;
use crowd::crowd;
use latency::Latency;
use multitude::Multitude;
use options::Part;
use period::Period;
use questions::Questions;
use rate::Rate;
use reroute::Reroute;
use restart::Restart;
use resync::Resync;
use serde::Serialize;
use stage::{Proofs, Stage};
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
    restart: Vec<Restart>,
    ban: Vec<Bans>,
    changes: Vec<RuleChanges>,
    period: Vec<Period>,
}

/// Measures, and prints.
pub fn run(options: &Options, stop: &Stop) -> Result<(), String> {
    let machine = Machine::here();
    println!("{machine}");
    let bench = Bench { options, stop };
    let (latency, rate) = (bench.latency()?, bench.rate()?);
    let mut report = Report {
        machine,
        latency,
        rate,
        upkeep: Vec::new(),
        reroute: Vec::new(),
        resync: Vec::new(),
        restart: Vec::new(),
        ban: Vec::new(),
        changes: Vec::new(),
        period: Vec::new(),
    };
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
            let stage = Stage::set(self.stop, self.options.family, FEW, Proofs::Once)?;
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
            all.push(rate::measure(
                &Stage::set(self.stop, self.options.family, FEW, Proofs::Once)?,
                transport,
                time,
            )?);
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
        let wants = |parts: &[Part]| parts.iter().any(|part| self.options.wants(*part));
        let stay = wants(&[Part::Upkeep, Part::Reroute, Part::Resync]);
        if !stay && !wants(&[Part::Restart, Part::Ban, Part::Changes, Part::Period]) {
            return Ok(());
        }
        // It outlives the stages, whose connections it is for.
        let _room = match Room::make(number, 1) {
            Ok(room) => room,
            Err(reason) => {
                println!("SKIPPED {number} connections: {reason}");
                return Ok(());
            }
        };
        if stay {
            self.stay(transport, number, report)?;
        }
        if wants(&[Part::Restart]) {
            self.restart(transport, number, report)?;
        }
        if wants(&[Part::Ban]) {
            self.ban(transport, number, report)?;
        }
        if wants(&[Part::Changes]) {
            self.changes(transport, number, report)?;
        }
        if wants(&[Part::Period]) {
            self.period(transport, number, report)?;
        }
        Ok(())
    }

    fn stay(&self, transport: Transport, number: u32, report: &mut Report) -> Result<(), String> {
        let wants = |part| self.options.wants(part);
        let stage =
            Stage::set(self.stop, self.options.family, number + questions::MOST, Proofs::Once)?;
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

    fn restart(
        &self,
        transport: Transport,
        number: u32,
        report: &mut Report,
    ) -> Result<(), String> {
        let mut stage = Stage::set(self.stop, self.options.family, number, Proofs::Once)?;
        let connections = Multitude::gather(&stage, transport, number)?.connections();
        let restart = restart::measure(&mut stage, connections)?;
        show(&restart::HEAD, [restart.line()]);
        report.restart.push(restart);
        Ok(())
    }

    fn ban(&self, transport: Transport, number: u32, report: &mut Report) -> Result<(), String> {
        // Those that are banned come on top.
        let bans = self.options.bans;
        let all = number + bans * ban::MEANS.len() as u32;
        let stage = Stage::set(self.stop, self.options.family, all, Proofs::Once)?;
        let_entries_last(&stage.lab);
        Multitude::gather(&stage, transport, all)?;
        for (first, means) in (number..).step_by(bans as usize).zip(ban::MEANS) {
            let others = crowd(stage.family, transport, number);
            let bans = ban::measure(&stage, others, means, first..first + bans)?;
            show(&ban::HEAD, [bans.line()]);
            report.ban.push(bans);
        }
        Ok(())
    }

    fn changes(
        &self,
        transport: Transport,
        number: u32,
        report: &mut Report,
    ) -> Result<(), String> {
        let stage = Stage::set(self.stop, self.options.family, number, Proofs::Periodic)?;
        let connections = Multitude::gather(&stage, transport, number)?.connections();
        let time = Duration::from_secs(self.options.seconds);
        let changes = changes::measure(&stage, connections, time)?;
        show(&changes::HEAD, [changes.line()]);
        report.changes.push(changes);
        Ok(())
    }

    fn period(&self, transport: Transport, number: u32, report: &mut Report) -> Result<(), String> {
        let stage =
            Stage::set(self.stop, self.options.family, number + questions::MOST, Proofs::Periodic)?;
        let multitude = Multitude::gather(&stage, transport, number)?;
        let mut questions = Questions::new(&stage, self.options.questions);
        let time = Duration::from_secs(self.options.upkeep_seconds) * 2;
        let period = period::measure(&stage, &multitude, &mut questions, time)?;
        show(&period::HEAD, [period.line()]);
        report.period.push(period);
        Ok(())
    }
}
