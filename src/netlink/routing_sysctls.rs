// SPDX-License-Identifier: GPL-2.0-only
//! Sysctls that the kernel's routing asks (ip-sysctl.rst), and whose change no event tells of.

use std::fs;
use std::io::ErrorKind;

use crate::error::{Error, Result};

const FOLDER: &str = "/proc/sys/net/ipv4";

/// What they say now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingSysctls {
    /// The kernel chooses among next hops by a packet's addresses alone, as a BPF program's look-up
    /// does. By any other policy it may use a hash that the sender's socket or the NIC has left in the
    /// packet (`fib_multipath_hash` in net/ipv4/route.c), which look-ups know nothing of.
    pub spreads_by_address: bool,
    /// What else the choice depends on: a seed (Linux 6.11), and whether dead neighbors count.
    choice: [Option<String>; 2],
    /// The kernel compares forwarded packets with the path MTU that it has learned for their
    /// destination. A look-up may say a route's metric instead (`ip_mtu_from_fib_result`).
    pub forwards_by_path_mtu: bool,
    /// One of the interfaces forwards and accepts ICMP redirects, and so another gateway. Look-ups do not
    /// heed it.
    pub accepts_redirects: bool,
}

impl RoutingSysctls {
    /// Reads them in this network namespace, for interfaces with these names.
    pub fn read<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        // Enabling forwarding for all clears this one (inet_forward_change in net/ipv4/devinet.c).
        let for_all = is_set("conf/all/accept_redirects")?;
        let mut accepts_redirects = false;
        for name in interfaces.into_iter().filter(|_| for_all) {
            accepts_redirects |= accepts_as_router(name)?;
        }
        Ok(Self {
            // A kernel without this one has no routes over several next hops.
            spreads_by_address: !is_set("fib_multipath_hash_policy")?,
            choice: [read("fib_multipath_hash_seed")?, read("fib_multipath_use_neigh")?],
            forwards_by_path_mtu: is_set("ip_forward_use_pmtu")?,
            accepts_redirects,
        })
    }
}

/// A forwarding interface needs its own sysctl, too (IN_DEV_RX_REDIRECTS in linux/inetdevice.h).
fn accepts_as_router(name: &str) -> Result<bool> {
    Ok(is_set(&format!("conf/{name}/forwarding"))?
        && is_set(&format!("conf/{name}/accept_redirects"))?)
}

fn is_set(path: &str) -> Result<bool> {
    Ok(read(path)?.is_some_and(|text| text != "0"))
}

/// The text of a sysctl; `None` if there is none, or no such interface any more.
fn read(path: &str) -> Result<Option<String>> {
    let path = format!("{FOLDER}/{path}");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system(format!("reading {path}"), error)),
    }
}
