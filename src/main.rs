// SPDX-License-Identifier: GPL-2.0-only
//! The program: reads the command line, runs the daemon or asks one, says how it went.

use std::io::Write;
use std::process::ExitCode;

use bpfw::cli::{self, Task};
use bpfw::config::{Settings, Source};
use bpfw::datapath::skeleton::Storage;
use bpfw::error::{Error, Result};
use bpfw::logging::Log;
use bpfw::{daemon, datapath, view};

/// Wrong usage, as clap ends with.
const USAGE: u8 = 2;
/// Everything else that fails. The commands that ask have more: `view/mod.rs`.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    match cli::task(std::env::args_os()).unwrap_or_else(|error| error.exit()) {
        Task::Forward(settings, source) => forward(settings, source),
        Task::Check(settings, from_file) => check(settings, from_file),
        Task::Reload => bpfw::reload::reload().unwrap_or_else(|error| refuse(&error, FAILURE)),
        Task::Ask(question) => question.answer().unwrap_or_else(|error| refuse(&error, FAILURE)),
    }
}

/// Is the daemon.
fn forward(settings: Result<Settings>, source: Option<Source>) -> ExitCode {
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => return refuse(&error, USAGE),
    };
    let log = match Log::start(settings.options.log_level, settings.options.log_to) {
        Ok(log) => log,
        Err(error) => return refuse(&error, FAILURE),
    };
    datapath::route_libbpf_messages();
    // The skeleton borrows its storage from here, so that nothing in the daemon refers to itself.
    let mut storage = Storage::uninit();
    match daemon::run(daemon::Request { settings, source, log: &log }, &mut storage) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(FAILURE)
        }
    }
}

/// Says what the daemon would do.
fn check(settings: Result<Settings>, from_file: bool) -> ExitCode {
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => return refuse(&error, USAGE),
    };
    datapath::route_libbpf_messages();
    let mut storage = Storage::uninit();
    let checked = daemon::check(&settings, from_file, &mut storage);
    checked
        .and_then(|check| view::check::show(&check))
        .unwrap_or_else(|error| refuse(&error, FAILURE))
}

/// Ends before there is a log.
fn refuse(error: &Error, code: u8) -> ExitCode {
    // Not eprintln, which panics where nobody takes the line.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}
