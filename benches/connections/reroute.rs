// SPDX-License-Identifier: GPL-2.0-only
//! How long connections go on the old way after a change of routing.
//!
//! The clock starts before the command does. It stops when the daemon's generation is a new one:
//! from that write on each connection's next packet looks its way up again. Then all of them speak,
//! and it is counted which of them took the new way.

use super::crowd::Member;
use super::multitude::Multitude;
use super::stage::Stage;
use crate::packets::plan::{Transport, WAN_HOSTS};
use crate::support::lab::show;
use crate::support::packet::Mac;
use serde::Serialize;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Another gateway, of which only the MAC address exists.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const OTHER_MAC: Mac = [2, 0, 0, 0, 2, 77];
const LIMIT: Duration = Duration::from_secs(10);
/// Of so many the next hop is looked at.
const SAMPLE: usize = 1_000;

pub const HEAD: [&str; 6] = ["route change", "connections", "ms", "writes", "fast", "new way"];

/// What a change has shown.
#[derive(Serialize)]
pub struct Reroute {
    transport: Transport,
    connections: u32,
    /// Milliseconds from the command's start to the daemon's write.
    time: f64,
    /// The daemon's generations since the command's start, each of them a write.
    writes: u32,
    /// The share of all connections' packets, after one of each, that took the fast path.
    fast: f64,
    /// The share of a sample that has the new next hop after that.
    moved: f64,
}

impl Reroute {
    /// A line of the table.
    pub fn line(&self) -> Vec<String> {
        let mut cells = vec![format!("{:?}", self.transport), self.connections.to_string()];
        cells.push(format!("{:.1}", self.time));
        cells.push(self.writes.to_string());
        cells.extend([self.fast, self.moved].map(|share| format!("{share:.4}")));
        cells
    }
}

/// Sends the packets of all connections to another gateway.
pub fn measure(stage: &Stage, multitude: &Multitude<'_>) -> Result<Reroute, String> {
    let router = &stage.lab.router;
    let mac = show(OTHER_MAC);
    router.ip(&format!("neigh add {OTHER} lladdr {mac} dev wan0 nud permanent\n"));
    multitude.settle()?;
    let before = stage.maps.generation();
    let started = Instant::now();
    router.ip(&format!("route replace {WAN_HOSTS}/16 via {OTHER}\n"));
    while stage.maps.generation() == before && started.elapsed() < LIMIT {
        stage.check()?;
    }
    let time = started.elapsed();
    if time >= LIMIT {
        return Err(format!("the daemon has not followed the route within {LIMIT:?}"));
    }
    let number = multitude.number();
    // What the stack sends by the new gateway is the proof for the next packets.
    multitude.speak(0..number)?;
    let fast = multitude.speak(0..number)?;
    let sample = (0..number).step_by((number as usize / SAMPLE).max(1));
    let moved = sample.clone().filter(|number| goes_by(stage, multitude.member(*number), OTHER));
    Ok(Reroute {
        transport: multitude.transport(),
        connections: multitude.gathered(),
        time: time.as_secs_f64() * 1e3,
        writes: stage.maps.generation().wrapping_sub(before),
        fast,
        moved: moved.count() as f64 / sample.len() as f64,
    })
}

fn goes_by(stage: &Stage, member: Member, gateway: Ipv4Addr) -> bool {
    let slot = stage.maps.connection(member.original()).and_then(|conn| conn.hop_slot());
    slot.is_some_and(|slot| stage.maps.hop(slot).neighbor() == gateway)
}
