// SPDX-License-Identifier: GPL-2.0-only
//! What is in dist/: made of the same source as `--help` (`BPFW_BLESS=1 cargo test --test dist` writes it
//! anew), or written by hand and held against what bpfw takes.

#[path = "dist/manual.rs"]
mod manual;
mod support;

use bpfw::cli::Cli;
use bpfw::config::file::Contents;
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use std::fs;
use std::process::Command;
use support::netns::text;

const SPDX: &str = "SPDX-License-Identifier: GPL-2.0-only";

/// Fails where the file in dist/ is not what is made here.
fn compare(file: &str, made: &str) {
    let path = format!("dist/{file}");
    if std::env::var_os("BPFW_BLESS").is_some() {
        fs::write(&path, made).expect("a file of the tree");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(made.lines()).find(|(kept, made)| kept != made);
    assert!(
        kept == made,
        "{path} is not what is made of --help: {differs:?}; BPFW_BLESS=1 writes it"
    );
}

#[test]
fn the_manual_pages_are_up_to_date() {
    let read = |file| fs::read_to_string(file).expect("a part that is written by hand");
    compare("man/bpfw.8", &manual::program(&read("dist/man/bpfw.8.part")));
    compare("man/bpfw.toml.5", &manual::file(&read("dist/man/bpfw.toml.5.part")));
}

#[test]
fn the_completions_are_up_to_date() {
    for (shell, file) in
        [(Shell::Bash, "bpfw.bash"), (Shell::Zsh, "_bpfw"), (Shell::Fish, "bpfw.fish")]
    {
        let mut made = Vec::new();
        generate(shell, &mut Cli::command(), "bpfw", &mut made);
        let made = String::from_utf8(made).expect("text");
        // zsh asks for its word in the first line.
        let (first, rest) = match made.strip_prefix("#compdef bpfw\n") {
            Some(rest) => ("#compdef bpfw\n", rest),
            None => ("", made.as_str()),
        };
        compare(&format!("completions/{file}"), &format!("{first}# {SPDX}\n{rest}"));
    }
}

#[test]
fn the_example_is_a_configuration() {
    let text = fs::read_to_string("dist/bpfw.toml").expect("an example");
    Contents::parse(&text)
        .map(|contents| contents.settings(&[]).expect("settings"))
        .unwrap_or_else(|mistake| panic!("{mistake}"));
    // Also with all that is commented out.
    let key = |line: &str| line.starts_with('#') && !line.starts_with("# ");
    let all: Vec<&str> =
        text.lines().map(|line| if key(line) { &line[1..] } else { line }).collect();
    let all = Contents::parse(&all.join("\n")).unwrap_or_else(|mistake| panic!("{mistake}"));
    let settings = all.settings(&[]).expect("settings");
    assert_eq!(settings.options.max_connections, Some(262_144));
}

/// What OpenWrt's libraries do, as far as the script asks for it.
const OPENWRT: &str = r#"
USE_PROCD=1
config_load() { :; }
config_get_bool() { eval "$1=1"; }
config_get() { # variable, section, option
	case "$3" in
	hook) eval "$1=tc" ;;
	max_connections) eval "$1=65536" ;;
	offload_mark) eval "$1='!0x10/0xf0'" ;;
	xdp_mode) eval "$1='a\"b\\c'" ;;
	*) eval "$1=" ;;
	esac
}
config_list_foreach() { # section, list, function
	case "$2" in
	network) "$3" lan; "$3" wan; "$3" unknown ;;
	device) "$3" 'eth*'; "$3" '!eth7' ;;
	esac
}
network_get_device() { # variable, network
	case "$2" in
	lan) eval "$1=br-lan" ;;
	wan) eval "$1=wan0" ;;
	*) return 1 ;;
	esac
}
"#;

#[test]
fn openwrts_script_writes_a_configuration() {
    let script = fs::read_to_string("dist/openwrt/bpfw.init").expect("a script");
    let written = |options: &str| {
        let script = format!("{script}\n{OPENWRT}\nOPTIONS='{options}'\nconfiguration");
        let output = Command::new("sh").args(["-uc", &script]).output().expect("a shell");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let all = script.lines().find_map(|line| line.strip_prefix("OPTIONS='")?.strip_suffix('\''));
    let options = all.expect("its options").replace("xdp_mode", "");
    let contents =
        Contents::parse(&written(&options)).unwrap_or_else(|mistake| panic!("{mistake}"));
    let settings = contents.settings(&[]).expect("settings");
    assert_eq!(settings.interfaces, ["br-lan", "wan0", "eth*", "!eth7"]);
    assert_eq!(settings.options.max_connections, Some(65_536));
    assert!(settings.options.offload_mark.is_some_and(|mark| mark.negated));
    // A value with quotes stays one value.
    let mistake = Contents::parse(&written("xdp_mode")).expect_err("no mode is called so");
    assert!(mistake.to_string().contains(r#"invalid value 'a"b\c' for 'xdp-mode'"#), "{mistake}");
    // Each is a key.
    let uncommented = |line: &str| line.trim().trim_start_matches("# ").to_owned();
    let config = fs::read_to_string("dist/openwrt/bpfw.config").expect("a file");
    for line in config.lines().map(uncommented) {
        let Some(option) = line.strip_prefix("option ").and_then(|rest| rest.split(' ').next())
        else {
            continue;
        };
        assert!(option == "enabled" || all.expect("options").contains(option), "{option}");
    }
}
