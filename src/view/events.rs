// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw events`: a line when the offload of a connection begins or ends, with its final counts, and now and then
//! one for each that goes on.

use std::collections::HashSet;
use std::io::{self, StdoutLock, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::words::{bytes, number};
use super::{Stop, no_daemon};
use crate::datapath::reader::Reader;
use crate::error::Result;
use crate::status::client::{self, Answer, Heard, Listening};
use crate::status::event::{Direction, Event, Offload};

/// Options of `bpfw events`.
#[derive(Debug, Args)]
pub struct Options {
    /// Write one JSON object a line
    #[arg(long)]
    json: bool,

    /// So often a line for each connection that is still offloaded; as root
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    interval: Option<u64>,
}

/// Shows all until the daemon of this network namespace ends, or the reader.
pub(super) fn show(options: &Options) -> Result<ExitCode> {
    let daemons = client::ask()?;
    let Some(daemon) = daemons.only()? else { return Ok(no_daemon(&daemons)) };
    let every = match options.interval {
        Some(seconds) => Some((Duration::from_secs(seconds), Reader::of(daemon.status.bpfw.pid)?)),
        None => None,
    };
    let (listening, first) = daemon.listen()?;
    let mut events =
        Events { json: options.json, out: io::stdout().lock(), touched: HashSet::new() };
    let shown = events.show_lines(&first).and_then(|()| match &every {
        Some((interval, reader)) => events.follow_all(&listening, daemon, *interval, reader),
        None => events.follow(&listening, None).map(drop),
    });
    match shown {
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Closed) | Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

struct Events {
    json: bool,
    out: StdoutLock<'static>,
    /// Conntrack's ids of offloads that have begun or ended since the maps were read.
    touched: HashSet<u32>,
}

impl Events {
    /// Shows what is heard until this time, or for good; `false` if the daemon has ended.
    fn follow(
        &mut self,
        listening: &Listening,
        until: Option<Instant>,
    ) -> std::result::Result<bool, Stop> {
        while until.is_none_or(|until| Instant::now() < until) {
            match listening.hear(until)? {
                Heard::Lines(lines) => self.show_lines(&lines)?,
                Heard::Nothing => {}
                Heard::End => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Shows what has come, and does not wait for more.
    fn catch_up(&mut self, listening: &Listening) -> std::result::Result<(), Stop> {
        while let Heard::Lines(lines) = listening.hear(Some(Instant::now()))? {
            self.show_lines(&lines)?;
        }
        Ok(())
    }

    /// The same, and in each interval all that go on.
    fn follow_all(
        &mut self,
        listening: &Listening,
        daemon: &Answer,
        interval: Duration,
        reader: &Reader,
    ) -> std::result::Result<(), Stop> {
        let mut next = Instant::now();
        loop {
            self.show_all(listening, daemon, reader)?;
            next += interval;
            if !self.follow(listening, Some(next))? {
                return Ok(());
            }
        }
    }

    /// A line for each offload that goes on. Not for one of which the daemon has said anything since the maps
    /// were read: what it says of an offload comes after all lines of this, and the next one begins with 0.
    fn show_all(
        &mut self,
        listening: &Listening,
        daemon: &Answer,
        reader: &Reader,
    ) -> std::result::Result<(), Stop> {
        self.touched.clear();
        let mut all = Vec::new();
        reader.entries(|conn| {
            if !conn.is_reply() {
                let tuple = reader.reverse(&conn)?;
                let reply = reader.entry(&tuple)?;
                let reply = reply.filter(|reply| reply.rest.id == conn.rest.id);
                all.extend(Offload::of(&conn, &tuple, reply.as_ref()));
            }
            Ok(true)
        })?;
        // With its answer, all is on its way to us that the daemon did before.
        if !daemon.is_in_time()? {
            return Ok(());
        }
        self.catch_up(listening)?;
        for offload in all {
            if !self.touched.contains(&offload.id) {
                self.show(&Event::GoesOn(offload))?;
            }
        }
        Ok(self.out.flush()?)
    }

    fn show_lines(&mut self, lines: &str) -> std::result::Result<(), Stop> {
        for line in lines.lines() {
            let event = serde_json::from_str(line).unwrap_or(Event::Unknown);
            if let Event::Begin(offload) | Event::End(offload) = &event {
                self.touched.insert(offload.id);
            }
            if self.json {
                writeln!(self.out, "{line}")?;
            } else {
                self.show(&event)?;
            }
        }
        Ok(self.out.flush()?)
    }

    fn show(&mut self, event: &Event) -> std::result::Result<(), Stop> {
        if self.json {
            let line = serde_json::to_string(event).map_err(super::no_json)?;
            writeln!(self.out, "{line}")?;
        } else if let Some(line) = text(event) {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }
}

fn text(event: &Event) -> Option<String> {
    Some(match event {
        Event::Begin(offload) => format!("begin     {}", describe(offload)),
        Event::End(offload) => format!("end       {}{}", describe(offload), counts(offload)),
        Event::GoesOn(offload) => format!("goes on   {}{}", describe(offload), counts(offload)),
        Event::Missed { events } => {
            format!("missed    {} events, too many at once", number(*events))
        }
        Event::Listening { .. } | Event::Unknown => return None,
    })
}

fn describe(offload: &Offload) -> String {
    let Offload { protoname, id, original, reply, .. } = offload;
    let end = |address, port| SocketAddr::new(address, port).to_string();
    let (source, destination) =
        (end(original.src, original.sport), end(original.dst, original.dport));
    let mut text = format!("{protoname} {source} > {destination}");
    let (to, from) = (end(reply.dst, reply.dport), end(reply.src, reply.sport));
    if to != source {
        text += &format!(", leaves as {to}");
    }
    if from != destination {
        text += &format!(", goes to {from}");
    }
    text + &format!(", conntrack's id {id}")
}

fn counts(offload: &Offload) -> String {
    let of = |direction: &Direction| {
        format!("{} packets, {}", number(direction.packets), bytes(direction.bytes))
    };
    format!("; -> {}; <- {}", of(&offload.original), of(&offload.reply))
}
