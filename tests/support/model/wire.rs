// SPDX-License-Identifier: GPL-2.0-only
//! The hosts' ends of the cables: frames are sent there, and all that arrives is looked at.

use crate::support::capture::{Capture, Frame};
use crate::support::flow::{DMZ, LAN, Side, WAN};
use crate::support::lab::Lab;
use crate::support::view::Ethernet;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// A TCP or UDP frame that came out of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub side: Side,
    pub id: u16,
    pub bytes: Vec<u8>,
}

/// The three cables.
pub struct Wire {
    captures: [(Side, Capture); 3],
    /// Numbers of frames that may still come late: they were given up and sent again.
    given_up: HashSet<u16>,
}

impl Wire {
    pub fn new(lab: &Lab) -> Self {
        let captures = [
            (LAN, Capture::open(&lab.client, "eth0")),
            (WAN, Capture::open(&lab.server, "eth0")),
            (DMZ, Capture::open(&lab.server, "eth1")),
        ];
        Self { captures, given_up: HashSet::new() }
    }

    /// Sends a frame to the router from this side.
    pub fn send(&self, side: Side, frame: &[u8]) {
        let cable = self.captures.iter().find(|(other, _)| *other == side);
        cable.expect("a cable on each side").1.send_frame(frame);
    }

    /// This frame's arrival, if it comes within `limit`; an error if another one comes.
    pub fn arrival(&self, id: u16, limit: Duration) -> Result<Option<Arrival>, String> {
        let end = Instant::now() + limit;
        loop {
            match self.any() {
                Some(arrival) if arrival.id == id => return Ok(Some(arrival)),
                Some(arrival) if self.given_up.contains(&arrival.id) => {}
                Some(arrival) => return Err(format!("nobody waits for {arrival:02x?}")),
                None if Instant::now() >= end => return Ok(None),
                None => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    }

    /// It was lost, as far as one can tell.
    pub fn give_up(&mut self, id: u16) {
        self.given_up.insert(id);
    }

    fn any(&self) -> Option<Arrival> {
        self.captures.iter().find_map(|(side, capture)| {
            let mut found = None;
            capture
                .next(Duration::ZERO, |frame| {
                    found = number(frame).filter(|_| !frame.outgoing);
                    found.is_some()
                })
                .and_then(|frame| Some(Arrival { side: *side, id: found?, bytes: frame.bytes }))
        })
    }
}

/// The number of a TCP or UDP frame: IPv4's identification, or the end of IPv6's flow label.
fn number(frame: &Frame) -> Option<u16> {
    if let Some(view) = frame.view() {
        return [6, 17].contains(&view.protocol).then_some(view.id);
    }
    let (ethernet, packet) = Ethernet::parse(&frame.bytes)?;
    let (label, next_header) = (packet.get(2..4)?, packet.get(6)?);
    let is_ours = ethernet.ethertype == 0x86dd && [6, 17].contains(next_header);
    is_ours.then(|| u16::from_be_bytes([label[0], label[1]]))
}
