// SPDX-License-Identifier: GPL-2.0-only
//! A program behind a rule `queue to <number>`: it holds packets, and accepts all of them later
//! (linux/netfilter/nfnetlink_queue.h).

use super::netns::Namespace;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io::ErrorKind;

const NFNL_SUBSYS_QUEUE: u16 = 3 << 8;
const NFQNL_MSG_PACKET: u16 = NFNL_SUBSYS_QUEUE;
const NFQNL_MSG_CONFIG: u16 = NFNL_SUBSYS_QUEUE | 2;
const NFQNL_MSG_VERDICT_BATCH: u16 = NFNL_SUBSYS_QUEUE | 3;

const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;

const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_META: u8 = 1;
const NF_ACCEPT: u32 = 1;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
/// Of netlink, and of nfnetlink behind it.
const HEADERS: usize = 16 + 4;

/// A queue in a network namespace. The kernel drops what it holds when this is dropped.
pub struct Queue {
    socket: Socket,
    number: u16,
    /// How many packets have come, and the id of the last one.
    held: u32,
    last: u32,
}

impl Queue {
    pub fn open(namespace: &Namespace, number: u16) -> Self {
        let socket = namespace.enter(|| Socket::new(NETLINK_NETFILTER)).expect("a netlink socket");
        let mut queue = Self { socket, number, held: 0, last: 0 };
        queue.socket.bind_auto().expect("bound");
        queue.ask(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0]);
        queue.ask(NFQA_CFG_PARAMS, &[0, 0, 0, 0, NFQNL_COPY_META]);
        queue.socket.set_non_blocking(true).expect("not blocking");
        queue
    }

    /// How many packets it holds.
    pub fn held(&mut self) -> u32 {
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => self.note(&datagram),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.held,
                Err(error) => panic!("reading a queue: {error}"),
            }
        }
    }

    /// Accepts all that it holds.
    pub fn release(&mut self) {
        self.held();
        let verdict = [NF_ACCEPT.to_be_bytes(), self.last.to_be_bytes()].concat();
        self.send(NFQNL_MSG_VERDICT_BATCH, 0, NFQA_VERDICT_HDR, &verdict);
        self.held = 0;
    }

    fn note(&mut self, datagram: &[u8]) {
        if kind(datagram) != NFQNL_MSG_PACKET {
            return;
        }
        // The packet's header is the first attribute.
        assert_eq!(u16_at(datagram, HEADERS + 2), NFQA_PACKET_HDR);
        let id = datagram[HEADERS + 4..][..4].try_into().expect("four bytes");
        (self.held, self.last) = (self.held + 1, u32::from_be_bytes(id));
    }

    /// Sends a request, and waits for the acknowledgement.
    fn ask(&self, attribute: u16, value: &[u8]) {
        self.send(NFQNL_MSG_CONFIG, NLM_F_ACK, attribute, value);
        let (answer, _) = self.socket.recv_from_full().expect("an answer");
        assert_eq!(kind(&answer), NLMSG_ERROR);
        assert_eq!(answer[16..20], [0; 4], "the kernel refuses a queue");
    }

    fn send(&self, kind: u16, flags: u16, attribute: u16, value: &[u8]) {
        let attribute_len = 4 + value.len();
        let length = HEADERS + attribute_len.next_multiple_of(4);
        let mut bytes = (length as u32).to_ne_bytes().to_vec();
        bytes.extend([kind, NLM_F_REQUEST | flags].iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend([0; 8]);
        // Any family, version 0, the queue's number.
        bytes.extend([0, 0]);
        bytes.extend(self.number.to_be_bytes());
        bytes.extend([attribute_len as u16, attribute].iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(value);
        bytes.resize(length, 0);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).expect("sent");
    }
}

fn kind(datagram: &[u8]) -> u16 {
    u16_at(datagram, 4)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}
