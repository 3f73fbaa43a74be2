// SPDX-License-Identifier: GPL-2.0-only
//! What bpfw knows about connections, as plain values: no I/O and no FFI in here.

pub mod decision;
pub mod expiry;
pub mod family;
pub mod mark;
pub mod selector;
pub mod state;
pub mod translation;
pub mod tuple;
