// SPDX-License-Identifier: GPL-2.0-only
//! TCP connections by hand, segment by segment, between addresses that no host owns: nobody but
//! the router has an opinion on their sequence numbers.

use super::capture::Capture;
use super::lab::{CLIENT_MAC, Lab, ROUTER_LAN_MAC, ROUTER_WAN_MAC, SERVER_MAC, show};
use super::packet::{Mac, Packet, tcp};
use super::router::{LIMIT, at};
use super::view::View;
use bpfw::flow::tuple::{Protocol, Tuple};
use std::net::{Ipv4Addr, SocketAddrV4};

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const SERVICE: u16 = 5001;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client,
    Server,
}

/// Both ends of a hand-made connection.
pub struct Segments {
    client: Side,
    server: Side,
}

struct Side {
    capture: Capture,
    mac: Mac,
    router_mac: Mac,
    /// Its own address, and the other end's as it is seen from here.
    local: SocketAddrV4,
    remote: SocketAddrV4,
    /// The next sequence number.
    next: u32,
}

impl Segments {
    /// Both ends, silent so far.
    pub fn new(lab: &Lab, port: u16) -> Self {
        for (address, mac, device) in [(CLIENT, CLIENT_MAC, "lan0"), (SERVER, SERVER_MAC, "wan0")] {
            let mac = show(mac);
            lab.router
                .ip(&format!("neigh replace {address} lladdr {mac} dev {device} nud permanent\n"));
        }
        let (client, server) = (at(CLIENT, port), at(SERVER, SERVICE));
        Self {
            client: Side {
                capture: Capture::open(&lab.client, "eth0"),
                mac: CLIENT_MAC,
                router_mac: ROUTER_LAN_MAC,
                local: client,
                remote: server,
                next: 0x1000_0000,
            },
            server: Side {
                capture: Capture::open(&lab.server, "eth0"),
                mac: SERVER_MAC,
                router_mac: ROUTER_WAN_MAC,
                local: server,
                remote: client,
                next: 0x2000_0000,
            },
        }
    }

    /// Opens the connection; both offer window scaling by this much, if any.
    pub fn open(lab: &Lab, port: u16, scale: Option<u8>) -> Self {
        let mut segments = Self::new(lab, port);
        segments.handshake(scale);
        segments
    }

    /// SYN, SYN and ACK, ACK.
    pub fn handshake(&mut self, scale: Option<u8>) {
        let options = scale.map(|scale| vec![1, 3, 3, scale]).unwrap_or_default();
        let syn = self.send(End::Client, |syn| syn.flags(tcp::SYN).ack(0).tcp_options(&options));
        // The server answers to what it sees, which may be translated.
        self.server.remote = syn.src;
        self.send(End::Server, |syn| syn.flags(tcp::SYN | tcp::ACK).tcp_options(&options));
        self.acknowledge(End::Client);
    }

    /// Conntrack's tuple of the original direction.
    pub fn original(&self) -> Tuple {
        let (source, destination) = (self.client.local, self.client.remote);
        Tuple::new(Protocol::Tcp, source, destination)
    }

    /// The client's address as the server sees it.
    pub fn translated(&self) -> SocketAddrV4 {
        self.server.remote
    }

    /// Sends the next segment, changed by `change`, and waits until it arrives.
    pub fn send(&mut self, end: End, change: impl FnOnce(Packet) -> Packet) -> View {
        let sent = self.send_only(end, change);
        let sequence = |view: &View| view.tcp.as_ref().map(|tcp| (tcp.seq, tcp.flags));
        let (_, to) = self.sides(end);
        let (local, what) = (to.local, format!("{end:?}'s segment {:?}", sent.tcp));
        to.capture.expect(LIMIT, &what, |view| {
            view.dst == local && sequence(view) == sequence(&sent) && view.payload == sent.payload
        })
    }

    /// As `send`, of a segment that may be lost on its way. Returns it as it was sent.
    pub fn send_only(&mut self, end: End, change: impl FnOnce(Packet) -> Packet) -> View {
        let (from, to) = self.sides(end);
        let packet = Packet::tcp(from.local, from.remote).mac(from.mac, from.router_mac);
        let frame = change(packet.seq(from.next).ack(to.next)).build();
        let view = View::parse(&frame).expect("a segment");
        let header = view.tcp.as_ref().expect("a segment");
        if header.seq == from.next && view.ttl > 1 {
            let flags = u32::from(header.flags & tcp::SYN != 0 || header.flags & tcp::FIN != 0);
            let length = view.payload.len() as u32 + flags;
            self.advance(end, length);
        }
        self.sides(end).0.capture.send_frame(&frame);
        view
    }

    /// A segment with `payload`.
    pub fn data(&mut self, end: End, payload: &[u8]) -> View {
        self.send(end, |packet| packet.flags(tcp::ACK | tcp::PSH).payload(payload))
    }

    /// An acknowledgement of all so far.
    pub fn acknowledge(&mut self, end: End) -> View {
        self.send(end, |packet| packet)
    }

    /// A FIN.
    pub fn finish(&mut self, end: End) -> View {
        self.send(end, |packet| packet.flags(tcp::FIN | tcp::ACK))
    }

    /// An acknowledgement of all so far that dies at the router, after conntrack has seen it.
    pub fn show_conntrack(&mut self, end: End) {
        self.send_only(end, |packet| packet.ttl(1));
    }

    /// A question and an answer, both acknowledged.
    pub fn exchange(&mut self) {
        self.data(End::Client, b"question");
        self.data(End::Server, b"answer");
        self.acknowledge(End::Client);
    }

    /// As if this many bytes had been sent and acknowledged. It is at most 2 GiB, because routers
    /// on the way compare sequence numbers by their distance.
    pub fn advance(&mut self, end: End, bytes: u32) {
        let side = match end {
            End::Client => &mut self.client,
            End::Server => &mut self.server,
        };
        side.next = side.next.wrapping_add(bytes);
    }

    /// The sending and the receiving end.
    fn sides(&self, end: End) -> (&Side, &Side) {
        match end {
            End::Client => (&self.client, &self.server),
            End::Server => (&self.server, &self.client),
        }
    }
}
