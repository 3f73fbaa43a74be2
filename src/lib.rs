// SPDX-License-Identifier: GPL-2.0-only
//! bpfw forwards the packets of established connections in XDP or TC. This library is for the
//! daemon and its tests; its interface follows their needs.

pub mod abi;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connections;
pub mod conntrack;
pub mod daemon;
pub mod datapath;
pub mod error;
pub mod firewall;
pub mod flow;
pub mod limits;
pub mod logging;
pub mod netlink;
pub mod notify;
pub mod reasons;
pub mod reload;
pub mod shutdown;
pub mod status;
pub mod view;
