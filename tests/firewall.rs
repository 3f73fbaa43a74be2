// SPDX-License-Identifier: GPL-2.0-only
//! What the firewall's rules mean for the fast path. bpfw warns of those that look at each packet,
//! chains at interfaces see each packet, and conntrack entries end offloads.

mod support;

use bpfw::firewall::statements::Kind;
use bpfw::reasons::interface::Problem;
use std::time::{Duration, Instant};
use support::daemon::Daemon;
use support::lab::{CLIENT, Lab, SERVER};
use support::live::{lacking, root_or_skip};
use support::router::*;
use support::rules::snat_rules;
use support::udp::{UdpClient, udp_echo};
use support::wait::eventually;

on_both_hooks!(
    hazard_27_rules_for_each_packet_are_warned_of,
    hazard_27_usual_rules_are_not_warned_of,
    hazard_27_verdicts_by_a_packets_fields_are_warned_of,
    hazard_31_netdev_chains_at_ingress_see_each_packet,
    hazard_31_netdev_chains_at_egress_see_each_packet,
);

const WARNING: &str = "rules do not see offloaded packets";

/// A table of its own with a forward chain of this name and one rule.
fn watching(chain: &str, rule: &str) -> String {
    format!(
        "table inet {chain}_table {{
            chain {chain} {{
                type filter hook forward priority 10; policy accept;
                {rule}
            }}
        }}"
    )
}

/// The warning of this kind after so many lines.
fn warning(daemon: &Daemon, mark: usize, kind: Kind) -> String {
    daemon.wait_for_line_after(mark, &format!("{WARNING}: {kind}, "), LIMIT)
}

fn warnings(daemon: &Daemon) -> usize {
    daemon.lines().iter().filter(|line| line.contains(WARNING)).count()
}

/// Waits until the daemon has read a change of the rules.
fn wait_until_read(daemon: &Daemon, mark: usize) {
    daemon.wait_for_line_after(mark, "the firewall has", LIMIT);
}

fn hazard_27_rules_for_each_packet_are_warned_of(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.nft(&watching("limiting", "limit rate over 1000/second drop"));
    let daemon = start(&lab, hook, &[]);
    let line = warning(&daemon, 0, Kind::Limit);
    assert!(line.contains("inet limiting_table limiting"), "{line}");
    let (started, mark) = (Instant::now(), daemon.mark());
    lab.nft(&watching("counting", "quota over 10 mbytes drop"));
    let line = warning(&daemon, mark, Kind::Quota);
    println!("{hook}: warned {:?} after the rule", started.elapsed());
    assert!(line.contains("inet counting_table counting"), "{line}");
    // A second of the same kind is no news; one that went and comes again is.
    let before = warnings(&daemon);
    let mark = daemon.mark();
    lab.nft(&watching("second", "quota over 20 mbytes counter"));
    wait_until_read(&daemon, mark);
    assert_eq!(warnings(&daemon), before);
    let mark = daemon.mark();
    lab.nft("delete table inet counting_table\ndelete table inet second_table");
    wait_until_read(&daemon, mark);
    let mark = daemon.mark();
    lab.nft(&watching("again", "quota over 10 mbytes drop"));
    let line = warning(&daemon, mark, Kind::Quota);
    assert!(line.contains("inet again_table again"), "{line}");
}

/// As OpenWrt's fw4 writes them.
const USUAL: &str = r#"
table inet usual {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state vmap { established : accept, related : accept }
        tcp flags & (fin | syn | rst | ack) == syn jump syn_flood
        iifname "lan0" jump input_lan
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state vmap { established : accept, related : accept }
        iifname "lan0" jump forward_lan
        iifname "wan0" jump forward_wan
        jump handle_reject
    }
    chain prerouting {
        type filter hook prerouting priority filter; policy accept;
        iifname "lan0" jump helper_lan
    }
    chain handle_reject {
        meta l4proto tcp reject with tcp reset
        reject
    }
    chain syn_flood {
        limit rate 25/second burst 50 packets return
        drop
    }
    chain input_lan {
        jump accept_from_lan
    }
    chain accept_from_lan {
        iifname "lan0" counter accept
    }
    chain helper_lan {
    }
    chain forward_lan {
        jump accept_to_wan
        limit rate 10/minute log prefix "reject lan forward: "
        jump reject_to_lan
    }
    chain forward_wan {
        icmp type { echo-request, destination-unreachable } limit rate 1000/second accept
        meta l4proto esp counter jump accept_to_lan
        ct status dnat accept
        jump reject_to_lan
    }
    chain accept_to_lan {
        oifname "lan0" counter accept
    }
    chain accept_to_wan {
        meta nfproto ipv4 oifname "wan0" ct state invalid counter drop
        oifname "wan0" counter accept
    }
    chain reject_to_lan {
        oifname "lan0" counter jump handle_reject
    }
    chain raw_prerouting {
        type filter hook prerouting priority raw; policy accept;
    }
    chain mangle_postrouting {
        type filter hook postrouting priority mangle; policy accept;
        oifname "wan0" tcp flags & (fin | syn | rst) == syn tcp option maxseg size set rt mtu
    }
    chain mangle_forward {
        type filter hook forward priority mangle; policy accept;
        iifname "wan0" tcp flags syn / syn,rst tcp option maxseg size set rt mtu
        oifname "wan0" tcp flags syn tcp option maxseg size set rt mtu
    }
    chain srcnat {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan0" masquerade
    }
}
"#;

