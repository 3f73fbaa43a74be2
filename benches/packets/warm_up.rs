// SPDX-License-Identifier: GPL-2.0-only
//! Connections that really exist: made by packets of both sides, and on the fast path where there
//! is one.

use super::generator::Timed;
use super::plan::{Action, Connections, Plan, Step, Transport};
use super::site::{Sample, Site};
use super::support::wait::becomes_true;
use std::thread::sleep;
use std::time::Duration;

/// As many as the daemon's queue of events takes at once.
const CHUNK: u32 = 4096;
/// After so long, conntrack takes a UDP connection's packet for a stream's (2 s).
const STREAM: Duration = Duration::from_millis(2_200);
const LIMIT: Duration = Duration::from_secs(20);
/// So often is everything sent once more, until all of it takes the fast path.
const PASSES: u32 = 12;
const PAUSE: Duration = Duration::from_millis(250);

/// Makes the connections at all sites, and sends packets until all take the way that is measured.
pub fn warm_up(sites: &[Site], connections: Connections, frame_len: usize) -> Result<(), String> {
    let with_connections = || sites.iter().filter(|site| site.row.has_connections());
    let all = || with_connections().map(|site| WarmUp { site, connections, frame_len });
    let is_udp = connections.transport == Transport::Udp;
    if is_udp {
        all().try_for_each(|each| {
            each.send(Step::Open, Action::Pass, 0, connections.number).map(drop)
        })?;
        sleep(STREAM);
    }
    all().try_for_each(|each| each.establish(!is_udp))?;
    if is_udp {
        // A UDP connection that is no stream yet is on the fast path for just so long.
        sleep(STREAM);
    }
    all().try_for_each(|each| each.settle())
}

struct WarmUp<'a> {
    site: &'a Site,
    connections: Connections,
    frame_len: usize,
}

impl WarmUp<'_> {
    fn send(&self, step: Step, action: Action, start: u32, number: u32) -> Result<Sample, String> {
        let Self { site, connections, frame_len } = *self;
        let plan = Plan { connections, step, action, frame_len, start, stride: 1 };
        site.send(&plan, Timed::only(number))
    }

    /// Lets both sides speak through the stack, so that the daemon gets events of all.
    fn establish(&self, open: bool) -> Result<(), String> {
        let number = self.connections.number;
        for start in (0..number).step_by(CHUNK as usize) {
            let length = CHUNK.min(number - start);
            if open {
                self.send(Step::Open, Action::Pass, start, length)?;
            }
            self.send(Step::Answer, Action::Pass, start, length)?;
            self.send(Step::Data, Action::Pass, start, length)?;
            let last = start + length - 1;
            // What is still missing then will be seen by its share of slow packets.
            becomes_true(LIMIT, || !self.site.subject().lacks(self.connections, last));
        }
        Ok(())
    }

    fn settle(&self) -> Result<(), String> {
        for _ in 0..PASSES {
            let number = self.connections.number;
            let sample = self.send(Step::Data, self.site.action(), 0, number)?;
            if sample.fast.is_none_or(|fast| fast == sample.sent) {
                break;
            }
            sleep(PAUSE);
        }
        Ok(())
    }
}
