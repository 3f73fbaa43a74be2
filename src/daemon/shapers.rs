// SPDX-License-Identifier: GPL-2.0-only
//! Queueing disciplines that XDP gets around.

use std::collections::BTreeMap;

use super::Daemon;
use crate::datapath::Hook;
use crate::netlink::tc::Qdiscs;
use crate::reasons::interface::Problem;

/// Those that neither limit a rate nor prefer one class of packets to another: nothing that the
/// user has asked for is lost without them.
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

impl Daemon<'_> {
    /// Warns of each interface whose packets XDP sends past a queueing discipline that matters.
    pub(super) fn watch_shapers(&mut self, qdiscs: &Qdiscs) {
        if self.request.hook != Hook::Xdp {
            return;
        }
        let mut shapers = BTreeMap::new();
        let links = &self.monitor.network().links;
        for attachment in self.attachments.iter().filter(|a| links.contains_key(&a.ifindex())) {
            let kind = qdiscs.root_kind(attachment.ifindex());
            let Some(kind) = kind.filter(|kind| !PLAIN.contains(kind)) else {
                continue;
            };
            if self.shapers.get(&attachment.ifindex()).is_none_or(|known| known != kind) {
                let line = Problem::Shaper.reason().line_about(kind);
                tracing::warn!("{}: {line}", attachment.name());
            }
            shapers.insert(attachment.ifindex(), kind.to_owned());
        }
        self.shapers = shapers;
    }
}
