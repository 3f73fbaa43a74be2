// SPDX-License-Identifier: GPL-2.0-only
//! Applies events to connections, many at a time. One send tells conntrack of all new connections,
//! and one call frees the cells of all that are gone.

use std::collections::HashSet;
use std::time::Instant;

use super::Offload;
use super::source::Source;
use crate::abi::bpfw_tuple;
use crate::conntrack::entry::Entry;
use crate::conntrack::events::Event;
use crate::datapath::conn_map::{Added, Connection};
use crate::error::Result;
use crate::flow::expiry::Given;
use crate::flow::tuple::Tuple;
use crate::reasons::connection::Refusal;

/// How many events are read before they are applied, in a fraction of a millisecond.
const EVENTS: usize = 64;

/// What events have asked for and was not applied yet. No tuple is in it twice.
#[derive(Default)]
pub(super) struct EventBatch {
    events: usize,
    adds: Vec<(Entry, Connection, Source)>,
    removes: Vec<bpfw_tuple>,
    tuples: HashSet<Tuple>,
}

impl EventBatch {
    /// The event is judged by the map, so earlier events about these tuples must be applied first.
    fn concerns(&self, entry: &Entry) -> bool {
        [entry.original, entry.reply].iter().any(|tuple| self.tuples.contains(tuple))
    }

    fn note(&mut self, entry: &Entry) {
        self.tuples.extend([entry.original, entry.reply]);
    }
}

impl Offload {
    /// One event of conntrack's. What it asks for is done by the next [`Offload::flush`] at the latest; but
    /// a connection that has just come waits for [`Offload::admit`].
    pub fn on_event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Destroy(entry) => {
                self.waiting.forget(&entry.original);
                self.make_way(&entry)?;
                self.queue_removal(&entry)
            }
            // An entry of the same connection that waits is older.
            Event::Update(entry) if self.may_know(&entry) => {
                self.waiting.forget(&entry.original);
                self.make_way(&entry)?;
                self.on_update(&entry, Source::Event)
            }
            Event::Edit { entry, port } if self.may_know(&entry) => {
                self.waiting.forget(&entry.original);
                self.make_way(&entry)?;
                self.on_edit(&entry, port)
            }
            Event::Update(entry) => self.let_wait(entry, Source::Event),
            Event::Edit { entry, .. } => self.let_wait(entry, Source::Table),
        }
    }

    fn let_wait(&mut self, entry: Entry, source: Source) -> Result<()> {
        if !self.waiting.put(entry, source) {
            tracing::trace!("too many connections wait to be offloaded");
        }
        Ok(())
    }

    /// Looks at connections that have just come, until time is up; `true` if there are more.
    pub fn admit(&mut self, until: Instant) -> Result<bool> {
        while let Some((entry, source)) = self.waiting.take() {
            self.make_way(&entry)?;
            self.on_update(&entry, source)?;
            if Instant::now() >= until {
                break;
            }
        }
        self.flush()?;
        Ok(self.waiting.len() > 0)
    }

    /// Whether either tuple may be offloaded, or is about to be.
    fn may_know(&self, entry: &Entry) -> bool {
        self.batch.concerns(entry)
            || [entry.original, entry.reply]
                .iter()
                .any(|tuple| self.conn_map.may_have(&(*tuple).into()))
    }

    /// Before the next event: nothing must wait that concerns it, and not too much of anything.
    fn make_way(&mut self, entry: &Entry) -> Result<()> {
        self.batch.events += 1;
        if self.batch.events >= EVENTS || self.batch.concerns(entry) {
            self.apply_batch()?;
        }
        Ok(())
    }

    /// Another program may have set the timeout, which counts until the connection's next packet.
    /// So the stack gets that packet, and its signal brings the connection back.
    fn on_edit(&mut self, entry: &Entry, port: u32) -> Result<()> {
        let by_others = port != self.provocations.port();
        if by_others && self.conn_map.has(&entry.original.into(), entry.id)? {
            return self.reject(entry, Refusal::OddTimeout).map(drop);
        }
        self.on_update(entry, Source::Table)?;
        self.leave_audit(entry);
        Ok(())
    }

    fn queue_removal(&mut self, entry: &Entry) -> Result<()> {
        let tuple = entry.original.into();
        if self.conn_map.has(&tuple, entry.id)? {
            self.audit.forget(entry.id);
            self.batch.note(entry);
            // An id stands for one entry until its end, whose reply tuple never changes.
            self.batch.removes.extend([tuple, entry.reply.into()]);
        }
        Ok(())
    }

    /// A connection that most probably is not there yet.
    pub(super) fn queue_add(&mut self, entry: &Entry, connection: Connection, source: Source) {
        self.batch.note(entry);
        self.batch.adds.push((entry.clone(), connection, source));
    }

    /// Does what events have asked for.
    pub(super) fn apply_batch(&mut self) -> Result<()> {
        let EventBatch { adds, removes, .. } = std::mem::take(&mut self.batch);
        if !removes.is_empty() {
            let mut ends = Vec::new();
            for both in removes.chunks_exact(2) {
                ends.extend(self.end_of(&both[0], &both[1])?);
            }
            self.conn_map.remove_all(&removes)?;
            self.journal.extend(ends);
            removes.chunks(2).for_each(|both| tracing::debug!("{}: back to the stack", both[0]));
        }
        if adds.is_empty() {
            return Ok(());
        }
        self.prepare(adds.iter().map(|(_, connection, _)| connection))?;
        let added = self.conn_map.add_all(adds.iter().map(|(_, connection, _)| connection))?;
        for ((entry, connection, source), added) in adds.iter().zip(added) {
            self.finish_add(entry, connection, *source, added)?;
        }
        Ok(())
    }

    fn finish_add(
        &mut self,
        entry: &Entry,
        connection: &Connection,
        source: Source,
        added: Added,
    ) -> Result<()> {
        match added {
            Added::Added => {
                let audited = !self.events_sent || source != Source::Event;
                self.offloaded(connection, audited)
            }
            // It is known, or others have its tuples; or there is no room.
            Added::Exists | Added::Full => {
                let (assured, given) = (connection.assured, Given::Ordinary);
                let refusal = self.offload_or_keep(entry, assured, source, given)?;
                if let Some(refusal) = refusal {
                    self.refusals.note(refusal);
                    self.tell_if_lasting(entry, refusal);
                }
                Ok(())
            }
        }
    }
}
