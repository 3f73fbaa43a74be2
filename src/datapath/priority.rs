// SPDX-License-Identifier: GPL-2.0-only
//! Whether a forwarded packet's priority follows its type of service, as a sysctl says.

use std::fs;
use std::io::ErrorKind;

use libbpf_rs::Object;

use super::Hook;
use super::map_names;
use super::typed_map::TypedMap;
use crate::error::{Error, Result};

const SYSCTL: &str = "/proc/sys/net/ipv4/ip_forward_update_priority";

/// The sysctl `net.ipv4.ip_forward_update_priority`, as the datapath knows it.
pub struct Priority {
    /// XDP has no variable for it: its packets have no priority.
    variable: Option<TypedMap<u32, u32>>,
    known: Option<bool>,
}

impl Priority {
    /// The object's variable, which was not told yet.
    pub fn new(object: &Object, hook: Hook) -> Result<Self> {
        let variable = match hook {
            Hook::Xdp => None,
            Hook::Tc => Some(TypedMap::new(object, map_names::PRIORITY)?),
        };
        Ok(Self { variable, known: None })
    }

    /// Reads the sysctl, and tells the datapath if it has changed. No event tells when it changes.
    pub fn follow(&mut self) -> Result<()> {
        let Some(variable) = &self.variable else { return Ok(()) };
        let updates = is_updated()?;
        if self.known != Some(updates) {
            variable.set(&0, &updates.into())?;
            self.known = Some(updates);
        }
        Ok(())
    }
}

/// What the sysctl says; a kernel without it always updates the priority.
fn is_updated() -> Result<bool> {
    match fs::read_to_string(SYSCTL) {
        Ok(text) => Ok(text.trim() != "0"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::system(format!("reading {SYSCTL}"), error)),
    }
}
