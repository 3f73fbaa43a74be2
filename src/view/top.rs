// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw top`: the connections or hosts with the most traffic, once a second.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::filter::{Filter, Subject};
use super::flow::{Flow, Surroundings};
use super::screen::Screen;
use super::status::first_line;
use super::words::{bytes, number, rate};
use super::{Stop, TURN, is_asked_to_end, no_daemon};
use crate::abi;
use crate::datapath::rates::{Rates, Traffic};
use crate::datapath::reader::Reader;
use crate::error::Result;
use crate::flow::tuple::Tuple;
use crate::reasons::packet::VERDICTS;
use crate::shutdown::Shutdown;
use crate::status::client::{self, Answer};
use crate::status::{State, Status};

/// With more connections, each turn reads a part of the cells only.
const MANY: u64 = 100_000;
const PARTS: usize = 8;
/// Lines of connections or hosts where there is no screen that ends.
const LINES: usize = 20;
/// Lines above them.
const HEAD: usize = 5;
/// For each line, so many directions with the most traffic are looked at: both directions of a connection may
/// be among them, and filters leave some out.
const CANDIDATES: usize = 8;

/// Options of `bpfw top`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    filter: Filter,

    /// What to add up
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = By::Connection)]
    by: By,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// Each connection
    Connection,
    /// Each host inside: the end with a private address, or else the one that opened the connection
    Host,
}

/// Shows it until its user has seen enough, or the daemon of this network namespace ends.
pub(super) fn show(options: &Options) -> Result<ExitCode> {
    let daemons = client::ask()?;
    let Some(daemon) = daemons.only()? else { return Ok(no_daemon(&daemons)) };
    let mut top = Top::new(options, daemon)?;
    let mut shutdown = Shutdown::watch(false)?;
    match top.run(&mut shutdown) {
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Closed) | Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

struct Top<'a> {
    options: &'a Options,
    reader: Reader,
    rates: Rates,
    /// By part of the cells: what had traffic when it was read last.
    traffic: Vec<Vec<Traffic>>,
    last: Option<(Instant, BTreeMap<String, u64>)>,
    pid: u32,
}

impl<'a> Top<'a> {
    fn new(options: &'a Options, daemon: &Answer) -> Result<Self> {
        let pid = daemon.status.bpfw.pid;
        let reader = Reader::of(pid)?;
        let rates = Rates::new(&reader, 1);
        Ok(Self { options, reader, rates, traffic: vec![Vec::new()], last: None, pid })
    }

    fn run(&mut self, shutdown: &mut Shutdown) -> std::result::Result<(), Stop> {
        let mut screen = Screen::new()?;
        let mut next = Instant::now();
        loop {
            let daemons = client::ask()?;
            let Some(daemon) = daemons.only()?.filter(|daemon| daemon.status.bpfw.pid == self.pid)
            else {
                return Ok(());
            };
            let lines = screen.rows().map_or(LINES, |rows| rows.saturating_sub(HEAD));
            if let Some(text) = self.turn(&daemon.status, lines)? {
                screen.show(&text)?;
            }
            next += TURN;
            if is_asked_to_end(shutdown, next)? {
                return Ok(());
            }
        }
    }

    /// The text, from the second reading on.
    fn turn(&mut self, status: &Status, lines: usize) -> Result<Option<String>> {
        let parts = if status.connections.used > MANY { PARTS } else { 1 };
        if parts != self.rates.parts() {
            self.rates = Rates::new(&self.reader, parts);
            self.traffic = vec![Vec::new(); parts];
        }
        let (part, traffic) = self.rates.read(&self.reader)?;
        self.traffic[part] = traffic;
        let now = (Instant::now(), status.packets.clone());
        let Some((then, before)) = self.last.replace(now) else { return Ok(None) };
        // Nothing fails that writes to a string.
        let mut text = first_line(status);
        let _ = writeln!(text, "{}", self.packets(status, &before, then.elapsed()));
        let _ = writeln!(text, "{}\n", self.connections(status));
        match self.options.by {
            By::Connection => self.by_connection(&mut text, status, lines)?,
            By::Host => self.by_host(&mut text, lines),
        }
        Ok(Some(text))
    }

