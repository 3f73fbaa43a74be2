// SPDX-License-Identifier: GPL-2.0-only
//! The command line: `bpfw <hook> [<object>] <interface>...`, or a question to those that run.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::datapath::Hook;
use crate::datapath::interface::XdpMode;
use crate::datapath::object::BpfLogLevel;
use crate::error::{Error, Result};
use crate::flow::mark::{self, OffloadMark};
use crate::logging::LogLevel;
use crate::view::Question;

/// Forwards the packets of established connections in XDP or TC, exactly as the kernel would.
///
/// Connections are routed, filtered and translated by the network stack until conntrack calls
/// them established; from then on a BPF program at the interfaces' ingress forwards their
/// packets. Whatever is unclear goes to the stack.
#[derive(Debug, Parser)]
#[command(name = "bpfw", version, arg_required_else_help = true)]
pub struct Cli {
    /// The hook is the command, so that other commands can stand beside it.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Forward in XDP, in the drivers of the interfaces: fastest
    Xdp(Run),
    /// Forward at the TC ingress: any interface, queueing disciplines and offloads included
    Tc(Run),
    /// Ask those that run.
    #[command(flatten)]
    Ask(Question),
}

/// What a command comes to.
#[derive(Debug)]
pub enum Task {
    /// To be the daemon.
    Forward(Hook, Run),
    /// To ask one.
    Ask(Question),
}

impl Command {
    /// What it comes to.
    pub fn into_task(self) -> Task {
        match self {
            Self::Xdp(run) => Task::Forward(Hook::Xdp, run),
            Self::Tc(run) => Task::Forward(Hook::Tc, run),
            Self::Ask(question) => Task::Ask(question),
        }
    }
}

fn mask(text: &str) -> std::result::Result<u32, String> {
    match mark::number(text)? {
        0 => Err("the mask is 0: it would leave no bit of the mark".into()),
        mask => Ok(mask),
    }
}

/// Options and arguments of a hook.
#[derive(Debug, Args)]
pub struct Run {
    /// Object file (a word that ends in .o or holds a /), then the interfaces
    ///
    /// Without an object, the one that is part of bpfw is used. Connections are forwarded
    /// between the interfaces named here. With * or ? a word is a pattern, after ! an exception of
    /// patterns. At the hook tc, a port of a bridge or bond stands for this.
    #[arg(required = true, value_name = "[OBJECT] INTERFACE")]
    words: Vec<String>,

    /// Milliseconds between two rounds of housekeeping, and heartbeats: after ten missed ones, or
    /// a second if that is more, all packets go to the stack
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=1_000))]
    interval: u32,

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

    /// Offload only connections with this conntrack mark, decimal or 0x hexadecimal
    /// [default: all]
    #[arg(long, value_name = "VALUE[/MASK]")]
    pub offload_mark: Option<OffloadMark>,
}

impl Run {
    /// The time between two rounds of housekeeping.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval.into())
    }

    /// The time after which each direction proves itself anew, if it was given; zero for never.
    pub fn prove_every(&self) -> Option<Duration> {
        self.prove_every.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// The object file, if one is named, and the interfaces.
    pub fn object_and_interfaces(&self) -> Result<(Option<PathBuf>, Vec<String>)> {
        let is_object = |word: &String| word.ends_with(".o") || word.contains('/');
        let (object, interfaces) = match self.words.split_first() {
            Some((first, rest)) if is_object(first) => (Some(PathBuf::from(first)), rest),
            _ => (None, &self.words[..]),
        };
        if let Some(word) = interfaces.iter().find(|word| is_object(word)) {
            return Err(Error::refused(format!("'{word}' looks like an object file"))
                .with_advice("there can be one object, in front of the interfaces"));
        }
        if interfaces.is_empty() {
            return Err(Error::refused("no interface is named"));
        }
        for (place, name) in interfaces.iter().enumerate() {
            if interfaces[..place].contains(name) {
                return Err(Error::refused(format!("the interface {name} is named twice")));
            }
        }
        Ok((object, interfaces.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Run {
        let line = ["bpfw"].iter().chain(words);
        options(Cli::try_parse_from(line).unwrap())
    }

    fn options(cli: Cli) -> Run {
        match cli.command.into_task() {
            Task::Forward(_, run) => run,
            Task::Ask(question) => panic!("{question:?}"),
        }
    }

    #[test]
    fn the_originals_command_lines_work() {
        let (object, interfaces) =
            run(&["xdp", "xdp_le_bpfw.o", "lan1", "lan2"]).object_and_interfaces().unwrap();
        assert_eq!(object, Some(PathBuf::from("xdp_le_bpfw.o")));
        assert_eq!(interfaces, ["lan1", "lan2"]);
        let (object, _) = run(&["tc", "./objects/any", "lan1"]).object_and_interfaces().unwrap();
        assert_eq!(object, Some(PathBuf::from("./objects/any")));
    }

    #[test]
    fn the_object_is_optional() {
        let (object, interfaces) = run(&["tc", "lan1", "wan"]).object_and_interfaces().unwrap();
        assert_eq!((object, interfaces.len()), (None, 2));
    }

    #[test]
    fn interfaces_may_be_called_as_questions_are() {
        let (_, interfaces) = run(&["tc", "status", "lan0"]).object_and_interfaces().unwrap();
        assert_eq!(interfaces, ["status", "lan0"]);
        let asked = Cli::try_parse_from(["bpfw", "status", "--json"]).unwrap();
        assert!(matches!(asked.command.into_task(), Task::Ask(_)));
    }

    #[test]
    fn words_that_make_no_sense_are_refused() {
        for words in [&["xdp", "a.o"][..], &["xdp", "a.o", "b.o", "lan"], &["tc", "lan", "lan"]] {
            assert!(run(words).object_and_interfaces().is_err(), "{words:?}");
        }
        assert!(Cli::try_parse_from(["bpfw", "xdp"]).is_err());
        assert!(Cli::try_parse_from(["bpfw", "udp", "lan"]).is_err());
        assert!(Cli::try_parse_from(["bpfw", "tc", "--interval", "9", "lan"]).is_err());
        assert!(Cli::try_parse_from(["bpfw", "tc", "--max-connections", "0", "lan"]).is_err());
    }

    #[test]
    fn the_route_marks_mask_is_a_number_other_than_0() {
        assert_eq!(run(&["tc", "lan"]).route_mark_mask, None);
        let mask = |text| Cli::try_parse_from(["bpfw", "tc", "--route-mark-mask", text, "lan"]);
        assert_eq!(options(mask("0x3F00").unwrap()).route_mark_mask, Some(0x3f00));
        for text in ["0", "0x", "mark", "0x100000000", "1/1"] {
            assert!(mask(text).is_err(), "{text}");
        }
    }
}
