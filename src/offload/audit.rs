// SPDX-License-Identifier: GPL-2.0-only
//! Connections that may send no events: once a second, conntrack is asked which still exist.
//!
//! Since Linux 6.1, `nf_conntrack_events` is 2 by default: a connection made before anyone
//! listened never says that it changed or ended.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Offload;
use super::admission::Source;
use crate::conntrack::dump::{Dump, DumpProgress};
use crate::conntrack::entry::Entry;
use crate::datapath::conn_map::Connection;
use crate::error::Result;
use crate::flow::decision::Decision;

/// How many there may be: what a dump a second can bear.
const LIMIT: usize = 16_384;
const PERIOD: Duration = Duration::from_secs(1);

/// The connections that are audited, and the audit that goes on.
#[derive(Default)]
pub(super) struct Audit {
    connections: HashMap<u32, Connection>,
    last: Option<Instant>,
    running: Option<Running>,
}

struct Running {
    dump: Dump,
    /// Those that were audited when the dump began and were not seen in it yet.
    missing: HashMap<u32, Connection>,
}

impl Audit {
    pub(super) fn add(&mut self, connection: &Connection) {
        self.connections.insert(connection.id, *connection);
    }

    pub(super) fn forget(&mut self, id: u32) {
        self.connections.remove(&id);
    }

    pub(super) fn has_room_for(&self, id: u32) -> bool {
        self.connections.len() < LIMIT || self.connections.contains_key(&id)
    }

    fn is_due(&self) -> bool {
        !self.connections.is_empty() && self.last.is_none_or(|last| last.elapsed() >= PERIOD)
    }

    fn start(&mut self) -> Result<Running> {
        self.last = Some(Instant::now());
        Ok(Running { dump: Dump::start()?, missing: self.connections.clone() })
    }
}

impl Offload {
    /// Starts or goes on with the audit; `true` if it wants to go on at once.
    pub fn audit(&mut self, until: Instant) -> Result<bool> {
        let mut running = match self.audit.running.take() {
            Some(running) => running,
            None if self.audit.is_due() => self.audit.start()?,
            None => return Ok(false),
        };
        let mut changed = Vec::new();
        let missing = &mut running.missing;
        let progress = running.dump.read(until, &mut |entry| {
            if let Some(known) = missing.remove(&entry.id) {
                if !self.confirms(&known, &entry) {
                    changed.push(entry);
                }
            }
        })?;
        for entry in changed {
            self.consider(&entry, Source::Found)?;
        }
        match progress {
            DumpProgress::More => {
                self.audit.running = Some(running);
                Ok(true)
            }
            // Entries may be missing from an interrupted dump: it proves nothing.
            DumpProgress::Interrupted => Ok(false),
            DumpProgress::Done => self.remove_missing(&running.missing).map(|()| false),
        }
    }

    /// Whether the entry is what was offloaded. Ids repeat, so the tuples count as well.
    fn confirms(&self, known: &Connection, entry: &Entry) -> bool {
        (known.original, known.reply) == (entry.original, entry.reply)
            && self.decide(entry) == (Decision::Offload { assured: known.assured })
    }

    fn remove_missing(&mut self, missing: &HashMap<u32, Connection>) -> Result<()> {
        for (id, connection) in missing {
            if self.audit.connections.get(id) == Some(connection) {
                self.remove_if(&connection.original.into(), *id)?;
                self.audit.forget(*id);
            }
        }
        Ok(())
    }
}
