// SPDX-License-Identifier: GPL-2.0-only
//! The embedded objects, in the byte order of the machine that bpfw was built for.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Object, OpenObject};

use super::Hook;

#[allow(missing_docs, clippy::all, clippy::undocumented_unsafe_blocks, dead_code, unused)]
mod xdp {
    include!(concat!(env!("OUT_DIR"), "/xdp_bpfw.skel.rs"));
}

#[allow(missing_docs, clippy::all, clippy::undocumented_unsafe_blocks, dead_code, unused)]
mod tc {
    include!(concat!(env!("OUT_DIR"), "/tc_bpfw.skel.rs"));
}

/// Where an embedded object lives; the skeleton borrows it.
pub type Storage = MaybeUninit<OpenObject>;

/// An embedded object, opened.
pub enum OpenSkeleton<'obj> {
    /// For XDP.
    Xdp(Box<xdp::OpenXdpBpfwSkel<'obj>>),
    /// For TC.
    Tc(Box<tc::OpenTcBpfwSkel<'obj>>),
}

/// An embedded object, loaded.
pub enum Skeleton<'obj> {
    /// For XDP.
    Xdp(Box<xdp::XdpBpfwSkel<'obj>>),
    /// For TC.
    Tc(Box<tc::TcBpfwSkel<'obj>>),
}

impl<'obj> OpenSkeleton<'obj> {
    /// Opens the hook's embedded object.
    pub fn open(hook: Hook, storage: &'obj mut Storage) -> libbpf_rs::Result<Self> {
        Ok(match hook {
            Hook::Xdp => Self::Xdp(Box::new(xdp::XdpBpfwSkelBuilder::default().open(storage)?)),
            Hook::Tc => Self::Tc(Box::new(tc::TcBpfwSkelBuilder::default().open(storage)?)),
        })
    }

    /// The object, to be changed before it is loaded.
    pub fn object_mut(&mut self) -> &mut OpenObject {
        match self {
            Self::Xdp(skeleton) => skeleton.open_object_mut(),
            Self::Tc(skeleton) => skeleton.open_object_mut(),
        }
    }

    /// Loads maps and programs into the kernel.
    pub fn load(self) -> libbpf_rs::Result<Skeleton<'obj>> {
        Ok(match self {
            Self::Xdp(skeleton) => Skeleton::Xdp(Box::new(skeleton.load()?)),
            Self::Tc(skeleton) => Skeleton::Tc(Box::new(skeleton.load()?)),
        })
    }
}

impl Skeleton<'_> {
    /// The loaded object.
    pub fn object(&self) -> &Object {
        match self {
            Self::Xdp(skeleton) => skeleton.object(),
            Self::Tc(skeleton) => skeleton.object(),
        }
    }
}
