// SPDX-License-Identifier: GPL-2.0-only
//! Drivers of real NICs, which QEMU emulates. How bpfw attaches to each of them, which directions
//! are fast, and what it says where one is not. `make test-nic` runs this in VMs.

mod support;

use bpfw::reasons::interface::Problem;
use std::time::Duration;
use support::daemon::Daemon;
use support::lab::{Lab, SERVER};
use support::nics::{Segment, chosen};
use support::router::*;
use support::rules::snat_rules;
use support::tcp::{Direction, Path, TcpPair};
use support::udp::UdpClient;
use support::wait::becomes_true;

/// Of the echoes that decide which directions are fast.
const ECHOES: u64 = 100;
const PROOFS: u64 = 20;
/// Longer than an emulated machine needs for one.
const ECHO_LIMIT: Duration = Duration::from_secs(5);
/// What bpfw says of an interface whose driver does not run the program.
const UNSEEN: &str = Problem::XdpNotRun.reason().words;
const BYTES: u64 = 2 << 20;

/// What becomes of native XDP at a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Xdp {
    Native,
    /// Attached, but the driver's way of receiving does not run the program.
    Unseen,
    /// The driver has none.
    Generic,
    /// The driver has none with these settings, and generic XDP would see no complete packet.
    Refused,
}

impl Xdp {
    fn of(segment: &Segment) -> Self {
        let release = nix::sys::utsname::uname().expect("a kernel");
        let is_6_1 = release.release().to_string_lossy().starts_with("6.1.");
        match segment.form.as_str() {
            "virtio" | "igb" => Self::Native,
            "virtio-big" => Self::Unseen,
            "virtio-fixed" => Self::Refused,
            "e1000e" => Self::Generic,
            // It has native XDP since Linux 6.6.
            "vmxnet3" if is_6_1 => Self::Generic,
            "vmxnet3" => Self::Native,
            other => panic!("no expectation for {other}"),
        }
    }

    fn mode(self) -> &'static str {
        if self == Self::Generic { "generic XDP" } else { "native XDP" }
    }
}

/// Whether packets that come in at the one leave by the other without the stack.
fn is_fast(from: Xdp, to: Xdp) -> bool {
    let all_generic = [from, to] == [Xdp::Generic; 2];
    from != Xdp::Unseen && (all_generic || to != Xdp::Generic)
}

fn segments(test: &str) -> Option<&'static [Segment; 2]> {
    let segments = chosen();
    if segments.is_none() {
        support::live::lacking(test, "no NICs here: make test-nic");
    }
    segments
}

#[test]
#[ignore = "needs NICs: make test-nic"]
fn tc() {
    if segments("tc").is_none() {
        return;
    }
    let lab = lab("tc", "nic-tc", &snat_rules());
    let daemon = start(&lab, "tc", &[]);
    expect(&lab, &daemon, [true; 2]);
    assert!(daemon.stop(LIMIT).success());
}

#[test]
#[ignore = "needs NICs: make test-nic"]
fn xdp() {
    let Some(segments) = segments("xdp") else { return };
    let [lan, wan] = segments.each_ref().map(Xdp::of);
    let lab = lab("xdp", "nic-xdp", &snat_rules());
    if [lan, wan].contains(&Xdp::Refused) {
        return expect_refusal(&lab);
    }
    let daemon = start(&lab, "xdp", &["--prove-every", "4"]);
    for (name, xdp) in [("lan0", lan), ("wan0", wan)] {
        daemon.wait_for_line(&format!("attached to {name} ({})", xdp.mode()), LIMIT);
    }
    for (name, segment) in ["lan0", "wan0"].iter().zip(segments) {
        let warning = format!("{name}: {}: igb", Problem::LinkResets);
        let resets = daemon.lines().iter().any(|line| line.contains(&warning));
        assert_eq!(resets, segment.resets(), "{name} is {}", segment.form);
    }
    expect(&lab, &daemon, [is_fast(lan, wan), is_fast(wan, lan)]);
    for (name, to, from) in [("lan0", lan, wan), ("wan0", wan, lan)] {
        if to == Xdp::Unseen {
            await_unseen(&lab, &daemon, name);
        }
        if to == Xdp::Generic && from != Xdp::Generic {
            daemon.wait_for_line(&format!("packets to {name} go by the stack"), LIMIT);
        }
    }
    assert!(daemon.stop(LIMIT).success());
}

/// The warning needs some frames, and two periods without a run.
fn await_unseen(lab: &Lab, daemon: &Daemon, name: &str) {
    let (_server, client) = echo(lab, 40001);
    let is_warning =
        |line: &String| line.contains(&format!("WARN {name}: ")) && line.contains(UNSEEN);
    let warned = becomes_true(LIMIT, || {
        client.count_echoes(0..10, ECHO_LIMIT);
        daemon.lines().iter().any(is_warning)
    });
    assert!(warned, "nothing is said of {name}:\n{}", daemon.lines().join("\n"));
}

fn expect_refusal(lab: &Lab) {
    let mut refused = Daemon::start(&lab.router, &["xdp", "lan0", "wan0"]);
    let status = refused.wait_exit(LIMIT);
    let error = refused.lines().join("\n");
    assert_eq!(status.code(), Some(1), "{error}");
    assert!(error.contains("use the hook tc"), "{error}");
}

/// Which directions are fast: to the server, and to the client. All arrives intact in any case.
fn expect(lab: &Lab, daemon: &Daemon, fast: [bool; 2]) {
    let (_server, client) = echo(lab, 40000);
    let arrives = becomes_true(LIMIT, || client.echoes(0, ECHO_LIMIT));
    assert!(arrives, "nothing arrives over these NICs");
    let slow = fast.iter().filter(|fast| !**fast).count() as u64;
    // A busy machine makes the daemon pause the fast path now and then; that passes.
    let reached = becomes_true(LIMIT, || {
        let by_the_stack = datagrams_by_the_stack(lab, &client);
        println!("{by_the_stack} of {} datagrams by the stack", 2 * ECHOES);
        // Each direction proves itself every few seconds.
        (slow * ECHOES..=slow * ECHOES + PROOFS).contains(&by_the_stack)
    });
    assert!(reached, "not these directions are fast: {fast:?}");

    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    pair.exchange();
    let reached = becomes_true(LIMIT, || {
        let (before, counted) = (lab.stack_packets(), forwarded(daemon));
        for (direction, seed) in [(Direction::ToServer, 1), (Direction::ToClient, 2)] {
            pair.transfer(direction, BYTES, seed);
        }
        let (stack, fast) = (lab.stack_packets() - before, forwarded(daemon) - counted);
        println!("TCP: {fast} packets on the fast path, {stack} by the stack");
        match slow {
            0 => stack * 20 <= fast,
            1 => fast > 0 && stack > 0,
            _ => fast == 0,
        }
    });
    assert!(reached, "TCP by other ways than {fast:?}");
}

/// Of so many echoes, there and back.
fn datagrams_by_the_stack(lab: &Lab, client: &UdpClient) -> u64 {
    let before = lab.stack_packets_of("udp");
    assert_eq!(client.count_echoes(0..ECHOES, ECHO_LIMIT), ECHOES as usize, "some are lost");
    lab.stack_packets_of("udp") - before
}
