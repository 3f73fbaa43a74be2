// SPDX-License-Identifier: GPL-2.0-only
//! Connections that really exist: made by packets of both sides, and on bpfw's fast path where
//! there is one.

use super::plan::{Action, Connections, Plan, Step, Transport};
use super::site::Site;
use super::support::wait::becomes_true;
use std::time::Duration;

/// As many as the daemon's queue of events takes at once.
const CHUNK: u32 = 4096;
/// After so long, conntrack takes a UDP connection's packet for a stream's (2 s).
const STREAM: Duration = Duration::from_millis(2_200);
const LIMIT: Duration = Duration::from_secs(20);
/// So often is everything sent once more, until all of it takes the fast path.
const PASSES: u32 = 12;
const PAUSE: Duration = Duration::from_millis(250);

/// Makes the connections, and sends packets until all take the way that is measured.
pub fn warm_up(site: &Site, connections: Connections, frame_len: usize) -> Result<(), String> {
    if !site.has_connections() {
        return Ok(());
    }
    let plan =
        |step, action, start| Plan { connections, step, action, frame_len, start, stride: 1 };
    let number = connections.number;
    site.send(&plan(Step::Open, Action::Pass, 0), number)?;
    if connections.transport == Transport::Udp {
        std::thread::sleep(STREAM);
    }
    for start in (0..number).step_by(CHUNK as usize) {
        let length = CHUNK.min(number - start);
        site.send(&plan(Step::Answer, Action::Pass, start), length)?;
        site.send(&plan(Step::Data, Action::Pass, start), length)?;
        let last = start + length - 1;
        becomes_true(LIMIT, || site.is_offloaded(connections, last) != Some(false));
    }
    for _ in 0..PASSES {
        std::thread::sleep(PAUSE);
        let sample = site.send(&plan(Step::Data, site.action(), 0), number)?;
        if site.row.hook().is_none() || sample.forwarded == sample.sent {
            break;
        }
    }
    Ok(())
}
