// SPDX-License-Identifier: GPL-2.0-only
//! UDP traffic: an echo server, and a client with numbered datagrams.

use super::netns::Namespace;
use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server that sends every datagram back; stops when dropped.
pub struct UdpEcho {
    stop: Arc<AtomicBool>,
    sources: Arc<Mutex<Vec<SocketAddrV4>>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts an echo server on `address` in the namespace.
pub fn udp_echo(namespace: &Namespace, address: impl Into<SocketAddr>) -> UdpEcho {
    let socket = bound(namespace, address.into());
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    let (stop, sources) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
    let (stop2, sources2) = (Arc::clone(&stop), Arc::clone(&sources));
    let thread = std::thread::spawn(move || serve(&socket, &stop2, &sources2));
    UdpEcho { stop, sources, thread: Some(thread) }
}

fn serve(socket: &UdpSocket, stop: &AtomicBool, sources: &Mutex<Vec<SocketAddrV4>>) {
    let mut buffer = [0; 65536];
    while !stop.load(Ordering::Relaxed) {
        // Timeouts let the flag be seen; ICMP errors of earlier replies are no concern here.
        let Ok((length, source)) = socket.recv_from(&mut buffer) else { continue };
        if let SocketAddr::V4(source) = source {
            sources.lock().expect("not poisoned").push(source);
        }
        let _ = socket.send_to(&buffer[..length], source);
    }
}

impl UdpEcho {
    /// Where each datagram of IPv4 so far came from, as the server saw it.
    pub fn sources(&self) -> Vec<SocketAddrV4> {
        self.sources.lock().expect("not poisoned").clone()
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client of an echo server: datagrams carry a number and a pattern made from it.
pub struct UdpClient {
    socket: UdpSocket,
    size: usize,
}

impl UdpClient {
    /// A socket bound to `local` (port 0: any) and connected to `remote`.
    pub fn open(
        namespace: &Namespace,
        local: impl Into<SocketAddr>,
        remote: impl Into<SocketAddr>,
    ) -> Self {
        let (socket, remote) = (bound(namespace, local.into()), remote.into());
        socket.connect(remote).unwrap_or_else(|error| panic!("connecting to {remote}: {error}"));
        Self { socket, size: 64 }
    }

    /// Datagrams of `size` bytes, at least 8, instead of 64.
    #[must_use]
    pub fn size(mut self, size: usize) -> Self {
        assert!(size >= 8, "no room for the number");
        self.size = size;
        self
    }

    /// The socket, for options.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends datagram `number`.
    pub fn send(&self, number: u64) {
        let sent = self.socket.send(&datagram(number, self.size));
        // An ICMP error for an earlier datagram is reported once; a second try really sends.
        let sent = sent.or_else(|_| self.socket.send(&datagram(number, self.size)));
        sent.unwrap_or_else(|error| panic!("sending datagram {number}: {error}"));
    }

    /// The number of the next datagram, or None after `limit`; panics if it is damaged.
    pub fn recv(&self, limit: Duration) -> Option<u64> {
        let mut buffer = [0; 65536];
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).expect("a timeout");
            match self.socket.recv(&mut buffer) {
                Ok(length) => return Some(number_of(&buffer[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                // ICMP errors and signals: the time is not over yet.
                Err(_) => {}
            }
        }
    }

    /// Sends datagram `number` and tells whether its echo comes within `limit`.
    pub fn echoes(&self, number: u64, limit: Duration) -> bool {
        self.send(number);
        let end = Instant::now() + limit;
        loop {
            match self.recv(end.saturating_duration_since(Instant::now())) {
                Some(echo) if echo == number => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// How many of the datagrams `numbers`, sent one after the other, came back.
    pub fn count_echoes(&self, numbers: std::ops::Range<u64>, limit: Duration) -> usize {
        numbers.filter(|number| self.echoes(*number, limit)).count()
    }
}

/// A socket that was closed holds its port for a moment longer if another test forks: the child has it until
/// it runs a program.
fn bound(namespace: &Namespace, address: SocketAddr) -> UdpSocket {
    let bind = || namespace.enter(|| UdpSocket::bind(address));
    let mut socket = bind();
    let end = Instant::now() + Duration::from_secs(5);
    while socket.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
        && Instant::now() < end
    {
        std::thread::sleep(Duration::from_millis(10));
        socket = bind();
    }
    socket.unwrap_or_else(|error| panic!("UDP socket {address}: {error}"))
}

/// The datagram with this number, of `size` bytes.
pub fn datagram(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((8..size).map(|at| (number as u8).wrapping_add(at as u8)));
    bytes
}

fn number_of(bytes: &[u8]) -> u64 {
    let number = bytes.get(..8).and_then(|start| start.try_into().ok()).map(u64::from_be_bytes);
    let number = number.unwrap_or_else(|| panic!("a datagram without number: {bytes:?}"));
    assert_eq!(bytes, datagram(number, bytes.len()), "datagram {number} is damaged");
    number
}
