// SPDX-License-Identifier: GPL-2.0-only
//! Which of conntrack's events the kernel queues for us: those of answered TCP and UDP connections
//! of the wanted address families. Events that updates by one of our sockets cause are left out. An
//! unanswered connection cannot be offloaded, and a flood makes one with each packet.
//!
//! Classic BPF with the netlink extensions of the kernel's net/core/filter.c. An extension looks for an
//! attribute of type X, behind offset A or nested within the attribute there. It answers the
//! attribute's offset, or zero. A message passes if it lacks what the filter asks for.

use nix::libc::{self, sock_filter};

use crate::flow::family::{Families, Family};
use crate::flow::state::Status;

/// Where a message names the port of the socket that caused it.
const PORT: u32 = 12;
/// Where a message has the address family: the first byte of `nfgenmsg`, behind `nlmsghdr`.
const FAMILY_AT: u32 = 16;
/// Where a message's attributes begin: behind `nlmsghdr` and `nfgenmsg`.
const ATTRIBUTES: u32 = 20;
/// An attribute's value follows its header.
const VALUE: u32 = 4;
const CTA_TUPLE_ORIG: u32 = 1;
const CTA_TUPLE_PROTO: u32 = 2;
const CTA_PROTO_NUM: u32 = 1;
const CTA_STATUS: u32 = 3;

const FIND: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR) as u32;
const FIND_WITHIN: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR_NEST) as u32;

const LOAD_NUMBER: u32 = libc::BPF_LD | libc::BPF_IMM;
const LOAD_X: u32 = libc::BPF_LDX | libc::BPF_IMM;
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_WORD_AT_X: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IND;
const LOAD_BYTE_AT_X: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const COPY_TO_X: u32 = libc::BPF_MISC | libc::BPF_TAX;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_SET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// How far the jumps go from the line at `from` to the last one, which accepts.
const fn accept(from: usize) -> u8 {
    (LINES - 1 - from - 1) as u8
}

const fn line(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// How far the jumps go from the line at `from` to the line before the last, which refuses.
const fn refuse(from: usize) -> u8 {
    accept(from) - 1
}

const LINES: usize = 26;

/// The filter that accepts these families, and leaves out what the socket with this port causes.
pub(super) fn answered_tcp_and_udp(families: Families, own_port: u32) -> [sock_filter; LINES] {
    // Without IPv6, the second comparison refuses what the first one has not accepted.
    let other = if families.contains(Family::Ipv6) { Family::Ipv6 } else { Family::Ipv4 };
    [
        line(LOAD, PORT),
        // Loads turn bytes around as for the network's order, and this number is in the machine's.
        jump(IF_EQUAL, own_port.to_be(), refuse(1), 0),
        line(LOAD_BYTE, FAMILY_AT),
        jump(IF_EQUAL, Family::Ipv4.number().into(), 1, 0),
        jump(IF_EQUAL, other.number().into(), 0, refuse(4)),
        line(LOAD_NUMBER, ATTRIBUTES),
        line(LOAD_X, CTA_STATUS),
        line(LOAD, FIND),
        jump(IF_EQUAL, 0, accept(8), 0),
        line(COPY_TO_X, 0),
        line(LOAD_WORD_AT_X, VALUE),
        // Not answered.
        jump(IF_SET, Status::SEEN_REPLY.0, 0, refuse(11)),
        line(LOAD_NUMBER, ATTRIBUTES),
        line(LOAD_X, CTA_TUPLE_ORIG),
        line(LOAD, FIND),
        line(LOAD_X, CTA_TUPLE_PROTO),
        line(LOAD, FIND_WITHIN),
        line(LOAD_X, CTA_PROTO_NUM),
        line(LOAD, FIND_WITHIN),
        jump(IF_EQUAL, 0, accept(19), 0),
        line(COPY_TO_X, 0),
        line(LOAD_BYTE_AT_X, VALUE),
        jump(IF_EQUAL, libc::IPPROTO_TCP as u32, accept(22), 0),
        jump(IF_EQUAL, libc::IPPROTO_UDP as u32, accept(23), 0),
        line(RETURN, 0),
        line(RETURN, u32::MAX),
    ]
}
