// SPDX-License-Identifier: GPL-2.0-only
//! A run of iperf3 through a router with bpfw.

use super::options::Hook;
use super::support::daemon::Daemon;
use super::support::lab::{Lab, SERVER};
use super::support::netns::text;
use super::support::process::Running;
use super::support::router::{LIMIT, lab, start};
use super::support::rules::snat_rules;
use super::support::wait::becomes_true;
use serde_json::Value;
use std::process::{Command, Stdio};

/// Says so where there is no iperf3.
pub fn find_iperf() -> Result<(), String> {
    let found = Command::new("iperf3").arg("--version").output();
    found.map(drop).map_err(|error| format!("iperf3: {error}"))
}

/// A router that masquerades, and iperf3's server behind it.
pub struct Router {
    // Before the lab: both end before their namespaces.
    _daemon: Daemon,
    _server: Running,
    lab: Lab,
}

/// What a run has shown.
pub struct Run {
    /// What arrived.
    pub gbit: f64,
    pub retransmits: f64,
    /// Packets a second that the network stack forwarded.
    pub slow: f64,
}

impl Router {
    /// Each direction proves itself every so many seconds; never again with 0.
    pub fn new(hook: Hook, prove_every: u32) -> Self {
        let lab = lab(hook.word(), "throughput", &snat_rules());
        let every = prove_every.to_string();
        let options = ["--log-level", "info", "--prove-every", &every];
        let daemon = start(&lab, hook.word(), &options);
        let mut command = lab.server.command("iperf3");
        command.args(["--server"]).stdin(Stdio::null()).stdout(Stdio::null());
        let server = Running::new(command.spawn().expect("iperf3 can be started"));
        let listens = || lab.server.sh("ss -Hltn").contains(":5201");
        assert!(becomes_true(LIMIT, listens), "iperf3's server does not listen");
        Self { _daemon: daemon, _server: server, lab }
    }

    /// One connection from the client to the server, for this time.
    pub fn run(&self, seconds: u32) -> Result<Run, String> {
        let before = self.lab.stack_packets_of("tcp");
        let (server, time) = (SERVER.to_string(), seconds.to_string());
        let words = ["--json", "--omit", "1", "--time", &time, "--client", &server];
        let output = self.lab.client.try_run(&[&["iperf3"][..], &words].concat());
        let slow = self.lab.stack_packets_of("tcp") - before;
        let failed = |what: &str| format!("iperf3: {what}: {}", text(&output.stdout));
        let report: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| failed(&error.to_string()))?;
        let number =
            |path| report.pointer(path).and_then(Value::as_f64).ok_or_else(|| failed(path));
        Ok(Run {
            gbit: number("/end/sum_received/bits_per_second")? / 1e9,
            retransmits: number("/end/sum_sent/retransmits")?,
            // With the second that does not count.
            slow: slow as f64 / f64::from(seconds + 1),
        })
    }
}
