// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw flows`: the offloaded connections, with packets, bytes and ways.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::filter::Filter;
use super::flow::{Direction, Fate, Flow, Surroundings};
use super::words::{bytes, number, rate, time};
use super::{Stop, no_daemon};
use crate::abi::{self, bpfw_conn};
use crate::datapath::rates::{Rates, Traffic};
use crate::datapath::reader::Reader;
use crate::error::Result;
use crate::flow::tuple::{Protocol, Tuple};
use crate::status::State;
use crate::status::client::{self, Daemons};

/// From one reading to the next.
const A_WHILE: Duration = Duration::from_secs(1);

/// Options of `bpfw flows`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    filter: Filter,

    /// Only by this interface, in or out
    #[arg(short, long, value_name = "INTERFACE")]
    interface: Option<String>,

    /// Write one JSON object a line for each connection
    #[arg(long)]
    json: bool,

    /// In which order [default: by bytes on a terminal, else none, which needs no memory]
    #[arg(long, value_enum, value_name = "BY")]
    sort: Option<Sort>,

    /// So many connections at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Only count them
    #[arg(long, conflicts_with_all = ["json", "sort", "limit"])]
    count: bool,
}

/// An order of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Most bytes first, of both directions
    Bytes,
    /// Most packets first, of both directions
    Packets,
    /// Most bytes a second first, of both directions; takes a second, and shows rates in place of bytes
    Rate,
    /// Longest silence first
    Idle,
    /// As they are found
    None,
}

