// SPDX-License-Identifier: GPL-2.0-only
//! Very many connections on the fast path at once.

use super::crowd::{Member, crowd};
use super::stage::Stage;
use crate::packets::plan::{Action, Connections, Step, Transport};
use crate::support::wait::becomes_true;
use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

/// So many are made before those that are there already speak again, which keeps them.
const GROUP: u32 = 100_000;
/// As many as the daemon's queue of events takes at once.
const CHUNK: u32 = 4096;
/// After so long, conntrack takes a UDP connection's packet for a stream's (2 s).
const STREAM: Duration = Duration::from_millis(2_200);
const LIMIT: Duration = Duration::from_secs(20);
/// So often all speak once more, until all of them do so on the fast path.
const PASSES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// The connections, of which UDP's stand in conntrack as streams.
pub struct Multitude<'a> {
    stage: &'a Stage,
    connections: Connections,
    entries: usize,
}

impl<'a> Multitude<'a> {
    /// Makes them, by packets of both sides.
    pub fn gather(stage: &'a Stage, transport: Transport, number: u32) -> Result<Self, String> {
        let connections = crowd(stage.family, transport, number);
        let mut multitude = Self { stage, connections, entries: 0 };
        for start in (0..number).step_by(GROUP as usize) {
            let end = number.min(start + GROUP);
            multitude.make(start..end)?;
            multitude.speak(0..end)?;
        }
        multitude.settle()?;
        multitude.entries = stage.maps.entries();
        Ok(multitude)
    }

    /// How many entries of the table of connections, less those of others, are there no more; less some of
    /// others that end meanwhile.
    pub fn lost(&self, others: impl FnOnce() -> usize) -> i64 {
        let all = self.stage.maps.entries() as i64;
        (self.entries + others()) as i64 - all
    }

    /// All of them.
    pub fn connections(&self) -> Connections {
        self.connections
    }

    /// Their transport protocol.
    pub fn transport(&self) -> Transport {
        self.connections.transport
    }

    /// The one with this number.
    pub fn member(&self, number: u32) -> Member {
        Member { family: self.connections.family, transport: self.transport(), number }
    }

    /// How many are numbered, from 0.
    pub fn number(&self) -> u32 {
        self.connections.number
    }

    /// How many of them came to the fast path at first.
    pub fn gathered(&self) -> u32 {
        (self.entries / 2) as u32
    }

    fn make(&self, group: Range<u32>) -> Result<(), String> {
        self.pass(Step::Open, group.clone())?;
        if self.transport() == Transport::Udp {
            sleep(STREAM);
        }
        for start in group.clone().step_by(CHUNK as usize) {
            let chunk = start..group.end.min(start + CHUNK);
            self.pass(Step::Answer, chunk.clone())?;
            self.pass(Step::Data, chunk.clone())?;
            let last = self.member(chunk.end - 1);
            // What is still missing then is told by the share that speaks on the fast path.
            becomes_true(LIMIT, || self.stage.is_offloaded(last));
        }
        Ok(())
    }

    /// Each sends a packet in both directions, as it would come from the network. Says which share
    /// of them took the fast path.
    pub fn speak(&self, which: Range<u32>) -> Result<f64, String> {
        let sent = 2 * which.len();
        Ok(self.stage.speak(self.connections, which)?.fast as f64 / sent as f64)
    }

    /// All speak until all of them do so on the fast path; says which share does at last.
    pub fn settle(&self) -> Result<f64, String> {
        let mut share = 0.0;
        for _ in 0..PASSES {
            share = self.speak(0..self.number())?;
            if share >= self.stage.most() {
                break;
            }
            sleep(PAUSE);
        }
        Ok(share)
    }

    fn pass(&self, step: Step, which: Range<u32>) -> Result<(), String> {
        self.stage.run(self.connections, step, Action::Pass, which).map(drop)
    }
}
