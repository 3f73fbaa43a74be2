// SPDX-License-Identifier: GPL-2.0-only
//! Proof at the way out: nothing is forwarded that the stack does not forward. Each case is a row
//! of one table. All rows run side by side, in a lab with bpfw and in one without. What arrives in
//! each direction must be the same.

mod support;

use bpfw::abi::{self, bpfw_conn};
use bpfw::datapath::Hook;
use bpfw::datapath::sys::AttachType;
use bpfw::flow::tuple::Protocol;
use bpfw::reasons::interface::Problem;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::Duration;
use support::bystander::IndexUser;
use support::conntrack;
use support::daemon::Daemon;
use support::lab::{CLIENT, Lab, ROUTER_WAN, ROUTER_WAN_MAC, SERVER, SERVER_MAC, show};
use support::live::{lacking, root_or_skip};
use support::maps::Maps;
use support::nfqueue::Queue;
use support::patched::Patched;
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::talk::{Talks, falls_silent, silence};
use support::udp::UdpClient;
use support::wait::eventually;

on_both_hooks!(
    hazard_55_drops_from_the_beginning,
    hazard_55_drops_before_the_start_and_a_restart,
    hazard_56_a_new_drop_counts_at_once,
    hazard_56_a_new_mark_counts,
    hazard_63_packets_that_waited_for_a_neighbor_prove_nothing,
    hazard_63_packets_that_waited_in_a_queue_prove_nothing,
    hazard_64_nothing_is_offloaded_while_rules_copy,
    hazard_66_the_way_back_decides,
    hazard_67_changes_without_a_word_count_within_two_periods,
    hazard_68_a_stamp_from_elsewhere_goes_nowhere,
    hazard_68_a_stamp_that_is_lost_is_said,
    hazard_68_no_clearing_of_stamps_is_idle,
);

/// Long enough to hear something, if there is something to hear.
const LISTEN: Duration = Duration::from_millis(500);
/// Many packets do not come one after the other: they do not come at all.
const QUIET: Duration = Duration::from_millis(300);

/// A way to drop packets of one conversation. `PORT` stands for the server's port, `DROP` for a
/// statement that drops.
struct Row {
    name: &'static str,
    /// How the drop comes.
    change: Change,
    /// What the server does not hear any longer, and what the client does not.
    dropped: [bool; 2],
}

enum Change {
    /// A chain of this body, with the policy accept.
    Chain(&'static str),
    /// A whole table.
    Table(&'static str),
    /// A command, and what takes it back.
    Command(&'static str, &'static str),
}

use Change::{Chain, Command, Table};

const THERE: [bool; 2] = [true, false];
const BACK: [bool; 2] = [false, true];
const BOTH: [bool; 2] = [true, true];
const NONE: [bool; 2] = [false, false];

const ROWS: [Row; 11] = [
    Row { name: "nothing", change: Chain("th dport PORT counter"), dropped: NONE },
    Row {
        name: "the client's address",
        change: Chain("iifname lan0 ip saddr CLIENT th dport PORT drop"),
        dropped: THERE,
    },
    Row {
        name: "the ingress interface of the answers",
        change: Chain("iifname wan0 oifname lan0 th sport PORT drop"),
        dropped: BACK,
    },
    Row {
        name: "the server's address",
        change: Chain("iifname wan0 ip saddr SERVER th sport PORT drop"),
        dropped: BACK,
    },
    Row { name: "reject", change: Chain("iifname lan0 th dport PORT reject"), dropped: THERE },
    Row {
        name: "a chain's policy",
        change: Table(
            "chain c {
                type filter hook forward priority -10; policy drop;
                th sport != PORT accept
                iifname lan0 accept
            }",
        ),
        dropped: BACK,
    },
    Row {
        name: "a zone",
        change: Table(
            "chain from_wan {
                th sport PORT drop
            }
            chain c {
                type filter hook forward priority -10; policy accept;
                iifname wan0 jump from_wan
            }",
        ),
        dropped: BACK,
    },
    Row {
        name: "a set",
        change: Table(
            "set banned {
                type inet_service
                elements = { PORT }
            }
            chain c {
                type filter hook forward priority -10; policy accept;
                th dport @banned drop
                th sport @banned drop
            }",
        ),
        dropped: BOTH,
    },
    Row {
        name: "a packet's mark",
        change: Table(
            "chain marks {
                type filter hook prerouting priority -140; policy accept;
                iifname lan0 th dport PORT meta mark set 0x77
            }
            chain c {
                type filter hook forward priority -10; policy accept;
                meta mark 0x77 drop
            }",
        ),
        dropped: THERE,
    },
    Row {
        name: "a connection's mark",
        change: Table(
            "chain marks {
                type filter hook prerouting priority -140; policy accept;
                iifname lan0 th dport PORT ct mark set 0x78
            }
            chain c {
                type filter hook forward priority -10; policy accept;
                iifname wan0 ct mark 0x78 drop
            }",
        ),
        dropped: BACK,
    },
    Row {
        name: "iptables-nft",
        change: Command(
            "for p in tcp udp; do iptables-nft -I FORWARD -i lan0 -p $p --dport PORT -j DROP; done",
            "for p in tcp udp; do iptables-nft -D FORWARD -i lan0 -p $p --dport PORT -j DROP; done",
        ),
        dropped: THERE,
    },
];

