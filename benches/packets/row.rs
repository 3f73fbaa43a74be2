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
    /// The program of --xdp-object
    XdpObject,
    /// A TC program that only redirects: the limit of TC
    TcRedirect,
    /// The same, and a program at the way out that does nothing
    TcRedirectEgress,
    /// bpfw at TC
    BpfwTc,
    /// A filter of clsact that only redirects
    ClsactRedirect,
    /// The same, and a filter at the way out that does nothing
    ClsactRedirectEgress,
    /// bpfw at TC by filters of clsact, as before Linux 6.6
    BpfwClsact,
    /// The kernel's own flow table
    Flowtable,
    /// The kernel's forwarding
    Stack,
}

impl Row {
    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generator => "generator alone",
            Self::XdpRedirect => "bare XDP redirect",
            Self::BpfwXdp => "bpfw xdp",
            Self::XdpObject => "XDP object",
            Self::TcRedirect => "bare TC redirect",
            Self::TcRedirectEgress => "the same, empty egress",
            Self::BpfwTc => "bpfw tc",
            Self::ClsactRedirect => "bare clsact redirect",
            Self::ClsactRedirectEgress => "the same, empty egress",
            Self::BpfwClsact => "bpfw tc by clsact",
            Self::Flowtable => "nft flowtable",
            Self::Stack => "kernel forwarding",
        }
    }

    /// What it is compared with.
    pub fn limit(self) -> Self {
        match self {
            Self::Generator | Self::XdpRedirect | Self::BpfwXdp | Self::XdpObject => {
                Self::XdpRedirect
            }
            Self::TcRedirect
            | Self::TcRedirectEgress
            | Self::BpfwTc
            | Self::Flowtable
            | Self::Stack => Self::TcRedirect,
            Self::ClsactRedirect | Self::ClsactRedirectEgress | Self::BpfwClsact => {
                Self::ClsactRedirect
            }
        }
    }

    /// Whether XDP forwards.
    pub fn is_xdp(self) -> bool {
        matches!(self, Self::XdpRedirect | Self::BpfwXdp | Self::XdpObject)
    }

    /// Whether it is measured only with `--clsact`.
    pub fn is_clsact(self) -> bool {
        matches!(
            self,
            Self::TcRedirectEgress
                | Self::ClsactRedirect
                | Self::ClsactRedirectEgress
                | Self::BpfwClsact
        )
    }

    /// Whether its packets' connections are looked at.
    pub fn has_connections(self) -> bool {
        matches!(
            self,
            Self::BpfwXdp
                | Self::XdpObject
                | Self::BpfwTc
                | Self::BpfwClsact
                | Self::Flowtable
                | Self::Stack
        )
    }
}
