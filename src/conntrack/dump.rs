// SPDX-License-Identifier: GPL-2.0-only
//! Walking through all of conntrack's entries, slice by slice.

use std::time::Instant;

use super::entry::Entry;
use super::ffi::nfgenmsg;
use super::message::{GET, NEW};
use crate::error::{Error, Result};
use crate::flow::family::Families;
use crate::netlink::dump;
pub use crate::netlink::dump::Progress as DumpProgress;
use crate::netlink::request::Request;
use crate::netlink::socket::{NETLINK_NETFILTER, Socket};

const DOING: &str = "dumping the conntrack table";

/// A dump under way.
pub struct Dump {
    socket: Socket,
    dump: dump::Dump,
}

impl Dump {
    /// Asks the kernel for all entries of these address families.
    pub fn start(families: Families) -> Result<Self> {
        let start = || {
            let mut socket = Socket::try_open(NETLINK_NETFILTER)?;
            let mut request = Request::new(GET, &nfgenmsg(families.number()));
            let dump = dump::Dump::start(&mut socket, &mut request)?;
            Ok(Self { socket, dump })
        };
        start().map_err(|cause: std::io::Error| Error::system(DOING, cause))
    }

    /// Hands entries of TCP and UDP to `f` until the end or until the time is up. At least one
    /// datagram is read.
    pub fn read(&mut self, until: Instant, f: &mut dyn FnMut(Entry)) -> Result<DumpProgress> {
        loop {
            let progress = self.dump.read(&mut self.socket, |message| {
                if message.kind != NEW {
                    return;
                }
                if let Some(entry) = Entry::decode(message.whole) {
                    f(entry);
                }
            });
            let progress = progress.map_err(|failure| failure.during(DOING))?;
            if progress != DumpProgress::More || Instant::now() >= until {
                return Ok(progress);
            }
        }
    }
}
