// SPDX-License-Identifier: GPL-2.0-only
//! Which rules of the firewall would have to see each packet: those that the proof at the way out cannot
//! account for, because they count, limit or mark packets.

mod register_state;
pub mod statements;
pub mod walk;
