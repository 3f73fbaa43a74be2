// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw events`: what begins and ends is told, to all who listen, and nobody who does not delays anything.

mod support;

use bpfw::conntrack::requests::Requests;
use bpfw::status::event::Event;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, socket,
};
use serde_json::Value;
use std::collections::HashSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use support::ask::{ask, ask_as, sockets};
use support::crowd;
use support::daemon::{Daemon, program};
use support::lab::{CLIENT, Lab, ROUTER_WAN, SERVER};
use support::router::*;
use support::rules::{no_nat_rules, snat_rules};
use support::schema::faults;
use support::wait::{becomes_true, eventually};

on_both_hooks!(offloads_are_told, a_daemon_that_stops_tells_all_ends);

/// A client that has begun to listen.
fn listen(lab: &Lab, words: &[&str]) -> Daemon {
    let client = Daemon::start(&lab.router, &[&["events", "--json"], words].concat());
    client.wait_for_line(r#"{"event":"listening","#, LIMIT);
    client
}

/// What it has heard of this kind.
fn heard(client: &Daemon, event: &str) -> Vec<Value> {
    let lines = client.lines();
    let objects = lines.iter().filter(|line| !line.starts_with("error: "));
    let object = |line: &String| serde_json::from_str(line).expect("an object a line");
    let all: Vec<Value> = objects.map(object).collect();
    all.into_iter().filter(|object| object["event"] == event).collect()
}

fn one_more(client: &Daemon, event: &str, before: usize) -> Value {
    eventually(LIMIT, &format!("it hears {event}"), || heard(client, event).len() > before);
    heard(client, event)[before].clone()
}

fn offloads_are_told(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let client = listen(&lab, &["--interval", "1"]);
    let text = Daemon::start(&lab.router, &["events"]);
    let (_server, echoes) = echo(&lab, 40000);
    wait_until_fast(&lab, &echoes);
    let begin = one_more(&client, "begin", 0);
    assert_eq!((&begin["protoname"], &begin["original"]["packets"]), (&"udp".into(), &0.into()));
    assert_eq!(begin["original"]["src"], CLIENT.to_string());
    assert_eq!(begin["reply"]["dst"], ROUTER_WAN.to_string());
    // It became a stream, which is another offload of the same connection.
    let (first, _) = (one_more(&client, "end", 0), one_more(&client, "begin", 1));
    assert_eq!((&first["id"], heard(&client, "end").len()), (&begin["id"], 1));
    let flow = ask(&lab.router, &["flows", "--json"]).json();
    eventually(LIMIT, "that it goes on is told", || {
        heard(&client, "goes-on").iter().any(|each| {
            let is_same = |way: &str| {
                ["packets", "bytes"].iter().all(|name| each[way][name] == flow[way][name])
            };
            is_same("original") && is_same("reply")
        })
    });
    assert!(lab.conntrack(&["-D", "-p", "udp"]).status.success());
    let end = one_more(&client, "end", 1);
    for way in ["original", "reply"] {
        assert_ne!(end[way]["packets"], 0, "{end}");
        for name in ["packets", "bytes", "src", "dst", "sport", "dport"] {
            assert_eq!(end[way][name], flow[way][name], "{name} of {end}");
        }
    }
    assert_eq!(faults("events", &client.lines().join("\n")), Vec::<String>::new());
    let line = text.wait_for_line("end       udp", LIMIT);
    let expected = format!("udp {CLIENT}:40000 > {SERVER}:7, leaves as {ROUTER_WAN}:40000, ");
    assert!(line.contains(&expected) && line.contains("; -> "), "{line}");
    assert!(daemon.stop(LIMIT).success());
}

/// A lab for a crowd, whose timeout must be a usual one.
fn crowd_lab(hook: &str, test: &str) -> Lab {
    let lab = lab(hook, test, &no_nat_rules());
    lab.router.sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", "600");
    lab
}

/// So many connections come by events.
fn come(lab: &Lab, daemon: &Daemon, number: u32) {
    crowd::insert(lab, 0..number, crowd::STREAM);
    let mut requests = lab.router.enter(Requests::open).expect("sockets to conntrack");
    for number in 0..number {
        requests.queue_update(&crowd::tuple(number), None, false).expect("queued");
    }
    requests.flush().expect("sent");
    wait_until_offloaded(daemon, number as usize);
}

fn a_daemon_that_stops_tells_all_ends(hook: &str, test: &str) {
    const NUMBER: u32 = 500;
    let lab = crowd_lab(hook, test);
    let daemon = start(&lab, hook, &["--log-level", "info"]);
    let mut client = listen(&lab, &[]);
    come(&lab, &daemon, NUMBER);
    assert!(daemon.stop(LIMIT).success());
    assert!(client.wait_exit(LIMIT).success());
    let ends = heard(&client, "end");
    assert_eq!(heard(&client, "missed"), Vec::<Value>::new());
    let ports: HashSet<_> = ends.iter().map(|end| end["original"]["sport"].as_u64()).collect();
    assert_eq!((heard(&client, "begin").len(), ports.len()), (ends.len(), NUMBER as usize));
    assert_eq!(ask(&lab.router, &["events"]).code, 3);
}

/// What no other test makes, and what is wrong in each place.
#[test]
fn schemas_tell_what_is_wrong() {
    let missed = serde_json::to_string(&Event::Missed { events: 7 }).expect("written");
    assert_eq!(faults("events", &missed), Vec::<String>::new());
    for wrong in [
        r#"{"event":"missed"}"#,
        r#"{"event":"missed","events":-1}"#,
        r#"{"event":"missed","events":1.5}"#,
        r#"{"event":"missed","events":7,"more":1}"#,
        r#"{"event":"dreamt","events":7}"#,
        "{",
    ] {
        assert_eq!(faults("events", wrong).len(), 1, "{wrong}");
    }
}

/// Who may use the socket may listen. The maps are root's.
#[test]
fn rights_are_those_of_the_status() {
    let test = "rights_are_those_of_the_status";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = lab("tc", test, &snat_rules());
    let daemon = start(&lab, "tc", &[]);
    let nobody = ["setpriv", "--reuid=65534", "--clear-groups"];
    let answer = ask_as(&lab.router, &nobody, &["events"]);
    assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(answer.errors.contains("in the group bpfw"), "{answer:?}");
    let few = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let answer = ask_as(&lab.router, &few, &["events", "--interval", "1"]);
    assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(answer.errors.contains("run as root; 'bpfw status' needs the group"), "{answer:?}");
    let program = program();
    let words = [&few[1..], &[&program, "events", "--json"]].concat();
    let mut client = Daemon::start_program(&lab.router, few[0], &words);
    client.wait_for_line("listening", LIMIT);
    assert!(daemon.stop(LIMIT).success());
    assert!(client.wait_exit(LIMIT).success());
    assert_eq!(ask(&lab.router, &["events", "--interval", "0"]).code, 2);
}

fn events_socket(lab: &Lab) -> PathBuf {
    sockets(lab).pop().expect("it has one").with_extension("events")
}

/// A client that never reads; without blocking, or an error if nobody lets it in.
fn stuck(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let client = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    connect(client.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(client)
}

/// 100 clients never read, while connections come and go. The daemon is in time, whoever does read hears all, and
/// whoever finds no room is told so.
#[test]
fn hazard_30_clients_that_never_read_delay_nothing() {
    const NUMBER: u32 = 1_000;
    let test = "hazard_30_clients_that_never_read_delay_nothing";
    if !support::live::root_or_skip(test) {
        return;
    }
    let lab = crowd_lab("tc", test);
    let daemon = start(&lab, "tc", &["--log-level", "info"]);
    let client = listen(&lab, &[]);
    let path = events_socket(&lab);
    let mut stuck_ones = Vec::new();
    eventually(LIMIT, "100 clients have come", || {
        stuck_ones.extend(stuck(&path));
        stuck_ones.len() == 100
    });
    for round in 1..=3 {
        come(&lab, &daemon, NUMBER);
        assert!(lab.conntrack(&["-D", "-p", "udp"]).status.success());
        wait_until_offloaded(&daemon, 0);
        // A connection may be offloaded more than once.
        let expected = (NUMBER * round) as usize;
        eventually(LIMIT, "all is heard", || {
            let [begins, ends] = ["begin", "end"].map(|event| heard(&client, event).len());
            begins == ends && ends >= expected
        });
        let status = ask(&lab.router, &["status", "--json"]).json();
        assert_eq!(status["pauses"]["by_reason"]["late"], Value::Null, "{status}");
    }
    assert_eq!(heard(&client, "missed"), Vec::<Value>::new());
    let answer = ask(&lab.router, &["events"]);
    assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{answer:?}");
    assert!(answer.errors.contains("as many listen to this bpfw as it has room for"), "{answer:?}");
    let mut first = [0; 1 << 10];
    let length = recv(stuck_ones[0].as_raw_fd(), &mut first, MsgFlags::empty()).expect("a line");
    assert!(first[..length].starts_with(br#"{"event":"listening","#));
    drop(stuck_ones);
    // Other tests that start a program at this moment keep the sockets open until it runs.
    eventually(LIMIT, "there is room again", || {
        let mut client = Daemon::start(&lab.router, &["events", "--json"]);
        let listens = |client: &Daemon| !heard(client, "listening").is_empty();
        becomes_true(LIMIT, || client.exited().is_some() || listens(&client));
        client.exited().is_none() && listens(&client)
    });
    assert!(daemon.stop(LIMIT).success());
}
