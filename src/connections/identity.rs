// SPDX-License-Identifier: GPL-2.0-only
//! What tells a connection from all others.

use crate::abi::bpfw_tuple;

/// Tells connections apart. Conntrack's ids alone are 32 bits of a hash: of a million connections that ended
/// unheard of, hundreds would have the id of one that lives.
pub(super) type Identity = u64;

pub(super) fn identity(id: u32, original: bpfw_tuple) -> Identity {
    let ports = u32::from(original.src_port.0) << 16 | u32::from(original.dst_port.0);
    let ends = original.src_addr.0 ^ original.dst_addr.0.rotate_left(16) ^ ports.rotate_left(8);
    u64::from(id) << 32 | u64::from(ends ^ u32::from(original.protocol))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{__be16, __be32};

    #[test]
    fn connections_with_the_same_id_are_told_apart() {
        let tuple = bpfw_tuple {
            src_addr: __be32(1),
            dst_addr: __be32(2),
            src_port: __be16(3),
            dst_port: __be16(4),
            ..Default::default()
        };
        let known = identity(7, tuple);
        assert_eq!(identity(7, tuple), known);
        let others = [
            bpfw_tuple { src_addr: __be32(9), ..tuple },
            bpfw_tuple { dst_addr: __be32(9), ..tuple },
            bpfw_tuple { src_port: __be16(9), ..tuple },
            bpfw_tuple { dst_port: __be16(9), ..tuple },
            bpfw_tuple { protocol: 6, ..tuple },
        ];
        assert!(others.into_iter().all(|other| identity(7, other) != known));
        assert_ne!(identity(8, tuple), known);
    }
}
