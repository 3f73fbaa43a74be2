// SPDX-License-Identifier: GPL-2.0-only
//! Builds the messages that ask the kernel for something.

use super::attribute::append;
use super::message::{HEADER, Header};

/// A message to the kernel: netlink's header, the family's own, and attributes.
#[derive(Clone, Debug)]
pub struct Request {
    kind: u16,
    bytes: Vec<u8>,
}

impl Request {
    /// A message of this kind, with the header that its family has behind netlink's.
    pub fn new(kind: u16, family_header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes.extend(family_header);
        Self { kind, bytes }
    }

    /// The same with one more attribute.
    #[must_use]
    pub fn with(mut self, attribute: u16, value: &[u8]) -> Self {
        append(&mut self.bytes, attribute, value);
        self
    }

    /// All of it, with what the header says of this use.
    pub fn bytes(&mut self, flags: u16, sequence: u32) -> &[u8] {
        let words = Header { kind: self.kind, flags, sequence }.words(self.bytes.len());
        for (place, word) in self.bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::attribute::attributes;
    use super::super::message::messages;
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_built() {
        let mut request = Request::new(20, &[2, 0, 0, 0]).with(7, &[1]).with(8, b"lan0\0");
        for sequence in [5, 6] {
            let found: Vec<_> = messages(request.bytes(3, sequence)).flatten().collect();
            let [message] = found[..] else { panic!("{found:?}") };
            assert_eq!((message.kind, message.flags, message.sequence), (20, 3, sequence));
            assert_eq!(message.payload[..4], [2, 0, 0, 0]);
            let values: Vec<_> = attributes(&message.payload[4..]).collect();
            assert_eq!(values, [(7, &[1][..]), (8, &b"lan0\0"[..])]);
        }
    }
}
