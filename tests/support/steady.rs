// SPDX-License-Identifier: GPL-2.0-only
//! A steady stream of datagrams, and when the last of them was seen that should not be any more.

use super::capture::{Capture, Frame};
use super::packet::Mac;
use super::udp::{UdpClient, datagram};
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two datagrams.
const PACE: Duration = Duration::from_micros(500);
/// Many times what lies between two datagrams, on a busy machine too: so long without one is the
/// end of them.
const QUIET: Duration = Duration::from_millis(400);
/// Many times what a change may take, but less than it takes until housekeeping would notice.
const LIMIT: Duration = Duration::from_secs(4);

/// Datagrams of a client to its server, one after the other; stops when dropped.
pub struct Steady {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Steady {
    /// Begins to send; what comes back is thrown away.
    pub fn start(client: &UdpClient) -> Self {
        let socket = client.socket().try_clone().expect("a second handle");
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // An ICMP error of the packet before is no matter here.
                let _ = socket.send(&datagram(0, 64));
                while recv(socket.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT).is_ok() {}
                std::thread::sleep(PACE);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How long after `since` the last incoming frame was seen that is `old`; panics if they never
/// end. Frames must be coming before, or nothing is shown.
pub fn last_of(capture: &Capture, since: Instant, old: impl Fn(&Frame) -> bool) -> Duration {
    let mut last = Duration::ZERO;
    while capture.next(QUIET, |frame| !frame.outgoing && old(frame)).is_some() {
        last = since.elapsed();
        assert!(last < LIMIT, "they still come after {LIMIT:?}");
    }
    last
}

/// Waits until an incoming frame is `wanted`.
pub fn expect_frame(capture: &Capture, what: &str, wanted: impl Fn(&Frame) -> bool) {
    let found = capture.next(LIMIT, |frame| !frame.outgoing && wanted(frame));
    assert!(found.is_some(), "not within {LIMIT:?}: {what}");
}

/// Whether it is a UDP packet.
pub fn is_udp(frame: &Frame) -> bool {
    frame.view().is_some_and(|view| view.protocol == 17)
}

/// Whether it is a UDP packet to this station.
pub fn goes_to(frame: &Frame, mac: Mac) -> bool {
    frame.view().is_some_and(|view| view.protocol == 17 && view.ethernet.dst == mac)
}
