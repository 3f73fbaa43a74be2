// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw why`: each kind of answer, as users meet it.

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::net::{Shutdown, TcpListener, TcpStream};
use support::ask::{Answer, ask};
use support::conntrack::entry;
use support::daemon::Daemon;
use support::ipv6::{CLIENT6, ECHO6, add_ipv6, at6};
use support::lab::{CLIENT, Lab, ROUTER_LAN, SERVER};
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::schema::faults;
use support::tcp::{Path, TcpPair};
use support::udp::{UdpClient, udp_echo};
use support::wait::eventually;

on_both_hooks!(
    fast_connections_are_found_by_all_that_names_them,
    connections_that_stay_with_the_stack_say_why,
    a_direction_that_rules_drop_is_told,
    changes_of_routes_and_rules_are_told_apart,
    a_period_makes_connections_prove_themselves,
    what_concerns_all_connections_comes_first,
    connections_of_ipv6_are_told_alike,
);

fn why(lab: &Lab, words: &[&str]) -> Answer {
    ask(&lab.router, &[&["why"], words].concat())
}

fn why_json(lab: &Lab, words: &[&str]) -> Value {
    why(lab, &[words, &["--json"]].concat()).json()
}

/// Waits until the answer has this reason, and gives it as text.
fn expect(lab: &Lab, words: &[&str], reason: &str, code: i32) -> String {
    eventually(LIMIT, &format!("{words:?}: {reason}"), || why_json(lab, words)["reason"] == reason);
    let answer = why(lab, words);
    assert_eq!(answer.code, code, "{answer:?}");
    answer.out
}

fn fast_connections_are_found_by_all_that_names_them(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let _daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let line = entry(&lab, 40000).expect("an entry");
    let (from, to) = (format!("{CLIENT}:40000"), format!("{SERVER}:7"));
    for words in [
        &["udp", &from, &to][..],
        &["udp", "198.51.100.1:40000", &to],
        &["-p", "udp", "--sport", "40000"],
        &[&line],
    ] {
        let answer = why(&lab, words);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(answer.first_line(), "on the fast path, both directions", "{words:?}");
        for part in [
            format!("  udp {from} > {to}, leaves as 198.51.100.1:40000, assured, conntrack's id "),
            "  ->  forwarded: lan0 to wan0 by 198.51.100.2; ".to_owned(),
            "  <-  forwarded: wan0 to lan0 by 192.0.2.2; ".to_owned(),
        ] {
            assert!(answer.out.contains(&part), "{part} in {answer:?}");
        }
    }
    let json = why_json(&lab, &["--sport", "40000"]);
    assert_eq!((&json["verdict"], &json["reason"]), (&"fast".into(), &"fast".into()));
    assert_eq!(json["conntrack"]["id"], json["flow"]["id"]);
    let all = why_json(&lab, &[]);
    assert_eq!(all["reasons"][0]["reason"], "fast", "{all}");
    let text = why(&lab, &[]);
    assert_eq!(text.code, 0);
    assert!(text.first_line().ends_with(" connections of tcp and udp in conntrack"));
    assert!(text.out.contains("         1  on the fast path, both directions"), "{text:?}");
    let gone = expect(&lab, &["udp", &from, "198.51.100.2:9"], "gone", 4);
    assert!(gone.starts_with("no such connection in conntrack\n  to do: "), "{gone}");
    assert_eq!(why(&lab, &["src=192.0.2.2"]).code, 2);
}

/// UDP to port 8 has a mark, to port 10 a helper reads along.
const SPECIAL: &str = "
table ip special {
    ct helper transfer {
        type \"tftp\" protocol udp
    }
    chain prerouting {
        type filter hook prerouting priority -150; policy accept;
        udp dport 8 ct mark set 0x20
        udp dport 10 ct helper set \"transfer\"
        tcp dport 5001 ct mark set 0x10
        tcp dport 5002 ct mark set 0x10
        udp dport 10 ct mark set 0x10
    }
}
";

