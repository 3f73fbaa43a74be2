// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw run`: the daemon by its configuration file.

mod support;

use std::process::Output;
use support::ask::ask;
use support::configuration::{Configuration, start_by};
use support::daemon::program;
use support::live::root_or_skip;
use support::outcome::{attached, refuses, run};
use support::router::*;
use support::rules::snat_rules;
use support::wait::eventually;

on_both_hooks!(
    a_file_is_as_good_as_a_command_line,
    interfaces_that_come_later_are_waited_for,
    a_section_is_for_one_interface,
);

fn without_daemon(words: &[&str]) -> Output {
    std::process::Command::new(program()).args(words).output().expect("it starts")
}

fn a_file_is_as_good_as_a_command_line(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let file = Configuration::new(
        hook,
        &["lan*", "wan0", "!lan1"],
        "interval = 50\nmax-connections = 16000",
    );
    // The option wins over the file's.
    let daemon = start_by(&lab, &file, &["--interval", "200", "--prove-every=0"]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let json = ask(&lab.router, &["status", "--json"]).json();
    assert_eq!(json["heartbeat"]["interval_ms"], 200);
    assert_eq!(json["connections"]["limit"], 16000);
    assert_eq!(json["bpfw"]["hook"], hook);
    assert!(daemon.stop(LIMIT).success());
    assert_eq!(attached(&lab), before);
}

fn interfaces_that_come_later_are_waited_for(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.ip("link set lan0 name other\n");
    let file = Configuration::new(hook, &["lan0", "wan0"], "prove-every = 0");
    let daemon = start_by(&lab, &file, &[]);
    daemon.wait_for_line("waiting for lan0", LIMIT);
    let answer = ask(&lab.router, &["status"]);
    assert_eq!(answer.code, 4, "{answer:?}");
    let words = "there is no such interface yet (bpfw attaches to it when it comes)";
    assert!(answer.out.contains(words), "{answer:?}");
    lab.router.ip("link set other name lan0\n");
    daemon.wait_for_line("attached to lan0", LIMIT);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    eventually(LIMIT, "all is well", || ask(&lab.router, &["status"]).code == 0);
    // What was there once is gone, not missing.
    lab.router.ip("link set lan0 name other\n");
    daemon.wait_for_line("lan0: the interface is gone", LIMIT);
}

/// Generic XDP where that is said, at the hook tc a section without effect.
fn a_section_is_for_one_interface(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let file =
        Configuration::new(hook, &["lan0", "wan0"], "[interface.lan0]\nxdp-mode = \"generic\"");
    let daemon = start_by(&lab, &file, &[]);
    let [lan0, wan0] = if hook == "xdp" {
        ["attached to lan0 (generic XDP, veth)", "attached to wan0 (native XDP, veth)"]
    } else {
        ["attached to lan0 (", "attached to wan0 ("]
    };
    daemon.wait_for_line(lan0, LIMIT);
    daemon.wait_for_line(wan0, LIMIT);
}

#[test]
fn a_mistake_in_the_file_is_told_with_its_place() {
    let file = Configuration::new("tc", &["lan0"], "offload-mark = \"0x1g/0xf0\"");
    let place = format!("error: {}:3: invalid value '0x1g/0xf0' for 'offload-mark': ", file.path());
    refuses(&without_daemon(&["run", "--config", file.path()]), 2, &[&place]);
    file.write("hook = \"tc\"\n");
    let what = format!("error: {}: no interface is named", file.path());
    refuses(&without_daemon(&["run", "--config", file.path()]), 2, &[&what]);
    file.write("interfaces = [\"lan0\"]\n");
    refuses(&without_daemon(&["run", "--config", file.path()]), 2, &["the key 'hook' is missing"]);
    file.write("hook = \"tc\"\ninterfaces = [\"lan0\", \"!docker0\"]\n");
    refuses(
        &without_daemon(&["run", "--config", file.path()]),
        2,
        &["there is no pattern that !docker0"],
    );
    file.write(&"#".repeat(70_000));
    refuses(&without_daemon(&["run", "--config", file.path()]), 2, &["no file of at most 64 KiB"]);
    refuses(&without_daemon(&["run", "--config", "/dev/zero"]), 2, &["no file of at most 64 KiB"]);
    refuses(&without_daemon(&["run", "--config", "/nowhere/bpfw.toml"]), 2, &["No such file"]);
}

/// The drop-in command line means what it always meant.
#[test]
fn a_hook_reads_no_file() {
    let test = "a_hook_reads_no_file";
    if !root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    lab.router.ip("link add run type veth peer name far\nlink set run up\n");
    let daemon = start_at(&lab, "tc", &[], &["run", "wan0"]);
    daemon.wait_for_line("attached to run", LIMIT);
    let opened = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs");
    let paths: Vec<_> = opened.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()).collect();
    assert!(!paths.iter().any(|path| path.to_string_lossy().contains("toml")), "{paths:?}");
    refuses(&run(&lab, &["tc", "--config", "/etc/bpfw.toml", "lan0"]), 2, &["--config"]);
}
