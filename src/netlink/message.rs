// SPDX-License-Identifier: GPL-2.0-only
//! Netlink messages: `struct nlmsghdr` of linux/netlink.h, and what follows it.

/// Bytes of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// Messages with smaller numbers belong to netlink itself (NLMSG_MIN_TYPE).
pub const FIRST_FAMILY_MESSAGE: u16 = 16;
pub const NLMSG_ERROR: u16 = 2;
pub const NLMSG_DONE: u16 = 3;

pub const NLM_F_REQUEST: u16 = 0x01;
pub const NLM_F_ACK: u16 = 0x04;
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// Of an answer that does not repeat the request.
pub const NLM_F_CAPPED: u16 = 0x100;
/// Of an answer with attributes behind the error number.
pub const NLM_F_ACK_TLVS: u16 = 0x200;
pub const NLM_F_DUMP: u16 = 0x300;
/// Of an event about a new object: it took the place of another one.
pub const NLM_F_REPLACE: u16 = 0x100;
/// It is the only one.
pub const NLM_F_EXCL: u16 = 0x200;
/// It is the last one.
pub const NLM_F_APPEND: u16 = 0x800;

/// One message of a datagram.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    /// RTM_*, XFRM_MSG_* and the like, or NLMSG_* below [`FIRST_FAMILY_MESSAGE`].
    pub kind: u16,
    /// NLM_F_*.
    pub flags: u16,
    /// Of the request that this answers; 0 or the asking process's own in events.
    pub sequence: u32,
    /// Of the socket that asked for what is told; 0 if none did.
    pub port: u32,
    /// What follows the netlink header.
    pub payload: &'a [u8],
    /// Header and payload, for libraries that read messages themselves.
    pub whole: &'a [u8],
}

impl<'a> Message<'a> {
    fn first(datagram: &'a [u8]) -> Option<Self> {
        let header: [u8; HEADER] = *datagram.first_chunk()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let whole = datagram.get(..length)?;
        Some(Self {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            payload: whole.get(HEADER..)?,
            whole,
        })
    }
}

/// The messages of a datagram; `None` in place of one that is cut off or malformed ends it.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let message = Message::first(datagram);
        let next = message.map(|message| message.whole.len().next_multiple_of(4));
        datagram = next.and_then(|next| datagram.get(next..)).unwrap_or_default();
        Some(message)
    })
}

/// What a message that is sent says in its header.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The message's number.
    pub kind: u16,
    /// NLM_F_*.
    pub flags: u16,
    /// Answers carry the same.
    pub sequence: u32,
}

impl Header {
    /// `struct nlmsghdr` of a message with so many bytes in all.
    pub fn words(self, length: usize) -> [u32; HEADER / 4] {
        let ([k0, k1], [f0, f1]) = (self.kind.to_ne_bytes(), self.flags.to_ne_bytes());
        // The kernel fills in the sender's port.
        [length as u32, u32::from_ne_bytes([k0, k1, f0, f1]), self.sequence, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32, kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([kind, NLM_F_DUMP_INTR].map(u16::to_ne_bytes).concat());
        bytes.extend([5_u32, 6].map(u32::to_ne_bytes).concat());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn datagrams_are_split_and_cut_ones_are_seen() {
        let mut datagram = message(17, 20, &[7, 0, 0, 0]);
        datagram.extend(message(16, 21, &[]));
        datagram.extend(message(99, 22, &[]));
        let seen: Vec<_> = messages(&datagram).map(|one| one.map(|one| one.kind)).collect();
        assert_eq!(seen, [Some(20), Some(21), None]);
        assert_eq!(messages(&[0; 16]).map(|one| one.is_some()).collect::<Vec<_>>(), [false]);
        // The last message's padding may be missing.
        assert_eq!(messages(&message(17, 20, &[7])).flatten().count(), 1);
    }

    #[test]
    fn all_of_a_header_is_read() {
        let bytes = message(17, 20, &[7]);
        let message = messages(&bytes).flatten().next().unwrap();
        assert_eq!((message.kind, message.flags), (20, NLM_F_DUMP_INTR));
        assert_eq!((message.sequence, message.port), (5, 6));
        assert_eq!((message.payload, message.whole), (&[7][..], &bytes[..]));
    }

    proptest::proptest! {
        #[test]
        fn garbage_ends_the_walk(bytes: Vec<u8>) {
            for message in messages(&bytes).flatten() {
                assert_eq!(message.payload.len() + HEADER, message.whole.len());
            }
        }
    }
}
