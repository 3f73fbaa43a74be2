// SPDX-License-Identifier: GPL-2.0-only
//! What the router's conntrack says of single connections.

use super::lab::{CLIENT, Lab, SERVER};
use super::netns::text;
use super::router::at;
use bpfw::flow::tuple::{Protocol, Tuple};

/// The conntrack entry with this port on the client's side.
pub fn entry(lab: &Lab, port: u16) -> Option<String> {
    let list = lab.conntrack_list();
    list.lines().find(|line| line.contains(&format!("sport={port} "))).map(str::to_owned)
}

/// Seconds that conntrack's entry has left.
pub fn time_left(lab: &Lab, port: u16) -> u64 {
    let entry = entry(lab, port).expect("an entry");
    entry.split_whitespace().nth(2).and_then(|word| word.parse().ok()).expect("a timeout")
}

/// Whether the TCP connection's entry is in this state.
pub fn is_in_state(lab: &Lab, port: u16, state: &str) -> bool {
    entry(lab, port).is_some_and(|entry| entry.contains(state))
}

/// The original tuple of the connection from the lab's client to this port of the server.
pub fn original(lab: &Lab, protocol: Protocol, port: u16) -> Tuple {
    let list = lab.conntrack_list();
    let protocol_word = protocol.to_string();
    let is_it =
        |line: &&str| line.starts_with(&protocol_word) && line.contains(&format!("dport={port} "));
    let entry = list.lines().find(is_it).expect("an entry");
    let source = entry.split_whitespace().find_map(|word| word.strip_prefix("sport="));
    let source = source.and_then(|word| word.parse().ok()).expect("a port");
    Tuple::new(protocol, at(CLIENT, source), at(SERVER, port))
}

/// Changes the entry with this original tuple as another program, by options of conntrack's tool.
pub fn update(lab: &Lab, original: Tuple, change: &str) {
    let protocol = if original.protocol == Protocol::Tcp { "tcp" } else { "udp" };
    let [from, to] = [original.source, original.destination];
    let family = if from.is_ipv4() { "ipv4" } else { "ipv6" };
    let words = format!(
        "-U -f {family} -p {protocol} -s {} -d {} --sport {} --dport {} {change}",
        from.ip(),
        to.ip(),
        from.port(),
        to.port()
    );
    let output = lab.conntrack(&words.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{}", text(&output.stderr));
}
