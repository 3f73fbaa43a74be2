// SPDX-License-Identifier: GPL-2.0-only
//! Room in conntrack's table, which all namespaces of the machine share.

use std::fs;
use std::path::Path;
use std::process::Command;

const MOST: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// Limits that were raised; they get their old values when this is dropped.
pub struct Room(Vec<(&'static str, u64)>);

impl Room {
    /// Makes room for so many connections in each of some routers. Where it suffices, all stays
    /// as it is.
    pub fn make(connections: u32, routers: usize) -> Result<Self, String> {
        let connections = u64::from(connections);
        let mut room = Self(Vec::new());
        if !Path::new(MOST).exists() {
            // Otherwise the first rules would load it. What fails here is seen by the files.
            let _ = Command::new("modprobe").arg("nf_conntrack").status();
        }
        // Half as much again: those that end are there for a while.
        room.raise(MOST, connections + connections / 2)?;
        // Two directions, two to a bucket.
        room.raise(BUCKETS, connections * routers as u64)?;
        Ok(room)
    }

    fn raise(&mut self, path: &'static str, value: u64) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("{path}: {error}");
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        let old = text.trim().parse().map_err(|error| failed(&error))?;
        if old >= value {
            return Ok(());
        }
        fs::write(path, value.to_string())
            .map_err(|error| format!("{path} cannot be raised to {value}: {error}"))?;
        self.0.push((path, old));
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for (path, old) in self.0.drain(..) {
            if let Err(error) = fs::write(path, old.to_string()) {
                eprintln!("{path} could not be set back to {old}: {error}");
            }
        }
    }
}
