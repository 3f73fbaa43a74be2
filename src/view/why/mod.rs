// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw why`: why a connection is, or is not, on the fast path.

mod judge;
mod one;
mod summary;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::filter::{Filter, Subject};
use super::flow::Surroundings;
use super::{TURN, is_asked_to_end, no_daemon, print};
use crate::conntrack::dump::{Dump, DumpProgress};
use crate::conntrack::entry::Entry;
use crate::conntrack::requests::Requests;
use crate::datapath::reader::Reader;
use crate::error::{Error, Result};
use crate::flow::family::Families;
use crate::shutdown::Shutdown;
use crate::status::State;
use crate::status::client;
use judge::Judge;

/// A dump of conntrack's table ends long before.
const LONG: Duration = Duration::from_secs(600);

/// Options of `bpfw why`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    filter: Filter,

    /// Write one JSON object
    #[arg(long)]
    json: bool,

    /// Ask again each second, and write the answer whenever it is another one, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// An answer.
struct Answer {
    text: String,
    /// What tells it from another one: packets that are counted make no difference.
    essence: String,
    code: ExitCode,
}

/// Answers for the daemon of this network namespace.
pub(super) fn show(options: &Options) -> Result<ExitCode> {
    if options.watch {
        return watch(options);
    }
    match answer(options)? {
        Ok(answer) => print(&answer.text).map(|()| answer.code),
        Err(no_daemon) => Ok(no_daemon),
    }
}

/// Shows each change, until the user or the daemon ends it.
fn watch(options: &Options) -> Result<ExitCode> {
    let mut shutdown = Shutdown::watch(false)?;
    let (mut essence, mut next) = (None, Instant::now());
    loop {
        let answer = match answer(options)? {
            Ok(answer) => answer,
            Err(no_daemon) => return Ok(no_daemon),
        };
        if essence.as_ref() != Some(&answer.essence) {
            print(&answer.text)?;
            essence = Some(answer.essence);
        }
        next += TURN;
        if is_asked_to_end(&mut shutdown, next)? {
            return Ok(answer.code);
        }
    }
}

/// The answer now; or the exit status that says that no daemon runs here.
fn answer(options: &Options) -> Result<std::result::Result<Answer, ExitCode>> {
    let daemons = client::ask()?;
    let Some(daemon) = daemons.only()? else { return Ok(Err(no_daemon(&daemons))) };
    let reader = Reader::of(daemon.status.bpfw.pid)?;
    let surroundings = Surroundings::read(&reader, daemon.status.state == State::Late)?;
    let mut judge = Judge::new(&daemon.status, &reader, &surroundings)?;
    if options.filter.is_empty() {
        return summary::answer(&mut judge, options.json).map(Ok);
    }
    let Found { first, others } = find(&options.filter)?;
    one::answer(&mut judge, &surroundings, first.as_ref(), others, options.json).map(Ok)
}

/// The connections that are meant.
struct Found {
    first: Option<Entry>,
    others: usize,
}

/// Asks conntrack for one connection if that is enough, or for all.
fn find(filter: &Filter) -> Result<Found> {
    let exact = match filter.exact() {
        Some(tuple) => Requests::open()?.get(&tuple)?,
        None => None,
    };
    if let Some(entry) = exact {
        return Ok(Found { first: Some(entry), others: 0 });
    }
    let mut found = Found { first: None, others: 0 };
    dump(|entry| {
        let Entry { original, reply, mark, .. } = entry;
        if !filter.matches(&Subject { original, reply, mark }) {
            return Ok(());
        }
        if found.first.is_some() {
            found.others += 1;
        } else {
            found.first = Some(entry);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Hands out all of conntrack's entries that could be offloaded at all.
fn dump(mut each: impl FnMut(Entry) -> Result<()>) -> Result<()> {
    let (mut dump, mut failed) = (Dump::start(Families::Both)?, Ok(()));
    let progress = dump.read(Instant::now() + LONG, &mut |entry| {
        if failed.is_ok() {
            failed = each(entry);
        }
    })?;
    failed?;
    match progress {
        // Entries that were there all the time are not missing even so.
        DumpProgress::Done | DumpProgress::Interrupted => Ok(()),
        DumpProgress::More => Err(Error::refused("conntrack's table does not end")),
    }
}
