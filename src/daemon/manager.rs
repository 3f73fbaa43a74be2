// SPDX-License-Identifier: GPL-2.0-only
//! What people read of the daemon in the service manager's list.

use std::time::Instant;

use super::Daemon;
use crate::status::State;

impl Daemon<'_> {
    /// Tells the manager what the fast path does.
    pub(super) fn tell_manager(&mut self) {
        if !self.manager.listens() {
            return;
        }
        let (state, reason) = self.state();
        let reason = reason.map(|cause| cause.text()).unwrap_or_default();
        let state = match state {
            State::Paused => format!("paused: {reason}"),
            State::Forbidden => format!("nothing is offloaded: {reason}"),
            State::NothingUsable => "forwarding nothing: no usable interface".to_owned(),
            _ => "forwarding".to_owned(),
        };
        let connections = self.connections.offload.connections();
        self.manager.status(&state, || format!(", {connections} connections"), Instant::now());
    }
}
