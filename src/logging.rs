// SPDX-License-Identifier: GPL-2.0-only
//! Log lines on the standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::LogLevel;

/// Starts logging: at the level, and as `RUST_LOG` says in more detail.
pub fn start(level: LogLevel) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    // What RUST_LOG does not mention keeps its level: a misspelt word would else be taken for a
    // module's name, and silence everything, errors included.
    let filter = EnvFilter::try_new(format!("{},{asked}", level.as_directive()));
    let refused = filter.as_ref().err().map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(level.as_directive()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
    if let Some(error) = refused {
        tracing::warn!("RUST_LOG={asked} is not understood: {error}");
    }
}
