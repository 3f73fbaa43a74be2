// SPDX-License-Identifier: GPL-2.0-only
//! One connection that sends all the time, and when its last packet took the fast path.

use super::crowd::{Member, Side};
use super::line::Line;
use super::stage::Stage;
use crate::support::maps::Maps;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

/// From one packet to the next.
const PAUSE: Duration = Duration::from_micros(500);

/// A thread that sends; it ends when this is dropped.
pub struct Sender {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    last: Mutex<Option<Instant>>,
}

impl Sender {
    /// Starts to send packets of the original direction.
    pub fn start(stage: &Stage, member: Member) -> Self {
        let (line, maps) = (Line::open(&stage.lab.client, "eth0"), Maps::of(stage.daemon.pid()));
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let thread = spawn(move || theirs.send(&line, &maps, member));
        Self { shared, thread: Some(thread) }
    }

    /// When the last fast packet was found forwarded; `None` if there was none.
    pub fn last(&self) -> Option<Instant> {
        *self.shared.last.lock().expect("not poisoned")
    }
}

impl Shared {
    fn send(&self, line: &Line, maps: &Maps, member: Member) {
        let (frame, tuple) = (member.frame(Side::Lan), member.original());
        let forwarded = || maps.connection(tuple).map_or(0, |conn| conn.volume().0);
        let mut before = forwarded();
        while !self.ends.load(Ordering::Relaxed) {
            line.send([&frame[..]]);
            let now = forwarded();
            if now > before {
                *self.last.lock().expect("not poisoned") = Some(Instant::now());
            }
            before = now;
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            // A panic during another one would hide the first.
            if !std::thread::panicking() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}
