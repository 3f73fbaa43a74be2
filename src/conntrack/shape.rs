// SPDX-License-Identifier: GPL-2.0-only
//! Checks a message before the library decodes it.
//!
//! The library trusts the kernel: it ends the process when an attribute is too short, writes
//! behind an array when the protocol information holds a type that it does not know, and takes
//! strings for terminated. So only attributes that bpfw uses reach it, each of the right size.

use Shape::{Bytes, Nested, Text};

/// Bytes of `nlmsghdr` and `nfgenmsg`, which start every conntrack message.
pub(super) const HEADERS: usize = 20;
const TYPE_MASK: u16 = 0x3fff;

/// What an attribute's payload must be.
enum Shape {
    /// At least so many bytes; further ones are left out.
    Bytes(usize),
    /// A string.
    Text,
    /// Attributes of these types and shapes; others are left out.
    Nested(Attributes),
}

type Attributes = &'static [(u16, Shape)];

/// `CTA_*`.
const ENTRY: Attributes = &[
    (1, Nested(TUPLE)),
    (2, Nested(TUPLE)),
    (3, Bytes(4)),                    // status
    (4, Nested(&[(1, Nested(TCP))])), // protocol information
    (5, Nested(&[(1, Text)])),        // helper
    (7, Bytes(4)),                    // timeout
    (8, Bytes(4)),                    // mark
    (12, Bytes(4)),                   // id
    (15, Nested(WORDS)),              // sequence adjustment of the original direction
    (16, Nested(WORDS)),              // and of the reply direction
    (18, Bytes(2)),                   // zone
    (24, Nested(WORDS)),              // SYN proxy
];
/// `CTA_TUPLE_*`: addresses; protocol and ports; zone.
const TUPLE: Attributes = &[
    (1, Nested(&[(1, Bytes(4)), (2, Bytes(4))])),
    (2, Nested(&[(1, Bytes(1)), (2, Bytes(2)), (3, Bytes(2))])),
    (3, Bytes(2)),
];
/// `CTA_PROTOINFO_TCP_*`: state; flags and mask of both directions.
const TCP: Attributes = &[(1, Bytes(1)), (4, Bytes(2)), (5, Bytes(2))];
const WORDS: Attributes = &[(1, Bytes(4)), (2, Bytes(4)), (3, Bytes(4))];

/// The message, reduced to the attributes that bpfw uses, aligned; `None` when it is malformed.
pub(super) fn reduce(message: &[u8]) -> Option<Vec<u32>> {
    let (headers, payload) = message.split_at_checked(HEADERS)?;
    let length = u32::from_ne_bytes(*headers.first_chunk()?);
    if usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut bytes = Vec::with_capacity(message.len() + 4);
    bytes.extend(headers);
    copy(payload, ENTRY, &mut bytes)?;
    let length = u32::try_from(bytes.len()).ok()?.to_ne_bytes();
    bytes.get_mut(..4)?.copy_from_slice(&length);
    let word = |bytes: &[u8]| bytes.first_chunk().copied().map(u32::from_ne_bytes);
    bytes.chunks(4).map(word).collect()
}

/// Appends the attributes of `payload` that `known` lists.
fn copy(mut payload: &[u8], known: Attributes, out: &mut Vec<u8>) -> Option<()> {
    while !payload.is_empty() {
        let [l0, l1, k0, k1] = *payload.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let kind = u16::from_ne_bytes([k0, k1]) & TYPE_MASK;
        let value = payload.get(4..length)?;
        if let Some((_, shape)) = known.iter().find(|(number, _)| *number == kind) {
            copy_one(kind, value, shape, out)?;
        }
        payload = payload.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(())
}

fn copy_one(kind: u16, value: &[u8], shape: &Shape, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    out.extend([0; 2]);
    out.extend(kind.to_ne_bytes());
    match shape {
        Bytes(size) => out.extend(value.get(..*size)?),
        Text => {
            out.extend(value);
            out.push(0);
        }
        Nested(known) => copy(value, known, out)?,
    }
    let length = u16::try_from(out.len() - start).ok()?.to_ne_bytes();
    out.get_mut(start..start + 2)?.copy_from_slice(&length);
    out.resize(out.len().next_multiple_of(4), 0);
    Some(())
}