    /// Packets a second on both paths.
    fn packets(
        &self,
        status: &Status,
        before: &BTreeMap<String, u64>,
        elapsed: Duration,
    ) -> String {
        let a_second = |name: &str| {
            let [now, before] =
                [&status.packets, before].map(|all| all.get(name).copied().unwrap_or_default());
            (now.saturating_sub(before) as f64 / elapsed.as_secs_f64()).round() as u64
        };
        let passes = VERDICTS
            .iter()
            .filter(|reason| !matches!(reason.number, abi::BPFW_FORWARDED | abi::BPFW_DROP_ERROR));
        let mut passes: Vec<_> =
            passes.map(|reason| (reason.words, a_second(reason.name))).collect();
        passes.sort_by_key(|(_, packets)| Reverse(*packets));
        let passed = passes.iter().map(|(_, packets)| packets).sum();
        let most = passes.iter().filter(|(_, packets)| *packets > 0).take(3);
        let most: Vec<_> =
            most.map(|(words, packets)| format!("{} {words}", number(*packets))).collect();
        let why = if most.is_empty() { String::new() } else { format!(": {}", most.join(", ")) };
        let rates = self.traffic.iter().flatten().map(|traffic| traffic.rate).sum();
        format!(
            "fast path {} packets/s, {}; stack {} packets/s{why}",
            number(a_second(VERDICTS[0].name)),
            rate(rates),
            number(passed)
        )
    }

    fn connections(&self, status: &Status) -> String {
        let active: usize = self.traffic.iter().map(Vec::len).sum();
        let part = match self.rates.parts() {
            1 => String::new(),
            parts => format!(", of which each second reads 1/{parts}"),
        };
        format!(
            "{} connections offloaded, {} directions with traffic{part}",
            number(status.connections.used),
            number(active as u64)
        )
    }

    fn by_connection(&self, text: &mut String, status: &Status, lines: usize) -> Result<()> {
        let surroundings = Surroundings::read(&self.reader, status.state == State::Late)?;
        let _ = writeln!(
            text,
            "{:>12} {:>12} {:>10}  {:<48} WAY",
            "-> RATE", "<- RATE", "TOTAL", "CONNECTION"
        );
        for (flow, up, down) in self.most(lines, &surroundings)? {
            let tuple = &flow.original.tuple;
            let connection = format!("{} {} > {}", tuple.protocol, tuple.source, tuple.destination);
            let total = flow.original.bytes.saturating_add(flow.reply.bytes);
            let way = flow.way(&surroundings);
            let (up, down, total) = (rate(up), rate(down), bytes(total));
            let _ = writeln!(text, "{up:>12} {down:>12} {total:>10}  {connection:<48} {way}");
        }
        Ok(())
    }

    /// So many connections, those with the most traffic first.
    fn most(&self, lines: usize, surroundings: &Surroundings) -> Result<Vec<(Flow, u64, u64)>> {
        let mut traffic: Vec<&Traffic> =
            self.traffic.iter().flatten().filter(|one| self.is_wanted(one)).collect();
        let candidates = lines * CANDIDATES;
        if traffic.len() > candidates {
            traffic.select_nth_unstable_by_key(candidates, |one| Reverse(one.rate));
            traffic.truncate(candidates);
        }
        let mut both: HashMap<Tuple, (&Traffic, u64, u64)> = HashMap::new();
        for one in traffic {
            let is_reply = one.conn.is_reply();
            let tuple = if is_reply { one.other } else { one.conn.tuple() };
            let Some(tuple) = tuple.decode() else { continue };
            let entry = both.entry(tuple).or_insert((one, 0, 0));
            *(if is_reply { &mut entry.2 } else { &mut entry.1 }) += one.rate;
        }
        let mut flows = Vec::new();
        for (Traffic { conn, other, .. }, up, down) in both.into_values() {
            let entry = self.reader.entry(other)?;
            let (original, tuple, reply) = if conn.is_reply() {
                (entry, conn.tuple(), Some(*conn))
            } else {
                (Some(*conn), *other, entry)
            };
            let Some(original) = original else { continue };
            let flow = surroundings.flow(&original, &tuple, reply.as_ref());
            flows.extend(flow.map(|flow| (flow, up, down)));
        }
        flows.sort_by_key(|(_, up, down)| Reverse(up + down));
        flows.truncate(lines);
        Ok(flows)
    }

