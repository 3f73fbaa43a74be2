// SPDX-License-Identifier: GPL-2.0-only
//! The fast path no longer forwards a connection that conntrack has forgotten and that could not
//! begin any more. Each test prints how long after the deletion its last packet left.

mod support;

use nix::sys::signal::Signal;
use std::time::Instant;
use support::capture::Capture;
use support::outlaw::{Outlaw, allow_for_a_moment, conntrack};
use support::router::*;
use support::rules::snat_rules;
use support::steady::{expect_frame, is_udp};

on_both_hooks!(
    hazard_04_a_deleted_connection_is_stopped,
    hazard_04_a_flushed_connection_is_stopped,
    hazard_04_a_found_connection_is_stopped,
    hazard_04_a_deletion_behind_many_events_is_heeded,
);

fn outlaw(hook: &str, test: &str, options: &[&str]) -> Outlaw {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, options);
    allow_for_a_moment(&lab);
    let ends = echo(&lab, 40000);
    Outlaw::new(lab, daemon, ends)
}

fn hazard_04_a_deleted_connection_is_stopped(hook: &str, test: &str) {
    let outlaw = outlaw(hook, test, &[]);
    outlaw.expect_end(&format!("{hook}, conntrack -D"), || {
        conntrack(&outlaw.lab, &["-D", "-p", "udp", "--sport", "40000"])
    });
}

fn hazard_04_a_flushed_connection_is_stopped(hook: &str, test: &str) {
    let outlaw = outlaw(hook, test, &[]);
    outlaw.expect_end(&format!("{hook}, conntrack -F"), || conntrack(&outlaw.lab, &["-F"]));
}

/// As on kernels where a connection made before anyone listened sends no events: the audit finds
/// it gone.
fn hazard_04_a_found_connection_is_stopped(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    // With the default of 2 it would depend on whether someone listens in another namespace.
    lab.router.sysctl("net/netfilter/nf_conntrack_events", "0");
    allow_for_a_moment(&lab);
    let ends = echo(&lab, 40000);
    assert!(ends.1.echoes(0, LIMIT));
    lab.router.sysctl("net/netfilter/nf_conntrack_events", "1");
    let daemon = start(&lab, hook, &[]);
    let outlaw = Outlaw::new(lab, daemon, ends);
    outlaw.expect_end(&format!("{hook}, conntrack -F, no events"), || {
        conntrack(&outlaw.lab, &["-F"])
    });
}

/// The daemon has not been running for a moment, and finds the end of its connection behind
/// those of 20,000 others. Its interval is so long that the heartbeat is not late.
fn hazard_04_a_deletion_behind_many_events_is_heeded(hook: &str, test: &str) {
    let mut outlaw = outlaw(hook, test, &["--interval", "1000", "--log-level", "info"]);
    let mut others = String::new();
    for number in 0..20_000 {
        let (port, low) = (1024 + number % 10_000, 10 + number / 10_000);
        others += &format!(
            "-I -p udp -s 192.0.2.{low} -d 203.0.113.9 --sport {port} --dport 9 \
             -r 203.0.113.9 -q 192.0.2.{low} --reply-port-src 9 --reply-port-dst {port} \
             -t 60 -u SEEN_REPLY\n"
        );
    }
    outlaw.lab.router.run_with_input(&["conntrack", "-R", "-"], &others);
    outlaw.daemon.signal(Signal::SIGSTOP);
    conntrack(&outlaw.lab, &["-D", "-p", "udp", "--dport", "9"]);
    conntrack(&outlaw.lab, &["-D", "-p", "udp", "--sport", "40000"]);
    // The one before is full of frames of all that time, which would be read as if they came now.
    outlaw.capture = Capture::open(&outlaw.lab.server, "eth0");
    expect_frame(&outlaw.capture, "nobody knows yet", is_udp);
    outlaw.expect_end(&format!("{hook}, behind 20,000 events"), || {
        outlaw.daemon.signal(Signal::SIGCONT);
        Instant::now()
    });
}