/// The server's port in a row.
fn port(row: usize) -> u16 {
    6000 + row as u16
}

impl Row {
    /// Makes the drop come, or go.
    fn apply(&self, lab: &Lab, port: u16, comes: bool) {
        let table = format!("table inet row_{port}");
        let body = match self.change {
            Chain(rule) => format!(
                "chain c {{
                    type filter hook forward priority -10; policy accept;
                    {rule}
                }}"
            ),
            Table(body) => body.to_owned(),
            Command(there, back) => {
                let command = if comes { there } else { back };
                lab.router.sh(&command.replace("PORT", &port.to_string()));
                return;
            }
        };
        let body = [("PORT", port.to_string()), ("CLIENT", CLIENT.to_string())]
            .into_iter()
            .chain([("SERVER", SERVER.to_string())])
            .fold(body, |body, (name, value)| body.replace(name, &value));
        if comes {
            lab.nft(&format!("{table} {{\n{body}\n}}"));
        } else {
            lab.nft(&format!("delete {table}"));
        }
    }
}

fn apply_all(lab: &Lab, comes: bool) {
    for (number, row) in ROWS.iter().enumerate() {
        row.apply(lab, port(number), comes);
    }
}

/// All rows with UDP and, if asked, TCP.
fn conversations(with_tcp: bool) -> Vec<(Protocol, u16)> {
    let protocols: &[Protocol] =
        if with_tcp { &[Protocol::Udp, Protocol::Tcp] } else { &[Protocol::Udp] };
    let rows = || 0..ROWS.len();
    protocols.iter().flat_map(|protocol| rows().map(|row| (*protocol, port(row)))).collect()
}

/// The row of a conversation.
fn row_of((_, talk): (Protocol, u16)) -> &'static Row {
    &ROWS[usize::from(talk - port(0))]
}

/// Two labs that are alike; bpfw runs in the second one, if it runs.
fn labs(hook: &str, test: &str, nat: bool) -> [Lab; 2] {
    let rules = if nat { snat_rules() } else { no_nat_rules() };
    ["k", "b"].map(|which| lab(hook, &format!("{test}{which}"), &rules))
}

/// Each direction of each conversation is heard in both labs, or in neither, as its row says.
fn expect_alike(talks: &[Talks; 2], all: &[(Protocol, u16)], dropped: bool) {
    let heard = || {
        let before = talks.each_ref().map(|talks| talks.heard().iter().map(|h| h.so_far()));
        let before = before.map(Iterator::collect::<Vec<_>>);
        std::thread::sleep(LISTEN);
        let after = talks.each_ref().map(|talks| talks.heard().iter().map(|h| h.so_far()));
        let after = after.map(Iterator::collect::<Vec<_>>);
        [0, 1].map(|lab: usize| {
            let both = before[lab].iter().zip(&after[lab]);
            both.map(|(old, new)| [0, 1].map(|end: usize| new[end] - old[end])).collect::<Vec<_>>()
        })
    };
    let [stack, bpfw] = heard();
    for (number, talk) in all.iter().enumerate() {
        let row = row_of(*talk);
        for end in 0..2 {
            let who = ["the server", "the client"][end];
            let what = format!("{:?}, {}: {who}", talk.0, row.name);
            let (stack, bpfw) = (stack[number][end], bpfw[number][end]);
            if dropped && row.dropped[end] {
                assert_eq!(bpfw, 0, "{what} hears what the rules drop (the stack's: {stack})");
            }
            // TCP's other direction goes on for a while after one has stopped, as it happens.
            if talk.0 == Protocol::Udp || row.dropped == NONE || !dropped {
                assert_eq!(stack > 0, bpfw > 0, "{what} hears {bpfw} instead of {stack}");
            }
        }
    }
}

