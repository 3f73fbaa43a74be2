// SPDX-License-Identifier: GPL-2.0-only
//! What one packet costs.

mod clsact;
mod cpu;
mod figures;
pub mod generator;
mod options;
pub mod plan;
pub mod room;
mod rounds;
pub mod router;
mod row;
mod site;
pub mod subject;
mod warm_up;
pub mod way;

pub use options::{Options, Order, Unit};

use super::report::{Machine, write_json};
use super::stop::Stop;
use super::support;
use bpfw::datapath::probe;
use figures::{Measurement, growth};
use plan::Connections;
use room::Room;
use rounds::{Extent, measure};
use row::Row;
use serde::Serialize;
use site::Site;
use std::fs;
use std::path::Path;
use support::compile::compile_file;
use warm_up::warm_up;
use way::Way;

/// All that was measured.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    unit: Unit,
    packets: Vec<Measurement>,
    /// What could not be measured, and why.
    skipped: Vec<String>,
}

impl Report {
    /// Says once what cannot be measured, and why.
    fn skip(&mut self, what: String) {
        if !self.skipped.contains(&what) {
            println!("SKIPPED {what}");
            self.skipped.push(what);
        }
    }
}

/// Measures, and prints.
pub fn run(options: &Options, stop: &Stop) -> Result<(), String> {
    if !probe::has_live_frames() {
        return Err("this kernel has no live frames, as which packets are sent (Linux 5.18)".into());
    }
    let machine = Machine::here();
    cpu::stay_on_the_last()?;
    println!("{machine}");
    let (packets, skipped) = (Vec::new(), Vec::new());
    let mut report = Report { machine, unit: options.unit, packets, skipped };
    let bench = Bench { options, stop, generator: generator(options.generator.as_deref())? };
    for connections in options.connections() {
        bench.run(connections, &mut report)?;
    }
    if let Some(growth) = growth(&report.packets) {
        println!("\n{}", growth.trim_end());
    }
    options.json.as_deref().map_or(Ok(()), |path| write_json(path, &report))
}

/// The generator's object.
fn generator(file: Option<&Path>) -> Result<Vec<u8>, String> {
    let Some(path) = file else { return Ok(compile_file("benches/bpf/generator.bpf.c")) };
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// What all measurements have in common.
struct Bench<'a> {
    options: &'a Options,
    stop: &'a Stop,
    generator: Vec<u8>,
}

impl Bench<'_> {
    /// Measures with these connections.
    fn run(&self, connections: Connections, report: &mut Report) -> Result<(), String> {
        let Options { rounds, frames, order, unit, .. } = *self.options;
        let mut rows = self.options.rows();
        rows.retain(|row| connections.way == Way::Port || !row.is_xdp());
        // It outlives the sites, whose connections it is for.
        let _room = match Room::make(connections.number, rows.len()) {
            Ok(room) => room,
            Err(reason) => {
                report.skip(format!("{} connections: {reason}", connections.number));
                return Ok(());
            }
        };
        let sites = self.sites(&rows, connections, report)?;
        if sites.is_empty() {
            return Ok(());
        }
        warm_up(&sites, connections, self.options.sizes[0].into())?;
        for &size in &self.options.sizes {
            sites.iter().for_each(|site| site.subject().wait_for_rest());
            let extent = Extent { rounds, frames, order };
            let series = measure(&sites, connections, size.into(), extent)?;
            let measurement = Measurement::new(connections, size, order, &series);
            println!("\n{}", measurement.show(unit).trim_end());
            report.packets.push(measurement);
        }
        Ok(())
    }

    /// A site for each row that this machine has.
    fn sites(
        &self,
        rows: &[Row],
        connections: Connections,
        report: &mut Report,
    ) -> Result<Vec<Site>, String> {
        let mut sites = Vec::new();
        for &row in rows {
            match Site::new(row, connections, self) {
                Ok(site) => sites.push(site),
                Err(reason) => report.skip(format!("{}: {reason}", row.name())),
            }
            self.stop.check()?;
        }
        Ok(sites)
    }
}
