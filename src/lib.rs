// SPDX-License-Identifier: GPL-2.0-only
//! bpfw forwards the packets of established connections in XDP or TC.

pub mod conntrack;
pub mod error;
pub mod flow;
pub mod netlink;
