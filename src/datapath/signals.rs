// SPDX-License-Identifier: GPL-2.0-only
//! What the datapath asks the daemon to look at, and the daemon's word that it need not ask.

use std::time::Instant;

use libbpf_rs::Object;

use super::typed_map::{Cursor, TypedMap};
use super::{cells, map_names};
use crate::abi::{self, bpfw_refused, bpfw_settings, bpfw_signal, bpfw_tuple};
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
    fn new(signal: bpfw_signal) -> Self {
        let (bpfw_signal { time, tuple }, segment) = (signal, abi::BPFW_SIGNAL_SEGMENT as u64);
        Self { tuple, at: Jiffies(time & !segment), is_segment: time & segment != 0 }
    }
}

/// The maps `new_conn_map` and `refused_map`, and the number of signals.
pub struct Signals {
    count: TypedMap<u32, u64>,
    /// The number before the last walk that came to the end of `new_conn_map`.
    handled: Option<u64>,
    new_conn_map: TypedMap<u64, bpfw_signal>,
    refused_map: TypedMap<u64, bpfw_refused>,
    /// By which tuples are hashed.
    settings: bpfw_settings,
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
            settings: cells::loaded_settings(object)?,
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
        let ended = self.new_conn_map.take(&mut self.cursor, until, |_, signal| {
            taken.push(Signal::new(signal));
        })?;
        self.handled = count.filter(|_| whole && ended);
        Ok(taken)
    }

    /// Tells the datapath not to ask for this tuple before `until`.
    pub fn refuse(&self, tuple: &bpfw_tuple, until: Jiffies, reason: u32) -> Result<()> {
        let key = cells::hash(tuple, &self.settings);
        let refused = bpfw_refused { until: until.0, reason, reserved: 0 };
        self.refused_map.set(&key, &refused)
    }

    /// Lets the datapath ask again for what was refused for this reason, as far as time allows.
    pub fn forget_refusals(&self, reason: u32, until: Instant) -> Result<()> {
        let mut forgotten = Vec::new();
        self.refused_map.walk(&mut Cursor::default(), until, |key, refused| {
            if refused.reason == reason {
                forgotten.push(key);
            }
        })?;
        for key in forgotten {
            self.refused_map.remove(&key)?;
            if Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }
}
