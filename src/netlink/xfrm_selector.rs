// SPDX-License-Identifier: GPL-2.0-only
//! What an IPsec policy selects, from the kernel's message about it (linux/xfrm.h).

use super::attribute::{address, u16_at};
use crate::flow::family::{Families, Family};
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

/// What a policy (struct xfrm_userpolicy_info) selects of the forwarded packets of these families;
/// none if it has nothing to do with them. Sockets' own policies have directions of their own. The action does
/// not matter, nor what narrows the policy down further: interface, mark, interface id. What is cut
/// off selects everything: a policy taken for none would be a leak.
pub fn decode(policy: &[u8], families: Families) -> Option<Selector> {
    let wanted = |number| number == 0 || family(number).is_some_and(|one| families.contains(one));
    let forwarding = |direction| [XFRM_POLICY_OUT, XFRM_POLICY_FWD].contains(direction);
    let concerned =
        u16_at(policy, FAMILY).is_none_or(wanted) && policy.get(DIRECTION).is_none_or(forwarding);
    concerned.then(|| whole(policy).unwrap_or(Selector::ANYTHING))
}

fn family(number: u16) -> Option<Family> {
    Family::from_number(u8::try_from(number).ok()?)
}

/// None if it is cut off, or for no family in particular, which the kernel refuses
/// (verify_newpolicy_info in net/xfrm/xfrm_user.c).
fn whole(policy: &[u8]) -> Option<Selector> {
    policy.get(DIRECTION)?;
    let family = family(u16_at(policy, FAMILY)?)?;
    Some(Selector {
        source: end(policy, family, SOURCE, SOURCE_PREFIX, SOURCE_PORT)?,
        destination: end(policy, family, DESTINATION, DESTINATION_PREFIX, DESTINATION_PORT)?,
        protocol: *policy.get(PROTOCOL)?,
    })
}

fn end(policy: &[u8], family: Family, at: usize, prefix: usize, port: usize) -> Option<End> {
    let length = if family == Family::Ipv4 { 4 } else { 16 };
    let network = address(policy.get(at..at + length)?)?;
    let port_and_mask = [port, port + 2].map(|at| u16_at(policy, at).map(u16::from_be));
    let [Some(port), Some(mask)] = port_and_mask else { return None };
    Some(End::new(network, *policy.get(prefix)?, port, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AF_UNSPEC: u8 = 0;
    const AF_INET: u8 = 2;
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
        for (family, source, destination) in
            [(AF_INET, "192.0.2.2", "203.0.113.0"), (AF_INET6, "c000:202::", "cb00:7100::")]
        {
            let end = |address: &str, prefix, port, mask| {
                End::new(address.parse().unwrap(), prefix, port, mask)
            };
            let expected = Selector {
                source: end(source, 32, 0x1000, 0xf000),
                destination: end(destination, 24, 53, 0xffff),
                protocol: 17,
            };
            let policy = policy(family, XFRM_POLICY_OUT);
            assert_eq!(decode(&policy, Families::Both), Some(expected));
        }
    }

    #[test]
    fn hazard_13_direction_and_family_decide() {
        for families in [Families::Ipv4, Families::Both] {
            for family in [AF_UNSPEC, AF_INET, AF_INET6, 7] {
                let decode = |direction| decode(&policy(family, direction), families);
                let covering: Vec<_> = (0..=5).filter(|&one| decode(one).is_some()).collect();
                let is_wanted = match family {
                    AF_INET6 => families == Families::Both,
                    _ => family != 7,
                };
                let expected = [XFRM_POLICY_OUT, XFRM_POLICY_FWD];
                assert_eq!(covering, if is_wanted { &expected[..] } else { &[] });
            }
        }
        let unspecified = decode(&policy(AF_UNSPEC, XFRM_POLICY_FWD), Families::Ipv4);
        assert_eq!(unspecified, Some(Selector::ANYTHING));
    }

    #[test]
    fn hazard_13_cut_policies_select_everything() {
        let out = policy(AF_INET, XFRM_POLICY_OUT);
        let inward = policy(AF_INET, 0);
        let other = policy(AF_INET6, XFRM_POLICY_FWD);
        let anything = Some(Selector::ANYTHING);
        let decode = |policy| decode(policy, Families::Ipv4);
        for length in 0..=POLICY {
            assert_eq!(decode(&out[..length]) == anything, length <= DIRECTION);
            assert_eq!(decode(&inward[..length]) == anything, length <= DIRECTION);
            assert_eq!(decode(&other[..length]) == anything, length < FAMILY + 2);
        }
    }
}