/// Shows the connections of the daemon of this network namespace.
pub(super) fn show(options: &Options) -> Result<ExitCode> {
    let daemons = client::ask()?;
    if daemons.here.is_empty() {
        return Ok(no_daemon(&daemons));
    }
    match list(options, &daemons) {
        Err(Stop::Closed) | Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn list(options: &Options, daemons: &Daemons) -> std::result::Result<(), Stop> {
    let out = io::stdout().lock();
    let mut list = List::new(options, out.is_terminal());
    let mut out = BufWriter::new(out);
    for answer in &daemons.here {
        let reader = Reader::of(answer.status.bpfw.pid)?;
        let surroundings = Surroundings::read(&reader, answer.status.state == State::Late)?;
        list.add_all(&mut out, &reader, &surroundings)?;
    }
    if !options.json {
        writeln!(out, "{}", list.total.line())?;
    }
    Ok(out.flush()?)
}

/// A list under way.
struct List<'a> {
    options: &'a Options,
    sort: Sort,
    shown: usize,
    total: Total,
}

impl<'a> List<'a> {
    fn new(options: &'a Options, terminal: bool) -> Self {
        let usual = if terminal { Sort::Bytes } else { Sort::None };
        let sort = if options.count { Sort::None } else { options.sort.unwrap_or(usual) };
        Self { options, sort, shown: 0, total: Total::default() }
    }

    /// Adds the connections of a daemon.
    fn add_all(
        &mut self,
        out: &mut impl Write,
        reader: &Reader,
        surroundings: &Surroundings,
    ) -> std::result::Result<(), Stop> {
        let rates = match self.sort {
            Sort::Rate => Some(measure(reader)?),
            _ => None,
        };
        let (mut kept, mut stopped) = (Vec::new(), Ok(()));
        reader.entries(|conn| {
            let Some(mut flow) = flow_of(reader, surroundings, &conn)? else { return Ok(true) };
            if let Some(rates) = &rates {
                for direction in [&mut flow.original, &mut flow.reply] {
                    direction.rate = Some(rates.get(&direction.tuple).copied().unwrap_or_default());
                }
            }
            if !self.is_wanted(&flow, surroundings) {
                return Ok(true);
            }
            self.total.add(&flow);
            if self.sort == Sort::None {
                stopped = self.show(out, surroundings, &flow);
            } else {
                kept.push(flow);
            }
            // Those beyond the limit are counted, too.
            Ok(stopped.is_ok())
        })?;
        stopped?;
        self.order(&mut kept);
        kept.iter().try_for_each(|flow| self.show(out, surroundings, flow))
    }

    fn is_wanted(&self, flow: &Flow, surroundings: &Surroundings) -> bool {
        let Flow { original, reply, .. } = flow;
        let sides = [original.ingress, original.egress, reply.ingress, reply.egress];
        let is_at = |name: &String| {
            sides.into_iter().flatten().any(|ifindex| surroundings.name(ifindex) == *name)
        };
        self.options.filter.matches(&flow.subject())
            && self.options.interface.as_ref().is_none_or(is_at)
    }

    fn order(&self, flows: &mut [Flow]) {
        let both = |flow: &Flow, of: fn(&Direction) -> u64| {
            Reverse(of(&flow.original).saturating_add(of(&flow.reply)))
        };
        match self.sort {
            Sort::Bytes => flows.sort_by_key(|flow| both(flow, |each| each.bytes)),
            Sort::Packets => flows.sort_by_key(|flow| both(flow, |each| each.packets)),
            Sort::Rate => {
                flows.sort_by_key(|flow| both(flow, |each| each.rate.unwrap_or_default()))
            }
            Sort::Idle => flows.sort_by_key(|flow| Reverse(idle(flow))),
            Sort::None => {}
        }
    }

    fn show(
        &mut self,
        out: &mut impl Write,
        surroundings: &Surroundings,
        flow: &Flow,
    ) -> std::result::Result<(), Stop> {
        let full = self.options.limit.is_some_and(|limit| self.shown >= limit);
        if self.options.count || full {
            return Ok(());
        }
        if self.options.json {
            writeln!(out, "{}", flow.json(surroundings)?)?;
        } else {
            if self.shown == 0 {
                let what = if self.sort == Sort::Rate { "RATE" } else { "BYTES" };
                writeln!(out, "{}", header(what))?;
            }
            writeln!(out, "{}", line(flow, surroundings))?;
        }
        self.shown += 1;
        Ok(())
    }
}

/// The connection of an entry, once: with its original direction, or with a reply that has none.
fn flow_of(reader: &Reader, surroundings: &Surroundings, conn: &bpfw_conn) -> Result<Option<Flow>> {
    let reverse = reader.reverse(conn)?;
    let other = reader.entry(&reverse)?.filter(|other| other.rest.id == conn.rest.id);
    if conn.is_reply() && other.is_some() {
        return Ok(None);
    }
    // Both may just have gone.
    if other.is_none() && reader.entry(&conn.tuple())?.is_none() {
        return Ok(None);
    }
    Ok(surroundings.flow(conn, &reverse, other.as_ref()))
}

/// Bytes a second of all directions that have traffic.
fn measure(reader: &Reader) -> Result<HashMap<Tuple, u64>> {
    let mut rates = Rates::new(reader, 1);
    rates.read(reader)?;
    thread::sleep(A_WHILE);
    let (_, traffic) = rates.read(reader)?;
    let rate = |one: Traffic| Some((one.conn.tuple().decode()?, one.rate));
    Ok(traffic.into_iter().filter_map(rate).collect())
}

fn idle(flow: &Flow) -> u64 {
    flow.original.idle_ms.min(flow.reply.idle_ms)
}

fn header(what: &str) -> String {
    let (there, back) = (format!("-> {what}"), format!("<- {what}"));
    format!(
        "{:<5} {:<45} {:<27} {:<16} {there:>10} {back:>10} {:>10}",
        "PROTO", "ORIGINAL", "NAT", "WAY", "IDLE"
    )
}

/// Bytes a second, or all of them where that was not measured.
fn volume(direction: &Direction) -> String {
    direction.rate.map_or_else(|| bytes(direction.bytes), rate)
}

fn line(flow: &Flow, surroundings: &Surroundings) -> String {
    let tuple = &flow.original.tuple;
    let mut line = format!(
        "{:<5} {:<45} {:<27} {:<16} {:>10} {:>10} {:>10}",
        tuple.protocol.to_string(),
        format!("{} > {}", tuple.source, tuple.destination),
        flow.translation().unwrap_or_else(|| "-".to_owned()),
        flow.way(surroundings),
        volume(&flow.original),
        volume(&flow.reply),
        time(idle(flow)),
    );
    if flow.fate != Fate::Forwarded {
        line += "  ";
        line += flow.fate.name();
    }
    line
}

/// Sums of what was found.
#[derive(Default)]
struct Total {
    tcp: u64,
    udp: u64,
    ending: u64,
    sent: u64,
    received: u64,
}

impl Total {
    fn add(&mut self, flow: &Flow) {
        match flow.original.tuple.protocol {
            Protocol::Tcp => self.tcp += 1,
            Protocol::Udp => self.udp += 1,
        }
        self.ending += u64::from(flow.fate == Fate::Passes(abi::BPFW_PASS_FINISHED));
        self.sent = self.sent.saturating_add(flow.original.bytes);
        self.received = self.received.saturating_add(flow.reply.bytes);
    }

    fn line(&self) -> String {
        format!(
            "{} connections offloaded ({} tcp, {} udp), {} of them ending; {} sent, {} received",
            number(self.tcp + self.udp),
            number(self.tcp),
            number(self.udp),
            number(self.ending),
            bytes(self.sent),
            bytes(self.received)
        )
    }
}
