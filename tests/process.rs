// SPDX-License-Identifier: GPL-2.0-only
//! The daemon as a process: its command line, its start, its end, and what it leaves behind.

mod support;

use bpfw::datapath::sys::{self, AttachType};
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::bystander::Bystander;
use support::daemon::{Daemon, program};
use support::lab::{Lab, SERVER};
use support::live::{root_or_skip, skip};
use support::netns::text;
use support::outcome::{BPFW, attached, refuses, run};
use support::router::*;
use support::rules::snat_rules;
use support::wait::eventually;

/// `XDP_FLAGS_SKB_MODE` of linux/if_link.h.
const XDP_GENERIC: u32 = 1 << 1;
/// One of `BPF_MPROG_MAX` places of the kernel stays empty.
const MOST_PROGRAMS: usize = 63;

on_both_hooks!(
    hazard_17_sigkill_leaves_the_stack_in_charge,
    hazard_17_a_late_daemon_loses_the_fast_path_and_regains_it,
    the_originals_command_line_works,
    hazard_32_a_second_instance_is_refused,
    asked_to_log_the_datapath_does_or_the_start_is_refused,
);
on_both_hooks!(redirecting nothing:
    sigterm_and_sigint_leave_nothing_behind,
    objects_that_do_not_fit_are_refused,
    a_strangers_object_is_refused,
    hazard_24_one_bad_interface_attaches_none,
    hazard_24_an_interface_in_use_attaches_none,
    hazard_24_a_signal_during_the_start_attaches_none,
    an_idle_daemon_sleeps,
);

/// Ids of the BPF programs that the daemon holds. Attached ones stay loaded without it.
fn programs(daemon: &Daemon) -> Vec<u32> {
    let files = std::fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid())).unwrap();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let id = |text: String| {
        text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
    };
    texts.filter_map(id).collect()
}

fn are_loaded(programs: &[u32]) -> bool {
    programs.iter().any(|id| libbpf_rs::ProgramHandle::from_prog_id(*id).is_ok())
}

fn sigterm_and_sigint_leave_nothing_behind(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = start(&lab, hook, &[]);
        let (server, client) = echo(&lab, 40000);
        assert!(client.echoes(0, LIMIT));
        wait_until_offloaded(&daemon, 1);
        let programs = programs(&daemon);
        assert!(are_loaded(&programs) && !programs.is_empty());
        daemon.signal(signal);
        assert_eq!(daemon.wait_exit(LIMIT).code(), Some(0));
        eventually(LIMIT, "its programs are unloaded", || !are_loaded(&programs));
        assert_eq!(attached(&lab), before);
        assert!(!echo_is_fast(&lab, &client, 1), "the stack goes on with the connection");
        drop((server, client));
        lab.conntrack(&["-F"]);
    }
}

fn hazard_17_sigkill_leaves_the_stack_in_charge(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let mut daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let programs = programs(&daemon);
    daemon.signal(Signal::SIGKILL);
    daemon.wait_exit(LIMIT);
    // The kernel closes the links in the process's wake. Before Linux 6.6 TC has none: the filter
    // stays, and passes everything up once the heartbeat is too old.
    if !daemon.lines().iter().any(|line| line.contains("(clsact, ")) {
        eventually(LIMIT, "nothing is attached", || attached(&lab) == before);
        eventually(LIMIT, "its programs are unloaded", || !are_loaded(&programs));
        assert!(!echo_is_fast(&lab, &client, 1));
    }
    eventually(LIMIT, "the stack is in charge", || !echo_is_fast(&lab, &client, 2));
    let daemon = start(&lab, hook, &[]);
    wait_until_fast(&lab, &client);
    assert!(daemon.stop(LIMIT).success());
    assert_eq!(attached(&lab), before);
}

fn hazard_17_a_late_daemon_loses_the_fast_path_and_regains_it(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    daemon.signal(Signal::SIGSTOP);
    let mut number = 0;
    eventually(LIMIT, "the heartbeat's limit takes the fast path away", || {
        number += 1;
        !echo_is_fast(&lab, &client, number)
    });
    for number in 100..110 {
        assert!(!echo_is_fast(&lab, &client, number), "it stays away");
    }
    // What happens meanwhile must not be forwarded when the daemon is back.
    lab.conntrack(&["-F"]);
    let mark = daemon.mark();
    daemon.signal(Signal::SIGCONT);
    daemon.wait_for_line_after(mark, "comparing with conntrack", LIMIT);
    daemon.wait_for_line_after(mark, "forwarding", LIMIT);
    wait_until_offloaded(&daemon, 0);
    wait_until_fast(&lab, &client);
}

