// SPDX-License-Identifier: GPL-2.0-only
//! What a decision about a connection depends on besides the connection.

use crate::conntrack::entry::Entry;
use crate::flow::decision::Facts;
use crate::flow::family::PerFamily;
use crate::flow::mark::OffloadMark;
use crate::flow::selector::Selectors;

/// What users and policies ask of connections.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The mark that connections must have.
    pub mark: Option<OffloadMark>,
    /// The bits of conntrack's mark that packets are routed by, and for which families one at least must be set.
    pub route_mark: (u32, PerFamily<bool>),
    /// What IPsec policies may cover.
    pub ipsec: &'a Selectors,
}

impl Terms<'_> {
    /// The facts about an entry; `None` if it lacks its status.
    pub fn facts(&self, entry: &Entry) -> Option<Facts> {
        let (mask, required) = self.route_mark;
        Some(Facts {
            original: entry.original,
            reply: entry.reply,
            status: entry.status?,
            tcp_state: entry.tcp_state,
            watched: entry.has_helper || entry.has_seqadj || entry.has_synproxy,
            zone: entry.zone,
            mark_wanted: self.mark.is_none_or(|mark| mark.matches(entry.mark)),
            unmarked: required[entry.original.family()] && mask & entry.mark == 0,
            ipsec: self.ipsec.may_select(entry.original, entry.reply),
        })
    }
}
