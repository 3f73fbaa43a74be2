// SPDX-License-Identifier: GPL-2.0-only
//! What the drivers of the attached interfaces do with redirected XDP frames. No event of rtnetlink's
//! tells when that changes.

use std::time::Instant;

use crate::datapath::Hook;
use crate::datapath::attachment::{Attachment, Transmitting};
use crate::netlink::drivers::Drivers;

/// The next question waits for this many times the duration of the last one.
const APART: u32 = 200;

/// The drivers, and their last answers.
pub(super) struct DriverWatch {
    drivers: Drivers,
    /// When they are asked again.
    next_at: Instant,
    answers: Vec<Transmitting>,
}

impl DriverWatch {
    pub(super) fn new(drivers: Drivers) -> Self {
        Self { drivers, next_at: Instant::now(), answers: Vec::new() }
    }

    /// Whether the kernel describes what drivers can do.
    pub(super) fn are_described(&self) -> bool {
        self.drivers.are_described()
    }

    /// Asks all of them, in the attachments' order; nobody at the hook TC.
    pub(super) fn ask(&mut self, hook: Hook, attachments: &[Attachment]) -> Vec<Transmitting> {
        if hook != Hook::Xdp {
            return Vec::new();
        }
        let started = Instant::now();
        let all = attachments.iter().map(|ours| ours.transmitting(&mut self.drivers)).collect();
        self.next_at = Instant::now() + started.elapsed() * APART;
        all
    }

    /// Asks them if that is due: in each interval, with very many interfaces less often. `true` if their
    /// answers have changed.
    pub(super) fn ask_if_due(&mut self, hook: Hook, attachments: &[Attachment]) -> bool {
        if Instant::now() < self.next_at {
            return false;
        }
        let answers = self.ask(hook, attachments);
        std::mem::replace(&mut self.answers, answers) != self.answers
    }
}
