// SPDX-License-Identifier: GPL-2.0-only
//! The command line: `bpfw <hook> [<object>] <interface>...`, `bpfw run`, or a question to those that run.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::options::Options;
use crate::config::{FromFile, Settings, Source};
use crate::datapath::Hook;
use crate::error::{Error, Result};
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
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward in XDP, in the drivers of the interfaces: fastest
    Xdp(AtHook),
    /// Forward at the TC ingress: any interface, queueing disciplines and offloads included
    Tc(AtHook),
    /// Forward as a configuration file says, in which each key is an option; SIGHUP reads it again
    ///
    /// The file also names the hook, the interfaces and, if it is not the embedded one, the object:
    /// hook = "tc", interfaces = ["br-*", "wan0"]. Options on the command line win over the file's.
    Run(FromFile),
    /// Have the configuration file read again, and wait for what came of it; as root, or as bpfw's user
    ///
    /// Interfaces that stay are not detached from, and no connection is lost. Exit status: 0 if all that the file
    /// says is so, 1 if it has a mistake and nothing has changed, 3 if no bpfw runs in this network namespace, 4
    /// if something needs a restart.
    Reload,
    /// Say what would happen, and attach to nothing; as root
    ///
    /// The programs are loaded, so the kernel's verifier has seen them. Without a command: all interfaces at the hook
    /// tc. Exit status: 0 if bpfw would forward at all interfaces, 1 if it would not start, 2 on wrong usage. It is 4
    /// if bpfw would leave to the network stack an interface, or an address family that the kernel forwards.
    Check(Check),
    /// Ask those that run.
    #[command(flatten)]
    Ask(Question),
}

/// What is to be checked.
#[derive(Debug, Args)]
struct Check {
    #[command(subcommand)]
    command: Option<Start>,
}

/// A command that starts the daemon, with all that is said of it.
#[derive(Debug, Subcommand)]
enum Start {
    /// What 'bpfw xdp' would do with these words
    Xdp(AtHook),
    /// What 'bpfw tc' would do with these words
    Tc(AtHook),
    /// What 'bpfw run' would do with this file and these options
    Run(FromFile),
}

/// Options and arguments of a hook.
#[derive(Debug, Args)]
struct AtHook {
    /// Object file (a word that ends in .o or holds a /), then the interfaces
    ///
    /// Without an object, the one that is part of bpfw is used. Connections are forwarded
    /// between the interfaces named here. With * or ? a word is a pattern, after ! an exception of
    /// patterns. At the hook tc, a port of a bridge or bond stands for this.
    #[arg(required = true, value_name = "[OBJECT] INTERFACE")]
    words: Vec<String>,

    #[command(flatten)]
    options: Options,
}

/// Words that are not on the command line.
#[derive(Debug, Parser)]
struct Elsewhere {
    #[command(flatten)]
    at_hook: AtHook,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Task {
    /// To be the daemon, with these settings. They are read again from the source, if there is one.
    Forward(Result<Settings>, Option<Source>),
    /// To say what the daemon would do with these settings, which come from a file or not.
    Check(Result<Settings>, bool),
    /// To have one read its file again.
    Reload,
    /// To ask one.
    Ask(Question),
}

/// Understands a command line, whose first word is the program's name.
pub fn task(line: impl IntoIterator<Item = OsString>) -> std::result::Result<Task, clap::Error> {
    let mut line: Vec<OsString> = line.into_iter().collect();
    Ok(match Cli::try_parse_from(&line)?.command {
        Command::Xdp(at_hook) => Task::Forward(at_hook.settings(Hook::Xdp), None),
        Command::Tc(at_hook) => Task::Forward(at_hook.settings(Hook::Tc), None),
        Command::Run(from_file) => {
            let behind_run = line.split_off(2);
            let source = Source::new(from_file, behind_run);
            Task::Forward(source.read(), Some(source))
        }
        Command::Check(Check { command: Some(Start::Run(from_file)) }) => {
            let behind_run = line.split_off(3);
            Task::Check(Source::new(from_file, behind_run).read(), true)
        }
        Command::Check(check) => Task::Check(check.settings(), false),
        Command::Reload => Task::Reload,
        Command::Ask(question) => Task::Ask(question),
    })
}

impl Check {
    /// Those of a hook, or else of all interfaces except the loopback one.
    fn settings(self) -> Result<Settings> {
        match self.command {
            Some(Start::Xdp(at_hook)) => at_hook.settings(Hook::Xdp),
            Some(Start::Tc(at_hook)) => at_hook.settings(Hook::Tc),
            Some(Start::Run(_)) | None => {
                Elsewhere::parse_from(["bpfw", "*", "!lo"]).at_hook.settings(Hook::Tc)
            }
        }
    }
}

impl AtHook {
    fn settings(self, hook: Hook) -> Result<Settings> {
        let (object, interfaces) = self.object_and_interfaces()?;
        Settings::new(hook, object, interfaces, self.options)
    }