/// Nobody hears any longer what rules drop.
fn expect_silence(talks: &Talks, all: &[(Protocol, u16)]) {
    let conversations = || all.iter().zip(talks.heard());
    let banned = |end: usize| conversations().filter(move |(talk, _)| row_of(**talk).dropped[end]);
    for end in 0..2 {
        let listeners: Vec<_> = banned(end).map(|(_, heard)| (heard, end)).collect();
        let last = silence(&listeners, QUIET, LIMIT);
        for ((talk, _), last) in banned(end).zip(last) {
            let name = row_of(*talk).name;
            assert!(last.is_some(), "{:?}, {name}: they still come", talk.0);
        }
    }
}

/// Packets of what no rule drops take the fast path.
fn expect_others_fast(daemon: &Daemon) {
    let maps = Maps::of(daemon.pid());
    let before = maps.packets(abi::BPFW_FORWARDED);
    eventually(LIMIT, "what no rule drops is fast", || {
        maps.packets(abi::BPFW_FORWARDED) > before + 100
    });
}

/// The answers of UDP are dropped from the first packet on, and conntrack calls the connection
/// established and assured all the same.
fn hazard_55_drops_from_the_beginning(hook: &str, test: &str) {
    let labs = labs(hook, test, true);
    labs.iter().for_each(|lab| apply_all(lab, true));
    let daemon = start(&labs[1], hook, &[]);
    let all = conversations(false);
    let talks = labs.each_ref().map(|lab| Talks::start(lab, &all));
    // Until conntrack calls them streams.
    expect_others_fast(&daemon);
    std::thread::sleep(Duration::from_millis(2500));
    expect_alike(&talks, &all, true);
    labs.iter().for_each(|lab| apply_all(lab, false));
    talks.iter().for_each(|talks| talks.wait_until_heard(LIMIT));
}

/// Connections live, and then rules drop their packets: bpfw, which starts after that, must not
/// revive them; nor one that starts again.
fn hazard_55_drops_before_the_start_and_a_restart(hook: &str, test: &str) {
    let labs = labs(hook, test, true);
    let all = conversations(true);
    let talks = labs.each_ref().map(|lab| Talks::start(lab, &all));
    talks.iter().for_each(|talks| talks.wait_until_heard(LIMIT));
    labs.iter().for_each(|lab| apply_all(lab, true));
    for _ in 0..2 {
        let daemon = start(&labs[1], hook, &[]);
        expect_others_fast(&daemon);
        expect_alike(&talks, &all, true);
        assert!(daemon.stop(LIMIT).success());
    }
}

/// Connections on the fast path, and then rules drop their packets. The others go on, and are fast
/// again; and so are those that the rules dropped, when the rules have gone.
fn hazard_56_a_new_drop_counts_at_once(hook: &str, test: &str) {
    for nat in [true, false] {
        let labs = labs(hook, test, nat);
        let daemon = start(&labs[1], hook, &[]);
        let all = conversations(true);
        let talks = labs.each_ref().map(|lab| Talks::start(lab, &all));
        talks.iter().for_each(|talks| talks.wait_until_heard(LIMIT));
        wait_until_offloaded(&daemon, all.len());
        expect_others_fast(&daemon);
        // Where conntrack translates, the end of an entry is the end of TCP.
        let deletions = if nat { &[false][..] } else { &[false, true] };
        for deleted in deletions {
            labs.iter().for_each(|lab| apply_all(lab, true));
            expect_silence(&talks[1], &all);
            if *deleted {
                // Conntrack begins anew, for TCP in mid-flow (nf_conntrack_tcp_loose).
                labs.iter().for_each(|lab| drop(lab.conntrack(&["-F"])));
            }
            expect_alike(&talks, &all, true);
            expect_others_fast(&daemon);
            labs.iter().for_each(|lab| apply_all(lab, false));
            talks.iter().for_each(|talks| talks.wait_until_heard(LIMIT));
            expect_others_fast(&daemon);
        }
    }
}

