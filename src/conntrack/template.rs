// SPDX-License-Identifier: GPL-2.0-only
//! Messages that name a connection by its original tuple: the library builds one of each kind, and
//! the places of what differs are filled in. To build each anew takes it longer than the kernel
//! takes to carry it out.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::entry::{BE_LIBERAL, MAXACK_SET, draft_for};
use super::ffi::{Draft, Header, U8, U32};
use crate::flow::tuple::{Protocol, Tuple};

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

/// One for each protocol and each set of changes.
pub(super) struct Templates([Template; 8]);

struct Template {
    message: Vec<u8>,
    addresses: [usize; 2],
    ports: [usize; 2],
    timeout: Option<usize>,
}

/// Numbers whose bytes are found nowhere else in a message.
const SOURCE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(0xe1, 0xe2, 0xe3, 0xe4), 0xe5e6);
const DESTINATION: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(0xf1, 0xf2, 0xf3, 0xf4), 0xf5f6);
const TIMEOUT: u32 = 0xd1d2_d3d4;

impl Templates {
    /// Builds all; `None` when there is no memory.
    pub(super) fn build() -> Option<Self> {
        let mut all = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for timeout in [None, Some(TIMEOUT)] {
                for tcp_liberal in [false, true] {
                    all.push(Template::build(protocol, Change { timeout, tcp_liberal })?);
                }
            }
        }
        all.try_into().ok().map(Self)
    }

    /// Appends the message about this connection to `out`.
    pub(super) fn append(&self, header: Header, tuple: &Tuple, change: Change, out: &mut Vec<u8>) {
        let place = 4 * usize::from(tuple.protocol == Protocol::Udp)
            + 2 * usize::from(change.timeout.is_some())
            + usize::from(change.tcp_liberal);
        self.0[place].append(header, tuple, change.timeout, out);
    }
}

impl Template {
    fn build(protocol: Protocol, change: Change) -> Option<Self> {
        let tuple = Tuple { protocol, source: SOURCE, destination: DESTINATION };
        let mut message = Vec::new();
        let header = Header { kind: 0, flags: 0, sequence: 0 };
        draft_of(&tuple, change)?.append_to(header, &mut message)?;
        let find = |bytes: &[u8]| message.windows(bytes.len()).position(|found| found == bytes);
        let [source, destination] = [SOURCE, DESTINATION];
        Some(Self {
            addresses: [find(&source.ip().octets())?, find(&destination.ip().octets())?],
            ports: [find(&source.port().to_be_bytes())?, find(&destination.port().to_be_bytes())?],
            timeout: find(&TIMEOUT.to_be_bytes()),
            message,
        })
    }

    fn append(&self, header: Header, tuple: &Tuple, timeout: Option<u32>, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.message);
        let message = &mut out[start..];
        header.write(message);
        for (at, end) in [tuple.source, tuple.destination].into_iter().enumerate() {
            fill(message, self.addresses[at], end.ip().octets());
            fill(message, self.ports[at], end.port().to_be_bytes());
        }
        if let (Some(at), Some(seconds)) = (self.timeout, timeout) {
            fill(message, at, seconds.to_be_bytes());
        }
    }
}

fn fill<const N: usize>(message: &mut [u8], at: usize, value: [u8; N]) {
    message[at..at + N].copy_from_slice(&value);
}

/// The message as the library makes it.
fn draft_of(tuple: &Tuple, change: Change) -> Option<Draft> {
    let mut draft = draft_for(tuple)?;
    if let Some(seconds) = change.timeout {
        draft.set_u32(U32::TIMEOUT, seconds);
    }
    if change.tcp_liberal && tuple.protocol == Protocol::Tcp {
        draft
            .set_u8(U8::TCP_FLAGS_ORIGINAL, BE_LIBERAL)
            .set_u8(U8::TCP_MASK_ORIGINAL, TCP_FLAG_MASK)
            .set_u8(U8::TCP_FLAGS_REPLY, BE_LIBERAL)
            .set_u8(U8::TCP_MASK_REPLY, TCP_FLAG_MASK);
    }
    Some(draft)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::decode;
    use crate::conntrack::entry::tests::tuple;

    const HEADER: Header = Header { kind: 0x100, flags: 1, sequence: 7 };

    fn changes() -> impl Iterator<Item = Change> {
        [None, Some(60)]
            .into_iter()
            .flat_map(|timeout| [false, true].map(|tcp_liberal| Change { timeout, tcp_liberal }))
    }

    fn message(protocol: Protocol, change: Change) -> Vec<u8> {
        let mut message = Vec::new();
        Templates::build().unwrap().append(HEADER, &tuple(protocol), change, &mut message);
        message
    }

    #[test]
    fn a_filled_template_is_what_the_library_builds() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for change in changes() {
                let mut built = Vec::new();
                let draft = draft_of(&tuple(protocol), change).unwrap();
                draft.append_to(HEADER, &mut built).unwrap();
                assert_eq!(message(protocol, change), built, "{protocol:?} {change:?}");
                assert_eq!(decode::original(&built), Some(tuple(protocol)));
            }
        }
    }

    #[test]
    fn an_update_holds_tuple_timeout_and_flags_only() {
        let message = message(Protocol::Tcp, Change { timeout: Some(60), tcp_liberal: true });
        let (mut rest, mut kinds) = (&message[20..], Vec::new());
        while let [l0, l1, k0, k1, ..] = *rest {
            kinds.push(u16::from_ne_bytes([k0, k1]) & 0x3fff);
            rest = &rest[usize::from(u16::from_ne_bytes([l0, l1])).next_multiple_of(4)..];
        }
        kinds.sort();
        // The original tuple, the protocol information and the timeout.
        assert_eq!(kinds, [1, 4, 7]);
    }
}
