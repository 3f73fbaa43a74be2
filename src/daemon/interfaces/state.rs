// SPDX-License-Identifier: GPL-2.0-only
//! What becomes of one interface's packets: the decision, and what users hear of a change.

use crate::datapath::Hook;
use crate::datapath::attachment::{Kind, Transmitting};
use crate::netlink::link::Link;
use crate::reasons::interface::{Found, Problem};

/// The state of an interface that was named, or of a VLAN device on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InterfaceState {
    /// Its turn to be attached to has not come yet.
    Waiting,
    /// It does not exist any more.
    Gone,
    /// It was named, and has not existed since the start.
    Missing,
    /// It stands for these interfaces, where its packets are forwarded.
    Port(Vec<String>),
    /// The stack gets all packets from it and to it.
    LeftToStack(Found),
    /// Packets that come in are forwarded.
    Attached(Attached),
}

/// How an interface is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    /// How its own programs are attached; `None` for a VLAN device that its port's programs serve.
    pub(super) mode: Option<Kind>,
    /// Why the stack gets packets to it, if so. Always `None` for a VLAN device that was not named: what
    /// hinders its port was said.
    pub(super) no_egress: Option<Problem>,
    /// What its driver does with redirected frames, at the hook XDP.
    pub(super) transmitting: Option<Transmitting>,
    /// What else its user should know.
    pub(super) notices: Vec<Found>,
}

/// All that the state depends on.
pub(super) struct Facts<'a> {
    pub(super) hook: Hook,
    pub(super) by: By,
    pub(super) link: Option<&'a Link>,
    /// What must see all of its packets, or hides them.
    pub(super) left_out: Option<Found>,
    /// It is in the map of where frames come in.
    pub(super) has_ingress: bool,
    /// It is in the map of how packets leave, as one to redirect to.
    pub(super) has_egress: bool,
    pub(super) transmitting: Option<Transmitting>,
    pub(super) notices: Vec<Found>,
}

/// Whose programs serve an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Nobody's yet.
    Nobody,
    /// Its own, attached in this way.
    Itself(Kind),
    /// Its port's: it is a VLAN device, and was not named.
    Port,
}

impl Facts<'_> {
    /// Decides.
    pub(super) fn state(self) -> InterfaceState {
        if self.by == By::Nobody {
            return InterfaceState::Waiting;
        }
        let Some(link) = self.link else {
            return InterfaceState::Gone;
        };
        if let Some(found) = self.left_out {
            return InterfaceState::LeftToStack(found);
        }
        if !link.is_routed() {
            return InterfaceState::LeftToStack(Problem::Port.into());
        }
        if !self.has_ingress {
            return InterfaceState::LeftToStack(Problem::NoRoom.into());
        }
        let no_egress = (!self.has_egress).then(|| self.reason_for_no_egress(link)).flatten();
        let Self { by, transmitting, notices, .. } = self;
        let mode = by.mode();
        InterfaceState::Attached(Attached { mode, no_egress, transmitting, notices })
    }

    fn reason_for_no_egress(&self, link: &Link) -> Option<Problem> {
        let mode = self.by.mode()?;
        Some(match self.hook {
            _ if !link.up => Problem::Down,
            Hook::Tc => Problem::NoRoom,
            Hook::Xdp if link.vlan.is_some_and(|vlan| vlan.has_egress_qos) => {
                Problem::TagPriorities
            }
            Hook::Xdp if mode == Kind::XdpGeneric => Problem::GenericTarget,
            Hook::Xdp if link.kind.as_deref() == Some("veth") => Problem::VethPeer,
            Hook::Xdp => Problem::NoTransmit,
        })
    }
}

impl By {
    fn mode(self) -> Option<Kind> {
        match self {
            Self::Itself(mode) => Some(mode),
            Self::Nobody | Self::Port => None,
        }
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Warn(String),
    Info(String),
    Debug(String),
}

impl Line {
    pub(super) fn log(&self) {
        match self {
            Self::Warn(line) => tracing::warn!("{line}"),
            Self::Info(line) => tracing::info!("{line}"),
            Self::Debug(line) => tracing::debug!("{line}"),
        }
    }
}

impl InterfaceState {
    /// What users hear when the state of the interface with this name changes; `before` is `None` for
    /// one that is new.
    pub(super) fn report(&self, name: &str, before: Option<&Self>) -> Vec<Line> {
        if before == Some(self) {
            return Vec::new();
        }
        match self {
            Self::Waiting => Vec::new(),
            Self::Gone => vec![Line::Warn(format!("{name}: {}", Problem::Gone.reason().line()))],
            Self::Missing => vec![Line::Info(format!("waiting for {name}"))],
            Self::Port(carriers) => {
                let carriers = carriers.join(" and ");
                vec![Line::Info(format!("packets of the port {name} are forwarded at {carriers}"))]
            }
            // The number of such interfaces is told, not each of them: there may be thousands.
            Self::LeftToStack(Found { problem: Problem::NoRoom, .. }) => Vec::new(),
            Self::LeftToStack(found) => {
                vec![Line::Warn(format!("packets of {name} stay with the stack: {found}"))]
            }
            Self::Attached(now) => {
                let was_left = matches!(before, Some(Self::LeftToStack(_) | Self::Gone));
                let again =
                    was_left.then(|| Line::Info(format!("packets of {name} are forwarded again")));
                let before = match before {
                    Some(Self::Attached(before)) => Some(before),
                    _ => None,
                };
                again.into_iter().chain(now.report(name, before)).collect()
            }
        }
    }
}

impl Attached {
    fn report(&self, name: &str, before: Option<&Self>) -> Vec<Line> {
        let mut lines = Vec::new();
        let told = before.and_then(|before| before.transmitting);
        if let Some(transmitting) = self.transmitting.filter(|now| told != Some(*now)) {
            lines.push(Line::Debug(format!("{name}: {transmitting}")));
        }
        match (before.and_then(|before| before.no_egress), self.no_egress) {
            (before, Some(now)) if before != Some(now) => {
                let line = now.reason().line();
                lines.push(Line::Warn(format!("packets to {name} go by the stack: {line}")));
            }
            (Some(_), None) => {
                lines.push(Line::Info(format!("packets to {name} take the fast path again")));
            }
            _ => {}
        }
        let known = before.map_or(&[][..], |before| &before.notices);
        let is_new = |notice: &&Found| !known.contains(notice);
        lines.extend(
            self.notices.iter().filter(is_new).map(|now| Line::Warn(format!("{name}: {now}"))),
        );
        let is_over =
            |notice: &&Found| self.notices.iter().all(|now| now.problem != notice.problem);
        lines.extend(
            known
                .iter()
                .filter(is_over)
                .map(|notice| Line::Info(format!("{name}: solved: {}", notice.problem))),
        );
        lines
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