/// Elements of a set come one by one; those of other connections do not stop this one for long.
#[test]
fn hazard_56_elements_of_sets_count() {
    for hook in ["xdp", "tc"] {
        if !root_or_skip("hazard_56_elements_of_sets_count") {
            return;
        }
        let lab = lab(hook, "elements", &snat_rules());
        lab.nft(
            "table inet bans {
                set banned {
                    type inet_service
                }
                chain c {
                    type filter hook forward priority -10; policy accept;
                    th dport @banned drop
                }
            }",
        );
        let daemon = start(&lab, hook, &[]);
        let talks = Talks::start(&lab, &[(Protocol::Udp, 6000), (Protocol::Tcp, 6001)]);
        talks.wait_until_heard(LIMIT);
        wait_until_offloaded(&daemon, 2);
        expect_others_fast(&daemon);
        for (number, heard) in talks.heard().iter().enumerate() {
            lab.nft(&format!("add element inet bans banned {{ {} }}", 6000 + number));
            let last = falls_silent(heard, 0, QUIET, LIMIT).expect("a ban ends it");
            println!("{hook}: the last packet {last:?} after the element");
            lab.nft(&format!("delete element inet bans banned {{ {} }}", 6000 + number));
            talks.wait_until_heard(LIMIT);
        }
    }
}

/// A rule drops by a mark that connections do not have yet. A change of rules is not what tells.
fn hazard_56_a_new_mark_counts(hook: &str, test: &str) {
    const MARK: &str = "0x77";
    let lab = lab(hook, test, &snat_rules());
    lab.nft(&format!(
        "table ip marked {{
            chain c {{
                type filter hook forward priority -10; policy accept;
                iifname lan0 ct mark {MARK} drop
            }}
        }}"
    ));
    let daemon = start(&lab, hook, &[]);
    let all = [(Protocol::Udp, 6000), (Protocol::Tcp, 6001), (Protocol::Udp, 6002)];
    let talks = Talks::start(&lab, &all);
    talks.wait_until_heard(LIMIT);
    wait_until_offloaded(&daemon, all.len());
    expect_others_fast(&daemon);
    for number in [0, 1] {
        let (protocol, port) = all[number];
        let tuple = conntrack::original(&lab, protocol, port);
        conntrack::update(&lab, tuple, &format!("-m {MARK}"));
        falls_silent(&talks.heard()[number], 0, QUIET, LIMIT).expect("the mark counts");
        conntrack::update(&lab, tuple, "-m 0");
        talks.wait_until_heard(LIMIT);
    }
    wait_until_offloaded(&daemon, all.len());
    expect_others_fast(&daemon);
}

/// Packets that the old rules let pass wait for a program's verdict, and leave after a ban.
fn hazard_63_packets_that_waited_in_a_queue_prove_nothing(hook: &str, test: &str) {
    const HELD: u32 = 5;
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    // A hook that comes while packets wait would have them wait again (nf_reinject).
    lab.nft(&format!("table ip ban {{\n{BAN_CHAIN}\n}}\n}}"));
    let mut queue = Queue::open(&lab.router, 1);
    lab.router.sh("iptables-nft -A FORWARD -p udp --dport 7 -j NFQUEUE --queue-num 1");
    eventually(LIMIT, "packets wait in the queue", || {
        client.send(1);
        queue.held() >= HELD
    });
    // What the fast path has still sent is not what is asked for.
    while client.recv(QUIET).is_some() {}
    let (held, arrived) = (queue.held() as usize, server.sources().len());
    let maps = Maps::of(daemon.pid());
    let old = maps.packets(abi::BPFW_STAMP_OLD);
    ban_echoes(&lab);
    queue.release();
    eventually(LIMIT, "all that waited arrive", || server.sources().len() == arrived + held);
    let old = maps.packets(abi::BPFW_STAMP_OLD) - old;
    println!("{hook}: of {held} packets that waited, {old} had an old stamp");
    assert!(old >= u64::from(HELD), "the way out has seen them");
    expect_banned(&daemon, &client);
}

/// Its packets come here before other rules do anything with them.
const BAN_CHAIN: &str = "chain c {
    type filter hook forward priority -10; policy accept;";

