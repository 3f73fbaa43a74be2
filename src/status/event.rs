// SPDX-License-Identifier: GPL-2.0-only
//! What the daemon tells those who listen: when the offload of a connection begins and ends, with its final
//! counts. One JSON object a line.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::abi::{bpfw_conn, bpfw_tuple};
use crate::flow::tuple::Tuple;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// From here on, the client hears all. The first line.
    Listening {
        /// The daemon's version.
        version: String,
        /// Its process.
        pid: u32,
    },
    /// A connection is offloaded.
    Begin(Offload),
    /// It is so no longer. What was counted is final.
    End(Offload),
    /// It still is. Only a client says this, which reads the maps.
    GoesOn(Offload),
    /// The client was too slow, and has missed so many lines.
    Missed {
        /// So many.
        events: u64,
    },
    /// Another version's word.
    #[serde(other)]
    Unknown,
}

/// An offload of a connection. A connection can have several, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offload {
    /// The number of its protocol in the IP header.
    pub protonum: u8,
    /// The protocol's name.
    pub protoname: String,
    /// Conntrack's id.
    pub id: u32,
    /// Conntrack's mark.
    pub mark: u32,
    /// The direction of who opened it.
    pub original: Direction,
    /// The answers.
    pub reply: Direction,
}

/// A direction, and what was forwarded of it since the offload began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Where its packets come from.
    pub src: IpAddr,
    /// Where they are sent to, before any translation.
    pub dst: IpAddr,
    /// The port that they come from.
    pub sport: u16,
    /// The port that they are sent to.
    pub dport: u16,
    /// How many.
    pub packets: u64,
    /// Their bytes, IP header included, as conntrack counts them.
    pub bytes: u64,
}

impl Offload {
    /// One that begins.
    pub fn new(id: u32, mark: u32, original: Tuple, reply: Tuple) -> Self {
        let protocol = original.protocol;
        let [original, reply] = [original, reply].map(|tuple| Direction::new(tuple, (0, 0)));
        let (protonum, protoname) = (protocol.number(), protocol.to_string());
        Self { protonum, protoname, id, mark, original, reply }
    }

    /// One with these entries, and this tuple of the answers, whose entry may be missing. `None` where they make no
    /// sense.
    pub fn of(
        original: &bpfw_conn,
        reply_tuple: &bpfw_tuple,
        reply: Option<&bpfw_conn>,
    ) -> Option<Self> {
        let tuple = original.tuple().decode()?;
        let volume = reply.map(bpfw_conn::volume).unwrap_or_default();
        Some(Self {
            protonum: tuple.protocol.number(),
            protoname: tuple.protocol.to_string(),
            id: original.rest.id,
            mark: original.rest.mark,
            original: Direction::new(tuple, original.volume()),
            reply: Direction::new(reply_tuple.decode()?, volume),
        })
    }
}

impl Direction {
    fn new(tuple: Tuple, (packets, bytes): (u64, u64)) -> Self {
        Self {
            src: tuple.source.ip(),
            dst: tuple.destination.ip(),
            sport: tuple.source.port(),
            dport: tuple.destination.port(),
            packets,
            bytes,
        }
    }
}
