// SPDX-License-Identifier: GPL-2.0-only
//! Making the offloaded connections what conntrack's table says: at the start, after lost events,
//! after a pause. The fast path rests meanwhile.

use std::collections::HashSet;
use std::time::Instant;

use super::Offload;
use super::event_batch::EventBatch;
use super::identity::{Identity, identity};
use super::source::Source;
use super::waiting::Waiting;
use crate::conntrack::dump::{Dump, DumpProgress};
use crate::datapath::conn_map::Walk;
use crate::error::Result;
use crate::flow::family::Families;

/// A resync that goes on, in slices.
pub struct Resync {
    step: Step,
    /// The connections that conntrack knows and that may be offloaded.
    confirmed: HashSet<Identity>,
}

enum Step {
    Dump(Dump),
    Sweep(Walk),
}

impl Offload {
    /// Begins with a fresh dump. Events must be read from here on, and none from before.
    pub fn start_resync(&mut self) -> Result<Resync> {
        self.admitted = Some(HashSet::new());
        self.waiting = Waiting::default();
        self.batch = EventBatch::default();
        self.audit.provoke_again();
        Ok(Resync {
            step: Step::Dump(Dump::start(Families::FORWARDED)?),
            confirmed: HashSet::new(),
        })
    }

    /// Goes on with a resync; `true` when it is complete.
    pub fn resync(&mut self, resync: &mut Resync, until: Instant) -> Result<bool> {
        let complete = match &mut resync.step {
            Step::Dump(dump) => match self.read_dump(dump, &mut resync.confirmed, until)? {
                DumpProgress::More => false,
                DumpProgress::Done => {
                    resync.step = Step::Sweep(Walk::default());
                    false
                }
                DumpProgress::Interrupted => {
                    *resync = self.start_resync()?;
                    false
                }
            },
            Step::Sweep(cursor) => self.remove_stale(cursor, &resync.confirmed, until)?,
        };
        self.flush()?;
        if complete {
            self.admitted = None;
        }
        Ok(complete)
    }

    fn read_dump(
        &mut self,
        dump: &mut Dump,
        confirmed: &mut HashSet<Identity>,
        until: Instant,
    ) -> Result<DumpProgress> {
        let mut failed = None;
        let progress =
            dump.read(until, &mut |entry| match self.consider(&entry, Source::Table) {
                Ok(None) => {
                    confirmed.insert(identity(entry.id, entry.original.into()));
                }
                Ok(Some(_)) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                }
            })?;
        match failed {
            Some(error) => Err(error),
            None => Ok(progress),
        }
    }

    fn remove_stale(
        &mut self,
        cursor: &mut Walk,
        confirmed: &HashSet<Identity>,
        until: Instant,
    ) -> Result<bool> {
        loop {
            let (mut stale, mut result) = (Vec::new(), Ok(()));
            let complete =
                self.conn_map.walk_batch(cursor, |conn| match self.conn_map.original(&conn) {
                    Ok(original) => {
                        let identity = identity(conn.rest.id, original);
                        let admitted = self.admitted.as_ref();
                        let admitted = admitted.is_some_and(|all| all.contains(&identity));
                        if !admitted && !confirmed.contains(&identity) {
                            stale.push(conn);
                        }
                    }
                    Err(error) => result = Err(error),
                })?;
            result?;
            for conn in stale {
                self.remove_entry(&conn)?;
            }
            if complete || Instant::now() >= until {
                return Ok(complete);
            }
        }
    }
}
