// SPDX-License-Identifier: GPL-2.0-only
//! How long connections take the slow path after a restart of the daemon.
//!
//! Each connection goes on sending meanwhile, once a second in both directions. The new daemon finds all of
//! them in conntrack's table, and each direction has to prove itself: its first packet is slow, the next one
//! fast.

use super::stage::Stage;
use super::traffic::Traffic;
use crate::packets::plan::{Connections, Transport};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Each connection sends so often.
const PER_SECOND: u32 = 1;
const LIMIT: Duration = Duration::from_secs(60);

pub const HEAD: [&str; 5] =
    ["restart", "connections", "to forwarding, ms", "until all are fast, ms", "packets/s"];

/// What a restart has shown. Times in milliseconds.
#[derive(Serialize)]
pub struct Restart {
    transport: Transport,
    connections: u32,
    /// From the signal that ends the old daemon until the new one forwards.
    forwarding: f64,
    /// From then to the last slot with slow packets; `None` if it was not within a minute.
    fast: Option<f64>,
    /// Packets sent a second, in both directions.
    rate: f64,
}

impl Restart {
    /// A line of the table.
    pub fn line(&self) -> Vec<String> {
        vec![
            format!("{:?}", self.transport),
            self.connections.to_string(),
            format!("{:.0}", self.forwarding),
            self.fast.map_or("never".into(), |time| format!("{time:.0}")),
            format!("{:.0}", self.rate),
        ]
    }
}

/// Restarts the daemon, which has all of these connections on the fast path.
pub fn measure(stage: &mut Stage, connections: Connections) -> Result<Restart, String> {
    let mut traffic = Traffic::new(connections, PER_SECOND);
    traffic.go_on_for(stage, Duration::from_secs(1))?;
    let started = Instant::now();
    let forwarding = stage.restart(|stage| traffic.go_on_or_wait(stage))?;
    let fast = traffic.until_fast(stage, forwarding, LIMIT)?;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Restart {
        transport: connections.transport,
        connections: connections.number,
        forwarding: milliseconds(forwarding - started),
        fast: fast.map(milliseconds),
        rate: traffic.share().rate,
    })
}
