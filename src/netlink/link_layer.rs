// SPDX-License-Identifier: GPL-2.0-only
//! What an interface's packets have in front of the IP header.

use super::link::Link;

/// ARPHRD_* of linux/if_arp.h.
mod arphrd {
    pub const PPP: u16 = 512;
    pub const TUNNEL: u16 = 768;
    pub const TUNNEL6: u16 = 769;
    pub const SIT: u16 = 776;
    pub const IPGRE: u16 = 778;
    pub const IP6GRE: u16 = 823;
    pub const NONE: u16 = 0xfffe;
}

/// What is in front of the IP header, and whose business it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// An Ethernet header.
    Ethernet,
    /// Nothing: tun, WireGuard.
    None,
    /// Nothing that other parts of the kernel see: PPP.
    Ppp,
    /// Nothing. The tunnel asks a packet's route where its ICMP errors go; a redirected packet has none.
    Tunnel,
    /// Nobody knows.
    Unknown,
}

impl LinkLayer {
    /// That of a link.
    pub fn of(link: &Link) -> Self {
        match (link.hardware, link.kind.as_deref()) {
            _ if link.ethernet => Self::Ethernet,
            (arphrd::NONE, Some("tun" | "wireguard")) => Self::None,
            (arphrd::PPP, Some("ppp")) => Self::Ppp,
            (arphrd::TUNNEL | arphrd::TUNNEL6 | arphrd::SIT, _)
            | (arphrd::IPGRE | arphrd::IP6GRE, _)
            | (arphrd::NONE, Some("xfrm" | "vxlan" | "geneve" | "bareudp" | "gtp")) => Self::Tunnel,
            _ => Self::Unknown,
        }
    }

    /// Packets begin with the IP header.
    pub fn is_headerless(self) -> bool {
        matches!(self, Self::None | Self::Ppp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(hardware: u16, kind: &str) -> LinkLayer {
        let kind = (!kind.is_empty()).then(|| kind.to_owned());
        LinkLayer::of(&Link { hardware, ethernet: hardware == 1, kind, ..Link::default() })
    }

    #[test]
    fn hazard_38_the_kind_decides_as_well_as_the_type() {
        for (hardware, kind, expected) in [
            (1, "", LinkLayer::Ethernet),
            (1, "tun", LinkLayer::Ethernet),
            (0xfffe, "tun", LinkLayer::None),
            (0xfffe, "wireguard", LinkLayer::None),
            (512, "ppp", LinkLayer::Ppp),
            (512, "tun", LinkLayer::Unknown),
            (0xfffe, "", LinkLayer::Unknown),
            (772, "", LinkLayer::Unknown),
        ] {
            assert_eq!(layer(hardware, kind), expected, "{hardware} {kind}");
        }
    }

    #[test]
    fn hazard_45_tunnels_that_answer_are_known() {
        for (hardware, kind) in [
            (768, "ipip"),
            (768, "vti"),
            (769, "ip6tnl"),
            (776, "sit"),
            (778, "gre"),
            (823, "ip6gre"),
        ] {
            assert_eq!(layer(hardware, kind), LinkLayer::Tunnel, "{kind}");
        }
        assert_eq!(layer(0xfffe, "xfrm"), LinkLayer::Tunnel);
    }
}
