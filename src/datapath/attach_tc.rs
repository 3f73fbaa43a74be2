// SPDX-License-Identifier: GPL-2.0-only
//! Attaching by TC, behind whoever else is there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::TcHookBuilder;
use nix::libc;

use super::interface::{Interface, Side};
use super::sys;
use super::tc_chain::AtTc;
use super::with_kernels_words;
use crate::error::{Error, Result};
use crate::netlink::tc::{self, Filter, IngressQdisc, Qdiscs};

/// The last of all priorities: only filters of the same priority can stand behind it.
const PRIORITY: u16 = u16::MAX;
const HANDLE: u32 = 0xbf;

/// The programs that may be attached by TC, as the kernel shortens their names.
const PROGRAMS: [&str; 5] =
    ["bpfw_tc", "bpfw_stamp", "bpfw_egress", "bpfw_tc_l3", "bpfw_egress_l3"];

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
    /// The qdisc was added for it.
    pub(super) made_qdisc: bool,
}

/// TCX runs in front of clsact: filters there would never see packets that our program takes. So a
/// program that takes packets goes behind them.
pub(super) fn attach_tc(
    program: BorrowedFd<'_>,
    interface: &Interface,
    side: Side,
    takes_packets: bool,
    qdiscs: &mut Qdiscs,
) -> Result<AtHook> {
    let Interface { index, name, .. } = interface;
    if takes_packets && AtTc::read(*index, qdiscs)?.has_ingress_filters() {
        tracing::info!("{name} has TC filters: attaching behind them");
        return OurFilter::add(program, interface, side).map(AtHook::Filter);
    }
    if !sys::has_tcx() {
        return OurFilter::add(program, interface, side).map(AtHook::Filter);
    }
    sys::link_create(program, *index, side.tcx())
        .map(AtHook::Tcx)
        .map_err(|error| tcx_error(name, error))
}

fn tcx_error(name: &str, error: io::Error) -> Error {
    let advice = match error.raw_os_error() {
        Some(libc::ERANGE) => "it has as many TCX programs as the kernel allows, 63; detach some",
        Some(libc::ENODEV) => "the interface is gone",
        _ => return Error::system(format!("attaching TC to {name}"), error),
    };
    Error::system(format!("attaching TC to {name}"), error).with_advice(advice)
}

impl OurFilter {
    /// Adds it behind everything that is there.
    pub(super) fn add(program: BorrowedFd<'_>, interface: &Interface, side: Side) -> Result<Self> {
        let Interface { index, name, .. } = interface;
        let qdisc = tc::ingress(*index)?.qdisc;
        // The kernel would take it for an ingress filter (ingress_tcf_block in net/sched/sch_ingress.c).
        if side == Side::Egress && qdisc == Some(IngressQdisc::Ingress) {
            return Err(Error::refused(format!(
                "{name} has the qdisc ingress, which has no egress side"
            ))
            .with_advice("replace it by clsact"));
        }
        let made_qdisc = qdisc.is_none();
        let mut hook = TcHookBuilder::new(program.as_fd())
            .ifindex(i32::try_from(*index).unwrap_or_default())
            .replace(false)
            .handle(HANDLE)
            .priority(u32::from(PRIORITY))
            .hook(side.point());
        if made_qdisc {
            let doing = format!("adding the qdisc clsact to {name}");
            let if_lacking = "the kernel has no sch_ingress (CONFIG_NET_SCH_INGRESS); on OpenWrt, \
                              install kmod-sched-core and kmod-sched-bpf";
            with_kernels_words(doing, if_lacking, || hook.create())?;
        }
        let doing = format!("adding the TC filter of priority {PRIORITY} to {name}");
        let if_lacking = "the kernel has no cls_bpf (CONFIG_NET_CLS_BPF); on OpenWrt, install \
                          kmod-sched-bpf";
        let added = with_kernels_words(doing, if_lacking, || hook.attach());
        if added.is_err() && made_qdisc {
            remove_unused_clsact(*index)?;
        }
        added.map(|_| Self { made_qdisc })
    }
}

/// Removes our filter, if it is still there; `program` is the id of our program.
pub(super) fn remove_filter(interface: &Interface, program: u32) -> Result<()> {
    // No answer: the interface is gone, and its filters with it.
    let Ok(found) = tc::ingress(interface.index) else {
        return Ok(());
    };
    remove_filters(interface, &found.filters, |filter| filter.bpf_program == Some(program))
        .map(drop)
}

/// Removes the filters of this kind; `true` if there were some.
fn remove_filters(
    interface: &Interface,
    filters: &[Filter],
    wanted: impl Fn(&Filter) -> bool,
) -> Result<bool> {
    let mut removed = false;
    for filter in filters.iter().filter(|filter| wanted(filter)) {
        tc::delete_filter(interface.index, filter)?;
        removed = true;
    }
    Ok(removed)
}

/// Removes filters that a killed bpfw left. A running bpfw would hold the interface's claim.
pub(super) fn remove_leftovers(interface: &Interface, qdiscs: &mut Qdiscs) -> Result<()> {
    // No answer: the interface is gone, and its filters with it.
    let Ok(found) = qdiscs.ingress(interface.index) else {
        return Ok(());
    };
    if !remove_filters(interface, &found.filters, is_leftover)? {
        return Ok(());
    }
    tracing::warn!("{}: removed the filters that another bpfw left", interface.name);
    remove_unused_clsact(interface.index)?;
    *qdiscs = Qdiscs::read()?;
    Ok(())
}

/// libbpf names filters by program and id.
pub(super) fn is_leftover(filter: &Filter) -> bool {
    let (Some(id), Some(name)) = (filter.bpf_program, &filter.bpf_name) else {
        return false;
    };
    filter.priority == PRIORITY
        && filter.handle == HANDLE
        && PROGRAMS.iter().any(|program| *name == format!("{program}:[{id}]"))
}

pub(super) fn remove_unused_clsact(ifindex: u32) -> Result<()> {
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
        assert!(is_leftover(&filter(PRIORITY, HANDLE, Some("bpfw_egress:[7]"), Some(7))));
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
