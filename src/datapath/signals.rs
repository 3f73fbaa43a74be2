// SPDX-License-Identifier: GPL-2.0-only
//! What the datapath asks the daemon to look at, and the daemon's word that it need not ask.

use std::time::Instant;

use libbpf_rs::Object;

use super::map_names;
use super::typed_map::{Cursor, TypedMap};
use crate::abi::{self, bpfw_refused, bpfw_tuple};
use crate::clock::Jiffies;
use crate::error::Result;

/// What the datapath points at: a packet that it has handed to the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// How the packet came in.
    pub tuple: bpfw_tuple,
    /// When that was.
    pub at: Jiffies,
    /// It was a TCP segment of an offloaded connection that goes on.
    pub is_segment: bool,
}

impl Signal {
    fn new(tuple: bpfw_tuple, value: u64) -> Self {
        let segment = abi::BPFW_SIGNAL_SEGMENT as u64;
        Self { tuple, at: Jiffies(value & !segment), is_segment: value & segment != 0 }
    }
}

/// The maps `new_conn_map` and `refused_map`, and the number of signals.
pub struct Signals {
    count: TypedMap<u32, u64>,
    /// The number before the last walk that came to the end of `new_conn_map`.
    handled: Option<u64>,
    new_conn_map: TypedMap<bpfw_tuple, u64>,
    refused_map: TypedMap<bpfw_tuple, bpfw_refused>,
    cursor: Cursor,
}

impl Signals {
    /// The object's maps.
    pub fn new(object: &Object) -> Result<Self> {
        Ok(Self {
            count: TypedMap::new(object, map_names::SIGNALS)?,
            handled: None,
            new_conn_map: TypedMap::new(object, map_names::NEW_CONN_MAP)?,
            refused_map: TypedMap::new(object, map_names::REFUSED_MAP)?,
            cursor: Cursor::default(),
        })
    }

    /// Takes signals out of the map, until there are none left or time is up.
    pub fn take(&mut self, until: Instant) -> Result<Vec<Signal>> {
        let (mut taken, count) = (Vec::new(), self.count.get(&0)?);
        if count == self.handled {
            return Ok(taken);
        }
        // The rest of a walk that ran out of time says nothing of what was signaled behind it.
        let whole = self.cursor.is_at_start();
        let ended = self.new_conn_map.take(&mut self.cursor, until, |tuple, value| {
            taken.push(Signal::new(tuple, value));
        })?;
        self.handled = count.filter(|_| whole && ended);
        Ok(taken)
    }

    /// Tells the datapath not to ask for this tuple before `until`.
    pub fn refuse(&self, tuple: &bpfw_tuple, until: Jiffies, reason: u32) -> Result<()> {
        let refused = bpfw_refused { until: until.0, reason, reserved: 0 };
        self.refused_map.set(tuple, &refused)
    }

    /// Lets the datapath ask again for what was refused for this reason, as far as time allows.
    pub fn forget_refusals(&self, reason: u32, until: Instant) -> Result<()> {
        let mut forgotten = Vec::new();
        self.refused_map.walk(&mut Cursor::default(), until, |tuple, refused| {
            if refused.reason == reason {
                forgotten.push(tuple);
            }
        })?;
        for tuple in forgotten {
            self.refused_map.remove(&tuple)?;
            if Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }
}
