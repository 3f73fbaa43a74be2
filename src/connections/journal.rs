// SPDX-License-Identifier: GPL-2.0-only
//! Which offloads have begun and ended, for those who listen. While nobody does, nothing is kept, and no counts
//! are read.

use super::Offload;
use crate::abi::{self, bpfw_conn, bpfw_tuple};
use crate::datapath::conn_map::{Connection, Walk};
use crate::error::Result;

/// What a turn cannot tell more of.
const LIMIT: usize = 16_384;

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub enum News {
    /// This connection is offloaded.
    Begun(Connection),
    /// It is so no longer; its entries as they were last, the answers' if it was there.
    Ended(bpfw_conn, bpfw_tuple, Option<bpfw_conn>),
}

/// What has not been told yet.
#[derive(Default)]
pub(super) struct Journal {
    is_read: bool,
    news: Vec<News>,
    lost: u64,
}

impl Journal {
    pub(super) fn add(&mut self, news: News) {
        if !self.is_read {
            return;
        }
        if self.news.len() < LIMIT {
            self.news.push(news);
        } else {
            self.lost += 1;
        }
    }

    pub(super) fn extend(&mut self, news: impl IntoIterator<Item = News>) {
        news.into_iter().for_each(|one| self.add(one));
    }
}

impl Offload {
    /// Whether there is anybody to be told of what begins and ends.
    pub fn set_heard(&mut self, is_heard: bool) {
        if self.journal.is_read != is_heard {
            self.journal = Journal { is_read: is_heard, ..Journal::default() };
        }
    }

    /// What has begun and ended since the last call; and how much more, of which nothing is known.
    pub fn take_news(&mut self) -> (Vec<News>, u64) {
        (std::mem::take(&mut self.journal.news), std::mem::take(&mut self.journal.lost))
    }

    /// What would be told if the connection with these tuples ended now. A program that runs at this moment may
    /// count one packet more.
    pub(super) fn end_of(&self, tuple: &bpfw_tuple, other: &bpfw_tuple) -> Result<Option<News>> {
        if !self.journal.is_read {
            return Ok(None);
        }
        let (one, two) = (self.last_of(tuple)?, self.last_of(other)?);
        let (replies, originals): (Vec<_>, Vec<_>) =
            one.into_iter().chain(two).partition(bpfw_conn::is_reply);
        let original = originals.first().copied();
        let Some(original) = original else { return Ok(None) };
        let reply = if original.tuple() == *tuple { *other } else { *tuple };
        Ok(Some(News::Ended(original, reply, replies.first().copied())))
    }

    /// An entry with all of its counts. The datapath may be moving those of the cell to the rest at this moment.
    fn last_of(&self, tuple: &bpfw_tuple) -> Result<Option<bpfw_conn>> {
        let mut last = self.conn_map.get(tuple)?;
        let is_full = |conn: &bpfw_conn| conn.cell.volume as u32 >= abi::BPFW_VOLUME_FULL;
        while let Some(before) = last.filter(is_full) {
            last = self.conn_map.get(tuple)?;
            if last.is_some_and(|last| last.volume() == before.volume()) {
                break;
            }
        }
        Ok(last)
    }

    /// The ends of all connections, as many at a time as one slice has; `true` if it was the last.
    pub fn end_all(&self, walk: &mut Walk) -> Result<(Vec<News>, bool)> {
        let mut originals = Vec::new();
        let is_last = self.conn_map.walk_batch(walk, |conn| {
            if !conn.is_reply() {
                originals.push(conn);
            }
        })?;
        let mut ends = Vec::with_capacity(originals.len());
        for original in originals {
            let reply = self.conn_map.reverse(&original)?;
            ends.push(News::Ended(original, reply, self.conn_map.get(&reply)?));
        }
        Ok((ends, is_last))
    }
}
