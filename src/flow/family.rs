// SPDX-License-Identifier: GPL-2.0-only
//! The address families of connections.

use std::net::IpAddr;
use std::ops::{Index, IndexMut};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    Ipv4,
    /// IPv6
    Ipv6,
}

impl Family {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family with this number, AF_INET or AF_INET6.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.number() == number)
    }

    /// AF_INET or AF_INET6, which netfilter calls NFPROTO_IPV4 and NFPROTO_IPV6.
    pub const fn number(self) -> u8 {
        match self {
            Self::Ipv4 => nix::libc::AF_INET as u8,
            Self::Ipv6 => nix::libc::AF_INET6 as u8,
        }
    }

    /// Its name in what other programs read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    /// The family of this address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// The families that the daemon asks the kernel about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone.
    #[default]
    Ipv4,
    /// IPv4 and IPv6.
    Both,
}

impl Families {
    /// Those whose packets the datapath can forward.
    pub const FORWARDED: Self = Self::Both;

    /// Whether this family is among them.
    pub fn contains(self, family: Family) -> bool {
        self == Self::Both || family == Family::Ipv4
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }

    /// The number that asks the kernel for objects of all of them: AF_UNSPEC stands for any family.
    /// Answers to it may be about families that are not among [`Family::ALL`].
    pub fn number(self) -> u8 {
        match self {
            Self::Ipv4 => Family::Ipv4.number(),
            Self::Both => nix::libc::AF_UNSPEC as u8,
        }
    }
}

/// One value for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerFamily<T> {
    /// Of IPv4.
    pub ipv4: T,
    /// Of IPv6.
    pub ipv6: T,
}

impl<T> Index<Family> for PerFamily<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }
}

impl<T> IndexMut<Family> for PerFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_known_by_its_number_and_its_addresses() {
        for (family, number, address) in
            [(Family::Ipv4, 2, "192.0.2.1"), (Family::Ipv6, 10, "2001:db8::1")]
        {
            assert_eq!(family.number(), number);
            assert_eq!(Family::from_number(number), Some(family));
            assert_eq!(Family::of(address.parse().unwrap()), family);
            assert!(Families::Both.contains(family));
        }
        assert_eq!(Family::from_number(0), None);
        assert!(!Families::Ipv4.contains(Family::Ipv6));
        assert_eq!(Families::Ipv4.iter().collect::<Vec<_>>(), [Family::Ipv4]);
        assert_eq!(Families::Both.iter().collect::<Vec<_>>(), Family::ALL);
        assert_eq!((Families::Ipv4.number(), Families::Both.number()), (2, 0));
    }
}