/// An object as `make` builds it; in a VM without make, it was built before. Of this machine's byte
/// order, the one in the folder of `BPFW_OBJECTS`, if there is any.
fn object(hook: &str, order: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    if let (Ok(folder), true) = (std::env::var("BPFW_OBJECTS"), order == native_order()[0]) {
        return format!("{folder}/{hook}_{order}_bpfw.o");
    }
    let path = format!("{root}/bpf/obj/{hook}_{order}_bpfw.o");
    match Command::new("make").args(["-s", "-C", root, "all"]).status() {
        Ok(made) => assert!(made.success(), "make"),
        Err(_) => assert!(Path::new(&path).exists(), "neither make nor {path}"),
    }
    path
}

fn native_order() -> [&'static str; 2] {
    if cfg!(target_endian = "little") { ["le", "be"] } else { ["be", "le"] }
}

fn the_originals_command_line_works(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let object = object(hook, native_order()[0]);
    let daemon = Daemon::start(&lab.router, &[hook, &object, "lan0", "wan0"]);
    daemon.wait_for_line("forwarding", LIMIT);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    assert!(daemon.stop(LIMIT).success());
}

fn objects_that_do_not_fit_are_refused(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let other_hook = if hook == "xdp" { "tc" } else { "xdp" };
    let [native, foreign] = native_order();
    let foreign_object = object(hook, foreign);
    let words = match foreign {
        "be" => ["for big-endian machines", "this machine is little-endian"],
        _ => ["for little-endian machines", "this machine is big-endian"],
    };
    refuses(&run(&lab, &[hook, &foreign_object, "lan0"]), 1, &words);
    let wrong_hook = object(other_hook, native);
    refuses(&run(&lab, &[hook, &wrong_hook, "lan0"]), 1, &["not made for the hook"]);
    refuses(&run(&lab, &[hook, "/nonexistent.o", "lan0"]), 1, &["/nonexistent.o", "No such file"]);
    refuses(&run(&lab, &[hook, "/etc/hostname", "lan0"]), 1, &["/etc/hostname"]);
    refuses(&run(&lab, &[hook, BPFW, "lan0"]), 1, &["not of BPF code"]);
    refuses(&run(&lab, &[hook, "/", "lan0"]), 1, &["reading the object"]);
    assert_eq!(attached(&lab), before);
}

fn a_strangers_object_is_refused(hook: &str, test: &str) {
    if Command::new("clang").arg("--version").output().is_err() {
        return skip(test, "no clang here to make one with");
    }
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let stranger = stranger(&lab);
    refuses(&run(&lab, &[hook, &stranger, "lan0"]), 1, &["not one of bpfw"]);
    std::fs::remove_file(&stranger).unwrap();
    assert_eq!(attached(&lab), before);
}

