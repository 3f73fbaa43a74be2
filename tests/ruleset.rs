// SPDX-License-Identifier: GPL-2.0-only
//! What bpfw reads out of rulesets that nft and iptables-nft load into the kernel.

#[path = "support/live.rs"]
mod live;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bpfw::firewall::statements::Kind;
use bpfw::firewall::walk::{Findings, find};
use bpfw::flow::family::Family;
use bpfw::netlink::firewall::Firewall;
use bpfw::netlink::ruleset::{Place, Ruleset};
use nix::sched::{CloneFlags, unshare};

const LIMIT: Duration = Duration::from_secs(10);

/// Runs a test on a thread in a new network namespace, which goes with the thread.
fn in_namespace(test: &str, body: fn()) {
    if !live::root_or_skip(test) {
        return;
    }
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
        body();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

fn run(program: &str, args: &[&str], input: &str) {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("input is taken");
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}\n{input}");
}

fn nft(rules: &str) {
    run("nft", &["-f", "-"], rules);
}

fn iptables(rule: &str) {
    run("iptables-nft", &rule.split_whitespace().collect::<Vec<_>>(), "");
}

/// The ruleset as it is now.
fn read() -> Ruleset {
    let mut firewall = Firewall::open().expect("the firewall can be listened to");
    firewall.read().expect("it can be read").expect("it is new")
}

fn found() -> Findings {
    find(&read(), Family::Ipv4)
}

/// What is found in a forward chain with these rules alone.
#[track_caller]
fn expect(rules: &str, kinds: &[Kind]) {
    nft(&format!(
        "table ip t
        delete table ip t
        table ip t {{
            quota many {{ 10 mbytes
            }}
            set banned {{ type ipv4_addr; flags dynamic, timeout; timeout 1h;
            }}
            chain other {{
            }}
            chain watched {{
                limit rate 1/second accept
            }}
            chain forwarding {{
                type filter hook forward priority 0; policy accept;
                {rules}
            }}
        }}"
    ));
    let found: Vec<_> = found().into_keys().collect();
    assert_eq!(found, kinds, "{rules}");
}

#[test]
fn hazard_27_statements_for_each_packet_are_found() {
    in_namespace("hazard_27_statements_for_each_packet_are_found", || {
        let cases = [
            ("quota over 10 mbytes drop", &[Kind::Quota][..]),
            ("quota name many drop", &[Kind::Quota]),
            ("limit rate 10/second accept", &[Kind::Limit]),
            ("ct count over 20 counter", &[Kind::ConnectionLimit]),
            ("meta hour \"10:00\"-\"12:00\" counter", &[Kind::Time]),
            ("meta day Monday counter", &[Kind::Time]),
            ("meta mark set 1", &[Kind::Mark]),
            ("ct mark set meta mark", &[Kind::Mark]),
            ("meta priority set 1:1", &[Kind::Priority]),
            ("ip dscp set cs1", &[Kind::Rewrite]),
            ("ip ttl set 64", &[Kind::Rewrite]),
            ("numgen random mod 3 0 counter", &[Kind::Random]),
            ("update @banned { ip saddr }", &[Kind::SetUpdate]),
            ("ct bytes > 1000000 counter", &[Kind::Volume]),
            ("dup to 192.0.2.9", &[Kind::Copy]),
            ("ip length > 1400 drop", &[Kind::Field]),
            ("meta length > 1400 drop", &[Kind::Field]),
            ("ip ttl < 5 reject", &[Kind::Field]),
            ("ip saddr 192.0.2.66 ip dscp cs1 accept", &[Kind::Field]),
            ("tcp flags psh drop", &[Kind::Field]),
            ("tcp option sack-perm exists drop", &[Kind::Field]),
            ("@th,64,8 1 drop", &[Kind::Field]),
            // Where a verdict map leads is not read: to any chain that no rule names.
            ("ip dscp vmap { cs1 : drop }", &[Kind::Limit, Kind::Field]),
            ("jump watched", &[Kind::Limit]),
            ("ip saddr 192.0.2.66 goto watched", &[Kind::Limit]),
            ("ip saddr vmap { 192.0.2.66 : jump watched }", &[Kind::Limit]),
            ("ct state related accept\nmeta mark set 1", &[Kind::Mark]),
            ("tcp dport 80 accept\nmeta mark set 1", &[Kind::Mark]),
        ];
        for (rules, kinds) in cases {
            expect(rules, kinds);
        }
    });
}

