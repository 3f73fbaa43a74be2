// SPDX-License-Identifier: GPL-2.0-only
//! What the daemon takes on a router that has very much of something.

mod churn;
mod options;
mod row;

pub use options::Options;

use super::report::{Machine, table, write_json};
use super::stop::Stop;
use super::support::daemon::Daemon;
use super::support::lab::Lab;
use super::support::maps::Maps;
use super::support::router::{echo, lab};
use super::support::rules::snat_rules;
use super::support::udp::UdpClient;
use super::support::wait::becomes_true;
use super::usage::{cpu_time, peak};
use bpfw::abi;
use bpfw::reasons::pause::Pause;
use churn::Churn;
use row::Row;
use serde::Serialize;
use std::time::{Duration, Instant};

const HEAD: [&str; 9] = [
    "much of",
    "hook",
    "number",
    "start ms",
    "idle CPU",
    "changing CPU",
    "peak MiB",
    "fast",
    "late",
];
/// The start, and each attachment of a thousand.
const LIMIT: Duration = Duration::from_secs(120);
const ECHO_LIMIT: Duration = Duration::from_secs(2);
/// Between two echoes while something changes. Each direction that has to prove itself takes one.
const PACE: Duration = Duration::from_millis(10);
/// After the start, until all is quiet.
const SETTLED: Duration = Duration::from_secs(2);

/// What one row has shown.
#[derive(Serialize)]
struct Figures {
    row: Row,
    hook: String,
    number: u32,
    /// Milliseconds from the daemon's start until it forwards.
    start: f64,
    /// The daemon's share of a core when nothing changes.
    idle: f64,
    /// The same while something changes.
    changing: f64,
    /// The most resident memory in bytes.
    peak: u64,
    /// The share of an echo's packets that took the fast path while something changes.
    fast: f64,
    /// How often the stack took over because the daemon was late or failed.
    late: usize,
}

impl Figures {
    fn line(&self) -> Vec<String> {
        vec![
            format!("{:?}", self.row).to_lowercase(),
            self.hook.clone(),
            self.number.to_string(),
            format!("{:.0}", self.start),
            format!("{:.2} %", self.idle * 100.0),
            format!("{:.2} %", self.changing * 100.0),
            format!("{:.1}", self.peak as f64 / f64::from(1 << 20)),
            format!("{:.3}", self.fast),
            self.late.to_string(),
        ]
    }
}

/// All that was measured.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    scale: Vec<Figures>,
}

/// Measures, and prints.
pub fn run(options: &Options, stop: &Stop) -> Result<(), String> {
    let mut report = Report { machine: Machine::here(), scale: Vec::new() };
    println!("{}", report.machine);
    let result = measure_all(options, stop, &mut report.scale);
    let lines: Vec<_> = report.scale.iter().map(Figures::line).collect();
    println!("\n{}", table(&HEAD, &lines).trim_end());
    // What has been measured before an error counts.
    options.json.as_deref().map_or(Ok(()), |path| write_json(path, &report))?;
    result
}

fn measure_all(options: &Options, stop: &Stop, all: &mut Vec<Figures>) -> Result<(), String> {
    let time = Duration::from_secs(options.seconds);
    for (row, number) in options.rows() {
        for hook in &options.hooks {
            all.push(measure(stop, row, number, hook, time)?);
        }
    }
    Ok(())
}

/// A daemon on a router that has so many.
fn measure(
    stop: &Stop,
    row: Row,
    number: u32,
    hook: &str,
    time: Duration,
) -> Result<Figures, String> {
    stop.check()?;
    let lab = lab(hook, "scale", &snat_rules());
    lab.static_neighbours();
    row.prepare(&lab, number);
    stop.check()?;
    let more = row.interfaces(number);
    let (daemon, start) = start(&lab, hook, &more)?;
    let maps = Maps::of(daemon.pid());
    let (_server, client) = echo(&lab, 40000);
    let mut echoes = Echoes { client, maps, sent: 0 };
    if !becomes_true(LIMIT, || echoes.fast(1) == 1.0) {
        return Err(format!("{row:?}: nothing is forwarded"));
    }
    // The kernel takes its time to attach programs.
    let is_attached = |name: &String| {
        daemon.lines().iter().any(|line| line.contains(&format!("attached to {name} ")))
    };
    if !becomes_true(LIMIT, || more.last().is_none_or(is_attached)) {
        return Err(format!("not all interfaces are attached within {LIMIT:?}"));
    }
    std::thread::sleep(SETTLED);
    let usage = |before: (Instant, Duration)| {
        (cpu_time(daemon.pid()) - before.1).as_secs_f64() / before.0.elapsed().as_secs_f64()
    };
    let before = (Instant::now(), cpu_time(daemon.pid()));
    std::thread::sleep(time);
    let idle = usage(before);
    let churn = Churn::start(&lab.router, move |step| row.change(number, step));
    let before = (Instant::now(), cpu_time(daemon.pid()));
    let fast = echoes.fast(time.as_millis().div_ceil(PACE.as_millis()) as u64);
    let changing = usage(before);
    churn.end()?;
    let lines = daemon.lines();
    let late = [Pause::Late, Pause::Error].map(|pause| pause.reason().words);
    let is_late = |line: &&String| late.iter().any(|words| line.contains(words));
    lines
        .iter()
        .filter(|line| line.contains("WARN") && is_late(line))
        .for_each(|l| println!("{l}"));
    let late = lines.iter().filter(is_late).count();
    let peak = peak(daemon.pid());
    Ok(Figures { row, hook: hook.into(), number, start, idle, changing, peak, fast, late })
}

/// Starts bpfw, and says how many milliseconds that took.
fn start(lab: &Lab, hook: &str, more: &[String]) -> Result<(Daemon, f64), String> {
    let mut args = vec![hook, "--log-level", "info", "--max-connections", "16000", "lan0", "wan0"];
    args.extend(more.iter().map(String::as_str));
    let started = Instant::now();
    let daemon = Daemon::start(&lab.router, &args);
    let forwards = || daemon.lines().iter().any(|line| line.ends_with("forwarding"));
    if !becomes_true(LIMIT, forwards) {
        return Err(format!("it does not forward: {}", daemon.lines().join("\n")));
    }
    let time = started.elapsed().as_secs_f64() * 1e3;
    Ok((daemon, time))
}

/// A client that asks again and again.
struct Echoes {
    client: UdpClient,
    maps: Maps,
    sent: u64,
}

impl Echoes {
    /// The share of packets of so many echoes, one at a time, that take the fast path.
    fn fast(&mut self, number: u64) -> f64 {
        let before = self.maps.packets(abi::BPFW_FORWARDED);
        for _ in 0..number {
            let started = Instant::now();
            self.sent += 1;
            self.client.echoes(self.sent, ECHO_LIMIT);
            std::thread::sleep(PACE.saturating_sub(started.elapsed()));
        }
        (self.maps.packets(abi::BPFW_FORWARDED) - before) as f64 / (2 * number) as f64
    }
}
