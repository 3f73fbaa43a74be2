// SPDX-License-Identifier: GPL-2.0-only
//! What bpfw finds out about the kernel that it runs on: used where it is there, and listed for who
//! asks for it.

mod support;

use bpfw::datapath::Hook;
use bpfw::datapath::probe;
use bpfw::datapath::skeleton::{OpenSkeleton, Storage};
use nix::sys::utsname::uname;
use std::time::{Duration, Instant};
use support::daemon::Daemon;
use support::lab::{ROUTER_WAN, SERVER};
use support::live::root_or_skip;
use support::netns::Namespace;
use support::router::*;
use support::rules::snat_rules;
use support::tcp::{Path, TcpPair};

/// What is listed, a name that only a kernel which has it knows, and the release since which all have
/// it, if any.
struct Feature {
    listed: &'static str,
    name: &'static str,
    since: Option<(u32, u32)>,
}

const TCX: Feature = Feature { listed: "TCX", name: "BPF_TCX_INGRESS", since: Some((6, 6)) };
const MARKS: Feature =
    Feature { listed: "route look-ups by mark", name: "BPF_FIB_LOOKUP_MARK", since: Some((6, 10)) };
const DESCRIPTIONS: Feature = Feature {
    listed: "descriptions of drivers",
    name: "NETDEV_XDP_ACT_NDO_XMIT",
    since: Some((6, 3)),
};
const LIVE_FRAMES: Feature =
    Feature { listed: "live frames", name: "xdp_test_data", since: Some((5, 18)) };
const MESSAGES: Feature =
    Feature { listed: "messages of BPF programs", name: "bpf_trace_printk", since: None };
const FEATURES: [Feature; 5] = [TCX, MARKS, DESCRIPTIONS, LIVE_FRAMES, MESSAGES];
const DEVICES: [&str; 2] = ["lan0", "wan0"];

/// What the running kernel has: by its description of its own types, or where it has none, as
/// OpenWrt's, by its release.
struct Kernel {
    types: Option<Vec<u8>>,
    release: (u32, u32),
}

impl Kernel {
    fn running() -> Self {
        let name = uname().expect("a name").release().to_string_lossy().into_owned();
        let mut numbers = name
            .split(|each: char| !each.is_ascii_digit())
            .map(|number| number.parse().expect("digits"));
        let mut next = || numbers.next().expect("two numbers");
        Self { types: std::fs::read("/sys/kernel/btf/vmlinux").ok(), release: (next(), next()) }
    }

    fn has(&self, feature: &Feature) -> bool {
        let name = format!("\0{}\0", feature.name);
        match (&self.types, feature.since) {
            (Some(types), _) => types.windows(name.len()).any(|window| window == name.as_bytes()),
            (None, Some(release)) => self.release >= release,
            (None, None) => kernel_traces(),
        }
    }
}

/// `BPF_F_STRICT_ALIGNMENT`: as on machines that need aligned access.
const STRICT: u32 = 1;

#[test]
fn hazard_38_only_packets_without_an_ethernet_header_need_unaligned_access() {
    if !root_or_skip("aligned") {
        return;
    }
    assert!(probe::can_read_without_header(), "no machine in the tests needs alignment");
    for hook in [Hook::Xdp, Hook::Tc] {
        let mut storage = Storage::uninit();
        let mut skeleton = OpenSkeleton::open(hook, &mut storage).expect("opening");
        let refused = ["bpfw_tc_l3", "bpfw_egress_l3"];
        for mut program in skeleton.object_mut().progs_mut() {
            program.set_flags(STRICT);
            program.set_autoload(!refused.iter().any(|name| program.name() == *name));
        }
        assert!(skeleton.load().is_ok(), "{}: all others load", hook.name());
    }
}