#[test]
fn hazard_27_rules_for_other_packets_are_not_found() {
    in_namespace("hazard_27_rules_for_other_packets_are_not_found", || {
        let cases = [
            "ct state established,related accept\nlimit rate 10/second accept",
            "ct state { established, related } accept\nlimit rate 10/second accept",
            "ct state vmap { established : accept, invalid : drop }\nmeta mark set 1",
            "ct state established counter accept\nip saddr @banned drop",
            "ct state != { new, invalid } accept\nip saddr @banned drop",
            "ct state invalid drop",
            "ct state invalid,untracked counter drop",
            "ct state { invalid, untracked } drop",
            "ct state new limit rate 10/second accept",
            "ct state new ct mark set 7",
            "ct state new add @banned { ip saddr }",
            "tcp flags syn limit rate 10/second accept",
            "tcp flags & (fin|syn|rst|ack) == syn meta mark set 1",
            "tcp flags syn tcp option maxseg size set rt mtu",
            "tcp option maxseg size set 1400",
            "icmp type echo-request limit rate 10/second accept",
            "ip frag-off & 0x1fff != 0 drop",
            "ip protocol esp drop",
            "iifname wan0 ip saddr 192.0.2.0/24 drop",
            "fib saddr . iif oif missing drop",
            "ip saddr @banned drop",
            "ip saddr 192.0.2.66 reject",
            "iifname wan0 ip saddr @banned drop",
            "iifname wan0 oifname lan0 tcp dport 22 drop",
            "ct mark 7 drop",
            "ip length > 1400 counter",
            "counter\nct mark 1 counter\nmeta priority 1:1 counter",
            "jump other\nreturn\nlimit rate 1/second accept",
            "accept\nlimit rate 1/second accept",
        ];
        for rules in cases {
            expect(rules, &[]);
        }
    });
}

/// What is found for packets of IPv6 in forward chains of IPv6 alone, and of both families.
#[test]
fn hazard_27_statements_for_packets_of_ipv6_are_found() {
    in_namespace("hazard_27_statements_for_packets_of_ipv6_are_found", || {
        let cases = [
            ("limit rate 10/second accept", &[Kind::Limit][..]),
            ("meta mark set 1", &[Kind::Mark]),
            ("ip6 dscp set cs1", &[Kind::Rewrite]),
            ("ip6 hoplimit set 64", &[Kind::Rewrite]),
            // Translation that conntrack does not know of.
            ("ip6 saddr set 2001:db8::1", &[Kind::Rewrite]),
            ("ip6 length > 1400 drop", &[Kind::Field]),
            ("ip6 hoplimit < 5 drop", &[Kind::Field]),
            ("ip6 flowlabel 1 drop", &[Kind::Field]),
            ("ip6 dscp cs1 accept", &[Kind::Field]),
            ("ip6 nexthdr icmpv6 limit rate 1/second accept", &[]),
            ("icmpv6 type echo-request limit rate 1/second accept", &[]),
            ("ip6 nexthdr { tcp, udp } accept", &[]),
            ("ip6 saddr 2001:db8::/32 drop", &[]),
            ("ct state established,related accept\nlimit rate 10/second accept", &[]),
        ];
        for (rules, kinds) in cases {
            for family in ["ip6", "inet"] {
                let hook = "type filter hook forward priority 0; policy accept;";
                nft(&format!(
                    "flush ruleset\ntable {family} t {{\nchain c {{\n{hook}\n{rules}\n}}\n}}"
                ));
                let found: Vec<_> = find(&read(), Family::Ipv6).into_keys().collect();
                assert_eq!(found, kinds, "{family}: {rules}");
            }
        }
    });
}

