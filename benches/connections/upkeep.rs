// SPDX-License-Identifier: GPL-2.0-only
//! What the daemon does for connections that are simply there, and what they take up.

use super::multitude::Multitude;
use super::questions::Questions;
use super::stage::Stage;
use crate::packets::plan::Transport;
use crate::usage::{cpu_time, resident};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Each connection speaks so often, in both directions. The fast path hands a UDP connection's
/// packet to the stack after a silence of 30 s.
const SPEAK: Duration = Duration::from_secs(10);
pub const HEAD: [&str; 9] = [
    "kept",
    "transport",
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
    transport: Transport,
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
    lost: i64,
}

impl Upkeep {
    /// A line of the table.
    pub fn line(&self) -> Vec<String> {
        vec![
            if self.active { "active" } else { "idle" }.into(),
            format!("{:?}", self.transport),
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

/// Connections idle for this time, and active before, for as long as a number of refreshes takes; they
/// took so much of the kernel's memory.
pub fn measure(
    stage: &Stage,
    multitude: &Multitude<'_>,
    questions: &mut Questions<'_>,
    time: Duration,
    kernel: u64,
) -> Result<[Upkeep; 2], String> {
    let mut observer = Observer { stage, multitude, questions, kernel };
    // Until each has been looked at once: TCP's flags are sent again by then, and no note lacks.
    observer.observe(true, time * 5 / 6)?;
    let active = observer.observe(true, active_time(multitude.transport(), time))?;
    multitude.speak(0..multitude.number())?;
    // What is still done for the last packets. Some refreshes come later, while all are idle.
    observer.questions.go_on_for(time * 2 / 9)?;
    Ok([active, observer.observe(false, time)?])
}

/// With 90 s while idle, each is refreshed while active as often as it should be: UDP twice, every 105 s, and
/// TCP once, after 285 s.
fn active_time(transport: Transport, idle: Duration) -> Duration {
    match transport {
        Transport::Udp => idle * 7 / 3,
        Transport::Tcp => idle * 19 / 6,
    }
}

struct Observer<'a, 'b> {
    stage: &'a Stage,
    multitude: &'a Multitude<'a>,
    questions: &'a mut Questions<'b>,
    kernel: u64,
}

impl Observer<'_, '_> {
    fn observe(&mut self, active: bool, time: Duration) -> Result<Upkeep, String> {
        let Self { stage, multitude, ref mut questions, kernel } = *self;
        let pid = stage.daemon.pid();
        let (started, before) = (Instant::now(), cpu_time(pid));
        let mut fast = active.then_some(1.0);
        while started.elapsed() < time {
            let next = (Instant::now() + SPEAK).min(started + time);
            if let Some(fast) = &mut fast {
                *fast = multitude.speak(0..multitude.number())?.min(*fast);
            }
            questions.go_on_for(next.saturating_duration_since(Instant::now()))?;
        }
        let cpu = (cpu_time(pid) - before).as_secs_f64() / started.elapsed().as_secs_f64();
        let number = multitude.gathered();
        let tables = ["conn_cells", "conn_rests", "conn_map"].map(|map| stage.maps.memory(map));
        let tables: u64 = tables.into_iter().sum();
        Ok(Upkeep {
            active,
            transport: multitude.transport(),
            connections: number,
            cpu,
            resident: resident(pid),
            map: tables as f64 / f64::from(number),
            kernel: kernel as f64 / f64::from(number),
            fast,
            lost: multitude.lost(|| questions.entries()),
        })
    }
}
