// SPDX-License-Identifier: GPL-2.0-only
//! Attaching by TC, behind whoever else is there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::{TC_INGRESS, TcHookBuilder};

use super::attachment::Interface;
use super::libbpf_error;
use super::others::AtTc;
use super::sys::{self, AttachType};
use crate::error::{Error, Result};
use crate::netlink::tc::{self, Filter, IngressQdisc};

/// The last of all priorities: nothing stands behind it but what shares it.
const PRIORITY: u16 = u16::MAX;
const HANDLE: u32 = 0xbf;

/// Our program in TC's hands.
#[derive(Debug)]
pub(super) enum AtHook {
    /// By TCX, for as long as this is open.
    Tcx(OwnedFd),
    /// As a filter.
    Filter(OurFilter),
}

/// Our filter at an interface, which stays until it is removed.
#[derive(Debug)]
pub(super) struct OurFilter {
    made_qdisc: bool,
}

/// TCX runs in front of clsact: filters there would never see our packets. So it is only for
/// interfaces without.
pub(super) fn attach_tc(program: BorrowedFd<'_>, interface: &Interface) -> Result<AtHook> {
    let Interface { index, name, .. } = interface;
    remove_leftover(interface)?;
    if AtTc::read(*index)?.has_ingress_filters() {
        tracing::info!("{name} has TC filters: attaching behind them");
        return OurFilter::add(program, interface).map(AtHook::Filter);
    }
    if !sys::has_tcx() {
        return OurFilter::add(program, interface).map(AtHook::Filter);
    }
    sys::link_create(program, *index, AttachType::TcxIngress)
        .map(AtHook::Tcx)
        .map_err(|error| Error::system(format!("attaching TC to {name}"), error))
}

impl OurFilter {
    /// Adds it behind everything that is there.
    pub(super) fn add(program: BorrowedFd<'_>, interface: &Interface) -> Result<Self> {
        let Interface { index, name, .. } = interface;
        let made_qdisc = tc::ingress(*index)?.qdisc.is_none();
        let mut hook = TcHookBuilder::new(program.as_fd())
            .ifindex(i32::try_from(*index).unwrap_or_default())
            .replace(false)
            .handle(HANDLE)
            .priority(u32::from(PRIORITY))
            .hook(TC_INGRESS);
        if made_qdisc {
            hook.create().map_err(|error| {
                libbpf_error(format!("adding the qdisc clsact to {name}"), &error)
                    .with_advice("on OpenWrt, install kmod-sched-core and kmod-sched-bpf")
            })?;
        }
        let Err(error) = hook.attach() else {
            return Ok(Self { made_qdisc });
        };
        if made_qdisc {
            remove_unused_clsact(*index)?;
        }
        Err(libbpf_error(format!("adding the TC filter to {name}"), &error).with_advice(
            "another filter may have the last priority, 65535, or the interface a shared block; on \
             OpenWrt, install kmod-sched-bpf",
        ))
    }

    /// Removes it, if it is still there; `program` is the id of our program.
    pub(super) fn remove(&self, interface: &Interface, program: u32) -> Result<()> {
        remove_filter(interface, |filter| filter.bpf_program == Some(program))?;
        if self.made_qdisc { remove_unused_clsact(interface.index) } else { Ok(()) }
    }
}

/// Removes the first ingress filter of this kind; `true` if there was one.
fn remove_filter(interface: &Interface, wanted: impl Fn(&Filter) -> bool) -> Result<bool> {
    // No answer: the interface is gone, and its filters with it.
    let Ok(found) = tc::ingress(interface.index) else {
        return Ok(false);
    };
    let Some(filter) = found.filters.iter().find(|filter| !filter.egress && wanted(filter)) else {
        return Ok(false);
    };
    tc::delete_filter(interface.index, filter.priority, filter.handle, filter.protocol)?;
    Ok(true)
}

/// A filter of ours is what a killed bpfw left: one that runs would hold the interface's claim.
fn remove_leftover(interface: &Interface) -> Result<()> {
    if !remove_filter(interface, is_leftover)? {
        return Ok(());
    }
    tracing::warn!("{}: removed the filter that another bpfw left", interface.name);
    remove_unused_clsact(interface.index)
}

/// libbpf names filters by program and id.
fn is_leftover(filter: &Filter) -> bool {
    let Some(id) = filter.bpf_program else {
        return false;
    };
    filter.priority == PRIORITY
        && filter.handle == HANDLE
        && filter.bpf_name.as_deref() == Some(&format!("bpfw_tc:[{id}]"))
}

fn remove_unused_clsact(ifindex: u32) -> Result<()> {
    // No answer: the interface is gone, and its qdisc with it.
    let Ok(found) = tc::ingress(ifindex) else {
        return Ok(());
    };
    if found.qdisc == Some(IngressQdisc::Clsact) && found.filters.is_empty() {
        tc::delete_clsact(ifindex)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(priority: u16, handle: u32, name: Option<&str>, program: Option<u32>) -> Filter {
        Filter {
            egress: false,
            priority,
            protocol: 3,
            handle,
            kind: "bpf".into(),
            bpf_name: name.map(str::to_owned),
            bpf_program: program,
            chain: 0,
        }
    }

    #[test]
    fn hazard_32_only_our_own_leftover_is_recognised() {
        let name = Some("bpfw_tc:[7]");
        assert!(is_leftover(&filter(PRIORITY, HANDLE, name, Some(7))));
        for other in [
            filter(PRIORITY - 1, HANDLE, name, Some(7)),
            filter(PRIORITY, HANDLE + 1, name, Some(7)),
            filter(PRIORITY, HANDLE, Some("bpfw_tc_like:[7]"), Some(7)),
            filter(PRIORITY, HANDLE, Some("bpfw_tc"), Some(7)),
            filter(PRIORITY, HANDLE, name, Some(8)),
            filter(PRIORITY, HANDLE, None, None),
        ] {
            assert!(!is_leftover(&other), "{other:?}");
        }
    }
}
