// SPDX-License-Identifier: GPL-2.0-only
//! What a measurement comes to.

use super::plan::{Connections, Family, Nat, Transport};
use super::rounds::Series;
use super::row::Row;
use super::way::Way;
use super::{Order, Unit};
use crate::report::{median, quartiles, table};
use serde::Serialize;

/// Some rows with the same packets.
#[derive(Serialize)]
pub struct Measurement {
    pub way: Way,
    pub family: Family,
    pub transport: Transport,
    pub nat: Nat,
    pub connections: u32,
    pub frame_bytes: u16,
    pub order: Order,
    pub rows: Vec<Figures>,
}

/// A row's figures. Costs are per packet; medians of all rounds.
#[derive(Serialize)]
pub struct Figures {
    pub row: Row,
    pub cost: f64,
    /// Its quartiles tell how far rounds differ.
    pub cost_quartiles: [f64; 2],
    /// What the generator alone does not take, pair by pair.
    pub above_generator: Option<f64>,
    /// The whole against the bare redirect of the same hook, pair by pair.
    pub of_limit: Option<f64>,
    /// Shares of what was sent.
    pub arrived: f64,
    pub fast: Option<f64>,
    pub verified_instructions: Option<u32>,
}

impl Measurement {
    /// Sums up all rows.
    pub fn new(
        Connections { family, transport, nat, way, number }: Connections,
        frame_bytes: u16,
        order: Order,
        all: &[Series],
    ) -> Self {
        let rows = all.iter().map(|series| figures(series, all)).collect();
        Self { way, family, transport, nat, connections: number, frame_bytes, order, rows }
    }

    fn cost(&self, row: Row) -> Option<f64> {
        Some(self.rows.iter().find(|figures| figures.row == row)?.cost)
    }

    fn growth(&self, all: &[Self]) -> Option<Vec<String>> {
        let alike = |other: &&Self| {
            let kind = |it: &Self| (it.way, it.family, it.transport, it.nat, it.frame_bytes);
            kind(other) == kind(self) && other.connections > 1
        };
        let few = all.iter().filter(alike).min_by_key(|other| other.connections)?;
        if few.connections >= self.connections {
            return None;
        }
        let Self { way, family, transport, nat, connections, frame_bytes, .. } = self;
        let name = format!("{way:?}, {family:?}, {transport:?}, {nat:?}, {frame_bytes} bytes");
        let name = name.to_lowercase();
        let times = [Row::BpfwXdp, Row::BpfwTc].map(|row| {
            let times = self.cost(row).zip(few.cost(row)).map(|(more, few)| more / few);
            times.map_or("-".into(), |times| format!("{times:.2}"))
        });
        let name = format!("{name}: {connections} against {}", few.connections);
        Some([vec![name], times.to_vec()].concat())
    }

    /// The measurement for people.
    pub fn show(&self, unit: Unit) -> String {
        let Self { way, family, transport, nat, connections, frame_bytes, .. } = self;
        let title = format!(
            "{way:?}, {family:?}, {transport:?}, {nat:?}, {connections} connections, \
             frames of {frame_bytes} bytes"
        )
        .to_lowercase();
        let head = [
            "row",
            unit.short(),
            "above",
            "limit",
            "flow table",
            "kernel",
            "arrived",
            "fast",
            "verified",
        ];
        let lines: Vec<_> = self.rows.iter().map(|row| self.cells(row)).collect();
        format!("{title}\n{}", table(&head, &lines))
    }

    /// What a row takes above the generator, as a part of what another takes.
    fn part(&self, row: &Figures, of: Row) -> Option<f64> {
        let of = self.rows.iter().find(|figures| figures.row == of)?;
        Some(row.above_generator? / of.above_generator?)
    }

    fn cells(&self, row: &Figures) -> Vec<String> {
        let cell = |value: Option<f64>, digits| {
            value.map_or("-".into(), |value| format!("{value:.digits$}"))
        };
        vec![
            row.row.name().into(),
            cell(Some(row.cost), 1),
            cell(row.above_generator, 1),
            cell(row.of_limit, 3),
            cell(self.part(row, Row::Flowtable), 2),
            cell(self.part(row, Row::Stack), 2),
            cell(Some(row.arrived), 4),
            cell(row.fast, 4),
            cell(row.verified_instructions.map(f64::from), 0),
        ]
    }
}

/// What more connections cost: bpfw's rows of each number against those of the smallest, otherwise alike.
/// `None` if there is one number only.
pub fn growth(all: &[Measurement]) -> Option<String> {
    let head = ["more connections", "xdp", "tc"];
    let lines: Vec<_> = all.iter().filter_map(|more| more.growth(all)).collect();
    (!lines.is_empty()).then(|| table(&head, &lines))
}

fn figures(series: &Series, all: &[Series]) -> Figures {
    let costs = series.costs();
    let pairs = |other: Row, how: fn(f64, f64) -> f64| {
        let other = all.iter().find(|each| each.row == other)?.costs();
        Some(median(costs.iter().zip(other).map(|(own, other)| how(*own, other)).collect()))
    };
    let arrived = series.share(|sample| Some(sample.arrived)).expect("always counted");
    Figures {
        row: series.row,
        cost: median(costs.clone()),
        cost_quartiles: quartiles(costs.clone()),
        above_generator: pairs(Row::Generator, |own, other| own - other),
        of_limit: pairs(series.row.limit(), |own, other| own / other),
        arrived,
        fast: series.share(|sample| sample.fast),
        verified_instructions: series.verified,
    }
}