/// Drops what goes to the echo server.
fn ban_echoes(lab: &Lab) {
    lab.nft(&format!("table ip ban {{\n{BAN_CHAIN}\nudp dport 7 drop\n}}\n}}"));
}

/// What waited before the ban has left, and nothing follows it.
fn expect_banned(daemon: &Daemon, client: &UdpClient) {
    while client.recv(QUIET).is_some() {}
    let before = forwarded(daemon);
    for number in 100..150 {
        assert!(!client.echoes(number, Duration::from_millis(10)), "the ban holds");
    }
    assert_eq!(forwarded(daemon), before);
}

/// Packets that the old rules let pass wait for the next hop's MAC address, and leave after a ban.
fn hazard_63_packets_that_waited_for_a_neighbor_prove_nothing(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    // The server does not answer ARP for a while; what it has learned of the router it keeps.
    lab.server.ip(&format!(
        "neigh replace {ROUTER_WAN} lladdr {} dev eth0 nud permanent\nlink set eth0 arp off\n",
        show(ROUTER_WAN_MAC)
    ));
    lab.router.ip(&format!("neigh del {SERVER} dev wan0\n"));
    let seen = lab.stack_packets();
    eventually(LIMIT, "packets go to the stack, and wait there", || {
        client.send(1);
        lab.stack_packets() > seen + 2
    });
    ban_echoes(&lab);
    lab.router.ip(&format!(
        "neigh replace {SERVER} lladdr {} dev wan0 nud permanent\n",
        show(SERVER_MAC)
    ));
    expect_banned(&daemon, &client);
}

/// Where answers leave decides whether the stack forwards: by rp_filter, and by a rule.
fn hazard_66_the_way_back_decides(hook: &str, test: &str) {
    let strict = "table ip strict {
        chain c {
            type filter hook prerouting priority -10; policy accept;
            fib saddr . iif oif missing drop
        }
    }";
    // By iif, bpfw finds another way back than nftables' fib, which asks with the loopback interface.
    let routes_by_interface =
        format!("rule add iif wan0 lookup 100\nroute add {CLIENT}/32 dev lan0 table 100\n");
    // The fib asks without ports, too.
    let routes_by_port = format!(
        "rule add ipproto udp dport 6000 lookup 100\nroute add {CLIENT}/32 dev lan0 table 100\n\
         route add {SERVER}/32 dev wan0 table 100\n"
    );
    let policies = [(false, ""), (true, ""), (true, &routes_by_interface), (true, &routes_by_port)];
    for (by_rule, policy) in policies {
        let lab = lab(hook, test, &no_nat_rules());
        lab.router.ip(policy);
        lab.router
            .ip("link add dmz0 type veth peer name dmz1\nlink set dmz1 up\nlink set dmz0 up\n");
        if by_rule {
            lab.nft(strict);
        } else {
            lab.router.sysctl("net/ipv4/conf/lan0/rp_filter", "1");
        }
        // A new period must not do it.
        let daemon = start(&lab, hook, &["--prove-every", "0"]);
        let talks = Talks::start(&lab, &[(Protocol::Udp, 6000)]);
        talks.wait_until_heard(LIMIT);
        expect_others_fast(&daemon);
        // It has become a stream: nothing but the change below sends it by the stack.
        std::thread::sleep(Duration::from_secs(3));
        // The client's packets still come in at lan0; answers would leave by dmz0.
        lab.router.ip(&format!("route add {CLIENT}/32 dev dmz0\n"));
        let last = falls_silent(&talks.heard()[0], 0, QUIET, LIMIT);
        assert!(last.is_some(), "the stack drops them: by a rule {by_rule}, {policy}");
        lab.router.ip(&format!("route del {CLIENT}/32 dev dmz0\n"));
        talks.wait_until_heard(LIMIT);
        expect_others_fast(&daemon);
    }
}

