// SPDX-License-Identifier: GPL-2.0-only
//! Attaching the programs to an interface, and taking them off again: only what is ours.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::Program;
use nix::net::if_::if_indextoname;

use super::attach_tc::{
    AtHook, OurFilter, attach_tc, remove_filter, remove_leftovers, remove_unused_clsact,
};
use super::attach_xdp::attach_xdp;
use super::interface::Side;
pub use super::interface::{Interface, Kind, XdpMode};
use super::tc_chain::AtTc;
use super::{Hook, libbpf_error, sys};
use crate::error::Result;
use crate::netlink::drivers::Drivers;
use crate::netlink::link::Link;
use crate::netlink::link_layer::LinkLayer;
use crate::netlink::tc::Qdiscs;
use crate::reasons::interface::Problem;

/// `NETDEV_XDP_ACT_NDO_XMIT` of linux/netdev.h: the driver sends frames redirected to it.
pub(super) const CAN_TRANSMIT: u64 = 1 << 2;

/// What a program is for, and so where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The datapath at the hook XDP.
    Xdp,
    /// The datapath at the hook TC. It takes packets away from who comes behind it.
    Tc,
    /// The stamp on the way in, at the hook XDP.
    WayIn,
    /// The way out.
    WayOut,
}

impl Place {
    /// The side at TC.
    fn side(self) -> Option<Side> {
        match self {
            Self::Xdp => None,
            Self::Tc | Self::WayIn => Some(Side::Ingress),
            Self::WayOut => Some(Side::Egress),
        }
    }
}

/// The programs that belong at each interface.
#[derive(Debug)]
pub struct Programs {
    /// In the order in which they are attached; the hook's own program is the first.
    all: Vec<(Place, OwnedFd)>,
    /// The same for interfaces whose packets begin with the IP header.
    headerless: Vec<(Place, OwnedFd)>,
}

impl Programs {
    /// The hook's own program, and those of the proof (bpf/proof.h): `stamp` at TC ingress, where
    /// the hook's own program is not there itself, and `egress`.
    pub fn new(hook: Hook, own: OwnedFd, stamp: Option<OwnedFd>, egress: OwnedFd) -> Self {
        let place = match hook {
            Hook::Xdp => Place::Xdp,
            Hook::Tc => Place::Tc,
        };
        let mut all = vec![(place, own)];
        all.extend(stamp.map(|stamp| (Place::WayIn, stamp)));
        all.push((Place::WayOut, egress));
        Self { all, headerless: Vec::new() }
    }

    /// The same, with what the hook tc has for interfaces whose packets begin with the IP header.
    #[must_use]
    pub fn with_headerless(self, own: OwnedFd, egress: OwnedFd) -> Self {
        Self { headerless: vec![(Place::Tc, own), (Place::WayOut, egress)], ..self }
    }

    /// Those that belong at this interface.
    fn at(&self, interface: &Interface) -> &[(Place, OwnedFd)] {
        if interface.headerless { &self.headerless } else { &self.all }
    }
}

#[derive(Debug)]
enum Holder {
    /// Detaches when it is closed, also when the process is killed.
    Link(OwnedFd),
    Filter(OurFilter),
    Gone,
}

/// One of our programs at an interface.
#[derive(Debug)]
struct Attached {
    place: Place,
    /// The program's id.
    program: u32,
    kind: Kind,
    holder: Holder,
}

/// Our programs at one interface; dropping it detaches them.
#[derive(Debug)]
pub struct Attachment {
    interface: Interface,
    /// How XDP was asked for.
    mode: XdpMode,
    /// The hook's own program is the first.
    attached: Vec<Attached>,
    /// These handlers were there when ours could not be put where it belongs.
    given_up: Option<AtTc>,
    /// Why the hook's own program could not be attached again, if so.
    off: Option<String>,
    /// The user was warned that frames are lost at the present MTU.
    loses_frames: bool,
}

impl Attachment {
    /// Attaches all programs, or none.
    pub fn attach(
        programs: &Programs,
        interface: &Interface,
        mode: XdpMode,
        qdiscs: &mut Qdiscs,
    ) -> Result<Self> {
        remove_leftovers(interface, qdiscs)?;
        let mut attachment = Self {
            interface: interface.clone(),
            mode,
            attached: Vec::new(),
            given_up: None,
            off: None,
            loses_frames: false,
        };
        for (place, program) in programs.at(interface) {
            let ours = Attached::attach(*place, program, interface, mode, qdiscs)?;
            attachment.attached.push(ours);
        }
        let what = interface.kind.as_ref().map(|kind| format!(", {kind}")).unwrap_or_default();
        tracing::info!("attached to {} ({}{what})", interface.name, attachment.kind());
        attachment.tell_of_resets();
        Ok(attachment)
    }

    /// Users should know before that the link will be down for some seconds.
    fn tell_of_resets(&self) {
        let driver = driver_of(self.name());
        let driver = driver.filter(|driver| RESETTING_DRIVERS.contains(&driver.as_str()));
        if let (Kind::XdpNative, Some(driver)) = (self.kind(), driver) {
            let line = Problem::LinkResets.reason().line_about(driver);
            tracing::info!("{}: {line}", self.name());
        }
    }

