// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw metrics`: the status in the text format of Prometheus.

use std::fmt::{Display, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{no_daemon, print};
use crate::error::{Error, Result};
use crate::reasons::Reason;
use crate::reasons::connection::Refusal;
use crate::reasons::packet::{TESTIMONIES, VERDICTS};
use crate::reasons::pause::Pause;
use crate::status::client;
use crate::status::{State, Status};

/// Options of `bpfw metrics`.
#[derive(Debug, Args)]
pub struct Options {
    /// Write to this file, all at once, for a collector of text files; for example
    /// /var/lib/prometheus/node-exporter/bpfw.prom
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the metrics of all daemons of this network namespace.
pub(super) fn show(options: &Options) -> Result<ExitCode> {
    let daemons = client::ask()?;
    if daemons.here.is_empty() {
        return Ok(no_daemon(&daemons));
    }
    let statuses: Vec<_> = daemons.here.iter().map(|answer| &answer.status).collect();
    let text = text(&statuses);
    match &options.output {
        Some(path) => replace(path, &text)?,
        None => print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A collector sees the old file or the new one.
fn replace(path: &Path, text: &str) -> Result<()> {
    // Collectors read files whose names end in .prom only.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .map_err(|cause| Error::system(format!("writing {}", path.display()), cause))
}

/// The samples of one metric.
struct Metric<'a> {
    text: &'a mut String,
    name: &'static str,
    /// One daemon needs no label to be told from others.
    several: bool,
}

impl<'a> Metric<'a> {
    fn new(
        text: &'a mut String,
        several: bool,
        kind: &str,
        name: &'static str,
        help: &str,
    ) -> Self {
        // Nothing fails that writes to a string.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Self { text, name, several }
    }

    fn sample(&mut self, status: &Status, labels: &[(&str, &str)], value: impl Display) {
        let pid = status.bpfw.pid.to_string();
        let pid = self.several.then_some(("pid", pid.as_str()));
        let labels = labels.iter().copied().chain(pid);
        let labels: Vec<_> =
            labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn text(statuses: &[&Status]) -> String {
    let mut text = String::new();
    let several = statuses.len() > 1;
    let mut metric = |kind: &str, name, help: &str, each: &dyn Fn(&Status, &mut Metric<'_>)| {
        let mut metric = Metric::new(&mut text, several, kind, name, help);
        for status in statuses {
            each(status, &mut metric);
        }
    };
    metric("gauge", "bpfw_build_info", "The running bpfw.", &|status, metric| {
        let about = &status.bpfw;
        let (version, hook, abi) = (&*about.version, &*about.hook, about.abi.to_string());
        metric.sample(status, &[("version", version), ("abi", &abi), ("hook", hook)], 1);
    });
    metric("gauge", "bpfw_forwarding", "1 while packets are forwarded.", &|status, metric| {
        metric.sample(status, &[], u8::from(status.state == State::Forwarding));
    });
    let help = "Packets that the datapath has seen, by what became of them.";
    metric("counter", "bpfw_packets_total", help, &|status, metric| {
        let reasons: Vec<_> = VERDICTS.iter().chain(&TESTIMONIES).copied().collect();
        by_reason(status, metric, "verdict", &reasons, &|name| status.packets.get(name).copied());
    });
    let help = "Times that a connection was looked at and left to the stack.";
    metric("counter", "bpfw_refusals_total", help, &|status, metric| {
        let reasons: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.reason()).collect();
        by_reason(status, metric, "reason", &reasons, &|name| status.refusals.get(name).copied());
    });
    let pauses: Vec<_> = Pause::ALL.iter().map(|pause| pause.reason()).collect();
    metric("counter", "bpfw_pauses_total", "Pauses of the fast path.", &|status, metric| {
        let of = |name: &str| Some(status.pauses.by_reason.get(name)?.count);
        by_reason(status, metric, "reason", &pauses, &of);
    });
    metric("counter", "bpfw_pause_seconds_total", "How long they took.", &|status, metric| {
        for reason in &pauses {
            let of_reason = status.pauses.by_reason.get(reason.name);
            let ms = of_reason.map_or(0, |pauses| pauses.ms);
            metric.sample(status, &[("reason", reason.name)], seconds(ms));
        }
    });
    let help = "1 if packets from this device and to it are forwarded.";
    metric("gauge", "bpfw_interface_usable", help, &|status, metric| {
        for interface in &status.interfaces {
            let used = u8::from(interface.is_used());
            metric.sample(status, &[("device", &interface.device)], used);
        }
    });
    for (name, help, of) in NUMBERS {
        metric("gauge", name, help, &|status, metric| metric.sample(status, &[], of(status)));
    }
    text
}

/// A name, what it is, and where to find it.
type Number = (&'static str, &'static str, fn(&Status) -> String);

/// What is one number for each daemon.
const NUMBERS: [Number; 8] = [
    ("bpfw_flows", "Offloaded connections.", |status| status.connections.used.to_string()),
    ("bpfw_flows_limit", "So many at most.", |status| status.connections.limit.to_string()),
    ("bpfw_next_hops", "Next hops in use.", |status| status.next_hops.used.to_string()),
    ("bpfw_next_hops_limit", "So many at most.", |status| status.next_hops.limit.to_string()),
    ("bpfw_heartbeat_age_seconds", "Time since the daemon's last sign of life.", |status| {
        seconds(status.heartbeat.age_ms)
    }),
    ("bpfw_heartbeat_limit_seconds", "When it is too old.", |status| {
        seconds(status.heartbeat.limit_ms)
    }),
    ("bpfw_rule_warnings", "Kinds of rules that offloaded packets do not meet.", |status| {
        status.warnings.len().to_string()
    }),
    ("bpfw_uptime_seconds", "Time since the start.", |status| seconds(status.bpfw.up_ms)),
];

/// All reasons, those that there were not too: a rate needs the first zero.
fn by_reason(
    status: &Status,
    metric: &mut Metric<'_>,
    label: &str,
    reasons: &[Reason],
    of: &dyn Fn(&str) -> Option<u64>,
) {
    for reason in reasons {
        metric.sample(status, &[(label, reason.name)], of(reason.name).unwrap_or_default());
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Interface, Usage};

    fn status(pid: u32) -> Status {
        let mut status = Status { state: State::Forwarding, ..Status::default() };
        status.bpfw.pid = pid;
        status.packets.insert("forwarded".into(), 7);
        status.connections = Usage { used: 3, limit: 10 };
        status.heartbeat.age_ms = 41;
        let device = "la\"n".to_owned();
        status.interfaces.push(Interface { device, ..Interface::default() });
        status
    }

    #[test]
    fn each_metric_is_described_once_and_all_reasons_are_there() {
        let text = text(&[&status(1), &status(2)]);
        let lines: Vec<_> = text.lines().collect();
        let described = lines.iter().filter(|line| line.starts_with("# TYPE bpfw_packets_total "));
        assert_eq!(described.count(), 1);
        let packets = lines.iter().filter(|line| line.starts_with("bpfw_packets_total{"));
        assert_eq!(packets.count(), 2 * (VERDICTS.len() + TESTIMONIES.len()));
        for line in [
            "bpfw_forwarding{pid=\"1\"} 1",
            "bpfw_packets_total{verdict=\"forwarded\",pid=\"2\"} 7",
            "bpfw_refusals_total{reason=\"local\",pid=\"1\"} 0",
            "bpfw_interface_usable{device=\"la\\\"n\",pid=\"1\"} 0",
            "bpfw_heartbeat_age_seconds{pid=\"2\"} 0.041",
        ] {
            assert!(lines.contains(&line), "{line} in {text}");
        }
    }

    #[test]
    fn one_daemon_needs_no_label() {
        assert!(text(&[&status(1)]).contains("\nbpfw_flows 3\n"));
    }
}
