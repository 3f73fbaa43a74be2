// SPDX-License-Identifier: GPL-2.0-only
//! A connection on the fast path that the rules forbid by now: whatever arrives is the fast path's.

use super::capture::Capture;
use super::daemon::Daemon;
use super::lab::Lab;
use super::router::*;
use super::steady::{Steady, expect_frame, is_udp, last_of};
use super::udp::{UdpClient, UdpEcho};
use std::time::Instant;

/// An established connection no longer passes, whatever it was allowed before.
pub fn forbid(lab: &Lab) {
    lab.nft(
        "table ip forbidden {
            chain forward {
                type filter hook forward priority -10; policy accept;
                ip protocol udp drop
            }
        }",
    );
}

/// A lab with the client's connection on the fast path, although the rules forbid it by now.
pub struct Outlaw {
    pub lab: Lab,
    pub daemon: Daemon,
    _server: UdpEcho,
    _stream: Steady,
    /// At the server.
    pub capture: Capture,
}

impl Outlaw {
    /// Brings the connection to the fast path, and forbids it under steady traffic.
    pub fn new(lab: Lab, daemon: Daemon, (server, client): (UdpEcho, UdpClient)) -> Self {
        wait_until_fast(&lab, &client);
        let stream = Steady::start(&client);
        forbid(&lab);
        let capture = Capture::open(&lab.server, "eth0");
        expect_frame(&capture, "the fast path goes on as before", is_udp);
        Self { lab, daemon, _server: server, _stream: stream, capture }
    }

    /// After `delete` no packet arrives any more.
    pub fn expect_end(&self, what: &str, delete: impl FnOnce() -> Instant) {
        let since = delete();
        println!("{what}: the last packet {:?} later", last_of(&self.capture, since, is_udp));
        assert!(self.lab.stack_packets() > 0);
        wait_until_offloaded(&self.daemon, 0);
    }
}

/// Runs the conntrack tool; the time is that before it starts.
pub fn conntrack(lab: &Lab, args: &[&str]) -> Instant {
    let since = Instant::now();
    assert!(lab.conntrack(args).status.success());
    since
}
