// SPDX-License-Identifier: GPL-2.0-only
//! The benchmark (`make bench`) runs, and counts what it should. No time is judged.

#[path = "../benches/connections/mod.rs"]
mod connections;
#[path = "../benches/packets/mod.rs"]
mod packets;
#[path = "../benches/report.rs"]
mod report;
#[path = "../benches/stop.rs"]
mod stop;
mod support;
#[path = "../benches/usage.rs"]
mod usage;

use bpfw::datapath::probe;
use clap::{Args, Parser};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use stop::Stop;
use support::live::lacking;
use support::router::xdp_or_skip;

#[derive(Parser)]
struct Words<T: Args> {
    #[command(flatten)]
    options: T,
}

/// Where a test's figures go; removed when dropped.
struct Figures(PathBuf);

impl Figures {
    fn of(test: &str) -> Self {
        Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test))
    }

    /// The benchmark's options, by its command line, with these figures for its file.
    fn options<T: Args>(&self, line: &str) -> T {
        let file = self.0.to_str().expect("a path of UTF-8");
        let words = ["benchmark"].into_iter().chain(line.split(' ')).chain(["--json", file]);
        Words::<T>::parse_from(words).options
    }

    fn read(&self) -> Value {
        let text = fs::read_to_string(&self.0).expect("the benchmark has written them");
        serde_json::from_str(&text).expect("JSON")
    }
}

impl Drop for Figures {
    fn drop(&mut self) {
        // It is not there if the benchmark failed.
        let _ = fs::remove_file(&self.0);
    }
}

fn can_run(test: &str) -> bool {
    if !xdp_or_skip(test) {
        return false;
    }
    let can = probe::has_live_frames();
    if !can {
        lacking(test, "this kernel has no live frames, as which packets are sent");
    }
    can
}

#[test]
fn packets_of_each_row_are_sent_and_counted() {
    if !can_run("packets_of_each_row_are_sent_and_counted") {
        return;
    }
    let figures = Figures::of("packets.json");
    let line = "--connections 8,64 --sizes 64 --transports udp --rounds 2 --frames 1024";
    let options: packets::Options = figures.options(line);
    packets::run(&options, &Stop::watch().expect("signals")).expect("it runs");
    let report = figures.read();
    let all = report["packets"].as_array().expect("measurements");
    assert_eq!(all.len(), 2, "one for each number of connections");
    for measurement in all {
        let rows = measurement["rows"].as_array().expect("rows");
        for name in ["generator", "xdp-redirect", "bpfw-xdp", "bpfw-tc", "stack"] {
            let row = rows.iter().find(|row| row["row"] == name);
            let row = row.unwrap_or_else(|| panic!("no row {name} in {measurement}"));
            let share = |part: &str| row[part].as_f64();
            assert!(share("cost").is_some_and(|cost| cost > 1.0), "{row}");
            let arrived = if name == "generator" { 0.0 } else { 1.0 };
            assert_eq!(share("arrived"), Some(arrived), "{row}");
            if name.starts_with("bpfw") {
                // The daemon may be late while other tests run.
                assert!(share("fast").is_some_and(|fast| fast > 0.4), "{row}");
            }
        }
    }
}

#[test]
fn connections_come_and_go_and_follow_and_are_compared() {
    if !can_run("connections_come_and_go_and_follow_and_are_compared") {
        return;
    }
    let figures = Figures::of("connections.json");
    let line = "latency rate reroute resync --connections 500 --probes 20 --seconds 1";
    let options: connections::Options = figures.options(line);
    connections::run(&options, &Stop::watch().expect("signals")).expect("it runs");
    let report = figures.read();
    for (part, figure, lines) in [
        ("latency", "p50", 4),
        ("rate", "per_second", 2),
        ("reroute", "time", 2),
        ("resync", "cpu", 2),
    ] {
        let all = report[part].as_array().expect("figures");
        assert_eq!(all.len(), lines, "{part}: {report}");
        for one in all {
            assert!(one[figure].as_f64().is_some_and(|value| value > 0.0), "{part}: {one}");
        }
    }
    for reroute in report["reroute"].as_array().expect("figures") {
        assert_eq!(reroute["moved"], 1.0, "not all have followed the route: {reroute}");
    }
}
