// SPDX-License-Identifier: GPL-2.0-only
//! Sysctls that the kernel's routing asks (ip-sysctl.rst), and whose change no event tells of.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

use crate::error::{Error, Result};
use crate::flow::family::{Families, Family, PerFamily};

/// What those of one family say now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingSysctls {
    /// The kernel chooses among next hops by a packet's addresses alone, as a BPF program's look-up
    /// does. By any other policy it may use a hash that the sender's socket or the NIC has left in
    /// the packet (`fib_multipath_hash` in net/ipv4/route.c). Look-ups do not know that hash. IPv6
    /// always takes the flow label as well, which senders change within a connection.
    pub spreads_by_address: bool,
    /// What else the choice depends on: a seed (Linux 6.11), and whether dead neighbors count.
    choice: [Option<String>; 2],
    /// The kernel compares forwarded packets with the path MTU that it has learned for their
    /// destination. A look-up may say a route's metric instead (`ip_mtu_from_fib_result`).
    pub forwards_by_path_mtu: bool,
    /// One of the interfaces accepts ICMP redirects, and so another gateway for forwarded packets.
    /// Look-ups do not heed it.
    pub accepts_redirects: bool,
    /// Each interface's MTU for IPv6, by its name.
    mtus: BTreeMap<String, u32>,
}

impl RoutingSysctls {
    /// This interface's MTU for IPv6, which may be smaller than the interface's own.
    pub fn mtu(&self, name: &str) -> Option<u32> {
        self.mtus.get(name).copied()
    }

    /// Reads those of these families in this network namespace, for interfaces with these names.
    pub fn read(families: Families, interfaces: &[&str]) -> Result<PerFamily<Self>> {
        let mut all = PerFamily::default();
        for family in families.iter() {
            all[family] = Self::of(family, interfaces)?;
        }
        Ok(all)
    }

    fn of(family: Family, interfaces: &[&str]) -> Result<Self> {
        let is_ipv6 = family == Family::Ipv6;
        let mut accepts_redirects = false;
        // Enabling forwarding of IPv4 for all clears this one (inet_forward_change in net/ipv4/devinet.c).
        let may_accept = if is_ipv6 {
            forwards_ipv6(interfaces)?
        } else {
            is_set(family, "conf/all/accept_redirects")?
        };
        if may_accept {
            for name in interfaces {
                accepts_redirects |= accepts_as_router(family, name)?;
            }
        }
        let mut mtus = BTreeMap::new();
        for name in interfaces.iter().filter(|_| is_ipv6) {
            let mtu = read(family, &format!("conf/{name}/mtu"))?;
            mtus.extend(
                mtu.and_then(|text| text.parse().ok()).map(|mtu| ((*name).to_owned(), mtu)),
            );
        }
        Ok(Self {
            // A kernel without this one has no routes over several next hops.
            spreads_by_address: !is_ipv6 && !is_set(family, "fib_multipath_hash_policy")?,
            choice: [
                // One seed for both families.
                read(Family::Ipv4, "fib_multipath_hash_seed")?,
                read(family, "fib_multipath_use_neigh")?,
            ],
            forwards_by_path_mtu: is_set(family, "ip_forward_use_pmtu")?,
            accepts_redirects,
            mtus,
        })
    }
}

/// Whether the kernel forwards packets of IPv6 (`ip6_forward`); `force_forwarding` is of Linux 6.17. Where it does
/// not, as on a router of IPv4 alone, it does not matter what else is set.
fn forwards_ipv6(interfaces: &[&str]) -> Result<bool> {
    if is_set(Family::Ipv6, "conf/all/forwarding")? {
        return Ok(true);
    }
    for name in interfaces {
        if is_set(Family::Ipv6, &format!("conf/{name}/force_forwarding"))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether this machine forwards packets of a family between all interfaces.
pub fn kernel_forwards(family: Family) -> bool {
    let path = if family == Family::Ipv4 { "ip_forward" } else { "conf/all/forwarding" };
    is_set(family, path).unwrap_or(false)
}

/// Whether an interface takes redirects while the machine forwards. Of IPv4, a forwarding interface needs
/// its own sysctl, too (IN_DEV_RX_REDIRECTS in linux/inetdevice.h). Of IPv6, an interface that forwards
/// takes none (rt6_do_redirect in net/ipv6/route.c), but packets are forwarded between others, too.
fn accepts_as_router(family: Family, name: &str) -> Result<bool> {
    let accepts = is_set(family, &format!("conf/{name}/accept_redirects"))?;
    let forwards = is_set(family, &format!("conf/{name}/forwarding"))?;
    Ok(accepts && forwards == (family == Family::Ipv4))
}

fn is_set(family: Family, path: &str) -> Result<bool> {
    Ok(read(family, path)?.is_some_and(|text| text != "0"))
}

/// The text of a sysctl; `None` if there is none, or no such interface any more.
fn read(family: Family, path: &str) -> Result<Option<String>> {
    let folder = match family {
        Family::Ipv4 => "/proc/sys/net/ipv4",
        Family::Ipv6 => "/proc/sys/net/ipv6",
    };
    let path = format!("{folder}/{path}");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system(format!("reading {path}"), error)),
    }
}
