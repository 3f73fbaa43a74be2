// SPDX-License-Identifier: GPL-2.0-only
//! Connections that may send no events: once a second, conntrack is asked which still exist.
//!
//! Since Linux 5.19, `nf_conntrack_events` is 2 by default: a connection made before anyone
//! listened never says that it changed or ended. A connection that answers a provocation by an
//! event is audited no longer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Offload;
use super::source::Source;
use crate::conntrack::dump::{Dump, DumpProgress};
use crate::conntrack::entry::Entry;
use crate::datapath::conn_map::Connection;
use crate::error::Result;
use crate::flow::decision::Decision;
use crate::flow::family::Families;
use crate::flow::tuple::Tuple;

/// How many there may be.
const LIMIT: usize = 16_384;
/// Up to this many are asked for one by one. The cost of a dump grows with the whole table.
const ONE_BY_ONE: usize = 1024;
/// How many are provoked in a turn. The daemon reads their events in the next one, and they must
/// fit in the queue.
const PROVOKED_AT_ONCE: usize = 64;
const PERIOD: Duration = Duration::from_secs(1);
/// The time between two dumps, as a multiple of a dump's duration, however large the table is.
const PAUSE: u32 = 4;

/// The connections that are audited, and the audit that goes on.
#[derive(Default)]
pub(super) struct Audit {
    connections: HashMap<u32, Connection>,
    /// The ids of those that were not provoked yet, and maybe of some that are audited no longer.
    unprovoked: Vec<u32>,
    started: Option<Instant>,
    next: Option<Instant>,
    running: Option<Running>,
}

enum Running {
    /// Still to be asked for.
    Asking(Vec<Connection>),
    /// Those that were audited when the dump began and were not seen in it yet.
    Dumping { dump: Dump, missing: HashMap<u32, Connection> },
}

impl Audit {
    pub(super) fn add(&mut self, connection: &Connection) {
        self.connections.insert(connection.id, *connection);
        self.unprovoked.push(connection.id);
    }

    pub(super) fn holds(&self, id: u32) -> bool {
        self.connections.contains_key(&id)
    }

    /// What was provoked before may have been lost.
    pub(super) fn provoke_again(&mut self) {
        self.unprovoked = self.connections.keys().copied().collect();
    }

    fn next_to_provoke(&mut self) -> Vec<Tuple> {
        let rest = self.unprovoked.len().saturating_sub(PROVOKED_AT_ONCE);
        let ids = self.unprovoked.split_off(rest);
        ids.iter().filter_map(|id| Some(self.connections.get(id)?.original)).collect()
    }

    pub(super) fn forget(&mut self, id: u32) {
        self.connections.remove(&id);
    }

    pub(super) fn has_room(&self) -> bool {
        self.connections.len() < LIMIT
    }

    fn is_due(&self) -> bool {
        !self.connections.is_empty() && self.next.is_none_or(|next| Instant::now() >= next)
    }

    fn start(&mut self) -> Result<Running> {
        self.started = Some(Instant::now());
        Ok(if self.connections.len() <= ONE_BY_ONE {
            Running::Asking(self.connections.values().copied().collect())
        } else {
            Running::Dumping {
                dump: Dump::start(Families::FORWARDED)?,
                missing: self.connections.clone(),
            }
        })
    }

    fn end(&mut self, dumped: bool) {
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let pause = if dumped { now.duration_since(started) * PAUSE } else { Duration::ZERO };
        self.next = Some((started + PERIOD).max(now + pause));
    }
}

impl Offload {
    /// Starts or goes on with the audit; `true` if it wants to go on at once.
    pub fn audit(&mut self, until: Instant) -> Result<bool> {
        self.provoke()?;
        let running = match self.audit.running.take() {
            Some(running) => running,
            None if self.audit.is_due() => self.audit.start()?,
            None => return Ok(false),
        };
        let dumped = matches!(running, Running::Dumping { .. });
        self.audit.running = match running {
            Running::Asking(connections) => self.ask_for(connections, until)?,
            Running::Dumping { dump, missing } => self.read_audit(dump, missing, until)?,
        };
        if self.audit.running.is_none() {
            self.audit.end(dumped);
        }
        Ok(self.audit.running.is_some())
    }

    /// Where no events are sent at all, there is no use in it.
    fn provoke(&mut self) -> Result<()> {
        let originals = self.audit.next_to_provoke();
        if !self.events_sent {
            return Ok(());
        }
        for original in originals {
            self.provocations.queue_update(&original, None, false)?;
        }
        let errors = self.provocations.flush()?;
        self.heed_errors(errors)
    }

    /// Ends the audit of a connection that has sent an event, whatever caused it.
    pub(super) fn leave_audit(&mut self, entry: &Entry) {
        // Ids repeat.
        let known = self.audit.connections.get(&entry.id);
        if self.events_sent && known.is_some_and(|known| known.original == entry.original) {
            self.audit.forget(entry.id);
        }
    }

    fn ask_for(
        &mut self,
        mut connections: Vec<Connection>,
        until: Instant,
    ) -> Result<Option<Running>> {
        while let Some(known) = connections.pop() {
            match self.requests.get(&known.original)? {
                Some(entry) if self.confirms(&known, &entry)? => {}
                Some(entry) => self.consider(&entry, Source::Table).map(|_| ())?,
                None => self.remove_audited(&known)?,
            }
            if Instant::now() >= until {
                break;
            }
        }
        Ok((!connections.is_empty()).then_some(Running::Asking(connections)))
    }

    fn read_audit(
        &mut self,
        mut dump: Dump,
        mut missing: HashMap<u32, Connection>,
        until: Instant,
    ) -> Result<Option<Running>> {
        let mut found = Vec::new();
        let progress = dump.read(until, &mut |entry| {
            found.extend(missing.remove(&entry.id).map(|known| (known, entry)));
        })?;
        for (known, entry) in found {
            if !self.confirms(&known, &entry)? {
                self.consider(&entry, Source::Table)?;
            }
        }
        match progress {
            DumpProgress::More => return Ok(Some(Running::Dumping { dump, missing })),
            // Entries may be missing from an interrupted dump: it proves nothing.
            DumpProgress::Interrupted => {}
            DumpProgress::Done => {
                for known in missing.values() {
                    self.remove_audited(known)?;
                }
            }
        }
        Ok(None)
    }

    /// Whether the entry is what was offloaded. Ids repeat, so the tuples count as well.
    fn confirms(&self, known: &Connection, entry: &Entry) -> Result<bool> {
        let is_the_same = (known.id, known.original, known.reply)
            == (entry.id, entry.original, entry.reply)
            && known.mark == entry.mark
            && self.decide(entry) == (Decision::Offload { assured: known.assured });
        Ok(is_the_same && self.has_usual_timeout(entry, known.assured)?)
    }

    fn remove_audited(&mut self, known: &Connection) -> Result<()> {
        if self.audit.connections.get(&known.id) == Some(known) {
            self.remove_if(&known.original.into(), known.id)?;
            self.audit.forget(known.id);
        }
        Ok(())
    }
}
