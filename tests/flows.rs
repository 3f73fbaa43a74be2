// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw flows`: what it lists is what the datapath has.

mod support;

use serde_json::Value;
use support::ask::{Answer, ask, ask_as};
use support::lab::{CLIENT, Lab, ROUTER_WAN, SERVER};
use support::maps::Maps;
use support::router::*;
use support::rules::snat_rules;
use support::tcp::{Path, TcpPair};

on_both_hooks!(connections_are_listed_as_they_are);

fn flows(lab: &Lab, words: &[&str]) -> Answer {
    let answer = ask(&lab.router, &[&["flows"], words].concat());
    assert_eq!(answer.code, 0, "{answer:?}");
    answer
}

fn objects(lab: &Lab, words: &[&str]) -> Vec<Value> {
    let answer = flows(lab, &[words, &["--json"]].concat());
    let object =
        |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    answer.out.lines().map(object).collect()
}

fn connections_are_listed_as_they_are(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, 40000);
    wait_until_fast(&lab, &client);
    let pair = TcpPair::open(&lab.client, &lab.server, Path::direct(at(SERVER, 5001)));
    wait_until_tcp_fast(&lab, &pair);
    both_are_there(&lab, &daemon);
    filters_choose(&lab);
    let text = flows(&lab, &["-p", "udp"]).out;
    let (header, line) = text.split_once('\n').expect("several lines");
    assert!(header.starts_with("PROTO ORIGINAL "), "{text}");
    assert!(line.starts_with(&format!("udp   {CLIENT}:40000 > {SERVER}:7 ")), "{text}");
    for words in [format!(" snat {ROUTER_WAN}:40000 "), " lan0 > wan0 ".to_owned()] {
        assert!(line.contains(&words), "{words} in {text}");
    }
    assert!(
        text.contains("\n1 connections offloaded (0 tcp, 1 udp), 0 of them ending; "),
        "{text}"
    );
    assert!(daemon.stop(LIMIT).success());
    assert_eq!(ask(&lab.router, &["flows"]).code, 3);
}

fn both_are_there(lab: &Lab, daemon: &support::daemon::Daemon) {
    let objects = objects(lab, &["--sort", "packets"]);
    assert_eq!(objects.len(), 2, "{objects:?}");
    let entries = Maps::of(daemon.pid()).connections();
    let packets: u64 = entries.iter().map(|conn| conn.volume().0).sum();
    let bytes: u64 = entries.iter().map(|conn| conn.volume().1).sum();
    let sum = |name: &str| -> u64 {
        let both = objects.iter().flat_map(|object| [&object["original"], &object["reply"]]);
        both.map(|direction| direction[name].as_u64().expect("a number")).sum()
    };
    assert_eq!((sum("packets"), sum("bytes")), (packets, bytes));
    let udp = objects.iter().find(|object| object["protoname"] == "udp").expect("the echo");
    assert_eq!((&udp["state"], &udp["assured"]), (&"forwarded".into(), &true.into()), "{udp}");
    let [original, reply] = ["original", "reply"].map(|name| &udp[name]);
    let expected = [("src", CLIENT), ("dst", SERVER), ("gateway", SERVER)];
    for (name, address) in expected {
        assert_eq!(original[name], address.to_string(), "{udp}");
    }
    assert_eq!((&reply["dst"], &reply["dport"]), (&ROUTER_WAN.to_string().into(), &40000.into()));
    for (direction, from, to) in [(original, "lan0", "wan0"), (reply, "wan0", "lan0")] {
        assert_eq!((&direction["iifname"], &direction["oifname"]), (&from.into(), &to.into()));
        assert!(direction["idle_ms"].as_u64().expect("a number") < 30_000, "{udp}");
    }
    let id = entries.iter().find(|conn| conn.cell.head.protocol == 17).map(|conn| conn.rest.id);
    assert_eq!(udp["id"].as_u64(), id.map(u64::from));
}

fn filters_choose(lab: &Lab) {
    for (words, number) in [
        (&["udp"][..], 1),
        (&["-p", "tcp", "--dport", "5001"], 1),
        (&["-s", "192.0.2.0/24"], 2),
        (&["-s", "198.51.100.1"], 2),
        (&["-d", "192.0.2.0/24"], 0),
        (&["-i", "wan0"], 2),
        (&["-i", "wan9"], 0),
        (&["--limit", "1"], 1),
    ] {
        assert_eq!(objects(lab, words).len(), number, "{words:?}");
    }
    let count = flows(lab, &["--count"]).out;
    assert!(count.starts_with("2 connections offloaded (1 tcp, 1 udp)"), "{count}");
    assert_eq!(count.lines().count(), 1);
    for words in [&["flows", "lan0"][..], &["flows", "--sort", "x"], &["flows", "-p", "icmp"]] {
        assert_eq!(ask(&lab.router, words).code, 2, "{words:?}");
    }
}

/// Users of the group bpfw may ask for the status, but only root reads maps.
#[test]
fn only_root_may_list() {
    let test = "only_root_may_list";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let _daemon = start(&lab, "tc", &[]);
    let few = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all"];
    let answer = ask_as(&lab.router, &few, &["flows"]);
    assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(answer.errors.contains("run as root; 'bpfw status' needs the group"), "{answer:?}");
}
