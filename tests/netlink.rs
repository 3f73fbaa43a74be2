// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's answers and events, each test in a network namespace of its own.

#[path = "support/live.rs"]
mod live;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use bpfw::flow::family::{Families, Family};
use bpfw::flow::tuple::{Protocol, Tuple};
use bpfw::netlink::monitor::{Changes, Monitor};
use bpfw::netlink::routing_sysctls::RoutingSysctls;
use bpfw::netlink::tc::{self, Filter, IngressQdisc, Qdiscs};
use bpfw::netlink::xfrm::Xfrm;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

const LIMIT: Duration = Duration::from_secs(2);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Runs a test on a thread in a new network namespace, which goes with the thread.
fn in_namespace(test: &str, body: fn()) {
    if !live::root_or_skip(test) {
        return;
    }
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
        run("ip link set lo up");
        run("ip link add v0 type veth peer name v1");
        run("ip link set v0 up");
        run("ip link set v1 up");
        run("ip addr add 10.0.0.1/24 dev v0");
        body();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

fn output(command: &str) -> (bool, String) {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a command");
    let output = Command::new(program).args(words).output().expect("the command can be started");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn run(command: &str) -> String {
    let (success, text) = output(command);
    assert!(success, "{command}: {text}");
    text
}

/// Runs many ip(8) commands in one go.
fn run_batch(name: &str, lines: &str) {
    let file = std::env::temp_dir().join(format!("bpfw-{name}-{}", std::process::id()));
    std::fs::write(&file, lines).expect("a temporary file");
    let (success, text) = output(&format!("ip -batch {}", file.display()));
    std::fs::remove_file(&file).expect("the temporary file is there");
    assert!(success, "{text}");
}

fn read(monitor: &mut Monitor) -> Changes {
    monitor.read(Instant::now() + LIMIT).expect("events can be read")
}

/// A monitor that has seen what the test prepared.
fn settled() -> Monitor {
    settled_for(Families::Ipv4)
}

fn settled_for(families: Families) -> Monitor {
    let mut monitor = Monitor::open(families).expect("the monitor opens");
    settle(&mut monitor);
    monitor
}

/// Lets the carriers' and link-local addresses' own events pass.
fn settle(monitor: &mut Monitor) {
    while readable(monitor, Duration::from_millis(200)) {
        read(monitor);
    }
}

fn readable(monitor: &Monitor, limit: Duration) -> bool {
    fd_readable(monitor.as_fd(), limit)
}

fn fd_readable(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    let timeout = PollTimeout::try_from(limit).expect("a short time");
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, timeout).expect("the socket can be polled") > 0
}

/// Runs a command and waits until the wanted change is reported.
#[track_caller]
fn expect(monitor: &mut Monitor, command: &str, wanted: fn(&Changes) -> bool) {
    run(command);
    wait_for(monitor, command, wanted);
}

#[track_caller]
fn wait_for(monitor: &mut Monitor, what: &str, wanted: fn(&Changes) -> bool) {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if readable(monitor, Duration::from_millis(50)) && wanted(&read(monitor)) {
            settle(monitor);
            return;
        }
    }
    panic!("{what}: not reported");
}

/// Runs a command and sees to it that its events report nothing.
#[track_caller]
fn expect_nothing(monitor: &mut Monitor, command: &str) {
    run(command);
    assert!(readable(monitor, LIMIT), "{command}: no event at all");
    while readable(monitor, Duration::from_millis(200)) {
        let changes = read(monitor);
        assert_eq!(changes, Changes { drained: true, ..Changes::default() }, "{command}");
    }
}

fn index(monitor: &Monitor, name: &str) -> u32 {
    let links = &monitor.network().links;
    links.values().find(|link| link.name == name).expect("the link is known").index
}

#[test]
fn hazard_07_route_changes_are_reported() {
    in_namespace("hazard_07_route_changes_are_reported", || {
        let mut monitor = settled();
        let v0 = index(&monitor, "v0");
        let forwarding = |changes: &Changes| changes.forwarding;
        expect(&mut monitor, "ip route add 192.0.2.0/24 via 10.0.0.2", forwarding);
        expect(&mut monitor, "ip route replace 192.0.2.0/24 via 10.0.0.3", forwarding);
        expect(&mut monitor, "ip route del 192.0.2.0/24", forwarding);
        expect(&mut monitor, "ip nexthop add id 5 via 10.0.0.2 dev v0", forwarding);
        expect(&mut monitor, "ip route add 192.0.2.0/24 nhid 5 mtu 1350", forwarding);
        assert_eq!(monitor.network().routes.ipv4.smallest_mtu(v0), Some(1350));
        expect(&mut monitor, "ip nexthop replace id 5 via 10.0.0.3 dev v0", forwarding);
        expect(&mut monitor, "ip nexthop del id 5", forwarding);
    });
}

