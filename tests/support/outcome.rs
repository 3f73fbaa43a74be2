// SPDX-License-Identifier: GPL-2.0-only
//! bpfw run to its end: what it says, and what it leaves behind.

use super::bystander::ifindex;
use super::daemon::program;
use super::lab::Lab;
use super::netns::text;
use bpfw::datapath::sys::{AttachType, tcx_programs};
use std::fmt::Write;
use std::process::Output;

pub const BPFW: &str = env!("CARGO_BIN_EXE_bpfw");

/// What stands at the router's interfaces, as tools and the kernel see it.
pub fn attached(lab: &Lab) -> String {
    let tools = "ip -o link; tc qdisc show; for i in lan0 wan0; do
                     tc filter show dev $i ingress; tc filter show dev $i egress
                 done";
    let mut all = lab.router.sh(tools);
    for device in ["lan0", "wan0"] {
        let index = ifindex(&lab.router, device);
        for side in [AttachType::TcxIngress, AttachType::TcxEgress] {
            let programs = lab.router.enter(|| tcx_programs(index, side)).expect("readable");
            writeln!(all, "{device} {side:?} {programs:?}").expect("a string takes all");
        }
    }
    all
}

/// Runs the program in the router to its end.
pub fn run(lab: &Lab, args: &[&str]) -> Output {
    lab.router.try_run(&[&["timeout", "10", &program()], args].concat())
}

/// The program refuses: with this exit code, and all of these words in its one error line.
pub fn refuses(output: &Output, code: i32, words: &[&str]) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    for word in words {
        assert!(error.contains(word), "no '{word}' in: {error}");
    }
}
