// SPDX-License-Identifier: GPL-2.0-only
//! How many connections a second come to the fast path and leave it again, for as long as one
//! likes.
//!
//! New connections are made only while few wait for being offloaded. Each is looked for in the table of
//! connections before its end. The clock starts when as many live as shall, so that from then on one ends
//! for each that comes.

use super::crowd::{Member, Side};
use super::stage::Stage;
use crate::packets::plan::Transport;
use crate::support::wait::becomes_true;
use crate::usage::cpu_time;
use serde::Serialize;
use std::time::{Duration, Instant};

/// So many different connections are made, one after the other, again and again.
const CROWD: u32 = 100_000;
/// So many live at a time.
const LIVING: u32 = 20_000;
/// So many may wait for the daemon.
const WAITING: u32 = 1_000;
/// So many are made and ended in one go.
const STEP: u32 = 50;
const PAUSE: Duration = Duration::from_micros(50);
/// The daemon is never so slow; a connection that takes longer is forgotten.
const LIMIT: Duration = Duration::from_secs(5);

pub const HEAD: [&str; 7] =
    ["coming and going", "per s", "forgotten", "left", "daemon CPU", "us each", "waited"];

/// What a run has shown.
#[derive(Serialize)]
pub struct Rate {
    transport: Transport,
    /// Connections that came and went in each second.
    per_second: f64,
    /// Connections that were not in the table before their end.
    forgotten: u32,
    /// Entries of the table that were there after all had ended.
    left: usize,
    /// The daemon's share of a core.
    daemon: f64,
    /// The daemon's CPU time for each connection, from its coming to its going, in microseconds.
    each: f64,
    /// The share of the time in which the generator waited for the daemon.
    waited: f64,
}

impl Rate {
    /// A line of the table.
    pub fn line(&self) -> Vec<String> {
        vec![
            format!("{:?}", self.transport),
            format!("{:.0}", self.per_second),
            self.forgotten.to_string(),
            self.left.to_string(),
            format!("{:.0} %", self.daemon * 100.0),
            format!("{:.1}", self.each),
            format!("{:.0} %", self.waited * 100.0),
        ]
    }
}

/// Makes connections for this time.
pub fn measure(stage: &Stage, transport: Transport, time: Duration) -> Result<Rate, String> {
    let mut run = Run::new(stage, transport);
    while run.made < LIVING {
        stage.check()?;
        run.step();
    }
    (run.made_before, run.waited) = (run.made, Duration::ZERO);
    let (started, cpu) = (Instant::now(), cpu_time(stage.daemon.pid()));
    while started.elapsed() < time {
        stage.check()?;
        run.step();
    }
    let made = f64::from(run.made - run.made_before);
    let (wall, waited) = (started.elapsed().as_secs_f64(), run.waited.as_secs_f64());
    let cpu = (cpu_time(stage.daemon.pid()) - cpu).as_secs_f64();
    run.end();
    let left = || stage.maps.entries();
    becomes_true(LIMIT, || left() == 0);
    Ok(Rate {
        transport,
        per_second: made / wall,
        forgotten: run.forgotten,
        left: left(),
        daemon: cpu / wall,
        each: cpu / made * 1e6,
        waited: waited / wall,
    })
}

struct Run<'a> {
    stage: &'a Stage,
    transport: Transport,
    openings: Vec<Vec<(Side, Vec<u8>)>>,
    made: u32,
    /// Of these, before the clock started.
    made_before: u32,
    ended: u32,
    forgotten: u32,
    waited: Duration,
}

impl<'a> Run<'a> {
    fn new(stage: &'a Stage, transport: Transport) -> Self {
        let openings = (0..CROWD)
            .map(|number| Member { family: stage.family, transport, number }.opening())
            .collect();
        let waited = Duration::ZERO;
        Self { stage, transport, openings, made: 0, made_before: 0, ended: 0, forgotten: 0, waited }
    }

    fn member(&self, serial: u32) -> Member {
        Member { family: self.stage.family, transport: self.transport, number: serial % CROWD }
    }

    fn step(&mut self) {
        self.wait_for_daemon();
        let from = (self.made % CROWD) as usize;
        let openings: Vec<_> =
            self.openings[from..from + STEP as usize].iter().map(|each| &each[..]).collect();
        self.stage.open(&openings);
        self.made += STEP;
        if self.made - self.ended > LIVING {
            self.end_some();
        }
    }

    fn wait_for_daemon(&mut self) {
        let Some(oldest) = self.made.checked_sub(WAITING) else {
            return;
        };
        let (member, started) = (self.member(oldest), Instant::now());
        while !self.stage.is_offloaded(member) && started.elapsed() < LIMIT {
            std::thread::sleep(PAUSE);
        }
        self.waited += started.elapsed();
    }

    fn end_some(&mut self) {
        let members: Vec<_> = (self.ended..self.ended + STEP).map(|it| self.member(it)).collect();
        self.ended += STEP;
        let forgotten = members.iter().filter(|member| !self.stage.is_offloaded(**member)).count();
        self.forgotten += forgotten as u32;
        self.stage.close(members);
    }

    fn end(&mut self) {
        let last = self.member(self.made - 1);
        becomes_true(LIMIT, || self.stage.is_offloaded(last));
        while self.ended < self.made {
            self.end_some();
        }
    }
}
