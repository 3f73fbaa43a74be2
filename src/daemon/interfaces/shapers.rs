// SPDX-License-Identifier: GPL-2.0-only
//! Queueing disciplines that XDP gets around.

use super::Interfaces;
use crate::datapath::Hook;
use crate::netlink::tc::Qdiscs;
use crate::reasons::interface::Problem;

/// These neither limit a rate nor prefer one class of packets to another. Without them the user
/// loses nothing that was asked for.
const PLAIN: [&str; 11] = [
    "bfifo",
    "codel",
    "fq",
    "fq_codel",
    "fq_pie",
    "mq",
    "noqueue",
    "pfifo",
    "pfifo_fast",
    "pie",
    "sfq",
];

impl Interfaces {
    /// Finds each interface whose packets XDP sends past a queueing discipline that matters.
    pub(super) fn find_shapers(&mut self, qdiscs: &Qdiscs) {
        if self.hook != Hook::Xdp {
            return;
        }
        for at in 0..self.attachments.len() {
            let index = self.attachments[at].ifindex();
            match qdiscs.root_kind(index).filter(|kind| !PLAIN.contains(kind)) {
                Some(kind) => self.add_notice(index, Problem::Shaper, kind.to_owned()),
                None => self.clear_notice(index, Problem::Shaper),
            };
        }
    }
}