    /// The object file, if one is named, and the interfaces.
    fn object_and_interfaces(&self) -> Result<(Option<PathBuf>, Vec<String>)> {
        let is_object = |word: &String| word.ends_with(".o") || word.contains('/');
        let (object, interfaces) = match self.words.split_first() {
            Some((first, rest)) if is_object(first) => (Some(PathBuf::from(first)), rest),
            _ => (None, &self.words[..]),
        };
        if let Some(word) = interfaces.iter().find(|word| is_object(word)) {
            return Err(Error::refused(format!("'{word}' looks like an object file"))
                .with_advice("there can be one object, in front of the interfaces"));
        }
        Ok((object, interfaces.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> std::result::Result<Task, clap::Error> {
        task(["bpfw"].iter().chain(words).map(OsString::from))
    }

    fn settings(words: &[&str]) -> Result<Settings> {
        match asked(words).expect("a command") {
            Task::Forward(settings, None) | Task::Check(settings, false) => settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_originals_command_lines_work() {
        let Settings { object, interfaces, .. } =
            settings(&["xdp", "xdp_le_bpfw.o", "lan1", "lan2"]).unwrap();
        assert_eq!(object, Some(PathBuf::from("xdp_le_bpfw.o")));
        assert_eq!(interfaces, ["lan1", "lan2"]);
        let Settings { object, .. } = settings(&["tc", "./objects/any", "lan1"]).unwrap();
        assert_eq!(object, Some(PathBuf::from("./objects/any")));
    }

    #[test]
    fn the_object_is_optional() {
        let settings = settings(&["tc", "lan1", "wan"]).unwrap();
        assert_eq!((settings.object, settings.interfaces.len()), (None, 2));
    }

    #[test]
    fn interfaces_may_be_called_as_commands_are() {
        let settings = settings(&["tc", "status", "run"]).unwrap();
        assert_eq!(settings.interfaces, ["status", "run"]);
        assert!(matches!(asked(&["status", "--json"]), Ok(Task::Ask(_))));
    }

    #[test]
    fn what_would_happen_can_be_asked_of_any_words_or_none() {
        let checked = settings(&["check", "tc", "--interval", "50", "lan0"]).unwrap();
        assert_eq!((checked.hook, checked.interfaces), (Hook::Tc, vec!["lan0".to_owned()]));
        let checked = settings(&["check"]).unwrap();
        assert_eq!(
            (checked.object, &*checked.interfaces),
            (None, &["*", "!lo"].map(str::to_owned)[..])
        );
        assert!(asked(&["check", "lan0"]).is_err());
        let file = asked(&["check", "run", "--config", "/nowhere", "--interval", "50"]);
        assert!(matches!(file, Ok(Task::Check(Err(_), true))), "{file:?}");
    }

    #[test]
    fn words_that_make_no_sense_are_refused() {
        for words in [
            &["xdp", "a.o"][..],
            &["xdp", "a.o", "b.o", "lan"],
            &["tc", "lan", "lan"],
            &["tc", "lan", "!docker0"],
        ] {
            assert!(settings(words).is_err(), "{words:?}");
        }
        for words in [
            &["xdp"][..],
            &["udp", "lan"],
            &["tc", "--interval", "9", "lan"],
            &["tc", "--max-connections", "0", "lan"],
            &["run", "lan"],
        ] {
            assert!(asked(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn the_route_marks_mask_is_a_number_other_than_0() {
        assert_eq!(settings(&["tc", "lan"]).unwrap().options.route_mark_mask, None);
        let mask = |text| asked(&["tc", "--route-mark-mask", text, "lan"]);
        let Ok(Task::Forward(settings, _)) = mask("0x3F00") else { panic!("it is one") };
        assert_eq!(settings.unwrap().options.route_mark_mask, Some(0x3f00));
        for text in ["0", "0x", "mark", "0x100000000", "1/1"] {
            assert!(mask(text).is_err(), "{text}");
        }
    }
}
