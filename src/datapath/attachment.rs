// SPDX-License-Identifier: GPL-2.0-only
//! Attaching the program to an interface, and taking it off again: only what is ours.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::{ProgramHandle, TC_INGRESS, TcHook, TcHookBuilder};

use super::sys::{self, AttachType};
use super::{Hook, libbpf_error};
use crate::error::{Error, Result};
use crate::netlink::tc;

/// Our place among the filters of clsact: behind those that people make, whose priorities count
/// from 1 upwards, or from 49152 downwards where tc chooses.
const PRIORITY: u16 = 0xfb00;
const HANDLE: u32 = 0xbf;

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of linux/if_link.h.
const XDP_GENERIC: u32 = 1 << 1;
const XDP_NATIVE: u32 = 1 << 2;

/// `NETDEV_XDP_ACT_NDO_XMIT` of linux/netdev.h: the driver sends frames redirected to it.
const CAN_TRANSMIT: u64 = 1 << 2;

/// How XDP is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum XdpMode {
    /// In the driver, or not at all
    Native,
    /// On the `sk_buff`: slower than TC, and drops large aggregated packets
    Generic,
    /// Native; where the driver cannot, generic with a warning
    #[default]
    Auto,
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// The way in which the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// XDP in the driver.
    XdpNative,
    /// XDP on the `sk_buff`.
    XdpGeneric,
    /// TCX, kernel 6.6 and later.
    Tcx,
    /// A filter of the clsact or ingress qdisc.
    Clsact,
}

#[derive(Debug)]
enum Holder {
    /// Detaches when it is closed, also when the process is killed.
    Link(OwnedFd),
    Filter {
        hook: TcHook,
        made_qdisc: bool,
    },
    Gone,
}

/// The program at one interface; dropping it detaches.
#[derive(Debug)]
pub struct Attachment {
    interface: Interface,
    kind: Kind,
    holder: Holder,
}

impl Attachment {
    /// Attaches the program.
    pub fn attach(
        hook: Hook,
        program: BorrowedFd<'_>,
        interface: &Interface,
        mode: XdpMode,
    ) -> Result<Self> {
        let (kind, holder) = match hook {
            Hook::Xdp => attach_xdp(program, interface, mode)?,
            Hook::Tc => attach_tc(program, interface)?,
        };
        tracing::info!("attached to {} ({kind:?})", interface.name);
        Ok(Self { interface: interface.clone(), kind, holder })
    }

    /// The interface's index.
    pub fn ifindex(&self) -> u32 {
        self.interface.index
    }

    /// The interface's name when it was attached.
    pub fn name(&self) -> &str {
        &self.interface.name
    }

    /// How the program is attached.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Detaches in the orderly way.
    pub fn close(mut self) -> Result<()> {
        self.detach()
    }

    fn detach(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.holder, Holder::Gone) {
            Holder::Link(link) => drop(link),
            Holder::Filter { mut hook, made_qdisc } => {
                let Interface { index, name, .. } = &self.interface;
                let detached = hook.detach();
                // With the interface, or someone's removal of the qdisc, our filter went too.
                let left = tc::ingress(*index).map(|found| found.filters.iter().any(is_ours));
                if let (Err(error), Ok(true)) = (detached, left) {
                    let doing = format!("removing the filter from {name}");
                    return Err(libbpf_error(doing, &error));
                }
                if made_qdisc {
                    remove_unused_clsact(*index)?;
                }
            }
            Holder::Gone => return Ok(()),
        }
        tracing::info!("detached from {}", self.interface.name);
        Ok(())
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            tracing::warn!("{error}");
        }
    }
}

impl Attachment {
    /// Whether the interface's driver sends frames that native XDP redirects to it. Drivers
    /// change this at run time: veth follows its peer, virtio the attached program.
    pub fn can_transmit(&self) -> bool {
        match sys::xdp_query(self.interface.index) {
            // A driver that runs a program has features: before 6.3 the kernel cannot tell them.
            Ok(state) if state.features == 0 && self.kind == Kind::XdpNative => {
                is_known_to_transmit(&self.interface.name)
            }
            Ok(state) => state.features & CAN_TRANSMIT != 0,
            Err(_) => false,
        }
    }
}

/// Drivers that have sent redirected frames since Linux 5.15 at the latest, as their sources say.
/// Not veth: before 6.3 nobody tells whether its peer would take them.
const TRANSMITTING_DRIVERS: [&str; 11] = [
    "ena",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "sfc",
    "virtio_net",
];

