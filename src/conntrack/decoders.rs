// SPDX-License-Identifier: GPL-2.0-only
//! The decoders of conntrack's messages and settings as functions of bytes, for the tests that
//! feed them garbage.

use super::entry::{self, Entry};
use super::events::{self, Event};
use super::message::{self, Change};
use super::{ffi, socket, sysctl};
use crate::flow::tuple::Tuple;

/// The messages of a datagram.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    socket::messages(datagram).map(|message| {
        // Their results stand for themselves; reading them must end well.
        let _ = (message.verdict(), message.end(), message.is_interrupted());
        message.bytes
    })
}

/// The events of a datagram.
pub fn events(datagram: &[u8]) -> Vec<Event> {
    socket::messages(datagram).filter_map(|message| events::decode(&message)).collect()
}

/// The entry of one message.
pub fn entry(message: &[u8]) -> Option<Entry> {
    Entry::decode(message)
}

/// The tuple as it is read back from a request about it.
pub fn tuple_of_request(tuple: &Tuple) -> Option<Tuple> {
    let (mut request, header) =
        (Vec::new(), ffi::Header { kind: socket::GET, flags: 0, sequence: 0 });
    message::append(header, tuple, Change::default(), &mut request).ok()?;
    entry::original(&request)
}

/// The number in a sysctl's file.
pub fn sysctl_number(text: &str) -> Option<u64> {
    sysctl::parse(text)
}
