// SPDX-License-Identifier: GPL-2.0-only
//! The options of the daemon: on the command line, and as keys of the configuration file.

use std::time::Duration;

use clap::Args;

use crate::datapath::interface::XdpMode;
use crate::datapath::object::BpfLogLevel;
use crate::flow::mark::{self, OffloadMark};
use crate::logging::LogLevel;
use crate::logging::destination::LogTo;

/// What the daemon can be told besides hook, object and interfaces.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Milliseconds between two rounds of housekeeping, and heartbeats: after ten missed ones, or
    /// a second if that is more, all packets go to the stack
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=1_000))]
    pub(super) interval: u32,

    /// Connections to offload at most [default: the sysctl nf_conntrack_max]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_connections: Option<u32>,

    /// How often each direction of a connection must send one packet through the network stack, in
    /// seconds [default: 9, and up to 72 with more than 100,000 connections]
    ///
    /// What changes without a word to anyone (ipset, iptables-legacy, expired set elements,
    /// sysctls) counts within two such periods. They are rounded down to a power of two of the
    /// kernel's ticks. 0: never; only changes that the kernel tells of count.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=3_600))]
    prove_every: Option<u32>,

    /// What to log; RUST_LOG, if set, says it in more detail
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,

    /// Where to log to
    #[arg(long, value_enum, value_name = "LOG", default_value_t = LogTo::Auto)]
    pub log_to: LogTo,

    /// What the datapath writes to the kernel's trace pipe
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = BpfLogLevel::Off)]
    pub bpf_log_level: BpfLogLevel,

    /// How to attach XDP
    #[arg(long, value_enum, value_name = "MODE", default_value_t = XdpMode::Auto)]
    pub xdp_mode: XdpMode,

    /// Bits of the conntrack mark that routing rules choose the way by, as mwan3 and pbr do it
    ///
    /// For rules that restore the packets' marks from their connections' marks. Without it, or on
    /// kernels before 6.10, nothing is offloaded while there are routing rules by fwmark.
    #[arg(long, value_name = "MASK", value_parser = mask)]
    pub route_mark_mask: Option<u32>,

    /// Offload only connections with this conntrack mark, or behind ! only those with others; decimal or 0x
    /// hexadecimal [default: all]
    #[arg(long, value_name = "[!]VALUE[/MASK]")]
    pub offload_mark: Option<OffloadMark>,
}

impl Options {
    /// The time between two rounds of housekeeping.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval.into())
    }

    /// The time after which each direction proves itself anew, if it was given; zero for never.
    pub fn prove_every(&self) -> Option<Duration> {
        self.prove_every.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

fn mask(text: &str) -> std::result::Result<u32, String> {
    match mark::number(text)? {
        0 => Err("the mask is 0: it would leave no bit of the mark".into()),
        mask => Ok(mask),
    }
}
