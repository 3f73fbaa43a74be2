// SPDX-License-Identifier: GPL-2.0-only
//! The BPF side as the daemon sees it: loading, maps, attaching.

pub mod attach_tc;
mod attach_xdp;
pub mod attachment;
pub mod cells;
pub mod conn_map;
pub mod counters;
pub mod devices;
pub mod foresee;
pub mod hops;
pub mod instance_lock;
pub mod interface;
pub mod map_names;
pub mod object;
mod overflow;
pub mod ppp;
pub mod priority;
pub mod probe;
pub mod rates;
pub mod reader;
pub mod seen;
pub mod signals;
pub mod sizing;
pub mod skeleton;
pub mod state;
pub mod sys;
pub mod tc_chain;
mod translations;
pub mod typed_map;

use std::cell::Cell;

use libbpf_rs::{ErrorKind, PrintLevel};

use crate::error::{Error, Result};

/// Where in the kernel the datapath runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In the driver, before there is an `sk_buff`.
    Xdp,
    /// At the traffic control ingress, with an `sk_buff`.
    Tc,
}

impl Hook {
    /// The name of the hook's program in the object.
    pub fn program_name(self) -> &'static str {
        match self {
            Self::Xdp => "bpfw_xdp",
            Self::Tc => "bpfw_tc",
        }
    }

    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

/// Sends libbpf's messages to the log. Its warnings are details of an error that is reported
/// anyway, so they are of use to those only who look for more.
pub fn route_libbpf_messages() {
    libbpf_rs::set_print(Some((PrintLevel::Debug, |level, message| {
        let message = message.trim_end();
        if let Some((_, words)) = message.split_once("Kernel error message: ") {
            KERNELS_WORDS.set(Some(words.to_owned()));
        }
        match level {
            PrintLevel::Warn | PrintLevel::Info => tracing::debug!(target: "libbpf", "{message}"),
            PrintLevel::Debug => tracing::trace!(target: "libbpf", "{message}"),
        }
    })));
}

thread_local! {
    /// What the kernel last told libbpf about a refusal by netlink; libbpf hands it over as a message.
    static KERNELS_WORDS: Cell<Option<String>> = const { Cell::new(None) };
}

/// Calls libbpf. An error says why in the kernel's words, and how to get what the kernel lacks.
fn with_kernels_words<T>(
    doing: impl Into<String>,
    if_lacking: &str,
    call: impl FnOnce() -> libbpf_rs::Result<T>,
) -> Result<T> {
    KERNELS_WORDS.set(None);
    call().map_err(|cause| {
        let error = libbpf_error(doing, &cause);
        match KERNELS_WORDS.take() {
            _ if cause.kind() == ErrorKind::NotFound => error.with_advice(if_lacking),
            Some(words) => error.with_advice(format!("the kernel says: {words}")),
            None => error,
        }
    })
}

/// An error of libbpf's as one of ours, its chain of causes in one line.
fn libbpf_error(doing: impl Into<String>, error: &libbpf_rs::Error) -> Error {
    Error::system(doing, std::io::Error::new(error.kind().into_io(), format!("{error:#}")))
}

trait IntoIo {
    fn into_io(self) -> std::io::ErrorKind;
}

impl IntoIo for libbpf_rs::ErrorKind {
    fn into_io(self) -> std::io::ErrorKind {
        match self {
            Self::NotFound => std::io::ErrorKind::NotFound,
            Self::PermissionDenied => std::io::ErrorKind::PermissionDenied,
            Self::AlreadyExists => std::io::ErrorKind::AlreadyExists,
            _ => std::io::ErrorKind::Other,
        }
    }
}