#[test]
fn hazard_27_each_family_is_asked_for_its_own_rules() {
    in_namespace("hazard_27_each_family_is_asked_for_its_own_rules", || {
        let kinds = |family| find(&read(), family).into_keys().collect::<Vec<_>>();
        for (rules, of_ipv4, of_ipv6) in [
            ("table ip t", true, false),
            ("table ip6 t", false, true),
            ("table inet t", true, true),
        ] {
            let chain = "chain c {\ntype filter hook forward priority 0;\nmeta mark set 1\n}";
            nft(&format!("flush ruleset\n{rules} {{\n{chain}\n}}"));
            let found = Family::ALL.map(|family| kinds(family) == [Kind::Mark]);
            assert_eq!(found, [of_ipv4, of_ipv6], "{rules}");
        }
        nft("flush ruleset");
        for (rule, kind) in [
            ("-t mangle -A FORWARD -j MARK --set-mark 1", Kind::Mark),
            ("-t mangle -A FORWARD -j HL --hl-set 64", Kind::Rewrite),
            ("-A FORWARD -m hl --hl-lt 5 -j DROP", Kind::Field),
        ] {
            run("ip6tables-nft", &rule.split_whitespace().collect::<Vec<_>>(), "");
            assert_eq!((kinds(Family::Ipv4), kinds(Family::Ipv6)), (vec![], vec![kind]), "{rule}");
            nft("flush ruleset");
        }
    });
}

#[test]
fn hazard_27_chains_elsewhere_are_not_found() {
    in_namespace("hazard_27_chains_elsewhere_are_not_found", || {
        let chain = |family: &str, kind: &str| {
            nft(&format!(
                "table {family} t
                delete table {family} t
                table {family} t {{
                    chain c {{
                        type {kind} policy accept;
                        meta mark set 1
                    }}
                }}"
            ));
            let found = found();
            nft(&format!("delete table {family} t"));
            !found.is_empty()
        };
        for hook in ["prerouting", "forward", "postrouting"] {
            assert!(chain("inet", &format!("filter hook {hook} priority 0;")), "{hook}");
            assert!(!chain("ip6", &format!("filter hook {hook} priority 0;")), "IPv6 {hook}");
        }
        for hook in ["input", "output"] {
            assert!(!chain("inet", &format!("filter hook {hook} priority 0;")), "{hook}");
        }
        // A connection's first packet only.
        assert!(!chain("ip", "nat hook postrouting priority 100;"));
        assert!(!chain("netdev", "filter hook ingress device lo priority 0;"));
    });
}