fn connections_that_stay_with_the_stack_say_why(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.nft(SPECIAL);
    let _daemon = start(&lab, hook, &["--offload-mark", "0x10/0xf0"]);
    let _servers = [8, 10].map(|port| udp_echo(&lab.server, at(SERVER, port)));
    for port in [8, 10] {
        let client = UdpClient::open(&lab.client, at(CLIENT, 40000 + port), at(SERVER, port));
        assert!(client.echoes(1, LIMIT));
    }
    let text = expect(&lab, &["--dport", "8"], "mark", 3);
    let expected = "stays with the stack: another mark\n  to do: set the mark of --offload-mark by";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains(", mark 0x20, "), "{text}");
    let text = expect(&lab, &["--dport", "10"], "watched", 3);
    assert!(text.starts_with("stays with the stack: helper, SYN proxy or"), "{text}");
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    wait_until_tcp_fast(&lab, &pair);
    expect(&lab, &["--dport", "5001"], "fast", 0);
    pair.client.shutdown(Shutdown::Write).expect("a FIN");
    let text = expect(&lab, &["--dport", "5001"], "not-established", 3);
    assert!(text.starts_with("stays with the stack: TCP not established\n"), "{text}");
    let listener = lab.router.enter(|| TcpListener::bind(at(ROUTER_LAN, 5002)).expect("free"));
    let _client = lab.client.enter(|| TcpStream::connect(at(ROUTER_LAN, 5002)).expect("open"));
    let _server = listener.accept().expect("a client");
    let text = expect(&lab, &["--dport", "5002"], "local", 3);
    assert!(text.starts_with("stays with the stack: local\n"), "{text}");
    let all = why_json(&lab, &[]);
    let reasons = all["reasons"].as_array().expect("a list");
    for reason in ["mark", "watched", "not-established", "local"] {
        assert!(reasons.iter().any(|each| each["reason"] == reason), "{reason} in {all}");
    }
}

fn a_direction_that_rules_drop_is_told(hook: &str, test: &str) {
    let lab = lab(hook, test, &no_nat_rules());
    let drop = "table ip ban { chain forward { type filter hook forward priority -1; \
                iifname wan0 udp sport 7 drop; }; }";
    lab.nft(drop);
    let _daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    let words = ["--sport", "40000"];
    eventually(LIMIT, "it is told", || {
        client.send(1);
        let json = why_json(&lab, &words);
        json["reason"] == "not-forwarded" && json["detail"] != Value::Null
    });
    let answer = why(&lab, &words);
    assert_eq!(answer.code, 3, "{answer:?}");
    let expected = format!(
        "offloaded, but its packets go up to the stack: the stack does not forward this direction: from {SERVER}"
    );
    assert_eq!(answer.first_line(), expected);
    assert!(answer.out.contains("to do: look for the rule that drops its packets"), "{answer:?}");
    assert!(answer.out.contains("  <-  not-forwarded: "), "{answer:?}");
}

/// After a change of routes, the proof still holds; after one of rules, it does not.
fn changes_of_routes_and_rules_are_told_apart(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let _daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let words = ["--sport", "40000"];
    lab.router.ip(&format!("route add 203.0.113.0/24 via {SERVER}\n"));
    let text = expect(&lab, &words, "looks-up", 0);
    assert!(text.starts_with("on the fast path, after its next packet has asked"), "{text}");
    lab.nft("table ip other { chain forward { type filter hook forward priority 5; }; }");
    let text = expect(&lab, &words, "unproven", 3);
    let expected = "offloaded, but its packets go up to the stack: the stack must send one first\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(client.echoes(1, LIMIT) && client.echoes(2, LIMIT));
    expect(&lab, &words, "fast", 0);
}

