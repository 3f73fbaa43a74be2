// SPDX-License-Identifier: GPL-2.0-only
//! Attaching by XDP.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::attachment::{Interface, Kind, XdpMode};
use super::others::describe_program;
use super::sys::{self, AttachType};
use crate::error::{Error, Result};

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of linux/if_link.h.
const XDP_GENERIC: u32 = 1 << 1;
const XDP_NATIVE: u32 = 1 << 2;

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
            Err(error) => tracing::warn!(
                "{}: no native XDP ({error}); generic XDP is slower than the hook tc, and drops \
                 aggregated packets larger than the MTU: switch GRO off, or use tc",
                interface.name
            ),
        }
    }
    let fd = link(XDP_GENERIC).map_err(|error| xdp_error(interface, error))?;
    Ok((Kind::XdpGeneric, fd))
}

/// What drivers say that have no XDP, or not with this MTU or these settings.
fn native_impossible(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(nix::libc::EOPNOTSUPP | nix::libc::EINVAL | nix::libc::ERANGE)
    )
}

fn xdp_error(interface: &Interface, error: io::Error) -> Error {
    let Interface { index, name, mtu } = interface;
    let occupant = sys::xdp_program(*index).unwrap_or(0);
    if occupant != 0 {
        return Error::refused(format!(
            "{name} has an XDP program already ({})",
            describe_program(occupant)
        ))
        .with_advice("remove it, or use the hook tc");
    }
    let error = Error::system(format!("attaching XDP to {name}"), error);
    if matches!(&error, Error::System { advice: Some(_), .. }) {
        return error;
    }
    error.with_advice(format!(
        "the driver may have no XDP, or none with the MTU {mtu}: a frame must fit in a page, \
         about 3,500 bytes; use the hook tc, or --xdp-mode generic"
    ))
}
