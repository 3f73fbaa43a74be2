// SPDX-License-Identifier: GPL-2.0-only
//! What stays fast while rules change all the time: each change asks every direction for a new proof.

use super::stage::Stage;
use super::traffic::Traffic;
use crate::packets::plan::{Connections, Transport};
use crate::usage::cpu_time;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Each connection sends so often.
const PER_SECOND: u32 = 10;
/// A rule comes, or goes.
const EVERY: Duration = Duration::from_secs(1);

const LIMIT: Duration = Duration::from_secs(20);

const TABLE: &str = "table inet bench_changes {
    chain forward { type filter hook forward priority -10; policy accept; }
}";

pub const HEAD: [&str; 6] =
    ["rule changes", "connections", "changes", "packets/s", "fast", "daemon CPU"];

/// What a while has shown.
#[derive(Serialize)]
pub struct RuleChanges {
    transport: Transport,
    connections: u32,
    changes: u32,
    /// Packets sent a second, in both directions.
    rate: f64,
    /// The share of them that took the fast path.
    fast: f64,
    /// The daemon's share of a core.
    cpu: f64,
}

impl RuleChanges {
    /// A line of the table.
    pub fn line(&self) -> Vec<String> {
        vec![
            format!("{:?}", self.transport),
            self.connections.to_string(),
            self.changes.to_string(),
            format!("{:.0}", self.rate),
            format!("{:.4}", self.fast),
            format!("{:.2} %", self.cpu * 100.0),
        ]
    }
}

/// Changes a rule every second.
pub fn measure(
    stage: &Stage,
    connections: Connections,
    time: Duration,
) -> Result<RuleChanges, String> {
    stage.lab.nft(TABLE);
    let pid = stage.daemon.pid();
    let (started, cpu) = (Instant::now(), cpu_time(pid));
    let mut traffic = Traffic::new(connections, PER_SECOND);
    let mut changes = 0;
    while started.elapsed() < time {
        let words = if changes % 2 == 0 {
            "add rule inet bench_changes forward ip saddr 203.0.113.1 drop"
        } else {
            "flush chain inet bench_changes forward"
        };
        let mut command = stage.nft(words);
        changes += 1;
        traffic.go_on_for(stage, EVERY)?;
        if !command.wait_exit(LIMIT).success() {
            return Err("nft failed".into());
        }
    }
    let cpu = (cpu_time(pid) - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
    stage.lab.nft("delete table inet bench_changes");
    let share = traffic.share();
    Ok(RuleChanges {
        transport: connections.transport,
        connections: connections.number,
        changes,
        rate: share.rate,
        fast: share.fast,
        cpu,
    })
}
