// SPDX-License-Identifier: GPL-2.0-only
//! Which rules of the firewall must see each packet. The proof at the way out cannot account for
//! them, because they count, limit or mark packets.

mod register_state;
pub mod statements;
pub mod walk;
