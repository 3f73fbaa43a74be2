// SPDX-License-Identifier: GPL-2.0-only
//! What bpfw finds out about the kernel that it runs on: used where it is there, and listed for who
//! asks for it.

mod support;

use support::daemon::Daemon;
use support::live::{lacking, root_or_skip};
use support::netns::Namespace;
use support::router::LIMIT;

/// What is listed, and a name that only a kernel which has it knows.
const FEATURES: [(&str, &str); 4] = [
    ("TCX", TCX),
    ("route look-ups by mark", "BPF_FIB_LOOKUP_MARK"),
    ("descriptions of drivers", DESCRIPTIONS),
    ("live frames", "xdp_test_data"),
];
const TCX: &str = "BPF_TCX_INGRESS";
const DESCRIPTIONS: &str = "NETDEV_XDP_ACT_NDO_XMIT";
const DEVICES: [&str; 2] = ["lan0", "wan0"];

/// The names in the kernel's description of its own types.
struct Names(Vec<u8>);

impl Names {
    fn of_this_kernel(test: &str) -> Option<Self> {
        if !root_or_skip(test) {
            return None;
        }
        let names = std::fs::read("/sys/kernel/btf/vmlinux").ok().map(Self);
        if names.is_none() {
            lacking(test, "this kernel has no BTF, which would say what it has");
        }
        names
    }

    fn have(&self, name: &str) -> bool {
        let name = format!("\0{name}\0");
        self.0.windows(name.len()).any(|window| window == name.as_bytes())
    }
}

fn start(hook: &str) -> (Namespace, Daemon) {
    let router = Namespace::new(&format!("kernel-{hook}"));
    for device in DEVICES {
        router.ip(&format!(
            "link add {device} type veth peer name {device}-peer\n\
             link set {device}-peer up\nlink set {device} up\n"
        ));
    }
    let daemon = Daemon::start(&router, &[&[hook, "--log-level", "debug"][..], &DEVICES].concat());
    daemon.wait_for_line("forwarding", LIMIT);
    (router, daemon)
}

fn says(daemon: &Daemon, part: &str) -> bool {
    daemon.lines().iter().any(|line| line.contains(part))
}

fn lists_what_this_kernel_has(daemon: &Daemon, names: &Names) {
    for (feature, name) in FEATURES {
        let there = names.have(name);
        assert_eq!(says(daemon, &format!("this kernel has {feature}")), there, "{feature}");
        assert_eq!(says(daemon, &format!("this kernel has no {feature}: ")), !there, "{feature}");
    }
}

/// Runs bpfw where the kernel can tell what it has.
fn on_this_kernel(test: &str, hook: &str, check: impl Fn(&Daemon, &Names)) {
    if let Some(names) = Names::of_this_kernel(test) {
        let (_router, daemon) = start(hook);
        lists_what_this_kernel_has(&daemon, &names);
        check(&daemon, &names);
    }
}

#[test]
fn tcx_is_used_where_it_is_there() {
    on_this_kernel("tcx_is_used_where_it_is_there", "tc", |daemon, names| {
        let kind = if names.have(TCX) { "Tcx" } else { "Clsact" };
        for device in DEVICES {
            assert!(says(daemon, &format!("attached to {device} ({kind})")), "{kind}");
        }
    });
}

#[test]
fn drivers_are_asked_where_they_are_described() {
    on_this_kernel("drivers_are_asked_where_they_are_described", "xdp", |daemon, names| {
        let word = if names.have(DESCRIPTIONS) {
            "its driver takes"
        } else {
            "this kernel does not tell what its driver takes"
        };
        for device in DEVICES {
            assert!(says(daemon, &format!("{device}: {word}")), "{word}");
        }
    });
}