fn is_known_to_transmit(name: &str) -> bool {
    let driver = std::fs::read_link(format!("/sys/class/net/{name}/device/driver"));
    let driver = driver.as_deref().ok().and_then(|path| path.file_name());
    driver.is_some_and(|driver| TRANSMITTING_DRIVERS.iter().any(|known| *known == driver))
}

fn attach_xdp(
    program: BorrowedFd<'_>,
    interface: &Interface,
    mode: XdpMode,
) -> Result<(Kind, Holder)> {
    let index = interface.index;
    let link = |flags| sys::link_create(program, index, AttachType::Xdp(flags));
    if mode != XdpMode::Generic {
        match link(XDP_NATIVE) {
            Ok(fd) => return Ok((Kind::XdpNative, Holder::Link(fd))),
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
    Ok((Kind::XdpGeneric, Holder::Link(fd)))
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
    let occupant = sys::xdp_query(*index).map_or(0, |state| state.program);
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

fn describe_program(id: u32) -> String {
    ProgramHandle::from_prog_id(id).map_or_else(
        |_| format!("id {id}"),
        |program| format!("{}, id {id}", program.name().to_string_lossy()),
    )
}

fn attach_tc(program: BorrowedFd<'_>, interface: &Interface) -> Result<(Kind, Holder)> {
    let Interface { index, name, .. } = interface;
    remove_leftover(interface)?;
    let found = tc::ingress(*index)?;
    // TCX runs in front of clsact: filters there would never see our packets.
    if found.filters.iter().all(|filter| filter.egress) {
        match sys::link_create(program, *index, AttachType::TcxIngress) {
            Ok(fd) => return Ok((Kind::Tcx, Holder::Link(fd))),
            // Kernels before 6.6 do not know the attach type.
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {}
            Err(error) => {
                return Err(Error::system(format!("attaching TC to {name}"), error));
            }
        }
    } else {
        tracing::info!("{name} has TC filters: attaching behind them");
    }
    attach_clsact(program, interface, found.qdisc.is_none())
}

fn attach_clsact(
    program: BorrowedFd<'_>,
    interface: &Interface,
    make_qdisc: bool,
) -> Result<(Kind, Holder)> {
    let Interface { index, name, .. } = interface;
    let ifindex = i32::try_from(*index).unwrap_or_default();
    let mut hook = TcHookBuilder::new(program.as_fd())
        .ifindex(ifindex)
        .replace(false)
        .handle(HANDLE)
        .priority(u32::from(PRIORITY))
        .hook(TC_INGRESS);
    if make_qdisc {
        hook.create().map_err(|error| {
            libbpf_error(format!("adding the qdisc clsact to {name}"), &error)
                .with_advice("on OpenWrt, install kmod-sched-core and kmod-sched-bpf")
        })?;
    }
    match hook.attach() {
        Ok(hook) => Ok((Kind::Clsact, Holder::Filter { hook, made_qdisc: make_qdisc })),
        Err(error) => {
            if make_qdisc {
                remove_unused_clsact(*index)?;
            }
            Err(libbpf_error(format!("adding the TC filter to {name}"), &error)
                .with_advice("on OpenWrt, install kmod-sched-bpf"))
        }
    }
}

fn is_ours(filter: &tc::Filter) -> bool {
    filter.priority == PRIORITY
        && filter.handle == HANDLE
        && filter.bpf_name.as_deref().is_some_and(|name| name.starts_with("bpfw_tc"))
}

/// A filter of ours is what a killed bpfw left: one that runs would hold the interface's claim.
fn remove_leftover(interface: &Interface) -> Result<()> {
    let found = tc::ingress(interface.index)?;
    let Some(filter) = found.filters.iter().find(|filter| is_ours(filter)) else {
        return Ok(());
    };
    tracing::warn!("{}: removing the filter that another bpfw left", interface.name);
    tc::delete_filter(interface.index, filter.priority, filter.handle, filter.protocol)?;
    remove_unused_clsact(interface.index)
}

fn remove_unused_clsact(ifindex: u32) -> Result<()> {
    // No answer: the interface is gone, and its qdisc with it.
    let Ok(found) = tc::ingress(ifindex) else {
        return Ok(());
    };
    if found.qdisc == Some(tc::IngressQdisc::Clsact) && found.filters.is_empty() {
        tc::delete_clsact(ifindex)?;
    }
    Ok(())
}
