// SPDX-License-Identifier: GPL-2.0-only
//! What the period costs (`--prove-every`, the daemon's own choice): the packets that each direction shows
//! the network stack, and the daemon.
//!
//! The time that the stack takes for a slow packet more than the fast path is told by two kinds of passes: the
//! usual ones, in which a part of the packets is slow, and one after a change of rules, in which all are.

use super::multitude::Multitude;
use super::questions::Questions;
use super::stage::{Sent, Stage};
use crate::packets::plan::Transport;
use crate::usage::cpu_time;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Each connection speaks so often, in both directions.
const SPEAK: Duration = Duration::from_secs(10);
/// The daemon has seen a change of rules by then.
const PAUSE: Duration = Duration::from_millis(500);

const CHANGE: &str = "table inet bench_period {
    chain forward { type filter hook forward priority -10; policy accept; }
}";

pub const HEAD: [&str; 7] = [
    "period",
    "connections",
    "slow packets/s",
    "ns more each",
    "CPU for them",
    "daemon CPU",
    "together",
];

/// What a while has shown. Shares are those of a core.
#[derive(Serialize)]
pub struct Period {
    transport: Transport,
    connections: u32,
    /// Packets a second that went to the stack.
    slow: f64,
    /// Nanoseconds that such a packet takes more than one of the fast path.
    more: f64,
    packets: f64,
    daemon: f64,
    together: f64,
}

impl Period {
    /// A line of the table.
    pub fn line(&self) -> Vec<String> {
        let mut cells = vec![format!("{:?}", self.transport), self.connections.to_string()];
        cells.extend([self.slow, self.more].map(|number| format!("{number:.0}")));
        let shares = [self.packets, self.daemon, self.together];
        cells.extend(shares.map(|share| format!("{:.2} %", share * 100.0)));
        cells
    }
}

/// Watches active connections for this time, after five twelfths of it.
pub fn measure(
    stage: &Stage,
    multitude: &Multitude<'_>,
    questions: &mut Questions<'_>,
    time: Duration,
) -> Result<Period, String> {
    speak_for(stage, multitude, questions, time * 5 / 12)?;
    let (started, cpu) = (Instant::now(), cpu_time(stage.daemon.pid()));
    let passes = speak_for(stage, multitude, questions, time)?;
    let wall = started.elapsed().as_secs_f64();
    let daemon = (cpu_time(stage.daemon.pid()) - cpu).as_secs_f64() / wall;

    stage.lab.nft(CHANGE);
    questions.go_on_for(PAUSE)?;
    let all = Cost::of(multitude, stage.speak(multitude.connections(), 0..multitude.number())?);
    stage.lab.nft("delete table inet bench_period");

    let number = passes.len() as f64;
    let slow: f64 = passes.iter().map(|pass| pass.slow).sum();
    let busy: f64 = passes.iter().map(|pass| pass.seconds).sum();
    let more = (all.seconds - busy / number) / (all.slow - slow / number);
    let packets = slow / wall * more;
    Ok(Period {
        transport: multitude.transport(),
        connections: multitude.gathered(),
        slow: slow / wall,
        more: more * 1e9,
        packets,
        daemon,
        together: packets + daemon,
    })
}

/// What a pass took of the generator's CPU.
struct Cost {
    slow: f64,
    seconds: f64,
}

impl Cost {
    fn of(multitude: &Multitude<'_>, sent: Sent) -> Self {
        let slow = 2 * u64::from(multitude.number()) - sent.fast;
        Self { slow: slow as f64, seconds: sent.time.as_secs_f64() }
    }
}

/// All speak, again and again; what each pass took.
fn speak_for(
    stage: &Stage,
    multitude: &Multitude<'_>,
    questions: &mut Questions<'_>,
    time: Duration,
) -> Result<Vec<Cost>, String> {
    let (started, mut passes) = (Instant::now(), Vec::new());
    while started.elapsed() < time {
        let next = (Instant::now() + SPEAK).min(started + time);
        let sent = stage.speak(multitude.connections(), 0..multitude.number())?;
        passes.push(Cost::of(multitude, sent));
        questions.go_on_for(next.saturating_duration_since(Instant::now()))?;
    }
    Ok(passes)
}