/// A copy that leaves by the next hop looks like the packet itself, which the rules may drop.
fn hazard_64_nothing_is_offloaded_while_rules_copy(hook: &str, test: &str) {
    let lab = lab(hook, test, &no_nat_rules());
    let daemon = start(&lab, hook, &[]);
    let talks = Talks::start(&lab, &[(Protocol::Udp, 6000)]);
    talks.wait_until_heard(LIMIT);
    expect_others_fast(&daemon);
    let dup = format!(
        "table ip copies {{
            chain c {{
                type filter hook forward priority -10; policy accept;
                ip daddr {SERVER} dup to {SERVER}
                ip daddr {SERVER} drop
            }}
        }}"
    );
    let tee = |verb: &str| {
        for target in ["TEE --gateway", "DROP #"] {
            let rule = format!("FORWARD -d {SERVER} -j {target} {SERVER}");
            lab.router.sh(&format!("iptables-nft -t mangle {verb} {rule}"));
        }
    };
    for by_nft in [true, false] {
        let mark = daemon.mark();
        if by_nft {
            lab.nft(&dup)
        } else {
            tee("-A")
        }
        daemon.wait_for_line_after(mark, "nothing is offloaded: rules send copies", LIMIT);
        let before = forwarded(&daemon);
        std::thread::sleep(LISTEN);
        assert_eq!(forwarded(&daemon), before);
        if by_nft {
            lab.nft("delete table ip copies")
        } else {
            tee("-D")
        }
        daemon.wait_for_line_after(mark, "nothing stands against offloading any more", LIMIT);
        expect_others_fast(&daemon);
    }
}

/// An element that expires is told to nobody. Neither are the rules of iptables-legacy.
fn hazard_67_changes_without_a_word_count_within_two_periods(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.nft(
        "table inet allow {
            set allowed {
                type inet_service
                flags timeout
                elements = { 6000 timeout 4s }
            }
            chain c {
                type filter hook forward priority -10; policy accept;
                th dport { 6000, 6001 } th dport != @allowed drop
            }
        }",
    );
    let daemon = start(&lab, hook, &["--prove-every", "1"]);
    let talks = Talks::start(&lab, &[(Protocol::Udp, 6000), (Protocol::Udp, 6002)]);
    talks.wait_until_heard(LIMIT);
    expect_others_fast(&daemon);
    let last = falls_silent(&talks.heard()[0], 0, QUIET, LIMIT).expect("the element's end counts");
    println!("{hook}: the last packet {last:?} after the start");
    let [there, back] = talks.heard()[1].within(LISTEN);
    assert!(there > 0 && back > 0, "the other one goes on");
    expect_others_fast(&daemon);
    let legacy = |what| format!("iptables-legacy {what} FORWARD -p udp --dport 6002 -j DROP");
    if !lab.router.try_run(&["sh", "-c", &legacy("-I")]).status.success() {
        println!("iptables-legacy has no tables in this kernel");
        return;
    }
    falls_silent(&talks.heard()[1], 0, QUIET, LIMIT).expect("the rule counts");
    lab.router.sh(&legacy("-D"));
    eventually(LIMIT, "it goes on", || talks.heard()[1].within(LISTEN)[0] > 0);
}