fn start_at_veths(hook: &str, options: &[&str]) -> (Namespace, Daemon) {
    let router = Namespace::new(&format!("kernel-{hook}"));
    for device in DEVICES {
        router.ip(&format!(
            "link add {device} type veth peer name {device}-peer\n\
             link set {device}-peer up\nlink set {device} up\n"
        ));
    }
    let args = [&[hook, "--log-level", "debug"], options, &DEVICES].concat();
    let daemon = Daemon::start(&router, &args);
    daemon.wait_for_line("forwarding", LIMIT);
    (router, daemon)
}

fn says(daemon: &Daemon, part: &str) -> bool {
    daemon.lines().iter().any(|line| line.contains(part))
}

fn lists_what_this_kernel_has(daemon: &Daemon, kernel: &Kernel) {
    for feature in FEATURES {
        let (there, listed) = (kernel.has(&feature), feature.listed);
        assert_eq!(says(daemon, &format!("this kernel has {listed}")), there, "{listed}");
        assert_eq!(says(daemon, &format!("this kernel has no {listed}: ")), !there, "{listed}");
    }
}

/// Runs bpfw with these options, and looks at what it says.
fn on_this_kernel(test: &str, hook: &str, options: &[&str], check: impl Fn(&Daemon, &Kernel)) {
    if root_or_skip(test) {
        let kernel = Kernel::running();
        let (_router, daemon) = start_at_veths(hook, options);
        lists_what_this_kernel_has(&daemon, &kernel);
        check(&daemon, &kernel);
    }
}

#[test]
fn tcx_is_used_where_it_is_there() {
    on_this_kernel("tcx_is_used_where_it_is_there", "tc", &[], |daemon, kernel| {
        let kind = if kernel.has(&TCX) { "TCX" } else { "clsact" };
        for device in DEVICES {
            assert!(says(daemon, &format!("attached to {device} ({kind}, veth)")), "{kind}");
        }
    });
}

#[test]
fn drivers_are_asked_where_they_are_described() {
    on_this_kernel("drivers_are_asked_where_they_are_described", "xdp", &[], |daemon, kernel| {
        let word = if kernel.has(&DESCRIPTIONS) {
            "its driver takes"
        } else {
            "this kernel does not tell what its driver takes"
        };
        for device in DEVICES {
            assert!(says(daemon, &format!("{device}: {word}")), "{word}");
        }
    });
}

#[test]
fn a_mask_of_marks_is_called_useless_where_it_is() {
    let options = ["--route-mark-mask", "0xff00"];
    for hook in ["xdp", "tc"] {
        let test = "a_mask_of_marks_is_called_useless_where_it_is";
        on_this_kernel(test, hook, &options, |daemon, kernel| {
            let without = says(daemon, "no effect: this kernel's look-ups heed no marks");
            assert_eq!(without, !kernel.has(&MARKS), "{hook}");
        });
    }
}

/// Where the kernel does not tell what a veth takes, XDP leaves packets to it to the stack. Nothing
/// is lost, and nothing is redirected.
#[test]
fn xdp_redirects_to_veths_where_drivers_are_described() {
    if !root_or_skip("xdp_redirects_to_veths_where_drivers_are_described") {
        return;
    }
    let lab = lab("xdp", "kernel-redirects", &snat_rules());
    let daemon = start(&lab, "xdp", &[]);
    let (server, client) = echo(&lab, 40000);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    if Kernel::running().has(&DESCRIPTIONS) {
        wait_until_fast(&lab, &client);
        return wait_until_tcp_fast(&lab, &pair);
    }
    assert!(says(&daemon, "packets to wan0 go by the stack"));
    // For longer than it takes to become a stream.
    let (started, mut number) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(3) {
        number += 1;
        assert!(!echo_is_fast(&lab, &client, number), "echo {number}");
        assert!(!tcp_is_fast(&lab, &pair), "exchange {number}");
    }
    assert!(server.sources().iter().all(|source| *source.ip() == ROUTER_WAN));
    wait_until_offloaded(&daemon, 2);
}
