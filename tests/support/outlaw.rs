// SPDX-License-Identifier: GPL-2.0-only
//! A connection on the fast path that could not begin any more: once its conntrack entry is gone,
//! whatever arrives is the fast path's.

use super::capture::Capture;
use super::daemon::Daemon;
use super::lab::Lab;
use super::router::*;
use super::steady::{Steady, expect_frame, is_udp, last_of};
use super::udp::{UdpClient, UdpEcho};
use super::wait::eventually;
use std::time::Instant;

/// Connections may begin for a few seconds. Nobody is told of the element's end, so bpfw has no reason
/// to doubt its proofs.
pub fn allow_for_a_moment(lab: &Lab) {
    lab.nft(
        "table ip beginning {
            set allowed {
                type inet_service
                flags timeout
                elements = { 7 timeout 6s }
            }
            chain forward {
                type filter hook forward priority -10; policy accept;
                ct state new udp dport != @allowed drop
            }
        }",
    );
}

/// A lab with the client's connection on the fast path, which could not begin any more.
pub struct Outlaw {
    pub lab: Lab,
    pub daemon: Daemon,
    _server: UdpEcho,
    _stream: Steady,
    /// At the server.
    pub capture: Capture,
}

impl Outlaw {
    /// Brings the connection to the fast path under steady traffic, and waits until it could not
    /// begin any more. Of the lab, `allow_for_a_moment` is expected.
    pub fn new(lab: Lab, daemon: Daemon, (server, client): (UdpEcho, UdpClient)) -> Self {
        wait_until_fast(&lab, &client);
        let stream = Steady::start(&client);
        eventually(LIMIT, "the element expires", || {
            !lab.router.sh("nft list set ip beginning allowed").contains("elements")
        });
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