#[test]
fn hazard_14_rules_are_reported_and_read() {
    in_namespace("hazard_14_rules_are_reported_and_read", || {
        let mut monitor = settled();
        let policy = |changes: &Changes| changes.forwarding && changes.policy;
        assert_eq!(monitor.network().rules.ipv4.fwmark_bits, 0);
        expect(&mut monitor, "ip rule add fwmark 0x100/0x3f00 table 7", policy);
        assert_eq!(monitor.network().rules.ipv4.fwmark_bits, 0x3f00);
        assert_eq!(settled().network().rules.ipv4.fwmark_bits, 0x3f00);
        expect(&mut monitor, "ip rule del fwmark 0x100/0x3f00", policy);
        assert_eq!(monitor.network().rules.ipv4.fwmark_bits, 0);
        expect(&mut monitor, "ip rule add tos 0x10 table 7", policy);
        assert!(monitor.network().rules.ipv4.tos);
    });
}

#[test]
fn hazard_14_routes_over_several_next_hops_are_known() {
    in_namespace("hazard_14_routes_over_several_next_hops_are_known", || {
        let mut monitor = settled();
        let routing = |changes: &Changes| changes.routing;
        let several = "nexthop via 10.0.0.2 nexthop via 10.0.0.3";
        assert!(!monitor.network().has_multipath(Family::Ipv4));
        expect(&mut monitor, &format!("ip route add 10.7.0.0/16 {several}"), routing);
        assert!(monitor.network().has_multipath(Family::Ipv4));
        assert!(settled().network().has_multipath(Family::Ipv4), "by a dump as well");
        expect(&mut monitor, "ip route replace 10.7.0.0/16 via 10.0.0.2", routing);
        assert!(!monitor.network().has_multipath(Family::Ipv4));
        expect(&mut monitor, &format!("ip route replace 10.7.0.0/16 {several}"), routing);
        expect(&mut monitor, "ip route append 10.7.0.0/16 via 10.0.0.2", routing);
        expect(&mut monitor, "ip route prepend 10.7.0.0/16 via 10.0.0.4", routing);
        assert!(monitor.network().has_multipath(Family::Ipv4));
        expect(&mut monitor, &format!("ip route del 10.7.0.0/16 {several}"), routing);
        assert!(!monitor.network().has_multipath(Family::Ipv4));
    });
}

#[test]
fn hazard_58_groups_of_next_hops_are_known() {
    in_namespace("hazard_58_groups_of_next_hops_are_known", || {
        run("ip nexthop add id 1 via 10.0.0.2 dev v0");
        run("ip nexthop add id 2 via 10.0.0.3 dev v0");
        let mut monitor = settled();
        let routing = |changes: &Changes| changes.routing;
        let mut expect = |command: &str, multipath, resilient| {
            expect(&mut monitor, command, routing);
            for network in [monitor.network(), settled().network()] {
                assert_eq!(network.has_multipath(Family::Ipv4), multipath, "{command}");
                assert_eq!(network.groups.any_resilient(), resilient, "{command}");
            }
        };
        expect("ip nexthop add id 3 group 1", false, false);
        expect("ip nexthop replace id 3 group 1/2", true, false);
        expect("ip nexthop add id 4 group 1/2 type resilient buckets 4", true, true);
        expect("ip nexthop del id 4", true, false);
        expect("ip nexthop del id 2", false, false);
        expect("ip nexthop add id 2 via 10.0.0.3 dev v0", false, false);
        expect("ip nexthop replace id 3 group 1/2", true, false);
        expect("ip nexthop del id 3", false, false);
    });
}

#[test]
fn hazard_10_route_mtus_are_followed() {
    in_namespace("hazard_10_route_mtus_are_followed", || {
        run("ip route add 198.51.100.0/24 via 10.0.0.2 mtu 1400");
        let mut monitor = settled();
        let v0 = index(&monitor, "v0");
        let smallest = |monitor: &Monitor| monitor.network().routes.ipv4.smallest_mtu(v0);
        let links = |changes: &Changes| changes.links && changes.forwarding;
        assert_eq!(smallest(&monitor), Some(1400));
        expect(&mut monitor, "ip route add 192.0.2.0/24 via 10.0.0.2 mtu lock 1280", links);
        assert_eq!(smallest(&monitor), Some(1280));
        expect(&mut monitor, "ip route replace 192.0.2.0/24 via 10.0.0.2 mtu 1300", links);
        assert_eq!(smallest(&monitor), Some(1300));
        expect(&mut monitor, "ip route append 192.0.2.0/24 via 10.0.0.3 mtu 1290", links);
        assert_eq!(smallest(&monitor), Some(1290));
        assert_eq!(smallest(&settled()), Some(1290));
        expect(&mut monitor, "ip route replace 192.0.2.0/24 via 10.0.0.2", links);
        assert_eq!(smallest(&monitor), Some(1290));
        expect(&mut monitor, "ip route del 192.0.2.0/24 via 10.0.0.3", links);
        assert_eq!(smallest(&monitor), Some(1400));
        expect(&mut monitor, "ip link set v0 down", links);
        assert_eq!(smallest(&monitor), None);
    });
}

