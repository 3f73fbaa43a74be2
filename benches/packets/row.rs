// SPDX-License-Identifier: GPL-2.0-only
//! The ways of a packet that are compared.

use clap::ValueEnum;
use serde::Serialize;

/// A way through the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// The generator writes the frame and drops it
    Generator,
    /// The generator redirects it: the limit of XDP
    XdpRedirect,
    /// bpfw at XDP
    BpfwXdp,
    /// A TC program that only redirects: the limit of TC
    TcRedirect,
    /// bpfw at TC
    BpfwTc,
}

impl Row {
    /// All of them, in the table's order.
    pub const ALL: [Self; 5] =
        [Self::Generator, Self::XdpRedirect, Self::BpfwXdp, Self::TcRedirect, Self::BpfwTc];

    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generator => "generator alone",
            Self::XdpRedirect => "bare XDP redirect",
            Self::BpfwXdp => "bpfw xdp",
            Self::TcRedirect => "bare TC redirect",
            Self::BpfwTc => "bpfw tc",
        }
    }

    /// What it is compared with.
    pub fn limit(self) -> Self {
        match self {
            Self::Generator | Self::XdpRedirect | Self::BpfwXdp => Self::XdpRedirect,
            Self::TcRedirect | Self::BpfwTc => Self::TcRedirect,
        }
    }

    /// The hook of the daemon that this way needs.
    pub fn hook(self) -> Option<&'static str> {
        match self {
            Self::BpfwXdp => Some("xdp"),
            Self::BpfwTc => Some("tc"),
            _ => None,
        }
    }
}
