// SPDX-License-Identifier: GPL-2.0-only
//! The decoders of conntrack's messages and settings as functions of bytes, for the tests that
//! feed them garbage.

use super::entry::{self, Entry};
use super::events::{self, Event};
use super::message::{self, Change};
use super::sysctl;
use crate::flow::tuple::Tuple;
use crate::netlink::message::{Header, messages};

/// The events of a datagram.
pub fn events(datagram: &[u8]) -> Vec<Event> {
    messages(datagram).flatten().filter_map(|message| events::decode(&message)).collect()
}

/// The entry of one message.
pub fn entry(message: &[u8]) -> Option<Entry> {
    Entry::decode(message)
}

/// The tuple as it is read back from a request about it.
pub fn tuple_of_request(tuple: &Tuple) -> Option<Tuple> {
    let (mut request, header) = (Vec::new(), Header { kind: message::GET, flags: 0, sequence: 0 });
    message::append(header, tuple, Change::default(), &mut request).ok()?;
    entry::original(&request)
}

/// The number in a sysctl's file.
pub fn sysctl_number(text: &str) -> Option<u64> {
    sysctl::parse(text)
}