#[test]
fn hazard_48_route_mtus_of_ipv6_are_followed() {
    in_namespace_of_both("hazard_48_route_mtus_of_ipv6_are_followed", || {
        run("ip addr add fd00::1/64 dev v0 nodad");
        let mut monitor = settled_for(Families::Both);
        let v0 = index(&monitor, "v0");
        let smallest = |monitor: &Monitor| monitor.network().routes.ipv6.smallest_mtu(v0);
        let links = |changes: &Changes| changes.links && changes.forwarding;
        expect(&mut monitor, "ip route add fd01::/64 via fd00::2 mtu 1400", links);
        assert_eq!(smallest(&monitor), Some(1400));
        assert_eq!(smallest(&settled_for(Families::Both)), Some(1400));
        run("ip link set v0 mtu 1300");
        monitor.doubt_mtus();
        expect(&mut monitor, "ip link set v0 mtu 1500", links);
        assert_eq!(smallest(&monitor), Some(1500), "the kernel has changed it without an event");
        expect(&mut monitor, "ip route del fd01::/64", links);
        assert_eq!(smallest(&monitor), None);
    });
}

#[test]
fn hazard_20_own_addresses_are_known() {
    in_namespace("hazard_20_own_addresses_are_known", || {
        let mut monitor = settled();
        let has = |monitor: &Monitor, address: [u8; 4]| {
            monitor.network().local_addresses.contains(&address.into())
        };
        assert!(has(&monitor, [10, 0, 0, 1]) && has(&monitor, [127, 0, 0, 1]));
        let addresses = |changes: &Changes| changes.addresses && changes.forwarding;
        expect(&mut monitor, "ip addr add 10.1.0.1 peer 10.1.0.9 dev v0", addresses);
        assert!(has(&monitor, [10, 1, 0, 1]) && !has(&monitor, [10, 1, 0, 9]));
        expect(&mut monitor, "ip addr add 10.1.0.1/24 dev v1", addresses);
        expect(&mut monitor, "ip addr del 10.1.0.1/24 dev v1", addresses);
        assert!(has(&monitor, [10, 1, 0, 1]));
        expect(&mut monitor, "ip addr del 10.1.0.1 peer 10.1.0.9 dev v0", addresses);
        assert!(!has(&monitor, [10, 1, 0, 1]));
    });
}

#[test]
fn hazard_07_link_changes_are_reported() {
    in_namespace("hazard_07_link_changes_are_reported", || {
        let mut monitor = settled();
        let v0 = index(&monitor, "v0");
        let link = &monitor.network().links[&v0];
        assert!(link.up && link.running && link.ethernet && link.mac.is_some());
        assert_eq!((link.kind.as_deref(), link.mtu), (Some("veth"), 1500));
        assert!(!monitor.network().links[&index(&monitor, "lo")].ethernet);

        let links = |changes: &Changes| changes.links;
        let both = |changes: &Changes| changes.forwarding && changes.links;
        expect(&mut monitor, "ip link set v0 mtu 1400", both);
        assert_eq!(monitor.network().links[&v0].mtu, 1400);
        expect(&mut monitor, "ip link set v0 address 02:00:00:00:00:77", both);
        assert_eq!(monitor.network().links[&v0].mac, Some([2, 0, 0, 0, 0, 0x77]));
        expect(&mut monitor, "ip link set v1 down", both);
        assert!(!monitor.network().links[&v0].running);
        expect(&mut monitor, "ip link set v0 down", both);
        assert!(!monitor.network().links[&v0].up);
        let policy = |changes: &Changes| changes.policy && changes.links;
        expect(&mut monitor, "ip link set v0 name wan", policy);
        assert_eq!(monitor.network().links[&v0].name, "wan");
        expect(&mut monitor, "ip link set wan up", both);
        expect(&mut monitor, "ip link set wan group 7", policy);
        expect(&mut monitor, "ip link set wan mtu 1300 group 8", policy);
        expect_nothing(&mut monitor, "ip link set wan txqueuelen 77");
        expect(&mut monitor, "ip link add w0 type veth peer name w1", links);
        expect(&mut monitor, "ip link del wan", both);
        assert!(!monitor.network().links.contains_key(&v0));
    });
}

#[test]
fn hazard_07_sysctls_of_interfaces_are_followed() {
    in_namespace("hazard_07_sysctls_of_interfaces_are_followed", || {
        let mut monitor = settled();
        for sysctl in ["forwarding", "rp_filter"] {
            // The path leads into the namespace of the thread that opens it.
            let path = format!("/proc/sys/net/ipv4/conf/v0/{sysctl}");
            std::fs::write(path, "1").expect("a writable sysctl");
            wait_for(&mut monitor, sysctl, |changes| changes.forwarding && changes.policy);
        }
    });
}

#[test]
fn hazard_08_moved_neighbors_are_reported_and_fresh_ones_are_not() {
    in_namespace("hazard_08_moved_neighbors_are_reported_and_fresh_ones_are_not", || {
        let mut monitor = settled();
        let key = (index(&monitor, "v0"), PEER.into());
        let set = "ip neigh replace 10.0.0.2 dev v0 lladdr";
        expect_nothing(&mut monitor, &format!("{set} 02:00:00:00:00:09 nud reachable"));
        assert_eq!(monitor.network().neighbors[&key].mac, [2, 0, 0, 0, 0, 9]);
        expect_nothing(&mut monitor, &format!("{set} 02:00:00:00:00:09 nud stale"));
        let forwarding = |changes: &Changes| changes.forwarding && !changes.links;
        expect(&mut monitor, &format!("{set} 02:00:00:00:00:0a nud stale"), forwarding);
        assert_eq!(monitor.network().neighbors[&key].mac, [2, 0, 0, 0, 0, 10]);
        assert_eq!(settled().network().neighbors, monitor.network().neighbors);
        expect(&mut monitor, "ip neigh del 10.0.0.2 dev v0", forwarding);
        assert!(!monitor.network().neighbors.contains_key(&key));
        for mac in ["02:00:00:00:00:0b", "02:00:00:00:00:0c"] {
            expect_nothing(&mut monitor, &format!("ip neigh replace fe80::2 dev v0 lladdr {mac}"));
        }
        assert!(monitor.network().neighbors.keys().all(|(_, address)| address.is_ipv4()));
    });
}

