// SPDX-License-Identifier: GPL-2.0-only
//! What an IPsec policy selects, from the kernel's message about it (linux/xfrm.h).

use std::net::Ipv4Addr;

use super::attribute::u16_at;
use super::rtnetlink::{AF_INET, AF_UNSPEC};
use crate::flow::selector::{End, Selector};

/// struct xfrm_selector, which struct xfrm_userpolicy_info begins with: two addresses with room
/// for IPv6, then ports and their masks in network byte order.
const DESTINATION: usize = 0;
const SOURCE: usize = 16;
const DESTINATION_PORT: usize = 32;
const SOURCE_PORT: usize = 36;
const FAMILY: usize = 40;
const DESTINATION_PREFIX: usize = 42;
const SOURCE_PREFIX: usize = 43;
const PROTOCOL: usize = 44;
/// In struct xfrm_userpolicy_info: `dir`, behind selector, limits, use and two 32-bit numbers.
const DIRECTION: usize = 56 + 8 * 8 + 4 * 8 + 2 * 4;

const XFRM_POLICY_OUT: u8 = 1;
const XFRM_POLICY_FWD: u8 = 2;

/// What a policy (struct xfrm_userpolicy_info) selects of the forwarded IPv4 packets; none if it
/// has nothing to do with them. Sockets' own policies have directions of their own. The action does
/// not matter, nor what narrows the policy down further: interface, mark, interface id. What is cut
/// off selects everything: a policy taken for none would be a leak.
pub fn decode(policy: &[u8]) -> Option<Selector> {
    let ipv4 = |family| [AF_UNSPEC, AF_INET].map(u16::from).contains(&family);
    let forwarding = |direction| [XFRM_POLICY_OUT, XFRM_POLICY_FWD].contains(direction);
    let concerned =
        u16_at(policy, FAMILY).is_none_or(ipv4) && policy.get(DIRECTION).is_none_or(forwarding);
    concerned.then(|| whole(policy).unwrap_or(Selector::ANYTHING))
}

/// None if it is cut off.
fn whole(policy: &[u8]) -> Option<Selector> {
    policy.get(DIRECTION)?;
    Some(Selector {
        source: end(policy, SOURCE, SOURCE_PREFIX, SOURCE_PORT)?,
        destination: end(policy, DESTINATION, DESTINATION_PREFIX, DESTINATION_PORT)?,
        protocol: *policy.get(PROTOCOL)?,
    })
}

fn end(policy: &[u8], address: usize, prefix: usize, port: usize) -> Option<End> {
    let address: [u8; 4] = policy.get(address..address + 4)?.try_into().ok()?;
    let port_and_mask = [port, port + 2].map(|at| u16_at(policy, at).map(u16::from_be));
    let [Some(port), Some(mask)] = port_and_mask else { return None };
    Some(End::new(Ipv4Addr::from(address), *policy.get(prefix)?, port, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AF_INET6: u8 = 10;
    /// The size of struct xfrm_userpolicy_info.
    const POLICY: usize = 168;

    fn policy(family: u8, direction: u8) -> Vec<u8> {
        let mut policy = vec![0; POLICY];
        policy[DESTINATION..DESTINATION + 4].copy_from_slice(&[203, 0, 113, 0]);
        policy[SOURCE..SOURCE + 4].copy_from_slice(&[192, 0, 2, 2]);
        policy[DESTINATION_PORT..DESTINATION_PORT + 4].copy_from_slice(&[0, 53, 0xff, 0xff]);
        policy[SOURCE_PORT..SOURCE_PORT + 4].copy_from_slice(&[0x10, 0, 0xf0, 0]);
        policy[FAMILY..FAMILY + 2].copy_from_slice(&u16::from(family).to_ne_bytes());
        policy[DESTINATION_PREFIX] = 24;
        policy[SOURCE_PREFIX] = 32;
        policy[PROTOCOL] = 17;
        policy[DIRECTION] = direction;
        policy
    }

    #[test]
    fn hazard_13_all_of_a_selector_is_read() {
        let expected = Selector {
            source: End::new(Ipv4Addr::new(192, 0, 2, 2), 32, 0x1000, 0xf000),
            destination: End::new(Ipv4Addr::new(203, 0, 113, 0), 24, 53, 0xffff),
            protocol: 17,
        };
        assert_eq!(decode(&policy(AF_INET, XFRM_POLICY_OUT)), Some(expected));
    }

    #[test]
    fn hazard_13_direction_and_family_decide() {
        for family in [AF_UNSPEC, AF_INET] {
            let covering: Vec<_> =
                (0..=5).filter(|&direction| decode(&policy(family, direction)).is_some()).collect();
            assert_eq!(covering, [XFRM_POLICY_OUT, XFRM_POLICY_FWD]);
        }
        assert!((0..=5).all(|direction| decode(&policy(AF_INET6, direction)).is_none()));
    }

    #[test]
    fn hazard_13_cut_policies_select_everything() {
        let out = policy(AF_INET, XFRM_POLICY_OUT);
        let inward = policy(AF_INET, 0);
        let other = policy(AF_INET6, XFRM_POLICY_FWD);
        let anything = Some(Selector::ANYTHING);
        for length in 0..=POLICY {
            assert_eq!(decode(&out[..length]) == anything, length <= DIRECTION);
            assert_eq!(decode(&inward[..length]) == anything, length <= DIRECTION);
            assert_eq!(decode(&other[..length]) == anything, length < FAMILY + 2);
        }
    }
}
