// SPDX-License-Identifier: GPL-2.0-only
//! A lab whose router runs bpfw at one of the hooks, and how to see which path packets take.

use super::daemon::Daemon;
use super::lab::{CLIENT, Lab, Offloads, SERVER};
use super::live::{lacking, root_or_skip};
use super::maps::Maps;
use super::netns::Namespace;
use super::nics;
use super::tcp::TcpPair;
use super::udp::{UdpClient, UdpEcho, udp_echo};
use super::wait::{becomes_true, eventually};
use bpfw::abi;
use bpfw::netlink::drivers::Drivers;
use nix::net::if_::if_nametoindex;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::OnceLock;
use std::time::Duration;

/// Longer than anything here takes on a busy or emulated machine; nothing is timed by it.
pub const LIMIT: Duration = Duration::from_secs(30);
pub const ECHO: SocketAddrV4 = SocketAddrV4::new(SERVER, 7);

pub fn at(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}

/// Makes two tests of a function: one for each hook. The function gets the hook's word and the
/// test's name. Those that are said to be `redirecting nothing` run with XDP on any kernel.
#[macro_export]
macro_rules! on_both_hooks {
    (redirecting nothing: $($rest:tt)+) => {
        $crate::on_both_hooks!(@$crate::support::live::root_or_skip, $($rest)+);
    };
    ($first:ident $($rest:tt)*) => {
        $crate::on_both_hooks!(@$crate::support::router::xdp_or_skip, $first $($rest)*);
    };
    (@$ready:path, $($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn xdp() {
                if $ready(concat!(stringify!($name), "::xdp")) {
                    super::$name("xdp", concat!(stringify!($name), "-x"));
                }
            }

            #[test]
            fn tc() {
                if $crate::support::live::root_or_skip(concat!(stringify!($name), "::tc")) {
                    super::$name("tc", concat!(stringify!($name), "-t"));
                }
            }
        }
    )+};
}

/// As `root_or_skip`, for a test in which XDP redirects to a veth.
///
/// Before Linux 6.3 the kernel does not tell whether a veth's peer takes that, so that bpfw leaves
/// such packets to the stack.
pub fn xdp_or_skip(test: &str) -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    if !root_or_skip(test) {
        return false;
    }
    if nics::chosen().is_some() {
        return true;
    }
    let tells = *TELLS.get_or_init(veth_tells_features);
    if !tells {
        lacking(test, "this kernel does not tell whether a veth takes frames that XDP redirects");
    }
    tells
}

fn veth_tells_features() -> bool {
    let namespace = Namespace::new("features");
    namespace.ip("link add v0 type veth peer name v1\n");
    namespace.enter(|| {
        let index = if_nametoindex("v0").expect("it was just made");
        Drivers::open().and_then(|mut drivers| drivers.features(index)).expect("an answer") != 0
    })
}

/// Kernels without tracing, such as OpenWrt's, have no `bpf_trace_printk` either.
pub fn kernel_traces() -> bool {
    std::fs::read_to_string("/proc/filesystems").expect("procfs").contains("tracefs")
}

/// What the hosts' interfaces must be set to: TC copes with everything, and a NIC completes what its
/// sender has left to do.
pub fn offloads(hook: &str) -> Offloads {
    if hook == "xdp" && nics::chosen().is_none() { Offloads::Plain } else { Offloads::Default }
}

/// A lab with these rules, ready for bpfw.
pub fn lab(hook: &str, test: &str, rules: &str) -> Lab {
    let lab = Lab::new(test, offloads(hook));
    lab.nft(rules);
    lab.route_server_via_router();
    lab
}

/// Starts bpfw on both interfaces of the lab's router and waits until it forwards. It has room for
/// 16,000 connections if not said otherwise: the tests read all of its cells, again and again. Nor do
/// connections prove themselves now and then: tests that count packets would see these.
pub fn start(lab: &Lab, hook: &str, options: &[&str]) -> Daemon {
    start_at(lab, hook, options, &["lan0", "wan0"])
}

/// The same on other interfaces.
pub fn start_at(lab: &Lab, hook: &str, options: &[&str], names: &[&str]) -> Daemon {
    let mut args = [&[hook][..], options].concat();
    let usual = [["--log-level", "debug"], ["--max-connections", "16000"], ["--prove-every", "0"]];
    for [option, value] in usual {
        if !options.contains(&option) {
            args.extend([option, value]);
        }
    }
    args.extend(names);
    let daemon = Daemon::start(&lab.router, &args);
    daemon.wait_for_line("forwarding", LIMIT);
    // Some drivers reset their NIC when XDP is attached.
    lab.wait_for_carrier();
    daemon
}

/// An echo server at the lab's server, and a client with this port.
pub fn echo(lab: &Lab, port: u16) -> (UdpEcho, UdpClient) {
    let server = udp_echo(&lab.server, ECHO);
    (server, UdpClient::open(&lab.client, at(CLIENT, port), ECHO))
}

/// Whether an echo came back without the router's stack forwarding anything.
pub fn echo_is_fast(lab: &Lab, client: &UdpClient, number: u64) -> bool {
    let before = lab.stack_packets();
    assert!(client.echoes(number, LIMIT), "echo {number} is lost");
    lab.stack_packets() == before
}

/// Sends echoes until conntrack calls them a stream, which takes 2 s, and one takes the fast
/// path both ways.
pub fn wait_until_fast(lab: &Lab, client: &UdpClient) {
    let mut number = 1_000_000;
    eventually(LIMIT, "the echo takes the fast path, as a stream", || {
        number += 1;
        std::thread::sleep(Duration::from_millis(20));
        echo_is_fast(lab, client, number) && is_stream(lab, client)
    });
}

fn is_stream(lab: &Lab, client: &UdpClient) -> bool {
    let port = client.socket().local_addr().expect("bound").port();
    let entries = lab.conntrack_list();
    let mut own = entries.lines().filter(|entry| entry.contains(&format!("sport={port} ")));
    own.any(|entry| entry.contains("[ASSURED]"))
}

/// Sends texts until an exchange takes the fast path both ways.
pub fn wait_until_tcp_fast(lab: &Lab, pair: &TcpPair) {
    eventually(LIMIT, "TCP takes the fast path", || tcp_is_fast(lab, pair));
}

/// Whether a short exchange took the fast path both ways.
pub fn tcp_is_fast(lab: &Lab, pair: &TcpPair) -> bool {
    let before = lab.stack_packets();
    pair.exchange();
    // The last acknowledgement may be on its way.
    std::thread::sleep(Duration::from_millis(60));
    lab.stack_packets() == before
}

/// How many connections the daemon has offloaded.
pub fn offloaded(daemon: &Daemon) -> usize {
    Maps::of(daemon.pid()).connections().len() / 2
}

/// Waits until the daemon has this many connections offloaded.
pub fn wait_until_offloaded(daemon: &Daemon, number: usize) {
    let reached = becomes_true(LIMIT, || offloaded(daemon) == number);
    assert!(reached, "{} connections instead of {number}", offloaded(daemon));
}

/// Packets that the datapath of this daemon forwarded.
pub fn forwarded(daemon: &Daemon) -> u64 {
    Maps::of(daemon.pid()).packets(abi::BPFW_FORWARDED)
}