/// Somebody clears tc_index before bpfw sees the packets that leave.
fn hazard_68_a_stamp_that_is_lost_is_said(hook: &str, test: &str) {
    if !bpfw::datapath::sys::has_tcx() {
        return lacking(test, "this kernel has no TCX, by which the test's programs are attached");
    }
    let other = IndexUser::load();
    let lab = lab(hook, test, &no_nat_rules());
    let foreign = other.attach(&lab.router, "wan0", AttachType::TcxEgress, "clear_index");
    let daemon = start(&lab, hook, &[]);
    let talks = Talks::start(&lab, &[(Protocol::Udp, 6000), (Protocol::Tcp, 6001)]);
    talks.wait_until_heard(LIMIT);
    // XDP leaves interfaces to the stack at which there are programs of others.
    let lost = format!("wan0: {}", Problem::StampLost);
    let said = if hook == "xdp" { "packets of wan0 stay" } else { &*lost };
    let line = daemon.wait_for_line(said, LIMIT);
    assert!(line.contains("the TCX program clear_index"), "{line}");
    let maps = Maps::of(daemon.pid());
    let is_proven = |conn: &bpfw_conn| conn.rest.proof != 0 && !conn.is_reply();
    assert!(!maps.connections().iter().any(is_proven), "nothing proves itself at wan0");
    let lines = daemon.lines();
    assert_eq!(lines.iter().filter(|line| line.contains(said)).count(), 1, "said once");
    drop(foreign);
    // A filter of clsact that does the same comes after bpfw's way out.
    if hook == "tc" {
        lab.router.sh("tc qdisc add dev wan0 clsact
             tc filter add dev wan0 egress protocol ip u32 match u32 0 0 flowid 1:0");
    }
    eventually(LIMIT, "both connections prove themselves", || {
        maps.connections().into_iter().filter(is_proven).count() == 2
    });
    expect_others_fast(&daemon);
}

/// What takes a stamp away, at the way in and at the way out, is what the check below stands on.
fn hazard_68_no_clearing_of_stamps_is_idle(hook: &str, test: &str) {
    if !bpfw::datapath::sys::has_tcx() {
        return lacking(test, "this kernel has no TCX, by which the test's programs are attached");
    }
    let which = if hook == "xdp" { Hook::Xdp } else { Hook::Tc };
    let way_in = if hook == "xdp" {
        (
            "stamp.h",
            "skb->tc_index = stamp_for(skb);",
            "__u32 stamp = stamp_for(skb);\n\tif (stamp)\n\t\tskb->tc_index = stamp;",
        )
    } else {
        (
            "hook_tc.h",
            "if (verdict != BPFW_PASS_UNPROVEN)\n\t\tskb->tc_index = 0;",
            "(void)verdict;\n\t(void)skb;",
        )
    };
    let way_out = ("egress.h", "\t\tskb->tc_index = 0;\n", "");
    for (number, (file, part, instead)) in [way_in, way_out].into_iter().enumerate() {
        let patched = Patched::new(&format!("{test}-{number}"), file, part, instead);
        let object = patched.compile(which);
        let failed = catch_unwind(|| expect_no_stamps_elsewhere(hook, test, Some(&object)));
        let panic = failed.expect_err("nothing fails without it");
        let said = panic.downcast_ref::<String>().expect("a message");
        assert!(said.contains(STAMPED), "{hook} without '{part}' of {file}: {said}");
    }
}

/// tc_index as somebody has set it in another namespace, or before bpfw: no packet leaves with one.
fn hazard_68_a_stamp_from_elsewhere_goes_nowhere(hook: &str, test: &str) {
    if !bpfw::datapath::sys::has_tcx() {
        return lacking(test, "this kernel has no TCX, by which the test's programs are attached");
    }
    expect_no_stamps_elsewhere(hook, test, None);
}

/// Begins what is said of packets that arrive with a stamp.
const STAMPED: &str = "packets with tc_index";

/// The same with bpfw's own programs, or others.
fn expect_no_stamps_elsewhere(hook: &str, test: &str, object: Option<&Path>) {
    let object: Vec<_> = object.into_iter().map(|path| path.to_str().expect("text")).collect();
    let (sender, receiver) = (IndexUser::load(), IndexUser::load());
    let lab = lab(hook, test, &snat_rules());
    let _links = [
        sender.attach(&lab.client, "eth0", AttachType::TcxEgress, "set_index"),
        receiver.attach(&lab.server, "eth0", AttachType::TcxIngress, "count_index"),
    ];
    // Without bpfw they pass through the router: else the test would show nothing.
    let (_server, client) = echo(&lab, 40000);
    assert_eq!(client.count_echoes(0..20, LIMIT), 20);
    let [seen, with_index] = receiver.seen();
    assert!(with_index >= 20, "of {seen} packets, {with_index} have an index");
    // At an interface without the way out, it is the way in that takes them.
    let usual = ["--max-connections", "16000", "lan0"];
    let daemon = Daemon::start(&lab.router, &[&[hook], &object[..], &usual].concat());
    daemon.wait_for_line("forwarding", LIMIT);
    lab.conntrack(&["-F"]);
    let before = receiver.seen();
    lab.client.sh(&format!("ping -c 3 -i 0.2 {SERVER}"));
    let after = receiver.seen();
    assert!(after[0] >= before[0] + 3);
    assert_eq!(after[1], before[1], "{STAMPED}, and are no connection's");
    assert!(daemon.stop(LIMIT).success());
    // The whole way, slow and fast.
    let _daemon = start(&lab, hook, &object);
    let before = receiver.seen();
    wait_until_fast(&lab, &client);
    assert_eq!(client.count_echoes(0..20, LIMIT), 20);
    let after = receiver.seen();
    assert!(after[0] >= before[0] + 20);
    assert_eq!(after[1], before[1], "{STAMPED}, of a connection");
}
