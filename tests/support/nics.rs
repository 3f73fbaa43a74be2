// SPDX-License-Identifier: GPL-2.0-only
//! NICs that QEMU emulates, at the lab's router in place of veth pairs (`make test-nic`).

use super::netns::{Namespace, text};
use super::packet::Mac;
use super::wait::eventually;
use bpfw::flow::family::Families;
use bpfw::netlink::monitor::Monitor;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// QEMU's igb, and every driver after it was reset, negotiates its link for some seconds.
const LINK_LIMIT: Duration = Duration::from_secs(60);
/// What an interface may have been left with by the test before.
const DEFAULTS: &str = "rx on tx on sg on tso on gso on gro on rxvlan on txvlan on";

/// A router's NIC and a host's, at both ends of a cable.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The name by which `tests/nic/test` knows the router's NIC.
    pub form: String,
    /// The number that `tests/vm/run` gave the segment.
    number: u8,
}

/// The segments for LAN and WAN, by the environment variable `BPFW_NICS="igb:1 e1000e:3"`.
pub fn chosen() -> Option<&'static [Segment; 2]> {
    static CHOSEN: OnceLock<Option<[Segment; 2]>> = OnceLock::new();
    CHOSEN.get_or_init(read).as_ref()
}

fn read() -> Option<[Segment; 2]> {
    let words = std::env::var("BPFW_NICS").ok()?;
    let segment = |word: &str| {
        let (form, number) = word.split_once(':').expect("form:number");
        Segment { form: form.to_owned(), number: number.parse().expect("a segment's number") }
    };
    let segments: Vec<Segment> = words.split_whitespace().map(segment).collect();
    Some(segments.try_into().expect("BPFW_NICS names two segments"))
}

impl Segment {
    /// Moves the router's NIC and the host's to these namespaces, under these names, with these
    /// addresses, and sets both up.
    pub fn lay(&self, router: (&Namespace, &str, Mac), host: (&Namespace, &str, Option<Mac>)) {
        put(self.mac(2), router.0, router.1, Some(router.2));
        put(self.mac(1), host.0, host.1, host.2);
    }

    /// Whether its driver resets the NIC when XDP is attached or detached.
    pub fn resets(&self) -> bool {
        self.form == "igb"
    }

    /// The permanent address, as `tests/vm/run` gives it.
    fn mac(&self, side: u8) -> Mac {
        [0x52, 0x54, 0, 0, side, self.number]
    }
}

fn put(permanent: Mac, namespace: &Namespace, name: &str, mac: Option<Mac>) {
    let device = find(permanent);
    let to = namespace.name();
    sh(&format!("ip link set {device} down; ip link set {device} netns {to} name {name}"));
    let mac = mac.unwrap_or(permanent);
    namespace.ip(&format!("link set {name} mtu 1500\nlink set {name} address {}\n", show(mac)));
    // Of these, not every driver can change each.
    for setting in DEFAULTS.split(' ').collect::<Vec<_>>().chunks(2) {
        namespace.try_run(&["ethtool", "-K", name, setting[0], setting[1]]);
    }
    namespace.ip(&format!("link set {name} up\n"));
}

/// The interface in the first network namespace with this permanent address. A namespace that ends
/// gives its NICs back there, which takes it a moment.
fn find(permanent: Mac) -> String {
    let mut found = None;
    eventually(LINK_LIMIT, "the NIC is back in the first namespace", || {
        let links = sh("ip -o -d link");
        let own = links.lines().find(|link| link.contains(&show(permanent)));
        found = own.and_then(|link| link.split(": ").nth(1)).map(str::to_owned);
        found.is_some()
    });
    found.expect("it was found")
}

/// Waits until all of these interfaces have a carrier.
pub fn wait_for_carrier(namespace: &Namespace, names: &[&str]) {
    let running = || {
        let monitor = namespace.enter(|| Monitor::open(Families::Ipv4).expect("rtnetlink"));
        let links = &monitor.network().links;
        let is_running =
            |name: &&str| links.values().any(|link| link.name == *name && link.running);
        names.iter().all(is_running)
    };
    eventually(LINK_LIMIT, "the NICs have a carrier", running);
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().expect("a shell");
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn show(mac: Mac) -> String {
    super::lab::show(mac)
}
