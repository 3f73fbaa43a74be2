// SPDX-License-Identifier: GPL-2.0-only
//! How long the fast path rests while the daemon compares all connections with conntrack's.

use super::multitude::Multitude;
use super::questions::Questions;
use super::stage::Stage;
use crate::packets::plan::Transport;
use crate::usage::{cpu_time, peak};
use nix::sys::signal::Signal;
use serde::Serialize;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longer than the datapath waits for a heartbeat.
const PAUSE: Duration = Duration::from_millis(1_500);
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(1);

pub const HEAD: [&str; 6] = ["resync", "connections", "rest ms", "CPU ms", "peak MiB", "lost"];

/// What a resync has shown.
#[derive(Serialize)]
pub struct Resync {
    transport: Transport,
    connections: u32,
    /// Milliseconds from the moment when the daemon goes on until the fast path does.
    time: f64,
    /// The daemon's CPU time in milliseconds.
    cpu: f64,
    /// The most resident memory in bytes that the daemon has had so far.
    peak: u64,
    /// Entries of the table of connections that are gone afterwards.
    lost: i64,
}

impl Resync {
    /// A line of the table.
    pub fn line(&self) -> Vec<String> {
        let mut cells = vec![format!("{:?}", self.transport), self.connections.to_string()];
        cells.extend([self.time, self.cpu].map(|time| format!("{time:.0}")));
        cells.push(format!("{:.1}", self.peak as f64 / f64::from(1 << 20)));
        cells.push(self.lost.to_string());
        cells
    }
}

/// Stops the daemon until its heartbeat is missed; once it goes on, it believes nothing.
pub fn measure(
    stage: &Stage,
    multitude: &Multitude<'_>,
    questions: &Questions<'_>,
) -> Result<Resync, String> {
    let pid = stage.daemon.pid();
    let before = stage.maps.generation();
    stage.daemon.signal(Signal::SIGSTOP);
    sleep(PAUSE);
    let (started, cpu) = (Instant::now(), cpu_time(pid));
    stage.daemon.signal(Signal::SIGCONT);
    while [0, before].contains(&stage.maps.generation()) && started.elapsed() < LIMIT {
        stage.check()?;
        sleep(LOOK);
    }
    let time = started.elapsed();
    if time >= LIMIT {
        return Err(format!("the daemon has not compared all within {LIMIT:?}"));
    }
    Ok(Resync {
        transport: multitude.transport(),
        connections: multitude.gathered(),
        time: time.as_secs_f64() * 1e3,
        cpu: (cpu_time(pid) - cpu).as_secs_f64() * 1e3,
        peak: peak(pid),
        lost: multitude.lost(|| questions.entries()),
    })
}
