// SPDX-License-Identifier: GPL-2.0-only
//! What tells a connection from all others.

use crate::abi::bpfw_tuple;

/// Tells connections apart. Conntrack's ids alone are 32 bits of a hash. If the events of a million
/// ended connections were lost, hundreds of these would have the id of a living one.
pub(super) type Identity = u64;

pub(super) fn identity(id: u32, original: bpfw_tuple) -> Identity {
    let bpfw_tuple { head, more } = original;
    let ports = u32::from(head.src_port.0) << 16 | u32::from(head.dst_port.0);
    let ends = head.src_addr.0 ^ head.dst_addr.0.rotate_left(16) ^ ports.rotate_left(8);
    let ends = more.iter().fold(ends, |ends, word| ends.rotate_left(5) ^ word.0);
    u64::from(id) << 32 | u64::from(ends ^ u32::from(head.protocol))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{__be16, __be32, bpfw_head};

    #[test]
    fn connections_with_the_same_id_are_told_apart() {
        let head = bpfw_head {
            src_addr: __be32(1),
            dst_addr: __be32(2),
            src_port: __be16(3),
            dst_port: __be16(4),
            ..Default::default()
        };
        let tuple = bpfw_tuple { head, ..Default::default() };
        let known = identity(7, tuple);
        assert_eq!(identity(7, tuple), known);
        let others = [
            bpfw_head { src_addr: __be32(9), ..head },
            bpfw_head { dst_addr: __be32(9), ..head },
            bpfw_head { src_port: __be16(9), ..head },
            bpfw_head { dst_port: __be16(9), ..head },
            bpfw_head { protocol: 6, ..head },
        ];
        let others = others.into_iter().map(|head| bpfw_tuple { head, ..tuple });
        assert!(others.into_iter().all(|other| identity(7, other) != known));
        let more = [__be32(0), __be32(9), __be32(0), __be32(0), __be32(0), __be32(0)];
        assert_ne!(identity(7, bpfw_tuple { more, ..tuple }), known);
        assert_ne!(identity(8, tuple), known);
    }
}
