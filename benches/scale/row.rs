// SPDX-License-Identifier: GPL-2.0-only
//! What a router can have much of, and how it changes.

use crate::support::lab::{Lab, SERVER};
use clap::ValueEnum;
use serde::Serialize;
use std::fmt::Write;
use std::net::Ipv4Addr;

/// Another gateway beside the server.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
/// The first of as many /24 networks as there are routes.
const NETWORKS: u32 = 0x1000_0000;
/// The first of as many hosts as there are neighbors, elements, or rules.
const HOSTS: u32 = 0x0a09_0000;
/// Ten steps of changes a second are this many changes of routes or neighbors each: 1,000 a second.
const A_STEP: u32 = 100;

/// What there is much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Row {
    /// Attached interfaces; the MTU of one changes ten times a second
    Interfaces,
    /// Routes; 1,000 a second change their gateway
    Routes,
    /// Neighbors; 1,000 a second change their MAC address
    Neighbors,
    /// Elements of a set; ten a second come
    Elements,
    /// Rules of the firewall; ten a second come
    Rules,
}

/// A step of changes.
pub enum Change {
    /// Lines for `ip -batch`.
    Ip(String),
    /// Input for `nft -f`.
    Nft(String),
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(number)
}

fn lines(numbers: impl Iterator<Item = u32>, line: impl Fn(u32) -> String) -> String {
    numbers.fold(String::new(), |mut all, number| {
        writeln!(all, "{}", line(number)).expect("a string takes all");
        all
    })
}

fn route(number: u32, gateway: Ipv4Addr) -> String {
    format!("route replace {}/24 via {gateway}", address(NETWORKS + (number << 8)))
}

fn neighbor(number: u32, mac: u32) -> String {
    let host = address(HOSTS + number);
    format!("neigh replace {host} lladdr 02:00:00:00:09:{mac:02x} dev wan0 nud permanent")
}

fn hosts(numbers: impl Iterator<Item = u32>) -> String {
    let hosts: Vec<String> = numbers.map(|number| address(HOSTS + number).to_string()).collect();
    hosts.join(", ")
}

fn rule(number: u32) -> String {
    format!("ip saddr {} tcp dport 25 counter drop", address(HOSTS + number))
}

impl Row {
    /// The interfaces that bpfw is attached to besides the lab's own.
    pub fn interfaces(self, number: u32) -> Vec<String> {
        let wanted = if self == Self::Interfaces { number } else { 0 };
        (0..wanted).map(|number| format!("v{number}")).collect()
    }

    /// Makes so many.
    pub fn prepare(self, lab: &Lab, number: u32) {
        let all = 0..number;
        match self {
            Self::Interfaces => lab.router.ip(&lines(all, |each| {
                format!(
                    "link add v{each} type veth peer name p{each}\nlink set v{each} up\nlink set \
                     p{each} up"
                )
            })),
            Self::Routes => lab.router.ip(&lines(all, |each| route(each, SERVER))),
            Self::Neighbors => lab.router.ip(&lines(all, |each| neighbor(each, 0))),
            Self::Elements => lab.nft(&format!(
                "table ip scale {{\nset hosts {{ type ipv4_addr; elements = {{ {} }} }}\nchain \
                 forward {{ type filter hook forward priority 10; ip saddr @hosts drop; }}\n}}\n",
                hosts(all)
            )),
            Self::Rules => lab.nft(&format!(
                "table ip scale {{\nchain forward {{ type filter hook forward priority 10;\n{}\
                 }}\n}}\n",
                lines(all, rule)
            )),
        }
    }

    /// A tenth of a second's changes; `step` counts them.
    pub fn change(self, number: u32, step: u32) -> Change {
        let some = (0..A_STEP).map(|each| (step * A_STEP + each) % number);
        let is_odd = step % 2 == 1;
        match self {
            Self::Interfaces => {
                Change::Ip(format!("link set v0 mtu {}\n", if is_odd { 1500 } else { 1400 }))
            }
            Self::Routes => {
                Change::Ip(lines(some, |each| route(each, if is_odd { SERVER } else { OTHER })))
            }
            Self::Neighbors => Change::Ip(lines(some, |each| neighbor(each, 1 + step % 200))),
            Self::Elements => {
                let host = hosts(std::iter::once(number + step));
                Change::Nft(format!("add element ip scale hosts {{ {host} }}\n"))
            }
            Self::Rules => Change::Nft(format!("add rule ip scale forward {}\n", rule(step))),
        }
    }
}