#[test]
fn hazard_08_neighbors_are_kept_in_use() {
    in_namespace("hazard_08_neighbors_are_kept_in_use", || {
        run("ip neigh add 10.0.0.2 dev v0 lladdr 02:00:00:00:00:09 nud stale");
        run("ip neigh add 10.0.0.3 dev v0 lladdr 02:00:00:00:00:0a nud permanent");
        run("ip neigh add 10.0.0.4 dev v0 lladdr 02:00:00:00:00:0b nud reachable");
        run("ip neigh add 10.0.0.5 dev v0 lladdr 02:00:00:00:00:0c nud reachable extern_learn");
        let mut monitor = settled();
        let v0 = index(&monitor, "v0");
        for last in 2..=6 {
            monitor.keep_in_use(v0, [10, 0, 0, last].into()).expect("a request can be sent");
        }
        let stale = run("ip neigh show 10.0.0.2");
        assert!(stale.contains("DELAY") || stale.contains("PROBE"), "{stale}");
        assert!(run("ip neigh show 10.0.0.3").contains("02:00:00:00:00:0a PERMANENT"));
        assert!(run("ip neigh show 10.0.0.4").contains("REACHABLE"));
        assert!(run("ip neigh show 10.0.0.5").contains("extern_learn"));
        assert_eq!(run("ip neigh show 10.0.0.6"), "");
        // Refused by the kernel, again and again: the refusals do not pile up.
        run("ip neigh del 10.0.0.4 dev v0");
        for _ in 0..2000 {
            monitor.keep_in_use(v0, [10, 0, 0, 4].into()).expect("a request can be sent");
        }
    });
}

#[test]
fn hazard_30_lost_events_are_made_up_for() {
    in_namespace("hazard_30_lost_events_are_made_up_for", || {
        let mut monitor = settled();
        let mut lines = String::new();
        for round in 0..60_000 {
            let mac = format!("02:00:00:00:00:{:02x}", round % 2);
            lines += &format!("neigh replace 10.0.0.2 dev v0 lladdr {mac} nud stale\n");
        }
        lines += "neigh replace 10.0.0.2 dev v0 lladdr 02:00:00:00:00:ff nud stale\n";
        run_batch("neighbors", &lines);
        let changes = read(&mut monitor);
        let all = Changes {
            forwarding: true,
            routing: true,
            policy: true,
            links: true,
            addresses: true,
            tc: true,
            drained: true,
        };
        assert_eq!(changes, all);
        let key = (index(&monitor, "v0"), PEER.into());
        assert_eq!(monitor.network().neighbors[&key].mac, [2, 0, 0, 0, 0, 0xff]);
    });
}

#[test]
fn hazard_30_reading_ends_in_time() {
    in_namespace("hazard_30_reading_ends_in_time", || {
        let mut monitor = settled();
        run("ip addr add 10.2.0.1/24 dev v0");
        run("ip addr add 10.3.0.1/24 dev v0");
        let first = monitor.read(Instant::now()).expect("events can be read");
        assert!(!first.drained);
        assert!(read(&mut monitor).drained);
    });
}

#[test]
fn hazard_31_filters_at_the_ingress_are_read() {
    in_namespace("hazard_31_filters_at_the_ingress_are_read", || {
        let v0 = index(&settled(), "v0");
        let v1 = index(&settled(), "v1");
        assert_eq!(tc::ingress(v0).expect("readable"), tc::Ingress::default());
        run("tc qdisc add dev v0 clsact");
        run("tc filter add dev v0 ingress prio 5 protocol ip u32 match u32 0 0");
        run("tc filter add dev v0 egress prio 6 protocol all u32 match u32 0 0");
        let found = tc::ingress(v0).expect("readable");
        assert_eq!(found.qdisc, Some(IngressQdisc::Clsact));
        assert!(found.filters.iter().all(|filter| filter.kind == "u32" && filter.handle != 0));
        let sides: Vec<_> = found
            .filters
            .iter()
            .map(|filter| (filter.egress, filter.priority, filter.protocol, filter.chain))
            .collect();
        assert!(sides.contains(&(false, 5, 0x0800, 0)) && sides.contains(&(true, 6, 3, 0)));

        run("tc qdisc add dev v1 ingress");
        run("tc filter add dev v1 ingress prio 7 protocol ip u32 match u32 0 0");
        let found = tc::ingress(v1).expect("readable");
        assert_eq!(found.qdisc, Some(IngressQdisc::Ingress));
        assert!(found.filters.iter().any(|filter| !filter.egress && filter.priority == 7));
    });
}

