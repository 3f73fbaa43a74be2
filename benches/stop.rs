// SPDX-License-Identifier: GPL-2.0-only
//! Ctrl-C and SIGTERM end the benchmark between two runs, so that everything is put back.

use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the benchmark is asked to end.
#[derive(Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From here on the signals no longer end the process by themselves.
    pub fn watch() -> Result<Self, String> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&asked))
                .map_err(|error| format!("watching for signals: {error}"))?;
        }
        Ok(Self(asked))
    }

    /// An error once a signal has come.
    pub fn check(&self) -> Result<(), String> {
        if self.0.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
    }
}
