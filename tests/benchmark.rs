// SPDX-License-Identifier: GPL-2.0-only
//! The benchmark (`make bench`) runs, and counts what it should. No time is judged.

#[path = "../benches/connections/mod.rs"]
mod connections;
#[path = "../benches/packets/mod.rs"]
mod packets;
#[path = "../benches/report.rs"]
mod report;
#[path = "../benches/scale/mod.rs"]
mod scale;
#[path = "../benches/stop.rs"]
mod stop;
mod support;
#[path = "../benches/throughput/mod.rs"]
mod throughput;
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

/// What the benchmark comes to with this command line; `None` where it cannot run, which is said.
fn measure<T: Args>(
    test: &str,
    line: &str,
    run: fn(&T, &Stop) -> Result<(), String>,
) -> Option<Value> {
    if !xdp_or_skip(test) {
        return None;
    }
    if !probe::has_live_frames() {
        lacking(test, "this kernel has no live frames, as which packets are sent");
        return None;
    }
    let figures = Figures::of(test);
    run(&figures.options(line), &Stop::watch().expect("signals")).expect("it runs");
    Some(figures.read())
}

#[test]
fn packets_of_each_row_are_sent_and_counted() {
    let line = "--connections 8,64 --sizes 64 --transports udp --rounds 2 --frames 1024 --clsact";
    let test = "packets_of_each_row_are_sent_and_counted";
    let Some(report) = measure(test, line, packets::run) else { return };
    let all = report["packets"].as_array().expect("measurements");
    assert_eq!(all.len(), 2, "one for each number of connections");
    let rows = [
        "generator",
        "xdp-redirect",
        "bpfw-xdp",
        "tc-redirect-egress",
        "bpfw-tc",
        "clsact-redirect",
        "clsact-redirect-egress",
        "bpfw-clsact",
        "stack",
    ];
    all.iter().for_each(|measurement| check_rows(measurement, &rows));
}

#[test]
fn packets_of_ipv6_are_sent_and_counted() {
    let line = "--family 6 --connections 8 --sizes 64 --rounds 1 --frames 1024 \
                --rows generator,bpfw-xdp,bpfw-tc,stack";
    let test = "packets_of_ipv6_are_sent_and_counted";
    let Some(report) = measure(test, line, packets::run) else { return };
    let all = report["packets"].as_array().expect("measurements");
    assert_eq!(all.len(), 2, "UDP and TCP");
    for measurement in all {
        check_rows(measurement, &["generator", "bpfw-xdp", "bpfw-tc", "stack"]);
    }
}

/// Kernels that cannot make an interface measure the other ways.
#[test]
fn packets_of_ways_with_layers_are_sent_and_counted() {
    let line = "--ways bridge,vlan,bond,macvlan,vrf,pppoe,tun --connections 8 --sizes 64 --rounds 1 \
                --frames 1024 --transports udp --rows generator,tc-redirect,bpfw-tc,stack";
    let test = "packets_of_ways_with_layers_are_sent_and_counted";
    let Some(report) = measure(test, line, packets::run) else { return };
    let all = report["packets"].as_array().expect("measurements");
    assert!(!all.is_empty(), "a bridge, for one: {report}");
    for measurement in all {
        check_rows(measurement, &["generator", "tc-redirect", "bpfw-tc", "stack"]);
    }
}

/// Each of these rows has figures that can be.
fn check_rows(measurement: &Value, names: &[&str]) {
    let rows = measurement["rows"].as_array().expect("rows");
    for name in names {
        let row = rows.iter().find(|row| row["row"] == *name);
        let row = row.unwrap_or_else(|| panic!("no row {name} in {measurement}"));
        let share = |part: &str| row[part].as_f64();
        assert!(share("cost").is_some_and(|cost| cost > 1.0), "{row}");
        let arrived = share("arrived").expect("counted");
        if *name == "generator" {
            assert_eq!(arrived, 0.0, "it drops them itself: {row}");
        } else {
            // While other tests run, some may arrive after the count, and the daemon may be late.
            assert!(arrived > 0.9 && arrived <= 1.0, "{row}");
        }
        if name.starts_with("bpfw") {
            assert!(share("fast").is_some_and(|fast| fast > 0.4), "{row}");
        }
    }
}