    fn by_host(&self, text: &mut String, lines: usize) {
        let mut hosts: HashMap<IpAddr, (u64, u64, usize)> = HashMap::new();
        for one in self.traffic.iter().flatten() {
            let Some((host, sends)) = inside(one).filter(|_| self.is_wanted(one)) else {
                continue;
            };
            let (up, down, directions) = hosts.entry(host).or_default();
            *(if sends { up } else { down }) += one.rate;
            *directions += 1;
        }
        let mut hosts: Vec<_> = hosts.into_iter().collect();
        hosts.sort_by_key(|(host, (up, down, _))| (Reverse(up + down), *host));
        let _ = writeln!(text, "{:>12} {:>12} {:>10}  HOST", "SENT", "RECEIVED", "DIRECTIONS");
        for (host, (up, down, directions)) in hosts.into_iter().take(lines) {
            let directions = number(directions as u64);
            let _ = writeln!(text, "{:>12} {:>12} {directions:>10}  {host}", rate(up), rate(down));
        }
    }

    fn is_wanted(&self, Traffic { conn, other, .. }: &Traffic) -> bool {
        let tuples = conn.tuple().decode().zip(other.decode());
        tuples.is_some_and(|(own, other)| {
            let (original, reply) = if conn.is_reply() { (other, own) } else { (own, other) };
            self.options.filter.matches(&Subject { original, reply, mark: conn.rest.mark })
        })
    }
}

/// The host inside of this direction's connection, and whether it sends this direction.
fn inside(Traffic { conn, other, .. }: &Traffic) -> Option<(IpAddr, bool)> {
    let (source, answerer) = (conn.tuple().decode()?.source.ip(), other.decode()?.source.ip());
    let source_is_inside = match (is_private(source), is_private(answerer)) {
        (true, false) => true,
        (false, true) => false,
        _ => !conn.is_reply(),
    };
    Some(if source_is_inside { (source, true) } else { (answerer, false) })
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{BPFW_REST_REPLY, bpfw_cell, bpfw_conn, bpfw_rest};
    use crate::flow::translation::Translation;
    use crate::flow::tuple::Protocol;

    /// The entries of a connection, which may be translated.
    fn entries(original: [&str; 2], reply: [&str; 2]) -> [bpfw_conn; 2] {
        let tuple = |[source, destination]: [&str; 2]| {
            let end = |text: &str| text.parse::<std::net::SocketAddr>().expect("an end");
            Tuple::new(Protocol::Udp, end(source), end(destination))
        };
        let (original, reply) = (tuple(original), tuple(reply));
        [(original, reply, 0), (reply, original, BPFW_REST_REPLY)].map(|(own, other, flags)| {
            let rewrite = Translation::new(own, other).encode().rewrite;
            bpfw_conn {
                cell: bpfw_cell::of(&own.into(), rewrite, 0),
                rest: bpfw_rest { flags: flags as u16, ..Default::default() },
            }
        })
    }

    #[test]
    fn the_host_inside_is_the_private_one() {
        let out = entries(
            ["192.168.1.5:4000", "203.0.113.9:443"],
            ["203.0.113.9:443", "198.51.100.1:4000"],
        );
        let forwarded = entries(
            ["203.0.113.9:4000", "198.51.100.1:443"],
            ["192.168.1.5:443", "203.0.113.9:4000"],
        );
        let six = entries(
            ["[2001:db8:1::2]:4000", "[2001:db8:2::2]:443"],
            ["[2001:db8:2::2]:443", "[2001:db8:1::2]:4000"],
        );
        for (entries, host, sends) in [
            (out, "192.168.1.5", [true, false]),
            (forwarded, "192.168.1.5", [false, true]),
            (six, "2001:db8:1::2", [true, false]),
        ] {
            let host = host.parse().expect("an address");
            for (entry, sends) in entries.iter().zip(sends) {
                let [first, second] = &entries;
                let other = if entry.is_reply() { first.tuple() } else { second.tuple() };
                let one = Traffic { conn: *entry, other, rate: 1 };
                assert_eq!(inside(&one), Some((host, sends)));
            }
        }
    }
}
