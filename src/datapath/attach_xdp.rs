// SPDX-License-Identifier: GPL-2.0-only
//! Attaching by XDP.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::libc;

use super::interface::{Interface, Kind, XdpMode};
use super::sys::{self, AttachType};
use super::tc_chain::describe_program;
use crate::error::{Error, Result};
use crate::netlink::drivers::Drivers;
use crate::netlink::features::fixed_aggregation;
use crate::reasons::interface::Problem;

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of linux/if_link.h.
const XDP_GENERIC: u32 = 1 << 1;
const XDP_NATIVE: u32 = 1 << 2;
/// `NETDEV_XDP_ACT_BASIC` of linux/netdev.h.
pub(super) const HAS_XDP: u64 = 1;

/// Attaches the program in this mode, for as long as the returned link is open.
pub(super) fn attach_xdp(
    program: BorrowedFd<'_>,
    interface: &Interface,
    mode: XdpMode,
) -> Result<(Kind, OwnedFd)> {
    let index = interface.index;
    let link = |flags| sys::link_create(program, index, AttachType::Xdp(flags));
    if mode != XdpMode::Generic {
        match link(XDP_NATIVE) {
            Ok(fd) => return Ok((Kind::XdpNative, fd)),
            Err(error) if mode == XdpMode::Native || !native_impossible(&error) => {
                return Err(xdp_error(interface, error));
            }
            Err(error) => {
                let cause = Facts::of(interface).cause(&error);
                let cause = cause.unwrap_or_else(|| error.to_string());
                refuse_aggregates(interface, &format!("no native XDP ({cause}), and "))?;
                let line = Problem::GenericXdp.reason().line_about(cause);
                tracing::warn!("{}: {line}", interface.name);
            }
        }
    } else {
        refuse_aggregates(interface, "")?;
    }
    let fd = link(XDP_GENERIC).map_err(|error| xdp_error(interface, error))?;
    Ok((Kind::XdpGeneric, fd))
}

/// Generic XDP sees the packets that the device has joined, with checksums that are not complete.
/// bpfw would have to pass nearly all of them. Where the device cannot stop joining, the kernel
/// warns of a bug in the driver as well (generic_xdp_install in net/core/dev.c).
pub(super) fn refuse_aggregates(interface: &Interface, before: &str) -> Result<()> {
    // If the interface is gone, the attempt to attach says so.
    let Ok(Some(setting)) = fixed_aggregation(interface.index) else {
        return Ok(());
    };
    let error = Error::refused(format!(
        "{}: {before}its driver hands packets over aggregated, as generic XDP cannot use them, and \
         {setting} cannot be switched off",
        interface.name
    ));
    Err(error.with_advice("use the hook tc"))
}

/// What drivers say that have no XDP, or not with this MTU or these settings.
fn native_impossible(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE))
}

fn xdp_error(interface: &Interface, error: io::Error) -> Error {
    let name = &interface.name;
    if let Err(error) = refuse_occupied(interface) {
        return error;
    }
    let cause = Facts::of(interface).cause(&error);
    let error = Error::system(format!("attaching XDP to {name}"), error);
    match cause {
        Some(cause) => error.with_advice(cause),
        None => error,
    }
}

/// There is one XDP program at an interface.
pub(super) fn refuse_occupied(interface: &Interface) -> Result<()> {
    let occupant = sys::xdp_program(interface.index).unwrap_or(0);
    if occupant == 0 {
        return Ok(());
    }
    let (name, program) = (&interface.name, describe_program(occupant));
    Err(Error::refused(format!("{name} has an XDP program already ({program})"))
        .with_advice("remove it, or use the hook tc"))
}

/// Possible causes of an interface's refusal of XDP. Drivers give their reason in words only to
/// those who attach through rtnetlink, whose programs stay when the process is killed.
struct Facts {
    mtu: u32,
    /// The MTU up to which a frame fits in a page.
    largest_mtu: u32,
    /// The driver has XDP, as far as the kernel tells.
    driver_has_xdp: Option<bool>,
    /// Those directly above or below that have an XDP program.
    stacked: Vec<String>,
}

