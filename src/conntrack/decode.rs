// SPDX-License-Identifier: GPL-2.0-only
//! Reads conntrack's messages. A third of the time that a connection takes up would go into the
//! library's reading, which has to allocate and to be kept from garbage besides.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::entry::{Entry, FAMILY};
use super::socket::HEADERS;
use crate::flow::state::{Status, TcpState};
use crate::flow::tuple::{Protocol, Tuple};

const TYPE_MASK: u16 = 0x3fff;
/// Where `nfgenmsg` has the family.
const FAMILY_AT: usize = 16;

/// What a message holds of an entry.
#[derive(Default)]
struct Found {
    original: Ends,
    reply: Ends,
    id: Option<u32>,
    status: Option<u32>,
    tcp: Tcp,
    mark: u32,
    zone: u16,
    has_helper: bool,
    has_seqadj: bool,
    has_synproxy: bool,
    timeout: Option<u32>,
}

/// One direction's tuple.
#[derive(Default)]
struct Ends {
    addresses: [Option<Ipv4Addr>; 2],
    protocol: Option<u8>,
    ports: [Option<u16>; 2],
    zone: u16,
}

#[derive(Default)]
struct Tcp {
    state: Option<u8>,
    /// Of the original direction, of the reply direction.
    flags: [u8; 2],
}

/// The entry of a message; `None` unless it is a whole one about IPv4 and TCP or UDP.
pub(super) fn entry(message: &[u8]) -> Option<Entry> {
    let found = found(message)?;
    let zones = [found.zone, found.original.zone, found.reply.zone];
    Some(Entry {
        original: found.original.tuple()?,
        reply: found.reply.tuple()?,
        id: found.id?,
        status: found.status.map(Status),
        tcp_state: found.tcp.state.map(TcpState::from_number),
        tcp_flags: found.tcp.flags,
        mark: found.mark,
        zone: zones.into_iter().find(|zone| *zone != 0).unwrap_or(0),
        has_helper: found.has_helper,
        has_seqadj: found.has_seqadj,
        has_synproxy: found.has_synproxy,
        timeout: found.timeout.map(|seconds| Duration::from_secs(seconds.into())),
    })
}

/// The original tuple in a message.
pub(super) fn original(message: &[u8]) -> Option<Tuple> {
    found(message)?.original.tuple()
}

fn found(message: &[u8]) -> Option<Found> {
    let (headers, payload) = message.split_at_checked(HEADERS)?;
    let length = u32::from_ne_bytes(*headers.first_chunk()?);
    if usize::try_from(length).ok()? != message.len() || headers.get(FAMILY_AT)? != &FAMILY {
        return None;
    }
    let mut found = Found::default();
    each(payload, |kind, value| found.take(kind, value))?;
    Some(found)
}

impl Found {
    /// `CTA_*`.
    fn take(&mut self, kind: u16, value: &[u8]) -> Option<()> {
        match kind {
            1 => each(value, |kind, value| self.original.take(kind, value))?,
            2 => each(value, |kind, value| self.reply.take(kind, value))?,
            3 => self.status = Some(be32(value)?),
            // The protocol information, and TCP's in it.
            4 => each(value, |kind, value| match kind {
                1 => each(value, |kind, value| self.tcp.take(kind, value)),
                _ => Some(()),
            })?,
            // The helper, and its name.
            5 => each(value, |kind, _| {
                self.has_helper |= kind == 1;
                Some(())
            })?,
            7 => self.timeout = Some(be32(value)?),
            8 => self.mark = be32(value)?,
            12 => self.id = Some(be32(value)?),
            // The sequence adjustment of either direction, and its offset.
            15 | 16 => each(value, |kind, value| {
                self.has_seqadj |= kind == 3;
                be32(value).map(drop)
            })?,
            18 => self.zone = be16(value)?,
            // Entries made through netlink carry the attribute whether they have a proxy or not.
            24 => each(value, |kind, value| {
                self.has_synproxy |= be32(value)? != 0 && [1, 3].contains(&kind);
                Some(())
            })?,
            _ => {}
        }
        Some(())
    }
}

impl Ends {
    /// `CTA_TUPLE_*`: addresses; protocol and ports; zone.
    fn take(&mut self, kind: u16, value: &[u8]) -> Option<()> {
        match kind {
            1 => each(value, |kind, value| {
                match kind {
                    1 => self.addresses[0] = Some(be32(value)?.into()),
                    2 => self.addresses[1] = Some(be32(value)?.into()),
                    _ => {}
                }
                Some(())
            })?,
            2 => each(value, |kind, value| {
                match kind {
                    1 => self.protocol = Some(*value.first()?),
                    2 => self.ports[0] = Some(be16(value)?),
                    3 => self.ports[1] = Some(be16(value)?),
                    _ => {}
                }
                Some(())
            })?,
            3 => self.zone = be16(value)?,
            _ => {}
        }
        Some(())
    }

    fn tuple(&self) -> Option<Tuple> {
        let end = |at: usize| Some(SocketAddrV4::new(self.addresses[at]?, self.ports[at]?));
        let protocol = Protocol::from_number(self.protocol?)?;
        Some(Tuple { protocol, source: end(0)?, destination: end(1)? })
    }
}

impl Tcp {
    /// `CTA_PROTOINFO_TCP_*`: state; flags and mask of both directions.
    fn take(&mut self, kind: u16, value: &[u8]) -> Option<()> {
        match kind {
            1 => self.state = Some(*value.first()?),
            4 => self.flags[0] = value.first_chunk::<2>()?[0],
            5 => self.flags[1] = value.first_chunk::<2>()?[0],
            _ => {}
        }
        Some(())
    }
}

/// Hands each attribute to `take`, which says `None` to what is malformed.
fn each<'a>(
    mut payload: &'a [u8],
    mut take: impl FnMut(u16, &'a [u8]) -> Option<()>,
) -> Option<()> {
    while !payload.is_empty() {
        let [l0, l1, k0, k1] = *payload.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = payload.get(4..length)?;
        take(u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value)?;
        payload = payload.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(())
}

fn be16(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}