    /// The interface's index.
    pub fn ifindex(&self) -> u32 {
        self.interface.index
    }

    /// The interface's name when it was attached.
    pub fn name(&self) -> &str {
        &self.interface.name
    }

    /// Whether the interface's packets still begin as the programs expect: a tun can change that.
    pub fn fits(&self, link: Option<&Link>) -> bool {
        link.is_some_and(|link| LinkLayer::of(link).is_headerless() == self.interface.headerless)
    }

    /// How XDP was asked for.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// How the hook's own program is attached.
    pub fn kind(&self) -> Kind {
        self.attached[0].kind
    }

    /// The id of the hook's own program.
    pub fn program(&self) -> u32 {
        self.attached[0].program
    }

    /// Whether the program with this id is one of ours.
    pub fn is_ours(&self, program: Option<u32>) -> bool {
        self.attached.iter().any(|ours| Some(ours.program) == program)
    }

    /// Whether the interface is still there: the kernel takes it off its lists before its filters.
    pub fn interface_exists(&self) -> bool {
        if_indextoname(self.interface.index).is_ok()
    }

    /// Whether all programs are still where they were attached.
    pub fn is_in_place(&self, at_tc: &AtTc) -> bool {
        self.attached.iter().all(|ours| match (ours.place.side(), &ours.holder) {
            (Some(side), _) => at_tc.has(side, ours.program),
            // While a link is attached, nobody else can attach XDP.
            (None, Holder::Link(link)) => sys::xdp_link_target(link.as_fd())
                .is_ok_and(|target| target == (ours.program, self.interface.index)),
            (None, _) => false,
        })
    }

    /// Adds filters again that someone removed, and moves the hook's own program behind all others.
    /// `at_tc` is what there is at this interface. After a failure, it tries again only when
    /// something else has changed. `true` if something was attached anew.
    pub fn keep_in_place(
        &mut self,
        programs: &Programs,
        at_tc: &AtTc,
        qdiscs: &mut Qdiscs,
    ) -> Result<bool> {
        if self.given_up.as_ref() == Some(at_tc) {
            return Ok(false);
        }
        self.given_up = Some(at_tc.clone());
        let mut moved = false;
        for (number, (_, program)) in programs.at(&self.interface).iter().enumerate() {
            moved |=
                self.attached[number].keep_in_place(program, &self.interface, at_tc, qdiscs)?;
        }
        self.given_up = None;
        Ok(moved)
    }

    /// Why the hook's own program could not be attached again, if so.
    pub fn off(&self) -> Option<&str> {
        self.off.as_deref()
    }

    /// Whether this interface stands directly on the other one, which was attached before.
    pub fn is_above(&self, other: &Self) -> bool {
        let is_stacked =
            self.interface.stacked_with.iter().any(|(index, _)| *index == other.ifindex());
        is_stacked && self.interface.depth > other.interface.depth
    }

    /// Whether the driver must decide anew about native XDP, because of this MTU. If the program
    /// cannot be taken off, bpfw can only warn.
    pub fn must_ask_again(&mut self, mtu: u32, mode: XdpMode, can_detach: bool) -> bool {
        let native = self.kind() == Kind::XdpNative && self.off.is_none();
        let largest = sys::largest_mtu_of_a_page();
        let crosses = crosses_limit(native, self.interface.mtu, mtu, largest);
        if mode == XdpMode::Generic || !crosses {
            self.loses_frames = false;
            return false;
        }
        if native && !can_detach {
            if !self.loses_frames {
                let detail = format!("it is {mtu} now, and {largest} would do");
                let line = Problem::LargeFrames.reason().line_about(detail);
                tracing::warn!("{}: {line}", self.name());
            }
            self.loses_frames = true;
            return false;
        }
        true
    }

    /// Takes the XDP program off: the stack gets all packets.
    pub fn release_xdp(&mut self) {
        self.attached[0].holder = Holder::Gone;
    }

    /// Attaches the XDP program again, as at the start. What hinders that is told by [`Self::off`].
    pub fn attach_xdp_again(&mut self, programs: &Programs, mtu: u32, mode: XdpMode) {
        (self.interface.mtu, self.mode) = (mtu, mode);
        let (_, program) = &programs.all[0];
        match attach_xdp(program.as_fd(), &self.interface, mode) {
            Ok((kind, link)) => {
                self.off = None;
                (self.attached[0].kind, self.attached[0].holder) = (kind, Holder::Link(link));
                tracing::info!("{}: attached again with the MTU {mtu} ({kind})", self.name());
            }
            Err(error) => self.off = Some(error.to_string()),
        }
    }

    /// Detaches in the orderly way.
    pub fn close(mut self) -> Result<()> {
        self.detach()
    }

