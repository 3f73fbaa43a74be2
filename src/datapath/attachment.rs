// SPDX-License-Identifier: GPL-2.0-only
//! Attaching the program to an interface, and taking it off again: only what is ours.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use libbpf_rs::Program;
use nix::net::if_::if_indextoname;

use super::attach_tc::{AtHook, OurFilter, attach_tc};
use super::attach_xdp::attach_xdp;
use super::others::AtTc;
use super::{Hook, libbpf_error, sys};
use crate::error::Result;
use crate::netlink::drivers::Drivers;

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
    Filter(OurFilter),
    Gone,
}

/// The program at one interface; dropping it detaches.
#[derive(Debug)]
pub struct Attachment {
    interface: Interface,
    /// The program's id.
    program: u32,
    kind: Kind,
    holder: Holder,
    /// Among these handlers, ours could not be put where it belongs.
    given_up: Option<AtTc>,
}

impl Attachment {
    /// Attaches the program.
    pub fn attach(
        hook: Hook,
        program: BorrowedFd<'_>,
        interface: &Interface,
        mode: XdpMode,
    ) -> Result<Self> {
        let id = Program::id_from_fd(program)
            .map_err(|error| libbpf_error("reading our program's id", &error))?;
        let (kind, holder) = match hook {
            Hook::Xdp => {
                let (kind, link) = attach_xdp(program, interface, mode)?;
                (kind, Holder::Link(link))
            }
            Hook::Tc => held(attach_tc(program, interface)?),
        };
        tracing::info!("attached to {} ({kind:?})", interface.name);
        Ok(Self { interface: interface.clone(), program: id, kind, holder, given_up: None })
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

    /// The id of the program.
    pub fn program(&self) -> u32 {
        self.program
    }

    /// Whether the interface is still there: the kernel takes it off its lists before its filters.
    pub fn interface_exists(&self) -> bool {
        if_indextoname(self.interface.index).is_ok()
    }

    /// Whether the program is still where it was attached.
    pub fn is_in_place(&self, at_tc: &AtTc) -> bool {
        match self.kind {
            Kind::XdpNative | Kind::XdpGeneric => {
                sys::xdp_program(self.interface.index).is_ok_and(|program| program == self.program)
            }
            Kind::Tcx | Kind::Clsact => at_tc.has(self.program),
        }
    }

    /// At TC, sees to it that all others get the packets first; `at_tc` is what there is at this
    /// interface. `true` if the program is in another place now. What cannot be done is not tried
    /// again until something else has changed.
    pub fn keep_behind_others(&mut self, program: BorrowedFd<'_>, at_tc: &AtTc) -> Result<bool> {
        let name = &self.interface.name;
        if self.given_up.as_ref() == Some(at_tc) {
            return Ok(false);
        }
        let attached = match self.kind {
            Kind::Tcx if at_tc.behind(self.program).is_some() => {
                if at_tc.qdisc.is_some() {
                    OurFilter::add(program, &self.interface).map(AtHook::Filter)
                } else {
                    // A new qdisc stops the interface's queues for a moment, and loses packets
                    // (qdisc_graft in net/sched/sch_api.c). So the stack has those in between.
                    self.holder = Holder::Gone;
                    attach_tc(program, &self.interface)
                }
            }
            // A qdisc that is removed, or a flush, takes the filters of all with it.
            Kind::Clsact if !at_tc.has(self.program) => {
                tracing::warn!("{name}: someone removed bpfw's TC filter, attaching again");
                attach_tc(program, &self.interface)
            }
            _ => return Ok(false),
        };
        self.given_up = attached.is_err().then(|| at_tc.clone());
        // Only now the old link, if there still is one, is closed.
        let was_at_tcx = self.kind == Kind::Tcx;
        (self.kind, self.holder) = held(attached?);
        if was_at_tcx {
            tracing::info!("{}: went behind others at TC", self.interface.name);
        }
        Ok(true)
    }

    /// Detaches in the orderly way.
    pub fn close(mut self) -> Result<()> {
        self.detach()
    }

    fn detach(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.holder, Holder::Gone) {
            Holder::Link(link) => drop(link),
            Holder::Filter(filter) => filter.remove(&self.interface, self.program)?,
            Holder::Gone => return Ok(()),
        }
        tracing::info!("detached from {}", self.interface.name);
        Ok(())
    }
}

fn held(at: AtHook) -> (Kind, Holder) {
    match at {
        AtHook::Tcx(link) => (Kind::Tcx, Holder::Link(link)),
        AtHook::Filter(filter) => (Kind::Clsact, Holder::Filter(filter)),
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
    pub fn transmitting(&self, drivers: &mut Drivers) -> Transmitting {
        if drivers.are_described() {
            let features = drivers.features(self.interface.index).unwrap_or(0);
            return Transmitting::Told(features & CAN_TRANSMIT != 0);
        }
        let native = self.kind == Kind::XdpNative;
        Transmitting::Untold { driver_is_known: native && is_known_to_transmit(self.name()) }
    }
}

/// Whether a driver sends frames that native XDP redirects to it, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmitting {
    /// The kernel's word.
    Told(bool),
    /// The kernel does not tell; there is only a list of drivers.
    Untold {
        /// The driver is on the list.
        driver_is_known: bool,
    },
}

impl Transmitting {
    /// Whether frames are redirected to it.
    pub fn is_trusted(self) -> bool {
        matches!(self, Self::Told(true) | Self::Untold { driver_is_known: true })
    }
}

impl fmt::Display for Transmitting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Told(true) => "its driver takes frames that native XDP redirects",
            Self::Told(false) => "its driver takes no frames that native XDP redirects",
            Self::Untold { driver_is_known: true } => {
                "this kernel does not tell what its driver takes; this one is known to take frames \
                 that native XDP redirects"
            }
            Self::Untold { driver_is_known: false } => {
                "this kernel does not tell what its driver takes: native XDP redirects no frames to it"
            }
        })
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
