// SPDX-License-Identifier: GPL-2.0-only
//! Where clients hear what begins and ends, for as long as they are connected. A socket of packets takes a packet
//! whole or not at all, so all that is kept of a client is how much it has missed. Nobody is waited for.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::Service;
use super::event::Event;
use super::socket::{Socket, Stem};
use crate::error::Result;

/// So many clients may listen at once.
const CLIENTS: usize = 8;
/// So many bytes may wait for each of them, the kernel's overhead included: some ten thousand events.
const ROOM: usize = 4 << 20;
/// A packet is sent once it has so many bytes.
const PACKET: usize = 32 << 10;
/// A packet has no more than this.
pub const LONGEST: usize = PACKET + 4096;

/// The socket, and those who listen.
#[derive(Debug)]
pub struct Feed {
    socket: Socket,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    socket: UnixStream,
    missed: u64,
}

/// Lines that are sent together.
#[derive(Default)]
struct Packet {
    bytes: Vec<u8>,
    events: u64,
}

impl Feed {
    /// Opens the socket.
    pub fn open(stem: &Stem) -> Result<Self> {
        Ok(Self { socket: Socket::open(stem, Service::Events)?, clients: Vec::new() })
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        !self.clients.is_empty()
    }

    /// The sockets of those who listen, which have nothing to say: only their end is news.
    pub fn clients(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.clients.iter().map(|client| client.socket.as_fd())
    }

    /// Lets those in who have come, with these words, and forgets those who have gone. Who finds no room hears
    /// nothing.
    pub fn welcome(&mut self, words: &Event) {
        self.clients.retain(|client| !client.has_gone());
        for _ in 0..CLIENTS {
            let Some(socket) = self.socket.accept() else { return };
            // Without this right there is less room.
            let _ = setsockopt(&socket, sockopt::SndBufForce, &ROOM);
            let mut client = Client { socket, missed: 0 };
            if self.clients.len() < CLIENTS && client.tell(&packets([words])) {
                self.clients.push(client);
            }
        }
    }

    /// Tells all of them; `lost` events before these were not even kept.
    pub fn tell<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>, lost: u64) {
        let packets = packets(events);
        self.clients.retain_mut(|client| {
            client.missed += lost;
            client.tell(&packets)
        });
    }

    /// Waits until there is room for more at all of them, or the time is over.
    pub fn wait_for_room(&self, until: Instant) {
        for client in self.clients() {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            // Without room, events are missed, which is told.
            let _ = poll(&mut [PollFd::new(client, PollFlags::POLLOUT)], timeout);
        }
    }
}

impl AsFd for Feed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Client {
    fn has_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        // The end of a connection is told without being asked for.
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ended| ended > 0)
    }

    /// Sends as much as there is room for; `false` if the client is gone.
    fn tell(&mut self, packets: &[Packet]) -> bool {
        if self.missed > 0 {
            let missed = [Event::Missed { events: self.missed }];
            match self.send(&self::packets(&missed)) {
                Ok(0) => self.missed = 0,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        match self.send(packets) {
            Ok(missed) => {
                self.missed += missed;
                true
            }
            Err(_) => false,
        }
    }

    /// How many events found no room. After the first packet of them, no other is tried: events stay in order.
    fn send(&mut self, packets: &[Packet]) -> io::Result<u64> {
        for (number, packet) in packets.iter().enumerate() {
            match self.socket.write(&packet.bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(packets[number..].iter().map(|packet| packet.events).sum());
                }
                sent => sent.map(drop)?,
            }
        }
        Ok(0)
    }
}

fn packets<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<Packet> {
    let mut packets: Vec<Packet> = Vec::new();
    for event in events {
        // Nothing of an event cannot be written.
        let Ok(line) = serde_json::to_vec(event) else { continue };
        if packets.last().is_none_or(|last| last.bytes.len() >= PACKET) {
            packets.push(Packet::default());
        }
        let Some(packet) = packets.last_mut() else { continue };
        packet.bytes.extend(line);
        packet.bytes.push(b'\n');
        packet.events += 1;
    }
    packets
}

#[cfg(test)]
mod tests {
    use super::super::event::Offload;
    use super::*;
    use crate::flow::tuple::{Protocol, Tuple};
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
    use std::os::fd::{AsRawFd, OwnedFd};

    fn client() -> (Client, OwnedFd) {
        let flags = SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("a pair");
        setsockopt(&ours, sockopt::SndBuf, &(64 << 10)).expect("a size");
        (Client { socket: UnixStream::from(ours), missed: 0 }, theirs)
    }

    fn events(number: u32) -> Vec<Event> {
        let end = |text: &str| text.parse::<std::net::SocketAddr>().expect("an end");
        let tuple = Tuple::new(Protocol::Udp, end("192.0.2.2:40000"), end("198.51.100.2:7"));
        (0..number).map(|id| Event::End(Offload::new(id, 0, tuple, tuple.invert()))).collect()
    }

    fn heard(socket: &OwnedFd) -> Vec<Event> {
        let (mut heard, mut packet) = (Vec::new(), vec![0; LONGEST]);
        while let Ok(length @ 1..) = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            assert!(length < LONGEST, "a packet is cut off");
            let lines = std::str::from_utf8(&packet[..length]).expect("text").lines();
            heard.extend(lines.map(|line| serde_json::from_str::<Event>(line).expect("an event")));
        }
        heard
    }

    #[test]
    fn hazard_30_a_slow_client_is_told_how_much_it_has_missed() {
        let (mut client, socket) = client();
        assert!(client.tell(&packets(&events(3))));
        assert_eq!(heard(&socket), events(3));
        let many = events(10_000);
        assert!(client.tell(&packets(&many)));
        assert!(client.tell(&packets(&events(5))), "it is still there");
        let first = heard(&socket);
        let missed = many.len() - first.len() + 5;
        assert!(!first.is_empty() && first[..] == many[..first.len()] && missed > 5);
        assert!(client.tell(&packets(&events(1))));
        let missed = Event::Missed { events: missed as u64 };
        assert_eq!(heard(&socket), [&[missed], &events(1)[..]].concat());
        assert!(client.tell(&[]) && heard(&socket).is_empty());
    }

    #[test]
    fn a_client_that_has_gone_is_forgotten() {
        let (mut client, socket) = client();
        assert!(!client.has_gone());
        drop(socket);
        assert!(client.has_gone() && !client.tell(&packets(&events(1))));
    }
}
