// SPDX-License-Identifier: GPL-2.0-only
//! Settings of network devices that users may change, or not: ETHTOOL_MSG_FEATURES_GET of
//! linux/ethtool_netlink.h (Documentation/networking/ethtool-netlink.rst), since Linux 5.6.

use super::attribute::{NLA_F_NESTED, append, attributes, find, text};
use super::generic::{self, HEADER};
use super::socket::{NETLINK_GENERIC, Socket};
use crate::error::Result;

const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
/// Those that users may switch. The set NOCHANGE is not their opposite: it names what no device can switch.
const ETHTOOL_A_FEATURES_HW: u16 = 2;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_BITSET_NOMASK: u16 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// By these, a device receives packets that it has put together itself.
const AGGREGATION: [&str; 2] = ["rx-gro-hw", "rx-lro"];

/// The setting by which a device puts packets together before anyone sees them, if that is on and
/// cannot be switched off. `None` also where the kernel does not tell.
pub fn fixed_aggregation(ifindex: u32) -> Result<Option<&'static str>> {
    let mut socket = Socket::open(NETLINK_GENERIC)?;
    let Some(family) = generic::find_family(&mut socket, "ethtool") else {
        return Ok(None);
    };
    // What is common to all requests.
    let mut header = Vec::new();
    append(&mut header, ETHTOOL_A_HEADER_DEV_INDEX, &ifindex.to_ne_bytes());
    let request = generic::request(family, ETHTOOL_MSG_FEATURES_GET)
        .with(ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED, &header);
    let mut fixed = None;
    socket.ask("reading a device's settings", request, |answer| {
        fixed = fixed_and_on(answer.payload.get(HEADER..).unwrap_or_default());
    })?;
    Ok(fixed)
}

fn fixed_and_on(answer: &[u8]) -> Option<&'static str> {
    let has = |kind, name: &str| {
        let set = find(answer, kind).unwrap_or_default();
        // With a mask, a bit is listed whether it is set or not.
        let all_are_set = find(set, ETHTOOL_A_BITSET_NOMASK).is_some();
        let bits = attributes(find(set, ETHTOOL_A_BITSET_BITS).unwrap_or_default());
        let mut set_bits =
            bits.filter(|(_, bit)| all_are_set || find(bit, ETHTOOL_A_BITSET_BIT_VALUE).is_some());
        set_bits
            .any(|(_, bit)| find(bit, ETHTOOL_A_BITSET_BIT_NAME).is_some_and(|n| text(n) == name))
    };
    let is_fixed =
        |name: &&str| has(ETHTOOL_A_FEATURES_ACTIVE, name) && !has(ETHTOOL_A_FEATURES_HW, name);
    AGGREGATION.into_iter().find(is_fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        append(&mut bytes, kind, value);
        bytes
    }

    fn bit(name: &str, value: &[u8]) -> Vec<u8> {
        let name = attribute(ETHTOOL_A_BITSET_BIT_NAME, &[name.as_bytes(), &[0]].concat());
        attribute(1 | NLA_F_NESTED, &[&name, value].concat())
    }

    /// As the kernel tells what is on: by name what is, and nothing of all else.
    fn active(names: &[&str]) -> Vec<u8> {
        let all: Vec<u8> = names.iter().flat_map(|name| bit(name, &[])).collect();
        let no_mask = attribute(ETHTOOL_A_BITSET_NOMASK, &[]);
        let bits = attribute(ETHTOOL_A_BITSET_BITS | NLA_F_NESTED, &all);
        attribute(ETHTOOL_A_FEATURES_ACTIVE | NLA_F_NESTED, &[no_mask, bits].concat())
    }

    /// As it tells what can be switched: all names, those that can with a value.
    fn switchable(names: &[&str]) -> Vec<u8> {
        let value = attribute(ETHTOOL_A_BITSET_BIT_VALUE, &[]);
        let all = ["rx-all", "rx-gro", "rx-gro-hw", "rx-lro"];
        let value_of = |name| if names.contains(&name) { &value[..] } else { &[] };
        let all: Vec<u8> = all.into_iter().flat_map(|name| bit(name, value_of(name))).collect();
        let bits = attribute(ETHTOOL_A_BITSET_BITS | NLA_F_NESTED, &all);
        attribute(ETHTOOL_A_FEATURES_HW | NLA_F_NESTED, &bits)
    }

    #[test]
    fn hazard_19_aggregation_counts_if_it_is_on_for_good() {
        let answer =
            |on: &[&str], can: &[&str]| fixed_and_on(&[switchable(can), active(on)].concat());
        assert_eq!(answer(&["rx-gro", "rx-gro-hw"], &["rx-gro", "rx-lro"]), Some("rx-gro-hw"));
        assert_eq!(answer(&["rx-lro"], &[]), Some("rx-lro"));
        assert_eq!(
            answer(&["rx-gro", "rx-gro-hw"], &["rx-gro-hw"]),
            None,
            "it can be switched off"
        );
        assert_eq!(answer(&["rx-gro"], &["rx-gro"]), None, "it is off");
        assert_eq!(fixed_and_on(&[]), None);
    }

    #[test]
    fn the_loopback_interface_puts_nothing_together() {
        assert_eq!(fixed_aggregation(1).expect("an answer"), None);
    }
}
