// SPDX-License-Identifier: GPL-2.0-only
//! How long a connection takes from its establishment to the fast path.
//!
//! The clock starts before the packet is sent that establishes the connection, and stops when both
//! directions are found in the table of connections: from then on packets take the fast path. Asking
//! the map costs a few microseconds and disturbs nobody, while a loop of packets would make the stack and the
//! daemon busy. One packet afterwards, by the connection's own counter, shows that it is so.

use super::crowd::{Member, Side};
use super::stage::Stage;
use crate::packets::plan::Transport;
use crate::report::percentile;
use serde::Serialize;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Probes are numbered from here, others below.
const FIRST_PROBE: u32 = 1_000_000;
const PAUSE: Duration = Duration::from_millis(5);
/// A probe that takes longer is counted as late for ever.
const LIMIT: Duration = Duration::from_secs(2);
/// So many of the others live at a time.
const LIVING: usize = 5_000;

/// How many others come and go in each second, measurement by measurement.
pub const OTHERS: [u32; 2] = [0, 10_000];

pub const HEAD: [&str; 8] =
    ["to the fast path", "others/s", "probes", "p50 ms", "p99 ms", "worst ms", "late", "slow"];

/// What probes have shown; times in milliseconds, `None` for those that are late.
#[derive(Serialize)]
pub struct Latency {
    transport: Transport,
    /// Others that came and went in each second.
    others: f64,
    probes: u32,
    p50: Option<f64>,
    p99: Option<f64>,
    worst: Option<f64>,
    /// Probes that were not on the fast path within two seconds.
    late: usize,
    /// Probes whose next packet took the slow path, although both entries were there.
    slow: usize,
}

impl Latency {
    /// A line of the table.
    pub fn line(&self) -> Vec<String> {
        let times = [self.p50, self.p99, self.worst]
            .map(|time| time.map_or("late".into(), |time| format!("{time:.3}")));
        let mut cells = vec![format!("{:?}", self.transport), format!("{:.0}", self.others)];
        cells.push(self.probes.to_string());
        cells.extend(times);
        cells.extend([self.late, self.slow].map(|number| number.to_string()));
        cells
    }
}

/// Sends probes one after the other, while others come and go at this rate.
pub fn measure(
    stage: &Stage,
    transport: Transport,
    probes: u32,
    rate: u32,
) -> Result<Latency, String> {
    let mut others = Others::new(stage, transport, rate);
    let (mut times, mut late, mut slow) = (Vec::new(), 0, 0);
    for number in 0..probes {
        stage.check()?;
        let probe = Member { family: stage.family, transport, number: FIRST_PROBE + number };
        others.go_on_for(PAUSE);
        let time = offload(stage, probe, &mut others);
        late += usize::from(time.is_none());
        // It takes part in the percentiles, as one that takes for ever.
        times.push(time.unwrap_or(Duration::MAX));
        // The stack sends the first one, which is the proof for the second.
        for _ in 0..2 {
            stage.send(Side::Lan, [&probe.frame(Side::Lan)[..]]);
        }
        slow += usize::from(stage.forwarded(probe) == 0);
        stage.close([probe]);
    }
    let others = others.end();
    times.sort();
    let [p50, p99, worst] = [50, 99, 100].map(|percent| percentile(&times, percent));
    Ok(Latency { transport, others, probes, p50, p99, worst, late, slow })
}

fn offload(stage: &Stage, probe: Member, others: &mut Others<'_>) -> Option<Duration> {
    let opening = probe.opening();
    let ((side, last), before) = opening.split_last().expect("some frames");
    before.iter().for_each(|(side, frame)| stage.send(*side, [&frame[..]]));
    let started = Instant::now();
    stage.send(*side, [&last[..]]);
    while started.elapsed() < LIMIT {
        if stage.is_offloaded(probe) {
            return Some(started.elapsed());
        }
        // In the same thread: the daemon has a core for itself.
        others.go_on();
    }
    None
}

/// Connections that come and go meanwhile, evenly spread over time.
struct Others<'a> {
    stage: &'a Stage,
    transport: Transport,
    pause: Option<Duration>,
    started: Instant,
    made: u32,
    living: VecDeque<Member>,
}

impl<'a> Others<'a> {
    fn new(stage: &'a Stage, transport: Transport, rate: u32) -> Self {
        let pause = (rate > 0).then(|| Duration::from_secs(1) / rate);
        Self { stage, transport, pause, started: Instant::now(), made: 0, living: VecDeque::new() }
    }

    fn go_on_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        if self.pause.is_none() {
            std::thread::sleep(time);
        }
        while Instant::now() < end {
            self.go_on();
        }
    }

    /// Makes the next one if it is due, and ends the oldest.
    fn go_on(&mut self) {
        if self.pause.is_none_or(|pause| self.started.elapsed() < pause * self.made) {
            return;
        }
        let member =
            Member { family: self.stage.family, transport: self.transport, number: self.made };
        self.made += 1;
        self.stage.open(&[&member.opening()]);
        self.living.push_back(member);
        if self.living.len() > LIVING {
            self.stage.close(self.living.pop_front());
        }
    }

    /// Ends all; how many there were in each second.
    fn end(self) -> f64 {
        let rate = f64::from(self.made) / self.started.elapsed().as_secs_f64();
        self.stage.close(self.living);
        rate
    }
}
