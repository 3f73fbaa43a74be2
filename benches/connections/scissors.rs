// SPDX-License-Identifier: GPL-2.0-only
//! Ends connections in the router's conntrack, many in one system call.
//!
//! The requests are those of `conntrack -D` (linux/netfilter/nfnetlink_conntrack.h); the tool
//! itself takes tens of microseconds for each.

use super::crowd::Member;
use crate::support::netns::Namespace;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_NETFILTER};
use std::net::{IpAddr, SocketAddr};

const NLM_F_REQUEST: u16 = 1;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`
const DELETE: u16 = 1 << 8 | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const NESTED: u16 = 1 << 15;
/// Requests of one system call.
const BATCH: usize = 128;

/// A socket to the router's conntrack.
pub struct Scissors {
    socket: Socket,
}

impl Scissors {
    /// Opens it in the namespace.
    pub fn open(namespace: &Namespace) -> Self {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind(&NetlinkAddr::new(0, 0))?;
            socket.set_non_blocking(true)?;
            Ok::<_, std::io::Error>(socket)
        };
        Self { socket: namespace.enter(open).expect("a socket to conntrack") }
    }

    /// Deletes these entries. What conntrack does not know is passed over.
    pub fn cut(&self, members: impl IntoIterator<Item = Member>) {
        let requests: Vec<_> = members.into_iter().map(request).collect();
        for batch in requests.chunks(BATCH) {
            self.socket.send_to(&batch.concat(), &NetlinkAddr::new(0, 0), 0).expect("deleting");
            // The kernel answers only what failed.
            while self.socket.recv_from_full().is_ok() {}
        }
    }
}

fn request(member: Member) -> Vec<u8> {
    let tuple = member.original();
    let [from, to] = [tuple.source, tuple.destination];
    let address = |kind, end: SocketAddr| match end.ip() {
        IpAddr::V4(address) => attribute(kind, &address.octets()),
        // CTA_IP_V6_* follow CTA_IP_V4_*.
        IpAddr::V6(address) => attribute(kind + 2, &address.octets()),
    };
    let port = |kind, end: SocketAddr| attribute(kind, &end.port().to_be_bytes());
    let ip = [address(1, from), address(2, to)].concat();
    let protocol = attribute(1, &[tuple.protocol.number()]);
    let proto = [protocol, port(2, from), port(3, to)].concat();
    let parts =
        [attribute(CTA_TUPLE_IP | NESTED, &ip), attribute(CTA_TUPLE_PROTO | NESTED, &proto)];
    let body = attribute(CTA_TUPLE_ORIG | NESTED, &parts.concat());
    // struct nlmsghdr, then struct nfgenmsg: family, version, resource.
    let mut bytes = (20 + body.len() as u32).to_ne_bytes().to_vec();
    bytes.extend([DELETE, NLM_F_REQUEST].map(u16::to_ne_bytes).concat());
    bytes.extend([0; 8]);
    bytes.extend([tuple.family().number(), 0, 0, 0]);
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [4 + value.len() as u16, kind].map(u16::to_ne_bytes).concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
