// SPDX-License-Identifier: GPL-2.0-only
//! Rounds: each row in turn, so that what disturbs the machine meets all of them.

use super::Order;
use super::generator::Timed;
use super::plan::{Connections, Plan, Step};
use super::row::Row;
use super::site::{Sample, Site};

/// How much is measured, and in which order.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub rounds: u32,
    pub frames: u32,
    pub order: Order,
}

/// A row's samples, one a round.
pub struct Series {
    pub row: Row,
    pub verified: Option<u32>,
    pub samples: Vec<Sample>,
}

impl Series {
    /// Nanoseconds per packet, round by round.
    pub fn costs(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.cost).collect()
    }

    /// A share of what was sent, if it was counted.
    pub fn share(&self, part: impl Fn(&Sample) -> Option<u64>) -> Option<f64> {
        let sent: u64 = self.samples.iter().map(|sample| sample.sent).sum();
        let parts: Option<u64> = self.samples.iter().map(part).sum();
        Some(parts? as f64 / sent as f64)
    }
}

/// Runs all sites in turn, again and again.
pub fn measure(
    sites: &[Site],
    connections: Connections,
    frame_len: usize,
    extent: Extent,
) -> Result<Vec<Series>, String> {
    let series = |site: &Site| {
        let verified = site.subject().verified();
        Series { row: site.row, verified, samples: vec![] }
    };
    let mut all: Vec<_> = sites.iter().map(series).collect();
    let timed = Timed::within(extent.frames, connections.number);
    let stride = match extent.order {
        Order::InTurn => 1,
        Order::Scattered => stride(connections.number),
    };
    for round in 0..extent.rounds {
        let passed = u64::from(round) * u64::from(timed.frames()) * u64::from(stride);
        let start = (passed % u64::from(connections.number)) as u32;
        for (site, series) in sites.iter().zip(&mut all) {
            let (step, action) = (Step::Data, site.action());
            let plan = Plan { connections, step, action, frame_len, start, stride };
            series.samples.push(site.send(&plan, timed)?);
        }
    }
    Ok(all)
}

/// A step that visits all of `number` connections, far from one to the next: near the golden
/// section, and without a common divisor.
fn stride(number: u32) -> u32 {
    let near = (f64::from(number) * 0.618_034) as u32;
    (near.max(1)..).find(|stride| divisor(*stride, number) == 1).expect("primes go on")
}

fn divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { divisor(b, a % b) }
}