impl Facts {
    fn of(interface: &Interface) -> Self {
        let features = Drivers::open()
            .ok()
            .filter(Drivers::are_described)
            .and_then(|mut drivers| drivers.features(interface.index).ok());
        let has_program = |(index, _): &&(u32, String)| sys::xdp_program(*index).unwrap_or(0) != 0;
        let stacked = interface.stacked_with.iter().filter(has_program);
        Self {
            mtu: interface.mtu,
            largest_mtu: sys::largest_mtu_of_a_page(),
            driver_has_xdp: features.map(|features| features & HAS_XDP != 0),
            stacked: stacked.map(|(_, name)| name.clone()).collect(),
        }
    }

    /// The cause of a refusal and what to do, if they are known.
    fn cause(&self, error: &io::Error) -> Option<String> {
        let Self { mtu, largest_mtu, .. } = self;
        let other_way = "use the hook tc, or --xdp-mode generic";
        let cause = match error.raw_os_error()? {
            libc::EEXIST if self.stacked.is_empty() => {
                "the kernel attaches no XDP while an interface above has some; use the hook tc"
                    .to_owned()
            }
            libc::EEXIST => format!(
                "the kernel attaches no XDP while {}, which is stacked with it, has an XDP program; \
                 remove that, or use the hook tc",
                self.stacked.join(", ")
            ),
            libc::EOPNOTSUPP if self.driver_has_xdp == Some(false) => {
                format!("its driver has no native XDP; {other_way}")
            }
            libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE if mtu > largest_mtu => format!(
                "native XDP needs frames that fit in a page, which allows an MTU of {largest_mtu}, \
                 and its MTU is {mtu}; lower it, {other_way}"
            ),
            libc::ERANGE => format!(
                "an MTU is too large for native XDP, and its own is {mtu}: look at that of a veth's \
                 peer; {other_way}"
            ),
            libc::EOPNOTSUPP | libc::EINVAL => format!(
                "its driver has no native XDP, or none with its present settings (ethtool -k, -l, \
                 -g); {other_way}"
            ),
            libc::ENOSPC | libc::ENOMEM => format!(
                "native XDP takes more queues or more memory (ethtool -L; a veth needs as many \
                 queues to receive as its peer has to send); {other_way}"
            ),
            libc::ENODEV => "the interface is gone".to_owned(),
            _ => return None,
        };
        Some(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(errno: i32, facts: &Facts) -> String {
        facts.cause(&io::Error::from_raw_os_error(errno)).unwrap_or_default()
    }

    fn facts(mtu: u32, driver_has_xdp: Option<bool>, stacked: &[&str]) -> Facts {
        let stacked = stacked.iter().map(|&name| name.to_owned()).collect();
        Facts { mtu, largest_mtu: 3506, driver_has_xdp, stacked }
    }

    #[test]
    fn hazard_24_each_errno_has_its_cause() {
        let usual = facts(1500, Some(true), &[]);
        let large = facts(9000, Some(true), &[]);
        let without = facts(9000, Some(false), &[]);
        for (errno, facts, words) in [
            (libc::EEXIST, &facts(1500, None, &["vx0", "mv0"]), "vx0, mv0"),
            (libc::EEXIST, &usual, "an interface above"),
            (libc::EOPNOTSUPP, &without, "its driver has no native XDP;"),
            (libc::EOPNOTSUPP, &usual, "present settings"),
            (libc::EINVAL, &large, "its MTU is 9000"),
            (libc::ERANGE, &large, "its MTU is 9000"),
            (libc::ERANGE, &usual, "peer"),
            (libc::EINVAL, &usual, "present settings"),
            (libc::ENOSPC, &usual, "queues"),
            (libc::ENOMEM, &usual, "memory"),
            (libc::ENODEV, &usual, "is gone"),
        ] {
            assert!(cause(errno, facts).contains(words), "{errno}: {}", cause(errno, facts));
        }
        for errno in [libc::EEXIST, libc::EOPNOTSUPP, libc::EINVAL, libc::ENOMEM, libc::EPERM] {
            assert!(!cause(errno, &usual).contains("1500"), "{}", cause(errno, &usual));
        }
    }
}