#[test]
fn hazard_31_changes_of_filters_are_reported() {
    in_namespace("hazard_31_changes_of_filters_are_reported", || {
        let mut monitor = settled();
        let tc = |changes: &Changes| changes.tc && !changes.forwarding;
        expect(&mut monitor, "tc qdisc add dev v0 clsact", tc);
        let filter = "filter add dev v0 ingress prio 5 protocol ip u32 match u32 0 0";
        expect(&mut monitor, &format!("tc {filter}"), tc);
        expect(&mut monitor, "tc filter del dev v0 ingress prio 5", tc);
        expect(&mut monitor, "tc qdisc del dev v0 clsact", tc);
    });
}

/// A filter of the kind bpf that needs no object: classic bytecode that returns 0.
fn add_classic_bpf(side: &str, priority: u16, handle: u32) {
    let place = format!("filter add dev v0 {side} prio {priority} handle {handle} protocol all");
    let mut command = Command::new("tc");
    command.args(place.split_whitespace()).args(["bpf", "bytecode", "1,6 0 0 0,"]);
    assert!(command.status().expect("tc can be started").success());
}

#[test]
fn hazard_18_only_what_is_named_is_removed() {
    in_namespace("hazard_18_only_what_is_named_is_removed", || {
        let v0 = index(&settled(), "v0");
        run("tc qdisc add dev v0 ingress");
        tc::delete_clsact(v0).expect_err("an ingress qdisc is someone else's");
        run("tc qdisc del dev v0 ingress");
        run("tc qdisc add dev v0 clsact");
        run("tc filter add dev v0 ingress prio 5 protocol ip u32 match u32 0 0");
        run("tc filter add dev v0 ingress prio 5 protocol ip u32 match u32 1 1");
        let handles = || -> Vec<Filter> {
            let filters = tc::ingress(v0).expect("readable").filters;
            filters.into_iter().filter(|filter| filter.handle & 0xfff > 0).collect()
        };
        let before = handles();
        assert_eq!(before.len(), 2);
        tc::delete_filter(v0, &before[0]).expect("it is there");
        assert_eq!(handles(), before[1..]);
        let error = tc::delete_filter(v0, &before[0]).expect_err("it is gone").to_string();
        assert!(error.contains("Specified filter handle not found"), "the kernel's words: {error}");
        add_classic_bpf("egress", 3, 9);
        let at_egress =
            || tc::ingress(v0).expect("readable").filters.into_iter().find(|f| f.egress);
        tc::delete_filter(v0, &at_egress().expect("it is there")).expect("it is there");
        assert_eq!(at_egress(), None);
        assert_eq!(handles(), before[1..]);
        add_classic_bpf("ingress", 3, 9);
        let foremost = tc::ingress(v0).expect("readable").filters[0].clone();
        assert_eq!(
            (foremost.kind.as_str(), foremost.handle, foremost.bpf_name.as_deref()),
            ("bpf", 9, None)
        );
        tc::delete_filter(v0, &foremost).expect("it is there");
        tc::delete_clsact(v0).expect("it is there");
        assert_eq!(tc::ingress(v0).expect("readable").qdisc, None);
    });
}

#[test]
fn hazard_22_the_root_qdisc_is_known() {
    in_namespace("hazard_22_the_root_qdisc_is_known", || {
        let v0 = index(&settled(), "v0");
        run("tc qdisc add dev v0 root tbf rate 10mbit burst 16kb latency 50ms");
        let kind = || Qdiscs::read().expect("readable").root_kind(v0).map(str::to_owned);
        assert_eq!(kind().as_deref(), Some("tbf"));
        run("tc qdisc replace dev v0 root htb");
        assert_eq!(kind().as_deref(), Some("htb"));
    });
}

/// The policies as they are now, with nothing waiting.
fn policies() -> Xfrm {
    policies_for(Families::Ipv4)
}

fn policies_for(families: Families) -> Xfrm {
    Xfrm::open(families).expect("the policies can be read")
}

fn policies_changed(xfrm: &mut Xfrm, limit: Duration) -> bool {
    let fd = xfrm.as_fd().expect("the kernel knows IPsec policies");
    assert!(fd_readable(fd, limit), "no event at all");
    let changed = xfrm.read(Instant::now() + LIMIT).expect("the policies can be read");
    let fd = xfrm.as_fd().expect("the kernel knows IPsec policies");
    assert!(!fd_readable(fd, Duration::ZERO), "events are left");
    changed
}

/// Whether forwarded packets may be any policy's.
fn covers(xfrm: &Xfrm) -> bool {
    let policies = xfrm.policies();
    policies.blocked_by_default || !policies.selectors.is_empty()
}

/// Runs a command that changes the policies, and checks what they mean then.
#[track_caller]
fn expect_covered(xfrm: &mut Xfrm, command: &str, covered: bool) {
    let before = xfrm.policies().clone();
    run(command);
    let changed = policies_changed(xfrm, LIMIT);
    assert_eq!(changed, *xfrm.policies() != before, "{command}");
    assert_eq!(covers(xfrm), covered, "{command}");
    assert_eq!(covers(&policies()), covered, "{command}");
}

const FWD: &str = "dir fwd src 10.1.0.0/24 dst 10.2.0.0/24";
const OUT: &str = "dir out src 10.2.0.0/24 dst 10.1.0.0/24";
const TUNNEL: &str = "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel";