    fn detach(&mut self) -> Result<()> {
        let (mut result, mut made_qdisc) = (Ok(()), false);
        let attached = std::mem::take(&mut self.attached);
        if attached.is_empty() {
            return result;
        }
        for ours in attached {
            match ours.holder {
                Holder::Link(link) => drop(link),
                Holder::Filter(filter) => {
                    made_qdisc |= filter.made_qdisc;
                    result = result.and(remove_filter(&self.interface, ours.program));
                }
                Holder::Gone => {}
            }
        }
        // Only when all filters are gone.
        if made_qdisc {
            result = result.and(remove_unused_clsact(self.interface.index));
        }
        if result.is_ok() {
            tracing::info!("detached from {}", self.interface.name);
        }
        result
    }
}

impl Attached {
    fn attach(
        place: Place,
        program: &OwnedFd,
        interface: &Interface,
        mode: XdpMode,
        qdiscs: &mut Qdiscs,
    ) -> Result<Self> {
        let id = Program::id_from_fd(program.as_fd())
            .map_err(|error| libbpf_error("reading our program's id", &error))?;
        let (kind, holder) = match place.side() {
            None => {
                let (kind, link) = attach_xdp(program.as_fd(), interface, mode)?;
                (kind, Holder::Link(link))
            }
            Some(side) => {
                held(attach_tc(program.as_fd(), interface, side, place == Place::Tc, qdiscs)?)
            }
        };
        Ok(Self { place, program: id, kind, holder })
    }

    fn keep_in_place(
        &mut self,
        program: &OwnedFd,
        interface: &Interface,
        at_tc: &AtTc,
        qdiscs: &mut Qdiscs,
    ) -> Result<bool> {
        let Some(side) = self.place.side() else {
            return Ok(false);
        };
        let takes_packets = self.place == Place::Tc;
        let name = &interface.name;
        let was_at_tcx = self.kind == Kind::Tcx;
        let attached = match self.kind {
            Kind::Tcx if takes_packets && at_tc.behind(self.program).is_some() => {
                if at_tc.qdisc.is_some() {
                    OurFilter::add(program.as_fd(), interface, side).map(AtHook::Filter)
                } else {
                    // A new qdisc stops the interface's queues for a moment, and loses packets
                    // (qdisc_graft in net/sched/sch_api.c). So the stack has those in between.
                    self.holder = Holder::Gone;
                    attach_tc(program.as_fd(), interface, side, takes_packets, qdiscs)
                }
            }
            // A qdisc that is removed, or a flush, takes the filters of all with it.
            Kind::Clsact if !at_tc.has(side, self.program) => {
                tracing::warn!("{name}: someone removed bpfw's TC filter, attaching again");
                attach_tc(program.as_fd(), interface, side, takes_packets, qdiscs)
            }
            _ => return Ok(false),
        };
        // Only now the old link, if there still is one, is closed.
        (self.kind, self.holder) = held(attached?);
        if was_at_tcx {
            tracing::info!("{name}: went behind others at TC");
        }
        Ok(true)
    }
}

/// Whether frames of the new MTU may be too large for native XDP while those of the old one were
/// not. Without native XDP: whether it may have become possible. `largest` is the largest MTU of
/// frames that fit in a page. A driver that agreed to a larger one has other means.
fn crosses_limit(native: bool, old: u32, new: u32, largest: u32) -> bool {
    if native { new > old.max(largest) } else { old > largest && new <= largest }
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
        let native = self.kind() == Kind::XdpNative;
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

/// Drivers that take the link down and up again when XDP is attached or detached. See
/// `igb_xdp_setup` in drivers/net/ethernet/intel/igb/igb_main.c. The same is in intel/igc,
/// intel/ixgbe, intel/i40e, intel/ice, marvell/mvneta.c, marvell/mvpp2 and aquantia/atlantic.
const RESETTING_DRIVERS: [&str; 8] =
    ["atlantic", "i40e", "ice", "igb", "igc", "ixgbe", "mvneta", "mvpp2"];

pub(super) fn is_known_to_transmit(name: &str) -> bool {
    driver_of(name).is_some_and(|driver| TRANSMITTING_DRIVERS.contains(&driver.as_str()))
}

/// The driver of an interface that has hardware, or something like it.
fn driver_of(name: &str) -> Option<String> {
    let driver = std::fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: u32 = 3506;

    #[test]
    fn hazard_34_the_driver_is_asked_again_when_frames_may_not_fit() {
        for (old, new) in [(1500, 1280), (1280, 1500), (1500, LARGEST), (9000, 1500), (9000, 9000)]
        {
            assert!(!crosses_limit(true, old, new, LARGEST), "native, {old} to {new}");
        }
        for (old, new) in [(1500, LARGEST + 1), (1500, 9000), (4000, 9000)] {
            assert!(crosses_limit(true, old, new, LARGEST), "native, {old} to {new}");
        }
        for (old, new) in [(1500, 1280), (1500, 9000), (9000, 4000), (LARGEST, 1500)] {
            assert!(!crosses_limit(false, old, new, LARGEST), "not native, {old} to {new}");
        }
        for (old, new) in [(9000, 1500), (LARGEST + 1, LARGEST)] {
            assert!(crosses_limit(false, old, new, LARGEST), "not native, {old} to {new}");
        }
    }
}
