// SPDX-License-Identifier: GPL-2.0-only
//! The log.

pub mod destination;
mod queue;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use clap::ValueEnum;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{Registry, fmt};

use crate::error::{Error, Result};

use destination::{Form, LogTo};
use queue::Queue;

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The level's name as `RUST_LOG` knows it.
    fn as_directive(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The log; dropping it waits, for a while at most, until its last lines are written.
#[derive(Debug)]
pub struct Log {
    queue: Arc<Queue>,
    targets: Handle<Targets, Registry>,
}

impl Log {
    /// Starts logging: at the level, and as `RUST_LOG` says in more detail.
    pub fn start(level: LogLevel, log_to: LogTo) -> Result<Self> {
        let started = log_to.open().and_then(|(form, log)| Ok((form, Queue::start(log, form)?)));
        let doing = if log_to == LogTo::Syslog { "opening /dev/log" } else { "starting the log" };
        let (form, queue) = started.map_err(|error| Error::system(doing, error))?;
        let asked = std::env::var("RUST_LOG").unwrap_or_default();
        let (targets, refused) = match targets(level, &asked) {
            Ok(targets) => (targets, None),
            Err(error) => (targets(level, "").unwrap_or_default(), Some(error)),
        };
        let lines = fmt::layer()
            .with_writer(Lines { queue: Arc::clone(&queue), form })
            .with_level(form == Form::Words)
            // It would print them with eprintln, which panics where it cannot.
            .log_internal_errors(false)
            .with_ansi(form == Form::Words && io::stderr().is_terminal())
            .with_target(false)
            .without_time();
        let (filter, targets) = reload::Layer::new(targets);
        tracing_subscriber::registry().with(lines.with_filter(filter)).init();
        if let Some(error) = refused {
            tracing::warn!("RUST_LOG={asked} is not understood: {error}");
        }
        Ok(Self { queue, targets })
    }

    /// Logs at this level from here on, and still as `RUST_LOG` says in more detail.
    pub fn set_level(&self, level: LogLevel) {
        let asked = std::env::var("RUST_LOG").unwrap_or_default();
        let filter = targets(level, &asked).or_else(|_| targets(level, "")).unwrap_or_default();
        // It fails only if the log is gone.
        let _ = self.targets.reload(filter);
    }
}

/// Puts into the queue what `tracing_subscriber` writes.
struct Lines {
    queue: Arc<Queue>,
    form: Form,
}

/// A line, which is written at once.
struct Line<'a> {
    queue: &'a Queue,
    prefix: String,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: &self.queue, prefix: self.form.prefix(Level::INFO) }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line<'a> {
        Line { queue: &self.queue, prefix: self.form.prefix(*about.level()) }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(&[self.prefix.as_bytes(), line].concat());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.finish();
    }
}

/// What is logged. What `RUST_LOG` does not mention keeps the level: a misspelt word is taken for a
/// module's name, and would else silence everything, errors included. So would an empty word.
fn targets(level: LogLevel, asked: &str) -> std::result::Result<Targets, ParseError> {
    let words = asked.split(',').map(str::trim).filter(|word| !word.is_empty());
    let words: Vec<&str> = std::iter::once(level.as_directive()).chain(words).collect();
    words.join(",").parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(asked: &str, target: &str, level: Level) -> bool {
        targets(LogLevel::Info, asked).unwrap().would_enable(target, &level)
    }

    #[test]
    fn rust_log_adds_to_the_level() {
        for asked in ["", ",", " ", "debgu", "libbpf=debug", "libbpf=debug,", ",,libbpf=off"] {
            assert!(shows(asked, "bpfw::daemon", Level::INFO), "'{asked}'");
            assert!(!shows(asked, "bpfw::daemon", Level::DEBUG), "'{asked}'");
        }
        assert!(shows("libbpf=debug", "libbpf", Level::DEBUG));
        assert!(!shows("libbpf=debug", "libbpf", Level::TRACE));
        assert!(shows("debug", "bpfw::daemon", Level::DEBUG));
        assert!(!shows("error", "bpfw::daemon", Level::INFO));
        assert!(shows("bpfw::connections=trace", "bpfw::connections::sweep", Level::TRACE));
    }

    #[test]
    fn a_malformed_rust_log_is_an_error() {
        for asked in ["libbpf=loud", "a=b=c"] {
            assert!(targets(LogLevel::Info, asked).is_err(), "'{asked}'");
        }
    }
}
