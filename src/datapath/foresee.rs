// SPDX-License-Identifier: GPL-2.0-only
//! How programs would be attached to an interface, without doing it.

use super::Hook;
use super::attach_tc::is_leftover;
use super::attach_xdp::{HAS_XDP, refuse_aggregates, refuse_occupied};
use super::attachment::{CAN_TRANSMIT, is_known_to_transmit};
use super::interface::{Interface, Kind, XdpMode};
use super::sys;
use super::tc_chain::{AtTc, Handler};
use crate::error::{Error, Result};
use crate::netlink::drivers::Drivers;
use crate::netlink::tc::Qdiscs;

/// Whom the packets of an interface would meet besides bpfw: without what a killed one has left, which a
/// start removes.
pub fn others_at(ifindex: u32, qdiscs: &mut Qdiscs) -> Result<AtTc> {
    let mut at_tc = AtTc::read(ifindex, qdiscs)?;
    let stays = |handler: &Handler| match handler {
        Handler::Filter(filter) => !is_leftover(filter),
        Handler::Tcx(_) => true,
    };
    at_tc.ingress.retain(stays);
    at_tc.egress.retain(stays);
    Ok(at_tc)
}

/// How the hook's own program would be attached. An error if it could not be; a driver may refuse it even so.
pub fn kind(
    hook: Hook,
    mode: XdpMode,
    interface: &Interface,
    others: &AtTc,
    drivers: &mut Drivers,
) -> Result<Kind> {
    match hook {
        Hook::Tc if sys::has_tcx() && !others.has_ingress_filters() => Ok(Kind::Tcx),
        Hook::Tc => Ok(Kind::Clsact),
        Hook::Xdp => xdp_kind(mode, interface, drivers),
    }
}

fn xdp_kind(mode: XdpMode, interface: &Interface, drivers: &mut Drivers) -> Result<Kind> {
    refuse_occupied(interface)?;
    let has_none = drivers.are_described() && drivers.features(interface.index)? & HAS_XDP == 0;
    match mode {
        XdpMode::Native if has_none => {
            Err(Error::refused(format!("{}: its driver has no native XDP", interface.name))
                .with_advice("use the hook tc, or --xdp-mode generic"))
        }
        XdpMode::Auto | XdpMode::Native if !has_none => Ok(Kind::XdpNative),
        _ => refuse_aggregates(interface, "").map(|()| Kind::XdpGeneric),
    }
}

/// Whether frames that native XDP redirects to this interface would be sent. Some drivers tell only once a
/// program is attached; they are on a list.
pub fn transmits(interface: &Interface, drivers: &mut Drivers) -> bool {
    let features = drivers.features(interface.index).unwrap_or_default();
    features & CAN_TRANSMIT != 0 || is_known_to_transmit(&interface.name)
}