#[test]
fn hazard_13_policies_are_followed() {
    in_namespace("hazard_13_policies_are_followed", || {
        let mut xfrm = policies();
        assert!(!covers(&xfrm));
        assert!(!xfrm.read(Instant::now() + LIMIT).expect("nothing is waiting"));
        let inward = "dir in src 10.1.0.0/24 dst 10.2.0.0/24";
        expect_covered(&mut xfrm, &format!("ip xfrm policy add {inward} {TUNNEL}"), false);
        let ipv6 = "dir fwd src 2001:db8:1::/48 dst 2001:db8:2::/48 action block";
        expect_covered(&mut xfrm, &format!("ip xfrm policy add {ipv6}"), false);
        expect_covered(&mut xfrm, &format!("ip xfrm policy add {FWD} {TUNNEL}"), true);
        expect_covered(&mut xfrm, &format!("ip xfrm policy update {FWD} action block"), true);
        expect_covered(&mut xfrm, &format!("ip xfrm policy delete {FWD}"), false);
        expect_covered(&mut xfrm, &format!("ip xfrm policy add {OUT} {TUNNEL}"), true);
        expect_covered(&mut xfrm, &format!("ip xfrm policy add {FWD} {TUNNEL}"), true);
        expect_covered(&mut xfrm, &format!("ip xfrm policy delete {OUT}"), true);
        expect_covered(&mut xfrm, "ip xfrm policy flush", false);
    });
}

#[test]
fn hazard_13_policies_of_ipv6_are_followed_if_asked_for() {
    in_namespace("hazard_13_policies_of_ipv6_are_followed_if_asked_for", || {
        let mut both = policies_for(Families::Both);
        let ipv6 = "dir fwd src 2001:db8:1::/48 dst 2001:db8:2::/48";
        run(&format!("ip xfrm policy add {ipv6} action block"));
        assert!(policies_changed(&mut both, LIMIT));
        assert!(covers(&both) && covers(&policies_for(Families::Both)) && !covers(&policies()));
        let [source, destination] = ["[2001:db8:1::9]:1", "[2001:db8:2::9]:2"]
            .map(|end| end.parse::<SocketAddr>().expect("an end"));
        let tuple = Tuple::new(Protocol::Udp, source, destination);
        assert!(both.policies().selectors.may_select(tuple, tuple.invert()));
        run(&format!("ip xfrm policy delete {ipv6}"));
        assert!(policies_changed(&mut both, LIMIT));
        assert!(!covers(&both));
    });
}

#[test]
fn hazard_13_earlier_policies_are_found() {
    in_namespace("hazard_13_earlier_policies_are_found", || {
        run(&format!("ip xfrm policy add {OUT} {TUNNEL}"));
        let mut xfrm = policies();
        assert!(covers(&xfrm));
        expect_covered(&mut xfrm, &format!("ip xfrm policy delete {OUT}"), false);
    });
}

#[test]
fn hazard_13_expired_policies_are_noticed() {
    in_namespace("hazard_13_expired_policies_are_noticed", || {
        run(&format!("ip xfrm policy add {FWD} limit time-hard 1 {TUNNEL}"));
        let mut xfrm = policies();
        assert!(covers(&xfrm));
        assert!(policies_changed(&mut xfrm, Duration::from_secs(5)));
        assert!(!covers(&xfrm));
    });
}

#[test]
fn hazard_13_blocking_defaults_count() {
    in_namespace("hazard_13_blocking_defaults_count", || {
        let mut xfrm = policies();
        if !output("ip xfrm policy setdefault in block").0 {
            eprintln!("skipped: no default IPsec policies in this kernel or iproute2");
            return;
        }
        assert!(!policies_changed(&mut xfrm, LIMIT));
        expect_covered(&mut xfrm, "ip xfrm policy setdefault fwd block", true);
        expect_covered(&mut xfrm, "ip xfrm policy setdefault out block", true);
        expect_covered(&mut xfrm, "ip xfrm policy setdefault fwd accept", true);
        expect_covered(&mut xfrm, "ip xfrm policy setdefault out accept", false);
    });
}

#[test]
fn hazard_13_lost_policy_events_are_made_up_for() {
    in_namespace("hazard_13_lost_policy_events_are_made_up_for", || {
        let mut xfrm = policies();
        let add = format!("xfrm policy add {FWD} action block\n");
        let flush = "xfrm policy flush\n";
        run_batch("policies", &(format!("{add}{flush}").repeat(5_000) + &add));
        assert!(policies_changed(&mut xfrm, LIMIT));
        assert!(covers(&xfrm));
        // Out of time with events waiting: read again all the same.
        run_batch("policies", &format!("{flush}{add}{flush}"));
        assert!(xfrm.read(Instant::now()).expect("the policies can be read"));
        assert!(!covers(&xfrm));
        assert!(!policies_changed(&mut xfrm, LIMIT));
    });
}

