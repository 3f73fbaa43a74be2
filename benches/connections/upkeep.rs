// SPDX-License-Identifier: GPL-2.0-only
//! What the daemon does for connections that are simply there, and what they take up.

use super::multitude::Multitude;
use super::stage::Stage;
use crate::usage::{cpu_time, resident};
use serde::Serialize;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Each connection speaks so often, in both directions. The fast path hands a UDP connection's
/// packet to the stack after a silence of 30 s.
const SPEAK: Duration = Duration::from_secs(10);
/// What is still done for the last packets. Some refreshes come later, while all are idle.
const CALM_DOWN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(200);

pub const HEAD: [&str; 8] = [
    "kept",
    "connections",
    "CPU",
    "resident MiB",
    "map bytes each",
    "kernel bytes each",
    "fast",
    "lost",
];

/// What a while has shown.
#[derive(Serialize)]
pub struct Upkeep {
    active: bool,
    connections: u32,
    /// The daemon's share of a core.
    cpu: f64,
    /// The daemon's resident memory in bytes, at the end.
    resident: u64,
    /// Bytes of the table for each connection, as the kernel counts them.
    map: f64,
    /// Bytes that the kernel has taken for each connection, conntrack's included.
    kernel: f64,
    /// The smallest share of packets of a pass that took the fast path, if there were any.
    fast: Option<f64>,
    /// Entries of the table that are gone at the end.
    lost: usize,
}

impl Upkeep {
    /// A line of the table.
    pub fn line(&self) -> Vec<String> {
        vec![
            if self.active { "active" } else { "idle" }.into(),
            self.connections.to_string(),
            format!("{:.2} %", self.cpu * 100.0),
            format!("{:.1}", self.resident as f64 / f64::from(1 << 20)),
            format!("{:.0}", self.map),
            format!("{:.0}", self.kernel),
            self.fast.map_or("-".into(), |fast| format!("{fast:.4}")),
            self.lost.to_string(),
        ]
    }
}

/// Connections idle for this time, and active before for twice as long, so that in the default time
/// each is refreshed twice; they took so much of the kernel's memory.
pub fn measure(
    stage: &Stage,
    multitude: &Multitude<'_>,
    time: Duration,
    kernel: u64,
) -> Result<[Upkeep; 2], String> {
    let observer = Observer { stage, multitude, kernel };
    let active = observer.observe(true, 2 * time)?;
    multitude.speak(0..multitude.number())?;
    pass(stage, CALM_DOWN)?;
    Ok([active, observer.observe(false, time)?])
}

struct Observer<'a> {
    stage: &'a Stage,
    multitude: &'a Multitude<'a>,
    kernel: u64,
}

impl Observer<'_> {
    fn observe(&self, active: bool, time: Duration) -> Result<Upkeep, String> {
        let Self { stage, multitude, kernel } = *self;
        let pid = stage.daemon.pid();
        let (started, before) = (Instant::now(), cpu_time(pid));
        let mut fast = active.then_some(1.0);
        while started.elapsed() < time {
            let next = Instant::now() + SPEAK;
            if let Some(fast) = &mut fast {
                *fast = multitude.speak(0..multitude.number())?.min(*fast);
            }
            pass(stage, next.saturating_duration_since(Instant::now()))?;
        }
        let cpu = (cpu_time(pid) - before).as_secs_f64() / started.elapsed().as_secs_f64();
        let number = multitude.gathered();
        let tables = ["conn_cells", "conn_rests", "conn_map"].map(|map| stage.maps.memory(map));
        let tables: u64 = tables.into_iter().sum();
        Ok(Upkeep {
            active,
            connections: number,
            cpu,
            resident: resident(pid),
            map: tables as f64 / f64::from(number),
            kernel: kernel as f64 / f64::from(number),
            fast,
            lost: multitude.lost(),
        })
    }
}

/// Lets time pass.
fn pass(stage: &Stage, time: Duration) -> Result<(), String> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        stage.check()?;
        sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
