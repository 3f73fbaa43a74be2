// SPDX-License-Identifier: GPL-2.0-only
//! The program: reads the command line, runs the daemon, says how it went.

use std::process::ExitCode;

use bpfw::cli::Cli;
use bpfw::datapath::skeleton::Storage;
use bpfw::{daemon, datapath, logging};
use clap::Parser;

/// Wrong usage, as clap ends with; 1 is everything else that fails.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let (hook, run) = Cli::parse().command.into_parts();
    let (object, interfaces) = match run.object_and_interfaces() {
        Ok(parts) => parts,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(USAGE);
        }
    };
    logging::start(run.log_level);
    datapath::route_libbpf_messages();
    // The skeleton borrows its storage from here, so that nothing in the daemon refers to itself.
    let mut storage = Storage::uninit();
    let request = daemon::Request { hook, object, interfaces, options: run };
    match daemon::run(&request, &mut storage) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
