// SPDX-License-Identifier: GPL-2.0-only
//! Random operations on a lab with bpfw in it, and a small model of what may be true after each.

pub mod endpoints;
pub mod expect;
pub mod fast_path;
pub mod net;
pub mod op;
pub mod operate;
pub mod router;
pub mod tracked;
pub mod wire;
pub mod world;