/// A figure's name, and what it must be also while other tests make the machine busy.
type Bound = (&'static str, fn(f64) -> bool);

#[test]
fn connections_come_and_go_and_follow_and_are_compared() {
    let line = "latency rate upkeep reroute resync --connections 500 --probes 20 --seconds 1 \
                --upkeep-seconds 1";
    let test = "connections_come_and_go_and_follow_and_are_compared";
    let Some(report) = measure(test, line, connections::run) else { return };
    check(
        &report,
        &[
            ("latency", 4, &[("p50", |ms| ms > 0.0), ("slow", |probes| probes < 10.0)]),
            ("rate", 2, &[("per_second", |each| each > 100.0), ("forgotten", |all| all < 1000.0)]),
            (
                "upkeep",
                4,
                &[
                    ("connections", |number| number > 400.0),
                    ("cpu", |share| share > 0.0 && share < 1.0),
                    ("map", |bytes| bytes > 200.0),
                    ("resident", |bytes| bytes > 1e6),
                    ("lost", |entries| entries < 500.0),
                ],
            ),
            ("reroute", 2, &[("time", |ms| ms < 10_000.0), ("moved", |share| share > 0.4)]),
            ("resync", 2, &[("cpu", |ms| ms > 0.0), ("lost", |entries| entries < 500.0)]),
        ],
    );
}

#[test]
fn restarts_bans_changes_and_periods_are_survived() {
    let line = "restart ban changes period --transports tcp --connections 300 --bans 2 --seconds 2 \
                --upkeep-seconds 1";
    let test = "restarts_bans_changes_and_periods_are_survived";
    let Some(report) = measure(test, line, connections::run) else { return };
    check(
        &report,
        &[
            ("restart", 1, &[("forwarding", |ms| ms > 0.0), ("fast", |ms| ms < 30_000.0)]),
            (
                "ban",
                2,
                &[
                    ("last_worst", |ms| ms > 0.0 && ms < 10_000.0),
                    // Each has to send twice, once a second.
                    ("others_worst", |ms| ms > 500.0),
                ],
            ),
            (
                "changes",
                1,
                &[
                    ("changes", |number| number >= 1.0),
                    ("fast", |share| share > 0.4 && share < 1.0),
                    ("cpu", |share| share > 0.0 && share < 1.0),
                ],
            ),
            (
                "period",
                1,
                &[
                    ("connections", |number| number > 250.0),
                    ("daemon", |share| share > 0.0 && share < 1.0),
                ],
            ),
        ],
    );
}

#[test]
fn a_connection_with_proofs_is_compared_with_one_without() {
    let line = "--hooks tc --rounds 1 --seconds 1";
    let test = "a_connection_with_proofs_is_compared_with_one_without";
    let Some(report) = measure(test, line, throughput::run) else { return };
    check(
        &report,
        &[("throughput", 2, &[("gbit", |rate| rate > 0.01), ("of_none", |share| share > 0.0)])],
    );
}

/// In each of these parts so many measurements, with such figures.
fn check(report: &Value, parts: &[(&str, usize, &[Bound])]) {
    for (part, lines, bounds) in parts {
        let all = report[part].as_array().expect("figures");
        assert_eq!(all.len(), *lines, "{part}: {report}");
        for (one, (figure, is_likely)) in
            all.iter().flat_map(|one| bounds.iter().map(move |it| (one, it)))
        {
            assert!(one[figure].as_f64().is_some_and(is_likely), "{part}, {figure}: {one}");
        }
    }
}

#[test]
fn routers_with_much_of_something_forward() {
    let test = "routers_with_much_of_something_forward";
    let line = "--interfaces 20 --routes 2000 --neighbors 200 --elements 500 --rules 100 --seconds 1 \
                --hooks tc";
    let Some(report) = measure(test, line, scale::run) else { return };
    let all = report["scale"].as_array().expect("figures");
    assert_eq!(all.len(), 5, "one for each row: {report}");
    for one in all {
        let figure = |name: &str| one[name].as_f64().expect("a number");
        assert!(figure("start") > 0.0 && figure("number") >= 20.0, "{one}");
        assert!(figure("idle") < 1.0 && figure("changing") > 0.0, "{one}");
        assert!(figure("fast") <= 1.0 && figure("peak") > 1e6, "{one}");
    }
}
