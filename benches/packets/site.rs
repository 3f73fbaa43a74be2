// SPDX-License-Identifier: GPL-2.0-only
//! A router of its own for each row, so that rows can be run in turn.

use super::generator::{Generator, Timed};
use super::plan::{Action, Connections, Plan};
use super::router::lab;
use super::row::Row;
use super::subject::Subject;
use super::support::lab::Lab;
use super::way::Layers;
use super::{Bench, Stop};
use std::time::Duration;

/// Softirqs may have left some packets to their thread.
const LINGER: Duration = Duration::from_millis(2);

/// A router, its hosts, and what stands at the router's interfaces.
pub struct Site {
    pub row: Row,
    // Before the lab: a daemon ends before its namespace.
    subject: Subject,
    generator: Generator,
    lab: Lab,
    _layers: Layers,
    stop: Stop,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Nanoseconds per frame.
    pub cost: f64,
    pub sent: u64,
    pub arrived: u64,
    /// By the fast path, if there is one.
    pub fast: Option<u64>,
}

impl Site {
    /// Builds what the row needs, or says why it cannot be measured.
    pub fn new(row: Row, connections: Connections, bench: &Bench<'_>) -> Result<Self, String> {
        let (lab, layers) = lab(connections)?;
        let generator = Generator::new(&lab, connections.way, &bench.generator)?;
        if let Some(tun) = &layers.tun {
            generator.end_at(tun)?;
        }
        let object = bench.options.xdp_object.as_deref();
        let subject = Subject::new(row, &lab, &generator, connections, object)?;
        Ok(Self { row, subject, generator, lab, _layers: layers, stop: bench.stop.clone() })
    }

    /// What becomes of the generator's frames when it is measured.
    pub fn action(&self) -> Action {
        match self.row {
            Row::Generator => Action::Drop,
            Row::XdpRedirect => Action::Redirect,
            Row::BpfwXdp | Row::XdpObject => Action::Call,
            Row::TcRedirect | Row::TcRedirectEgress | Row::BpfwTc => Action::Pass,
            Row::ClsactRedirect | Row::ClsactRedirectEgress | Row::BpfwClsact => Action::Pass,
            Row::Flowtable | Row::Stack => Action::Pass,
        }
    }

    /// What is measured.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Sends frames, and counts what became of them.
    pub fn send(&self, plan: &Plan, timed: Timed) -> Result<Sample, String> {
        self.stop.check()?;
        let before = (self.generator.arrived(), self.subject.forwarded(&self.lab));
        let cost = self.generator.run(&self.lab.router, plan, timed);
        let cost = cost.map_err(|error| format!("running the generator: {error}"))?;
        std::thread::sleep(LINGER);
        let sent = u64::from(timed.frames());
        let arrived = self.generator.arrived() - before.0;
        let now = self.subject.forwarded(&self.lab);
        let fast = before.1.zip(now).map(|(before, now)| now.fast_since(before, sent));
        Ok(Sample { cost, sent, arrived, fast })
    }
}