fn hazard_27_usual_rules_are_not_warned_of(hook: &str, test: &str) {
    let lab = Lab::new(test, offloads(hook));
    lab.nft(USUAL);
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let mark = daemon.mark();
    lab.nft(&format!("delete table inet usual\n{USUAL}"));
    wait_until_read(&daemon, mark);
    assert_eq!(warnings(&daemon), 0, "{}", daemon.lines().join("\n"));
}

/// A rule that drops by a packet's length, which a short one's proof does not show.
fn hazard_27_verdicts_by_a_packets_fields_are_warned_of(hook: &str, test: &str) {
    for rule in ["meta length > 1400 drop", "ether saddr 02:00:00:00:00:99 drop"] {
        let lab = lab(hook, test, &snat_rules());
        let daemon = start(&lab, hook, &[]);
        let mark = daemon.mark();
        // Drops by addresses and ports are followed, and so need no word.
        for (chain, usual) in
            [("banning", "udp dport 7 drop"), ("own", "ether daddr 02:00:00:00:00:98 drop")]
        {
            lab.nft(&watching(chain, usual));
        }
        wait_until_read(&daemon, mark);
        let (warned, mark) = (warnings(&daemon), daemon.mark());
        lab.nft(&watching("measuring", rule));
        let line = warning(&daemon, mark, Kind::Field);
        assert!(line.contains("measuring"), "{line}");
        assert_eq!(warnings(&daemon), warned + 1);
    }
}

/// A chain at an interface, which counts and drops one port.
fn at_interface(direction: &str, device: &str) -> String {
    format!(
        "table netdev guard {{
            counter seen_all {{ }}
            chain guarding {{
                type filter hook {direction} device {device} priority 0; policy accept;
                udp dport 7 counter name seen_all
                udp dport 8 drop
            }}
        }}"
    )
}

/// Whether each of ten echoes was counted by the chain, and those to the other port dropped.
fn is_guarded(lab: &Lab, client: &UdpClient, banned: &UdpClient) -> bool {
    let before = lab.counter("netdev guard", "seen_all");
    assert_eq!(client.count_echoes(0..10, LIMIT), 10);
    let counted = lab.counter("netdev guard", "seen_all") - before;
    let dropped = !banned.echoes(1, Duration::from_millis(100));
    counted == 10 && dropped
}

/// A chain from the start; then none; then one under running traffic; then none.
fn guard(hook: &str, test: &str, (direction, device): (&str, &str)) {
    let lab = lab(hook, test, &snat_rules());
    let _other_server = udp_echo(&lab.server, at(SERVER, 8));
    let banned = UdpClient::open(&lab.client, at(CLIENT, 40001), at(SERVER, 8));
    let (_server, client) = echo(&lab, 40000);
    assert!(banned.echoes(0, LIMIT));
    lab.nft(&at_interface(direction, device));
    let daemon = start(&lab, hook, &[]);
    let why = format!("{}: netdev guard guarding", Problem::NetdevChain);
    daemon.wait_for_line(&format!("packets of {device} stay with the stack: {why}"), LIMIT);
    for _ in 0..5 {
        assert!(is_guarded(&lab, &client, &banned), "each packet passes the chain");
    }
    assert_eq!(forwarded(&daemon), 0);
    for _ in 0..2 {
        let started = Instant::now();
        lab.nft("delete table netdev guard");
        wait_until_fast(&lab, &client);
        wait_until_fast(&lab, &banned);
        println!("{hook}: fast {:?} after the chain went", started.elapsed());
        let (started, mark) = (Instant::now(), daemon.mark());
        lab.nft(&at_interface(direction, device));
        daemon.wait_for_line_after(mark, "must see all packets", LIMIT);
        eventually(LIMIT, "each packet passes the chain", || is_guarded(&lab, &client, &banned));
        println!("{hook}: guarded {:?} after the chain came", started.elapsed());
        let before = forwarded(&daemon);
        assert!(is_guarded(&lab, &client, &banned));
        assert_eq!(forwarded(&daemon), before);
    }
}

fn hazard_31_netdev_chains_at_ingress_see_each_packet(hook: &str, test: &str) {
    guard(hook, test, ("ingress", "lan0"));
}

fn hazard_31_netdev_chains_at_egress_see_each_packet(hook: &str, test: &str) {
    guard(hook, test, ("egress", "wan0"));
}

/// The daemon does not read such rules, so it says that there are some.
#[test]
fn hazard_64_iptables_legacy_is_said() {
    if !root_or_skip("hazard_64_iptables_legacy_is_said") {
        return;
    }
    let lab = lab("tc", "legacy", &snat_rules());
    let daemon = start(&lab, "tc", &[]);
    let tee = "iptables-legacy -t mangle -A FORWARD -d 192.0.2.99 -j TEE --gateway 192.0.2.98";
    let added = lab.router.try_run(&["sh", "-c", tee]);
    if !added.status.success() {
        return lacking("hazard_64_iptables_legacy_is_said", "no iptables-legacy or no TEE");
    }
    let line = daemon.wait_for_line("rules of iptables-legacy", LIMIT);
    assert!(line.contains("tables mangle"), "{line}");
    lab.router.sh("iptables-legacy -A FORWARD -d 192.0.2.99 -j ACCEPT");
    std::thread::sleep(Duration::from_millis(1500));
    let said = daemon.lines().iter().filter(|line| line.contains("of iptables-legacy")).count();
    assert_eq!(said, 1, "said once");
}