/// Each change is one answer, whatever is counted meanwhile.
#[test]
fn changes_are_watched() {
    let test = "changes_are_watched";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let daemon = start(&lab, "tc", &[]);
    let words = ["why", "udp", "192.0.2.2:40000", "198.51.100.2:7", "--json", "--watch"];
    let mut watch = Daemon::start(&lab.router, &words);
    let text = Daemon::start(&lab.router, &["why", "--sport", "40000", "--watch"]);
    watch.wait_for_line(r#""verdict":"gone""#, LIMIT);
    text.wait_for_line("no such connection in conntrack", LIMIT);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    watch.wait_for_line(r#""verdict":"fast""#, LIMIT);
    text.wait_for_line("on the fast path, both directions", LIMIT);
    let mark = watch.mark();
    assert_eq!(client.count_echoes(0..100, LIMIT), 100);
    lab.conntrack(&["-D", "-p", "udp"]);
    watch.wait_for_line_after(mark, r#""verdict":"gone""#, LIMIT);
    let lines = watch.lines();
    let essences: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("an object"))
        .map(|object| {
            let flow = &object["flow"];
            let states = [&flow["original"]["state"], &flow["reply"]["state"]];
            serde_json::json!([
                object["reason"],
                object["detail"],
                states,
                object["conntrack"]["id"]
            ])
        })
        .collect();
    assert_eq!(faults("why", &lines.join("\n")), Vec::<String>::new());
    assert!(essences.windows(2).all(|two| two[0] != two[1]), "{lines:?}");
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.wait_exit(LIMIT).code(), Some(4), "the last answer's");
    assert!(daemon.stop(LIMIT).success());
}

fn a_period_makes_connections_prove_themselves(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let _daemon = start(&lab, hook, &["--prove-every", "3"]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let words = ["--sport", "40000"];
    eventually(LIMIT, "it is fast within a period", || {
        client.echoes(1, LIMIT) && client.echoes(2, LIMIT) && why(&lab, &words).code == 0
    });
    expect(&lab, &words, "unproven", 3);
}

fn what_concerns_all_connections_comes_first(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    assert_eq!(why(&lab, &[]).code, 3, "nobody runs");
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let words = ["--sport", "40000"];
    daemon.signal(Signal::SIGSTOP);
    let text = expect(&lab, &words, "late", 3);
    assert!(
        text.starts_with("offloaded, but its packets go up to the stack: the daemon is late\n"),
        "{text}"
    );
    daemon.signal(Signal::SIGCONT);
    eventually(LIMIT, "it is fast again", || {
        client.echoes(2, LIMIT) && why(&lab, &words).code == 0
    });
    lab.nft(
        "table netdev guard { chain ban { type filter hook ingress device wan0 priority 0; }; }",
    );
    daemon.wait_for_line("packets of wan0 stay with the stack", LIMIT);
    eventually(LIMIT, "it is told", || {
        assert!(client.echoes(3, LIMIT));
        why_json(&lab, &words)["reason"] == "left-interface"
    });
    let answer = why(&lab, &words);
    let part =
        "an interface that is left to the stack: wan0: a chain of nftables at it must see all";
    assert!(answer.first_line().contains(part), "{answer:?}");
    lab.router.ip("rule add tos 0x10 table main\n");
    let text = expect(&lab, &words, "type-of-service", 3);
    assert!(text.contains("routing rules or routes by type of service\n"), "{text}");
}

fn connections_of_ipv6_are_told_alike(hook: &str, test: &str) {
    let lab = lab(hook, test, &no_nat_rules());
    add_ipv6(&lab);
    let _daemon = start(&lab, hook, &[]);
    let _server = udp_echo(&lab.server, ECHO6);
    let client = UdpClient::open(&lab.client, at6(CLIENT6, 40000), ECHO6);
    let (from, to) = (format!("[{CLIENT6}]:40000"), ECHO6.to_string());
    let words = ["udp", &from, &to];
    eventually(LIMIT, "it is fast", || {
        client.echoes(1, LIMIT) && why_json(&lab, &words)["reason"] == "fast"
    });
    let list = lab.conntrack(&["-L", "-f", "ipv6", "-p", "udp"]);
    let list = support::netns::text(&list.stdout);
    let line = list.lines().next().expect("an entry");
    for words in [&[line][..], &["-s", &CLIENT6.to_string()], &["fd00:2::/32"]] {
        let answer = why(&lab, words);
        assert!([0, 3].contains(&answer.code) && answer.out.contains(&from), "{answer:?}");
    }
    let flow = ask(&lab.router, &["flows", "--json", "--sport", "40000"]).json();
    let expected = (&CLIENT6.to_string().into(), &ECHO6.ip().to_string().into());
    assert_eq!((&flow["original"]["src"], &flow["original"]["gateway"]), expected);
}
