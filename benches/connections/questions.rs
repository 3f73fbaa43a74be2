// SPDX-License-Identifier: GPL-2.0-only
//! Connections of one question and one answer, as DNS has them, a few each second (`--questions`). There
//! is hardly a router without; and while there is UDP that is not assured, the daemon looks around more
//! often.

use super::crowd::Member;
use super::stage::Stage;
use crate::packets::plan::Transport;
use std::time::{Duration, Instant};

/// They are numbered from here, others below.
const FIRST: u32 = 2_000_000;
/// How often to look whether the benchmark shall end, where no question is asked.
const PAUSE: Duration = Duration::from_millis(200);
/// So many are there at a time at most: conntrack's timeout is 30 s, but it looks for what has timed out in
/// its own time (`gc_worker` of net/netfilter/nf_conntrack_core.c), with very many connections after minutes.
pub const MOST: u32 = 1_000;

/// Asks them.
pub struct Questions<'a> {
    stage: &'a Stage,
    per_second: u32,
    asked: u32,
}

impl<'a> Questions<'a> {
    /// None so far; then so many in each second.
    pub fn new(stage: &'a Stage, per_second: u32) -> Self {
        Self { stage, per_second, asked: 0 }
    }

    /// Lets time pass, in which they are asked.
    pub fn go_on_for(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.stage.check()?;
            let mut pause = PAUSE;
            if self.per_second > 0 {
                self.stage.open(&[&self.member(self.asked).opening()]);
                self.asked += 1;
                pause = Duration::from_secs(1) / self.per_second;
            }
            std::thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// How many entries they have in the table of connections.
    pub fn entries(&self) -> usize {
        let there = (0..self.asked).filter(|number| self.stage.is_offloaded(self.member(*number)));
        2 * there.count()
    }

    fn member(&self, number: u32) -> Member {
        Member { family: self.stage.family, transport: Transport::Udp, number: FIRST + number }
    }
}