/// Somebody else's BPF object.
fn stranger(lab: &Lab) -> String {
    let path = std::env::temp_dir().join(format!("{}.o", lab.router.name()));
    let path = path.display().to_string();
    let source = "__attribute__((section(\"xdp\"), used)) int pass(void *c) { return 2; }
        char LICENSE[] __attribute__((section(\"license\"), used)) = \"GPL\";";
    let target = if cfg!(target_endian = "little") { "bpfel" } else { "bpfeb" };
    let compiler = ["clang", "-target", target, "-O2", "-g", "-x", "c", "-c", "-", "-o", &path];
    lab.router.run_with_input(&compiler, source);
    path
}

fn hazard_32_a_second_instance_is_refused(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let before = attached(&lab);
    for other in ["xdp", "tc"] {
        refuses(&run(&lab, &[other, "wan0"]), 1, &["another bpfw runs at wan0"]);
    }
    assert_eq!(attached(&lab), before);
    assert!(echo_is_fast(&lab, &client, 5), "the first one is untouched");
    drop(daemon);
}

/// Three interfaces, of which one is bad in one way after the other.
fn hazard_24_one_bad_interface_attaches_none(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.ip("tuntap add mode tun name tun0\nlink set tun0 up\n");
    let before = attached(&lab);
    let try_with = |bad: &str, code, words: &[&str]| {
        for order in [["lan0", "wan0", bad], [bad, "lan0", "wan0"]] {
            refuses(&run(&lab, &[&[hook][..], &order].concat()), code, words);
            assert_eq!(attached(&lab), before, "{bad}");
        }
    };
    try_with("wann0", 1, &["no interface wann0", "lan0"]);
    try_with("lo", 1, &["lo: what its packets have in front of the IP header is not known"]);
    if hook == "xdp" {
        try_with("tun0", 1, &["tun0: its packets have no Ethernet header", "use the hook tc"]);
    }
    try_with("lan0", 2, &["lan0 is named twice"]);
}

fn hazard_24_an_interface_in_use_attaches_none(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.ip("link add dmz0 type veth peer name dmz1\nlink set dmz0 up\n");
    let other = Daemon::start(&lab.router, &[hook, "dmz0"]);
    other.wait_for_line("forwarding", LIMIT);
    let before = attached(&lab);
    refuses(&run(&lab, &[hook, "lan0", "wan0", "dmz0"]), 1, &["another bpfw runs at dmz0"]);
    assert_eq!(attached(&lab), before);
    assert!(other.stop(LIMIT).success());
}

/// The kernel attaches no XDP below an interface that has some.
#[test]
fn hazard_24_stacked_interfaces_are_attached_in_any_order() {
    if !root_or_skip("hazard_24_stacked_interfaces_are_attached_in_any_order") {
        return;
    }
    let lab = lab("xdp", "stacked", &snat_rules());
    lab.router.ip(&format!(
        "link add vx0 type vxlan id 5 dev wan0 dstport 4789 remote {SERVER}\nlink set vx0 up\n\
         link add mv0 link lan0 type macvlan\nlink set mv0 up\n"
    ));
    let before = attached(&lab);
    for order in [["vx0", "mv0", "lan0", "wan0"], ["wan0", "lan0", "mv0", "vx0"]] {
        let daemon = Daemon::start(&lab.router, &[&["xdp"][..], &order].concat());
        daemon.wait_for_line("forwarding", LIMIT);
        for [interface, mode] in
            [["lan0", "native"], ["wan0", "native"], ["vx0", "generic"], ["mv0", "generic"]]
        {
            daemon.wait_for_line(&format!("attached to {interface} ({mode} XDP, "), LIMIT);
        }
        assert!(daemon.stop(LIMIT).success());
        assert_eq!(attached(&lab), before);
    }
}

#[test]
fn hazard_24_errors_of_xdp_name_the_cause() {
    if !root_or_skip("hazard_24_errors_of_xdp_name_the_cause") {
        return;
    }
    let lab = lab("xdp", "causes", &snat_rules());
    lab.router.ip("link add mv0 link wan0 type macvlan\nlink set mv0 up\n\
         link add few0 numrxqueues 2 type veth peer name few1 numtxqueues 2\nlink set few0 up\nlink set few1 up\n");
    lab.router.sh("ethtool -L few0 rx 1; ethtool -L few1 tx 2");
    let before = attached(&lab);
    let refuses_with = |mode: &str, bad: &str, words: &[&str]| {
        let output = run(&lab, &["xdp", "--xdp-mode", mode, "lan0", bad]);
        refuses(&output, 1, words);
        assert!(!text(&output.stderr).contains("MTU"), "{}", text(&output.stderr));
        assert_eq!(attached(&lab), before);
    };
    refuses_with("native", "mv0", &["mv0: Operation not supported", "driver has no native XDP"]);
    refuses_with("auto", "few0", &["few0: No space left", "queues"]);
    let bystander = Bystander::load();
    let link = bystander.attach(&lab.router, "mv0", AttachType::Xdp(XDP_GENERIC));
    let before = attached(&lab);
    for mode in ["auto", "native", "generic"] {
        let output = run(&lab, &["xdp", "--xdp-mode", mode, "lan0", "wan0"]);
        refuses(&output, 1, &["wan0: File exists", "while mv0", "has an XDP program"]);
        assert_eq!(attached(&lab), before);
    }
    drop(link);
}

#[test]
fn hazard_24_errors_of_tc_name_the_cause() {
    if !root_or_skip("hazard_24_errors_of_tc_name_the_cause") {
        return;
    }
    let lab = lab("tc", "causes-tc", &snat_rules());
    lab.router.sh("tc qdisc add dev wan0 clsact
         tc filter add dev wan0 ingress prio 65535 protocol all u32 match u32 0 0");
    let before = attached(&lab);
    refuses(&run(&lab, &["tc", "lan0", "wan0"]), 1, &["wan0", "filter kind does not match"]);
    assert_eq!(attached(&lab), before);
    lab.router.sh("tc qdisc del dev wan0 clsact");
    if !sys::has_tcx() {
        return;
    }
    let bystanders: Vec<Bystander> = (0..MOST_PROGRAMS).map(|_| Bystander::load()).collect();
    let attach = |one: &Bystander| one.attach(&lab.router, "wan0", AttachType::TcxEgress);
    let links: Vec<_> = bystanders.iter().map(attach).collect();
    let before = attached(&lab);
    refuses(&run(&lab, &["tc", "lan0", "wan0"]), 1, &["wan0", "as the kernel allows, 63"]);
    assert_eq!(attached(&lab), before);
    drop(links);
}

/// At any moment of the start a signal ends it, with nothing left behind.
fn hazard_24_a_signal_during_the_start_attaches_none(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let before = attached(&lab);
    let mut attached_meanwhile = 0;
    for round in 0..20 {
        // Whoever runs the tests may ignore SIGHUP (nohup).
        let args = ["--default-signal", &program(), hook, "lan0", "wan0"];
        let mut daemon = Daemon::start_program(&lab.router, "env", &args);
        std::thread::sleep(Duration::from_millis(10 * round));
        let signal = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP][round as usize % 3];
        daemon.signal(signal);
        let status = daemon.wait_exit(LIMIT);
        // Before it listens to signals, they just kill it.
        assert!(status.success() || status.signal() == Some(signal as i32), "{status}");
        attached_meanwhile +=
            u32::from(daemon.lines().iter().any(|line| line.contains("attached")));
        // The kernel closes a killed one's links in its wake.
        eventually(LIMIT, "nothing is attached", || attached(&lab) == before);
    }
    println!("{hook}: in {attached_meanwhile} of 20 rounds it had begun to attach");
}

/// How many entries the maps that the daemon holds may have.
fn sizes_of_maps(daemon: &Daemon) -> Vec<u32> {
    let files = std::fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid())).unwrap();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let size = |text: String| {
        text.lines().find_map(|line| line.strip_prefix("max_entries:")?.trim().parse().ok())
    };
    texts.filter_map(size).collect()
}

#[test]
fn hazard_61_the_maps_of_interfaces_grow_with_their_number() {
    if !root_or_skip("hazard_61_the_maps_of_interfaces_grow_with_their_number") {
        return;
    }
    let lab = lab("tc", "numbers", &snat_rules());
    let add = |number| format!("link add ifb{number} type ifb\n");
    lab.router.ip(&(0..1200).map(add).collect::<String>());
    let daemon = start(&lab, "tc", &[]);
    // Beside those: lo, lan0, wan0, and what the kernel adds to each namespace.
    let wanted = 4 * lab.router.sh("ip -o link").lines().count() as u32;
    assert!(wanted >= 4 * 1203, "{wanted}");
    let sizes = sizes_of_maps(&daemon);
    assert!(sizes.iter().filter(|&&size| size == wanted).count() >= 2, "{wanted} in {sizes:?}");
    assert!(daemon.stop(LIMIT).success());
}

/// Voluntary context switches: how often the daemon went to sleep, and so woke up.
fn wake_ups(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Ticks of CPU time, user and system.
fn cpu_ticks(daemon: &Daemon) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn an_idle_daemon_sleeps(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    std::thread::sleep(Duration::from_secs(1));
    let (woken, busy) = (wake_ups(&daemon), cpu_ticks(&daemon));
    std::thread::sleep(Duration::from_secs(3));
    let (woken, busy) = (wake_ups(&daemon) - woken, cpu_ticks(&daemon) - busy);
    println!("{hook}: {woken} wake-ups and {busy} ticks of CPU in 3 s");
    // Ten rounds of housekeeping a second are its pace; a busy loop would be thousands.
    assert!(woken <= 3 * 10 * 3, "{woken} wake-ups in 3 s");
    assert!(busy <= 15, "{busy} ticks of CPU in 3 s");
}

/// A tracefs of the test's own, unmounted at its end.
struct Tracefs(std::path::PathBuf);

impl Tracefs {
    fn mount(test: &str) -> Option<Self> {
        let place = std::env::temp_dir().join(format!("bpfw-{test}-{}", std::process::id()));
        std::fs::create_dir(&place).expect("a new directory");
        let mounted = Command::new("mount").args(["-t", "tracefs", "nodev"]).arg(&place).status();
        let tracefs = Self(place);
        mounted.expect("mount runs").success().then_some(tracefs)
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.0.join("trace")).expect("the trace buffer can be read")
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn asked_to_log_the_datapath_does_or_the_start_is_refused(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    if !kernel_traces() {
        return asked_to_log_it_refuses(&lab, hook);
    }
    let Some(tracefs) = Tracefs::mount(test) else {
        return support::live::lacking(test, "tracefs cannot be mounted");
    };
    let daemon = start(&lab, hook, &["--bpf-log-level", "debug"]);
    let port = 20_000 + std::process::id() as u16 % 20_000 + u16::from(hook == "tc");
    let (_server, client) = echo(&lab, port);
    assert!(client.echoes(0, LIMIT));
    wait_until_offloaded(&daemon, 1);
    assert!(client.echoes(1, LIMIT));
    // Ports are printed as they lie in memory.
    let port = format!("{:x}", port.to_be());
    eventually(LIMIT, "messages in the trace buffer", || {
        let trace = tracefs.text();
        trace.contains("bpfw: verdict 1") && trace.contains(&format!("ports {port}"))
    });
}

fn asked_to_log_it_refuses(lab: &Lab, hook: &str) {
    let before = attached(lab);
    let object = object(hook, native_order()[0]);
    let words = ["--bpf-log-level", "CONFIG_BPF_EVENTS"];
    for level in ["info", "debug"] {
        for object in [&[][..], &[object.as_str()]] {
            let args = [&[hook, "--bpf-log-level", level], object, &["lan0", "wan0"]].concat();
            refuses(&run(lab, &args), 1, &words);
        }
    }
    assert_eq!(attached(lab), before);
    let daemon = start(lab, hook, &["--bpf-log-level", "off"]);
    assert!(daemon.stop(LIMIT).success());
}

#[test]
fn usage_errors_end_with_2_and_say_what_is_meant() {
    let run = |args: &[&str]| Command::new(BPFW).args(args).output().unwrap();
    for (args, word) in [
        (&[][..], "Usage"),
        (&["udp", "lan0"], "unrecognized subcommand"),
        (&["xdp"], "required"),
        (&["xdp", "a.o"], "no interface"),
        (&["tc", "a.o", "b.o", "lan0"], "b.o"),
        (&["tc", "--interval", "5", "lan0"], "10..=1000"),
        (&["tc", "--interval", "x", "lan0"], "--interval"),
        (&["tc", "--max-connections", "0", "lan0"], "--max-connections"),
        (&["tc", "--log-level", "loud", "lan0"], "possible values"),
        (&["tc", "--bpf-log-level", "3", "lan0"], "possible values"),
        (&["xdp", "--xdp-mode", "fast", "lan0"], "native"),
        (&["tc", "--offload-mark", "0x1/0x0", "lan0"], "mask"),
        (&["tc", "--offload-mark", "z", "lan0"], "32-bit number"),
    ] {
        refuses(&run(args), 2, &[word]);
    }
    let help = text(&run(&["tc", "--help"]).stdout);
    for option in [
        "--interval",
        "--max-connections",
        "--log-level",
        "--bpf-log-level",
        "--xdp-mode",
        "--offload-mark",
        "default",
    ] {
        assert!(help.contains(option), "{help}");
    }
}

#[test]
fn without_rights_the_error_says_which() {
    if !root_or_skip("without_rights_the_error_says_which") {
        return;
    }
    let lab = Lab::new("rights", support::lab::Offloads::Plain);
    lab.nft(&snat_rules());
    for hook in ["xdp", "tc"] {
        // All files can still be read; it is the capabilities that are missing.
        let output = lab.router.try_run(&[
            "setpriv",
            "--reuid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "timeout",
            "10",
            BPFW,
            hook,
            "lan0",
        ]);
        refuses(&output, 1, &["root", "CAP_"]);
    }
}