/// As [`in_namespace`], with addresses of IPv6 on the interface.
fn in_namespace_of_both(test: &str, body: fn()) {
    if !live::root_or_skip(test) {
        return;
    }
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
        sysctl("all/forwarding", "1");
        // Link-local addresses are there at once.
        sysctl("default/accept_dad", "0");
        for command in [
            "ip link set lo up",
            "ip link add v0 type veth peer name v1",
            "ip link set v0 up",
            "ip link set v1 up",
            "ip addr add 10.0.0.1/24 dev v0",
            "ip addr add 2001:db8::1/64 dev v0 nodad",
        ] {
            run(command);
        }
        body();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Sets a sysctl of IPv6 for an interface, or for all.
fn sysctl(path: &str, value: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{path}");
    std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

#[test]
fn hazard_07_changes_of_ipv6_are_reported_if_asked_for() {
    in_namespace_of_both("hazard_07_changes_of_ipv6_are_reported_if_asked_for", || {
        let mut both = settled_for(Families::Both);
        let mut ipv4 = settled();
        let topology = |changes: &Changes| changes.forwarding && changes.routing && !changes.policy;
        let policy = |changes: &Changes| changes.forwarding && changes.policy;
        for (command, wanted) in [
            ("ip route add 2001:db8:1::/48 via 2001:db8::2", topology as fn(&Changes) -> bool),
            ("ip route change 2001:db8:1::/48 via 2001:db8::3", topology),
            ("ip route add 2001:db8:2::/48 from 2001:db8:9::/64 via 2001:db8::2", topology),
            ("ip route add default via fe80::1 dev v0 pref high", topology),
            ("ip route add unreachable 2001:db8:3::/48", topology),
            ("ip route del 2001:db8:1::/48", topology),
            ("ip -6 rule add from 2001:db8::/32 table 7", policy),
            ("ip -6 rule del from 2001:db8::/32 table 7", policy),
        ] {
            expect(&mut both, command, wanted);
        }
        sysctl("v0/forwarding", "0");
        wait_for(&mut both, "forwarding", policy);
        assert!(!readable(&ipv4, Duration::ZERO), "who did not ask is not even woken");
        assert_eq!(read(&mut ipv4), Changes { drained: true, ..Changes::default() });
    });
}

#[test]
fn hazard_20_own_addresses_of_ipv6_are_known_if_asked_for() {
    in_namespace_of_both("hazard_20_own_addresses_of_ipv6_are_known_if_asked_for", || {
        let mut both = settled_for(Families::Both);
        let has = |monitor: &Monitor, address: &str| {
            let address = address.parse().expect("an address");
            monitor.network().local_addresses.contains(&address)
        };
        for own in ["2001:db8::1", "::1", "10.0.0.1"] {
            assert!(has(&both, own), "{own}");
        }
        assert!(!has(&settled(), "2001:db8::1"));
        let addresses = |changes: &Changes| changes.addresses && changes.forwarding;
        expect(&mut both, "ip addr add 2001:db8:5::1/64 dev v0 nodad", addresses);
        assert!(has(&both, "2001:db8:5::1"));
        expect(&mut both, "ip addr del 2001:db8:5::1/64 dev v0", addresses);
        assert!(!has(&both, "2001:db8:5::1"));
        // As each router advertisement does.
        expect_nothing(
            &mut both,
            "ip addr change 2001:db8::1/64 dev v0 nodad valid_lft 600 preferred_lft 300",
        );
    });
}

#[test]
fn hazard_14_rules_of_ipv6_are_read_if_asked_for() {
    in_namespace_of_both("hazard_14_rules_of_ipv6_are_read_if_asked_for", || {
        let mut both = settled_for(Families::Both);
        let policy = |changes: &Changes| changes.forwarding && changes.policy;
        expect(&mut both, "ip -6 rule add fwmark 0x100/0x3f00 table 7", policy);
        expect(&mut both, "ip -6 rule add ipproto udp dport 53 table 7", policy);
        expect(&mut both, "ip -6 rule add tos 0x10 table 7", policy);
        for monitor in [&both, &settled_for(Families::Both)] {
            let rules = &monitor.network().rules;
            assert_eq!((rules.ipv4.fwmark_bits, rules.ipv6.fwmark_bits), (0, 0x3f00));
            assert!(rules.ipv6.ports && rules.ipv6.tos && !rules.ipv4.ports && !rules.ipv4.tos);
        }
        assert_eq!(settled().network().rules.ipv6.fwmark_bits, 0);
    });
}

#[test]
fn hazard_44_routes_of_ipv6_over_several_next_hops_are_known() {
    in_namespace_of_both("hazard_44_routes_of_ipv6_over_several_next_hops_are_known", || {
        let mut both = settled_for(Families::Both);
        let routing = |changes: &Changes| changes.routing;
        let mut expect = |command: &str, multipath: bool| {
            expect(&mut both, command, routing);
            for network in [both.network(), settled_for(Families::Both).network()] {
                assert_eq!(network.has_multipath(Family::Ipv6), multipath, "{command}");
                assert!(!network.has_multipath(Family::Ipv4), "{command}");
            }
        };
        let (to, via) = ("2001:db8:7::/48", "nexthop via 2001:db8::2 nexthop via 2001:db8::3");
        expect(&format!("ip route add {to} via 2001:db8::2"), false);
        expect(&format!("ip route append {to} via 2001:db8::3"), true);
        expect(&format!("ip route append {to} via 2001:db8::4"), true);
        expect(&format!("ip route del {to} via 2001:db8::4"), true);
        expect(&format!("ip route del {to} via 2001:db8::2"), false);
        expect(&format!("ip route replace {to} {via}"), true);
        expect(&format!("ip route replace {to} via 2001:db8::4"), false);
        expect(&format!("ip route replace {to} {via}"), true);
        // Another route of the same destination and metric.
        expect(&format!("ip route add {to} from 2001:db8:9::/64 via 2001:db8::4"), true);
        expect(&format!("ip route del {to} {via}"), false);
        expect(&format!("ip route add {to} {via}"), true);
        expect("ip link set v0 down", false);
    });
}

/// When the next change of forwarding is reported, without an event.
fn next_expiry(monitor: &mut Monitor) -> Instant {
    let end = Instant::now() + 2 * LIMIT;
    while Instant::now() < end {
        assert!(!readable(monitor, Duration::ZERO), "an event");
        if read(monitor).forwarding {
            return Instant::now();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no expiry is noticed");
}

/// The kernel keeps an expired route for a while, and no event tells of its end.
#[test]
fn hazard_43_an_expired_route_is_noticed() {
    in_namespace_of_both("hazard_43_an_expired_route_is_noticed", || {
        let route = "2001:db8:7::/48 via 2001:db8::2";
        let mut monitor = settled_for(Families::Both);
        let begin = Instant::now();
        run(&format!("ip route add {route} expires 2"));
        assert!(readable(&monitor, LIMIT) && read(&mut monitor).forwarding);
        // A route that is added twice lives longer, without an event. That is an error to the tool only.
        assert!(!output(&format!("ip route append {route} expires 3")).0);
        let mut later = Monitor::open(Families::Both).expect("the monitor opens");
        let age = |at: Instant| at.duration_since(begin).as_millis();
        let first = age(next_expiry(&mut monitor));
        assert!((1900..2200).contains(&first), "as it was told first: {first} ms");
        let wait = later.wait(Instant::now()).expect("the time that is left");
        assert!(wait < Duration::from_secs(1), "{wait:?}");
        for (who, monitor) in [("the events", &mut monitor), ("a dump", &mut later)] {
            let second = age(next_expiry(monitor));
            assert!((2900..3300).contains(&second), "by {who}: {second} ms");
            assert_eq!(read(monitor), Changes { drained: true, ..Changes::default() });
            assert_eq!(monitor.wait(Instant::now()), None);
        }
        assert!(output("ip -6 route show 2001:db8:7::/48").1.contains("expires"), "still listed");
    });
}

/// A gateway has the same link-local address at several interfaces.
#[test]
fn hazard_08_link_local_gateways_are_kept_in_use() {
    in_namespace_of_both("hazard_08_link_local_gateways_are_kept_in_use", || {
        run("ip link add w0 type veth peer name w1");
        run("ip link set w0 up");
        run("ip link set w1 up");
        for (interface, mac) in [("v0", "02:00:00:00:00:02"), ("w0", "02:00:00:00:00:03")] {
            run(&format!("ip neigh add fe80::2 lladdr {mac} dev {interface} nud stale"));
        }
        let mut monitor = settled_for(Families::Both);
        let gateway = "fe80::2".parse().expect("an address");
        let [v0, w0] = ["v0", "w0"].map(|name| index(&monitor, name));
        let mac = |index| monitor.network().neighbors[&(index, gateway)].mac[5];
        assert_eq!((mac(v0), mac(w0)), (2, 3));
        monitor.keep_in_use(v0, gateway).expect("a request");
        let state = |interface: &str| output(&format!("ip -6 neigh show dev {interface}")).1;
        let end = Instant::now() + LIMIT;
        while !state("v0").contains("DELAY") {
            assert!(Instant::now() < end, "{}", state("v0"));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(state("w0").contains("STALE"), "{}", state("w0"));
        let forwarding = |changes: &Changes| changes.forwarding;
        expect(&mut monitor, "ip neigh del fe80::2 dev w0", forwarding);
        monitor.keep_in_use(w0, gateway).expect("nothing to ask for");
        assert!(!state("w0").contains("fe80::2"), "what is gone stays gone");
    });
}

/// No event tells of the MTU; the others are those of the choice among next hops, and of redirects.
#[test]
fn hazard_48_sysctls_of_ipv6_are_read_if_asked_for() {
    in_namespace_of_both("hazard_48_sysctls_of_ipv6_are_read_if_asked_for", || {
        let mut monitor = settled_for(Families::Both);
        let read_for =
            |families| RoutingSysctls::read(families, &["v0", "gone0"]).expect("readable");
        let before = read_for(Families::Both);
        assert!(before.ipv4.spreads_by_address && !before.ipv6.spreads_by_address);
        assert!(!before.ipv6.accepts_redirects);
        sysctl("v0/mtu", "1300");
        assert!(!readable(&monitor, Duration::from_millis(200)), "an event");
        let after = read_for(Families::Both);
        assert!(after.ipv6 != before.ipv6 && after.ipv4 == before.ipv4);
        assert_eq!(read_for(Families::Ipv4).ipv6, RoutingSysctls::default());
        // An interface towards a provider may take router advertisements, and redirects as well.
        sysctl("v0/forwarding", "0");
        wait_for(&mut monitor, "forwarding", |changes| changes.policy);
        assert!(read_for(Families::Both).ipv6.accepts_redirects);
        sysctl("v0/accept_redirects", "0");
        assert!(!read_for(Families::Both).ipv6.accepts_redirects);
    });
}