#[test]
fn hazard_27_rules_of_iptables_are_found() {
    in_namespace("hazard_27_rules_of_iptables_are_found", || {
        let cases = [
            ("-m limit --limit 10/s -j ACCEPT", Kind::Limit),
            ("-m hashlimit --hashlimit-above 9/s --hashlimit-name h -j ACCEPT", Kind::Limit),
            ("-m connlimit --connlimit-above 20 -j ACCEPT", Kind::ConnectionLimit),
            ("-m quota --quota 1000000 -j ACCEPT", Kind::Quota),
            ("-m time --timestart 10:00 --timestop 12:00 -j ACCEPT", Kind::Time),
            ("-m recent --name r --set", Kind::SetUpdate),
            ("-m statistic --mode random --probability 0.5 -j ACCEPT", Kind::Random),
            (
                "-m connbytes --connbytes 9: --connbytes-dir both --connbytes-mode bytes",
                Kind::Volume,
            ),
            ("-t mangle -j MARK --set-mark 1", Kind::Mark),
            ("-t mangle -j CONNMARK --save-mark", Kind::Mark),
            ("-t mangle -j DSCP --set-dscp 8", Kind::Rewrite),
            ("-t mangle -j TTL --ttl-set 64", Kind::Rewrite),
            ("-t mangle -j CLASSIFY --set-class 1:1", Kind::Priority),
            ("-j NFQUEUE --queue-num 0", Kind::Queue),
            ("-m length --length 1400: -j DROP", Kind::Field),
            ("-m ttl --ttl-lt 5 -j REJECT", Kind::Field),
        ];
        for (rule, kind) in cases {
            iptables(&format!("-A FORWARD {rule}"));
            assert_eq!(found().into_keys().collect::<Vec<_>>(), [kind], "{rule}");
            iptables(&format!("-D FORWARD {rule}"));
        }
        iptables("-A FORWARD -m conntrack --ctstate INVALID -j DROP");
        iptables("-A FORWARD -m conntrack --ctstate NEW -m limit --limit 10/s -j ACCEPT");
        iptables("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        iptables("-A FORWARD -m limit --limit 10/s -j ACCEPT");
        iptables("-A FORWARD -s 192.0.2.66 -j DROP");
        assert_eq!(found(), Findings::new());
    });
}

#[test]
fn hazard_31_chains_name_their_interfaces() {
    in_namespace("hazard_31_chains_name_their_interfaces", || {
        run("ip", &["link", "add", "lan0", "type", "veth", "peer", "name", "wan0"], "");
        nft("
            table netdev t {
                chain one {
                    type filter hook ingress device lan0 priority 0; policy accept;
                }
                chain both {
                    type filter hook ingress devices = { lan0, wan0 } priority 1; policy accept;
                }
                chain out {
                    type filter hook egress device wan0 priority 0; policy accept;
                }
            }
            table inet t {
                chain in {
                    type filter hook ingress device lan0 priority 0; policy accept;
                }
                chain other {
                    type filter hook forward priority 0; policy accept;
                }
            }");
        let mut hooks: Vec<_> = read()
            .chains
            .into_iter()
            .filter_map(|chain| Some((chain.to_string(), chain.hook?)))
            .map(|(name, hook)| {
                let mut names: Vec<_> = hook.devices.into_iter().map(|one| one.name).collect();
                names.sort();
                (name, hook.place, names.join(" "))
            })
            .collect();
        hooks.sort_by(|one, other| one.0.cmp(&other.0));
        let expected = [
            ("inet t in", Place::Ingress, "lan0"),
            ("inet t other", Place::Forwarding, ""),
            ("netdev t both", Place::Ingress, "lan0 wan0"),
            ("netdev t one", Place::Ingress, "lan0"),
            ("netdev t out", Place::Egress, "wan0"),
        ];
        let expected = expected.map(|(name, place, devices)| (name.into(), place, devices.into()));
        assert_eq!(hooks, expected);
    });
}

#[test]
fn hazard_03_timeout_policies_are_seen() {
    in_namespace("hazard_03_timeout_policies_are_seen", || {
        let mut firewall = Firewall::open().unwrap();
        firewall.read().unwrap();
        assert!(!firewall.has_timeout_policies());
        nft("
            table ip t {
                ct timeout short {
                    protocol udp
                    l3proto ip
                    policy = { unreplied: 20, replied: 20 }
                }
            }");
        // At once: long before the ruleset is read again.
        firewall.read_events(Instant::now() + LIMIT).unwrap();
        firewall.read().unwrap();
        assert!(firewall.has_timeout_policies());
        nft("delete table ip t");
        let end = Instant::now() + LIMIT;
        while firewall.has_timeout_policies() {
            assert!(Instant::now() < end, "the policy is still there");
            std::thread::sleep(Duration::from_millis(50));
            firewall.read_events(end).unwrap();
            firewall.read().unwrap();
        }
        run("nfct", &["add", "timeout", "short", "inet", "udp", "unreplied", "20"], "");
        let end = Instant::now() + LIMIT;
        while !firewall.has_timeout_policies() {
            assert!(Instant::now() < end, "the policy of nfct's is not seen");
            std::thread::sleep(Duration::from_millis(50));
            firewall.read().unwrap();
        }
    });
}

#[test]
fn only_changes_of_rules_are_read() {
    in_namespace("only_changes_of_rules_are_read", || {
        nft("
            table ip t {
                set s { type ipv4_addr;
                }
                chain c {
                }
            }");
        let mut firewall = Firewall::open().unwrap();
        assert!(firewall.read().unwrap().is_some());
        let read_until = |firewall: &mut Firewall, end: Instant| {
            let mut times = 0;
            while Instant::now() < end {
                times += usize::from({
                    firewall.read_events(Instant::now() + LIMIT).unwrap();
                    firewall.read().unwrap().is_some()
                });
                std::thread::sleep(Duration::from_millis(20));
            }
            times
        };
        nft("add element ip t s { 192.0.2.1, 192.0.2.2 }");
        let end = Instant::now() + Duration::from_millis(1500);
        assert_eq!(read_until(&mut firewall, end), 0, "elements are no rules");
        let (started, mut times) = (Instant::now(), 0);
        for _ in 0..25 {
            nft("add rule ip t c counter");
            times += read_until(&mut firewall, Instant::now() + Duration::from_millis(80));
        }
        let most = started.elapsed().as_secs() as usize + 1;
        println!("25 changes in {:?}: read {times} times", started.elapsed());
        assert!((1..=most).contains(&times), "{times} times");
    });
}
