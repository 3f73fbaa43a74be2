// SPDX-License-Identifier: GPL-2.0-only
//! Manual pages: what `--help` says, and parts that are written by hand.

use bpfw::cli::Cli;
use bpfw::config::options::Options;
use clap::builder::StyledStr;
use clap::{Arg, Args, Command, CommandFactory};
use std::fmt::Write;

const SPDX: &str = ".\\\" SPDX-License-Identifier: GPL-2.0-only\n";
/// Commands that are the daemon, and share its options.
const DAEMONS: [&str; 3] = ["xdp", "tc", "run"];

/// bpfw(8).
pub fn program(by_hand: &str) -> String {
    let mut command = Cli::command();
    command.build();
    let mut page = head("bpfw", 8);
    let about = plain(command.get_about());
    let _ = writeln!(page, ".SH NAME\nbpfw \\- {}", escaped(about.trim_end_matches('.')));
    page += ".SH SYNOPSIS\n";
    let commands: Vec<&Command> =
        command.get_subcommands().filter(|one| one.get_name() != "help").collect();
    let usages: Vec<String> = commands.iter().map(|one| usage(one)).collect();
    let _ = writeln!(page, "{}", usages.join("\n.br\n"));
    page += ".SH DESCRIPTION\n";
    paragraphs(&mut page, &plain(command.get_long_about()));
    page += ".SH COMMANDS\n";
    for one in &commands {
        let _ = writeln!(page, ".SS {}", usage(one).trim_start_matches(".B "));
        paragraphs(&mut page, &plain(one.get_long_about().or(one.get_about())));
        let shared = DAEMONS.contains(&one.get_name());
        let is_own = |arg: &&Arg| !(shared && is_of_the_daemon(arg)) && arg.get_id() != "help";
        one.get_arguments().filter(is_own).for_each(|arg| describe(&mut page, arg, &option(arg)));
    }
    page += ".SH OPTIONS\nOf the commands\n.BR xdp ,\n.B tc\nand\n.BR run .\n";
    daemons_options().get_arguments().for_each(|arg| describe(&mut page, arg, &option(arg)));
    page + by_hand
}

/// bpfw.toml(5).
pub fn file(by_hand: &str) -> String {
    let mut keys = String::from(".SH OPTIONS AS KEYS\n");
    for arg in daemons_options().get_arguments() {
        let key = format!(".B {}", escaped(arg.get_long().expect("a long option")));
        describe(&mut keys, arg, &key);
    }
    format!("{}{by_hand}{keys}.SH SEE ALSO\n.BR bpfw (8)\n", head("bpfw.toml", 5))
}

fn head(name: &str, section: u32) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{SPDX}.\\\" Made of --help and {name}.{section}.part by: BPFW_BLESS=1 cargo test --test dist\n\
             .TH {} {section} \"\" \"bpfw {version}\"\n",
        name.to_uppercase()
    )
}

fn daemons_options() -> Command {
    Options::augment_args(Command::new(""))
}

fn is_of_the_daemon(arg: &Arg) -> bool {
    daemons_options().get_arguments().any(|other| other.get_id() == arg.get_id())
}

/// A command's line without the options of the daemon, which are many.
fn usage(command: &Command) -> String {
    let mut line = format!(".B bpfw {}", command.get_name());
    if command.has_subcommands()
        || command.get_arguments().any(|arg| !arg.is_positional() && arg.get_id() != "help")
    {
        line += " [OPTIONS]";
    }
    for arg in command.get_positionals() {
        let names = arg.get_value_names().unwrap_or_default();
        let name = names.first().map_or("", |name| name.as_str());
        let dots =
            if arg.get_num_args().is_some_and(|range| range.max_values() > 1) { "..." } else { "" };
        let _ = match arg.is_required_set() {
            true => write!(line, " {name}{dots}"),
            false => write!(line, " [{name}]{dots}"),
        };
    }
    line
}

/// An option or argument as it is written.
fn option(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default().join(" ");
    let value = if arg.get_action().takes_values() { names } else { String::new() };
    let short = arg.get_short().map(|letter| format!("-{letter}, ")).unwrap_or_default();
    match arg.get_long() {
        Some(long) => {
            format!(".BI {} \" {}\"", escaped(&format!("\"{short}--{long}\"")), escaped(&value))
        }
        None if short.is_empty() => format!(".I {}", escaped(&value)),
        None => format!(".BI {} \" {}\"", escaped(short.trim_end_matches(", ")), escaped(&value)),
    }
}

/// A paragraph with a tag.
fn describe(page: &mut String, arg: &Arg, tag: &str) {
    let _ = writeln!(page, ".TP\n{tag}");
    let text = plain(arg.get_long_help().or(arg.get_help()));
    let mut parts = text.split("\n\n").map(escaped);
    let _ = writeln!(page, "{}.", parts.next().unwrap_or_default().trim_end_matches('.'));
    for part in parts {
        let _ = writeln!(page, ".IP\n{part}");
    }
    let default: Vec<_> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !default.is_empty() {
        let _ = writeln!(page, ".IP\nDefault: {}.", escaped(&default.join(" ")));
    }
    let words: Vec<String> = arg.get_possible_values().iter().map(word).collect();
    if arg.get_action().takes_values() && !words.is_empty() {
        let _ = writeln!(page, ".IP\nOne of: {}.", escaped(&words.join("; ")));
    }
}

fn word(value: &clap::builder::PossibleValue) -> String {
    match value.get_help() {
        Some(help) => format!("{} ({help})", value.get_name()),
        None => value.get_name().to_owned(),
    }
}

fn paragraphs(page: &mut String, text: &str) {
    let paragraphs: Vec<String> = text.split("\n\n").map(escaped).collect();
    let _ = writeln!(page, "{}", paragraphs.join("\n.PP\n"));
}

fn plain(text: Option<&StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// Text as roff takes it.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\n', " ");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}
