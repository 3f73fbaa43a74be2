// SPDX-License-Identifier: GPL-2.0-only
//! An interface, and the ways to attach a program to it.

use std::fmt;

use libbpf_rs::{TC_EGRESS, TC_INGRESS, TcAttachPoint};

use super::sys::AttachType;

/// How XDP is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum XdpMode {
    /// In the driver, or not at all
    Native,
    /// On the `sk_buff`: slower than TC
    Generic,
    /// Native; where the driver cannot, generic with a warning
    #[default]
    Auto,
}

/// An interface to attach to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The kernel's word for what it is, as in `ip -details link`; `None` for a network card.
    pub kind: Option<String>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Index and name of the interfaces directly above it or below it.
    pub stacked_with: Vec<(u32, String)>,
    /// How many interfaces there are below it.
    pub depth: u32,
    /// Its packets begin with the IP header.
    pub headerless: bool,
}

/// The way in which a program is attached.
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

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XdpNative => "native XDP",
            Self::XdpGeneric => "generic XDP",
            Self::Tcx => "TCX",
            Self::Clsact => "clsact",
        })
    }
}

/// A side of an interface at TC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where packets come in.
    Ingress,
    /// Where packets go out.
    Egress,
}

impl Side {
    /// How clsact calls it.
    pub(super) fn point(self) -> TcAttachPoint {
        match self {
            Self::Ingress => TC_INGRESS,
            Self::Egress => TC_EGRESS,
        }
    }

    /// How TCX calls it.
    pub(super) fn tcx(self) -> AttachType {
        match self {
            Self::Ingress => AttachType::TcxIngress,
            Self::Egress => AttachType::TcxEgress,
        }
    }
}
