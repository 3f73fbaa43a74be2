// SPDX-License-Identifier: GPL-2.0-only
//! Messages to conntrack about one connection, and their numbers (linux/netfilter/nfnetlink_conntrack.h).

use std::io;

use super::entry::{BE_LIBERAL, MAXACK_SET, named};
use super::ffi::{U8, U32};
use crate::flow::tuple::{Protocol, Tuple};
use crate::netlink::message::Header;

/// The netfilter subsystem of conntrack entries, as the upper byte of a message's kind.
const SUBSYSTEM: u16 = 1 << 8;
/// Announces an entry, or sets one (`IPCTNL_MSG_CT_NEW`).
pub(super) const NEW: u16 = SUBSYSTEM;
/// Asks for entries (`IPCTNL_MSG_CT_GET`).
pub(super) const GET: u16 = SUBSYSTEM | 1;
/// Announces the end of an entry (`IPCTNL_MSG_CT_DELETE`).
pub(super) const DELETE: u16 = SUBSYSTEM | 2;

/// The flags that an update decides on: be liberal, and forget the last acknowledgement that was
/// seen, which packets that bypass conntrack make stale.
const TCP_FLAG_MASK: u8 = BE_LIBERAL | MAXACK_SET;

/// What a message changes in an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// A new timeout in seconds.
    pub(super) timeout: Option<u32>,
    /// Both directions accept any TCP window.
    pub(super) tcp_liberal: bool,
}

/// Appends the message about the connection with this original tuple to `out`.
pub(super) fn append(
    header: Header,
    original: &Tuple,
    change: Change,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let mut object = named(original).ok_or(io::ErrorKind::OutOfMemory)?;
    if let Some(seconds) = change.timeout {
        object.set_u32(U32::TIMEOUT, seconds);
    }
    if change.tcp_liberal && original.protocol == Protocol::Tcp {
        object
            .set_u8(U8::TCP_FLAGS_ORIGINAL, BE_LIBERAL)
            .set_u8(U8::TCP_MASK_ORIGINAL, TCP_FLAG_MASK)
            .set_u8(U8::TCP_FLAGS_REPLY, BE_LIBERAL)
            .set_u8(U8::TCP_MASK_REPLY, TCP_FLAG_MASK);
    }
    object
        .append_to(original.family(), header, out)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::entry::{
        self,
        tests::{tuple, tuple6},
    };
    use crate::netlink::attribute::attributes;

    const HEADER: Header = Header { kind: 0x100, flags: 1, sequence: 7 };

    fn message(tuple: Tuple, change: Change) -> Vec<u8> {
        let mut message = Vec::new();
        append(HEADER, &tuple, change, &mut message).unwrap();
        message
    }

    #[test]
    fn a_message_names_its_connection() {
        let tuples = [Protocol::Tcp, Protocol::Udp].map(|one| [tuple(one), tuple6(one)]);
        for tuple in tuples.into_iter().flatten() {
            for timeout in [None, Some(60)] {
                for tcp_liberal in [false, true] {
                    let message = message(tuple, Change { timeout, tcp_liberal });
                    assert_eq!(entry::original(&message), Some(tuple));
                    assert!(message.len() <= 512, "as a batch of requests expects");
                    assert_eq!(message[4..6], HEADER.kind.to_ne_bytes());
                    assert_eq!(message[6..8], HEADER.flags.to_ne_bytes());
                    assert_eq!(message[8..12], HEADER.sequence.to_ne_bytes());
                }
            }
        }
    }

    #[test]
    fn an_update_holds_tuple_timeout_and_flags_only() {
        for tuple in [tuple(Protocol::Tcp), tuple6(Protocol::Tcp)] {
            let message = message(tuple, Change { timeout: Some(60), tcp_liberal: true });
            let mut kinds: Vec<_> = attributes(&message[20..]).map(|(kind, _)| kind).collect();
            kinds.sort();
            // The original tuple, the protocol information and the timeout.
            assert_eq!(kinds, [1, 4, 7]);
        }
    }
}
