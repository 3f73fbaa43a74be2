// SPDX-License-Identifier: GPL-2.0-only
//! Whether a TCP connection notices that its directions prove themselves again and again.

mod options;
mod run;

pub use options::Options;

use super::report::{Machine, median, quartiles, table, write_json};
use super::stop::Stop;
use super::support;
use options::Hook;
use run::{Router, Run};
use serde::Serialize;

const HEAD: [&str; 7] =
    ["iperf3", "proofs", "Gbit/s", "quartiles", "retransmits", "slow packets/s", "of none"];

/// All that was measured.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    throughput: Vec<Figures>,
}

/// Medians of all rounds.
#[derive(Serialize)]
struct Figures {
    hook: Hook,
    /// Seconds between two proofs; 0 for none.
    prove_every: u32,
    gbit: f64,
    gbit_quartiles: [f64; 2],
    /// In a run.
    retransmits: f64,
    /// Packets a second that the network stack forwarded; it may merge several.
    slow: f64,
    /// The rate divided by that without periods, round by round: median and quartiles.
    of_none: f64,
    of_none_quartiles: [f64; 2],
}

/// Measures, and prints.
pub fn run(options: &Options, stop: &Stop) -> Result<(), String> {
    run::find_iperf()?;
    let machine = Machine::here();
    println!("{machine}");
    let mut report = Report { machine, throughput: Vec::new() };
    for &hook in &options.hooks {
        let figures = compare(hook, options, stop)?;
        let lines: Vec<_> = figures.iter().map(Figures::line).collect();
        println!("\n{}", table(&HEAD, &lines).trim_end());
        report.throughput.extend(figures);
    }
    options.json.as_deref().map_or(Ok(()), |path| write_json(path, &report))
}

/// Both at this hook, in turn, so that what disturbs the machine meets both.
fn compare(hook: Hook, options: &Options, stop: &Stop) -> Result<[Figures; 2], String> {
    let periods = [0, options.prove_every];
    let routers = periods.map(|period| Router::new(hook, period));
    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for (router, runs) in routers.iter().zip(&mut runs) {
            stop.check()?;
            runs.push(router.run(options.seconds)?);
        }
    }
    Ok([0, 1].map(|at| Figures::new(hook, periods[at], &runs[at], &runs[0])))
}

impl Figures {
    fn new(hook: Hook, prove_every: u32, runs: &[Run], none: &[Run]) -> Self {
        let all = |part: fn(&Run) -> f64| runs.iter().map(part).collect::<Vec<_>>();
        let gbit = all(|run| run.gbit);
        let of_none: Vec<_> =
            runs.iter().zip(none).map(|(run, none)| run.gbit / none.gbit).collect();
        Self {
            hook,
            prove_every,
            gbit: median(gbit.clone()),
            gbit_quartiles: quartiles(gbit),
            retransmits: median(all(|run| run.retransmits)),
            slow: median(all(|run| run.slow)),
            of_none: median(of_none.clone()),
            of_none_quartiles: quartiles(of_none),
        }
    }

    fn line(&self) -> Vec<String> {
        let Self { prove_every, of_none, .. } = self;
        let range = |[low, high]: [f64; 2]| format!("{low:.2} to {high:.2}");
        let proofs =
            if *prove_every == 0 { "none".into() } else { format!("every {prove_every} s") };
        vec![
            self.hook.word().into(),
            proofs,
            format!("{:.2}", self.gbit),
            range(self.gbit_quartiles),
            format!("{:.0}", self.retransmits),
            format!("{:.1}", self.slow),
            format!("{of_none:.3} ({})", range(self.of_none_quartiles)),
        ]
    }
}
