// SPDX-License-Identifier: GPL-2.0-only
//! TCP traffic: connected pairs of sockets, and transfers compared by hash.

use super::netns::Namespace;
use super::wait::becomes_true;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// No single connect, read or write may take longer.
const LIMIT: Duration = Duration::from_secs(10);

/// A transfer that takes longer for a MiB, or a part of one, has as good as stalled.
const LIMIT_OF_A_MIB: Duration = Duration::from_secs(20);

/// A multiple of 8, so that only the last block can end within a word.
const BLOCK: usize = 64 << 10;

/// Where the server listens, and the address by which the client reaches it.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub listen: SocketAddr,
    pub connect: SocketAddr,
}

impl Path {
    /// Without destination NAT, both are the same.
    pub fn direct(address: impl Into<SocketAddr>) -> Self {
        let address = address.into();
        Self { listen: address, connect: address }
    }
}

/// Which end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// Both ends of a connection. Reads and writes that hang fail after ten seconds.
pub struct TcpPair {
    pub client: TcpStream,
    pub server: TcpStream,
}

impl TcpPair {
    /// Connects; panics if that fails.
    pub fn open(client: &Namespace, server: &Namespace, path: Path) -> Self {
        Self::try_open(client, server, path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }

    /// Connects, or tells why not; `limit` of the connect is ten seconds.
    pub fn try_open(client: &Namespace, server: &Namespace, path: Path) -> io::Result<Self> {
        let listener = server.enter(|| TcpListener::bind(path.listen))?;
        let client = client.enter(|| TcpStream::connect_timeout(&path.connect, LIMIT))?;
        listener.set_nonblocking(true)?;
        let mut server = Err(io::ErrorKind::TimedOut.into());
        becomes_true(LIMIT, || {
            server = listener.accept();
            server.is_ok()
        });
        let server = server?.0;
        server.set_nonblocking(false)?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(LIMIT))?;
            end.set_write_timeout(Some(LIMIT))?;
            end.set_nodelay(true)?;
        }
        Ok(Self { client, server })
    }

    /// Sends `bytes` one way; panics if they do not arrive as they were.
    pub fn pass(&self, direction: Direction, bytes: &[u8]) {
        let (mut from, mut to) = self.ends(direction);
        from.write_all(bytes).unwrap_or_else(|error| panic!("writing {direction:?}: {error}"));
        let mut received = vec![0; bytes.len()];
        to.read_exact(&mut received)
            .unwrap_or_else(|error| panic!("reading {direction:?}: {error}"));
        assert_eq!(received, bytes, "{direction:?}: not what was sent");
    }

    /// Sends a short text to the server and another back.
    pub fn exchange(&self) {
        self.pass(Direction::ToServer, b"question");
        self.pass(Direction::ToClient, b"answer");
    }

    /// Streams `bytes` pseudo-random bytes one way; panics if another stream arrives.
    ///
    /// The connection stays open. Returns the time it took.
    pub fn transfer(&self, direction: Direction, bytes: u64, seed: u64) -> Duration {
        let (from, to) = self.ends(direction);
        let start = Instant::now();
        let (sent, received) = std::thread::scope(|scope| {
            let sender = scope.spawn(|| send_stream(from, bytes, seed));
            let received = receive_stream(to, bytes);
            (sender.join().expect("the sending thread"), received)
        });
        let sent = sent.unwrap_or_else(|error| panic!("sending {direction:?}: {error}"));
        let received = received.unwrap_or_else(|error| panic!("receiving {direction:?}: {error}"));
        assert_eq!(sent, received, "{direction:?}: {bytes} bytes arrived, but not those sent");
        start.elapsed()
    }

    fn ends(&self, direction: Direction) -> (&TcpStream, &TcpStream) {
        match direction {
            Direction::ToServer => (&self.client, &self.server),
            Direction::ToClient => (&self.server, &self.client),
        }
    }
}

/// Opens a connection and streams `bytes` over it one way; see [`TcpPair::transfer`].
pub fn tcp_transfer(
    client: &Namespace,
    server: &Namespace,
    path: Path,
    direction: Direction,
    bytes: u64,
    seed: u64,
) -> Duration {
    TcpPair::open(client, server, path).transfer(direction, bytes, seed)
}

/// Closes this end by RST instead of FIN.
pub fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger).expect("SO_LINGER");
}

fn send_stream(mut stream: &TcpStream, bytes: u64, seed: u64) -> io::Result<u64> {
    let (mut random, mut hash) = (Random::new(seed), Hash::default());
    let mut block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let part = &mut block[..left.min(BLOCK as u64) as usize];
        random.fill(part);
        hash.add(part);
        stream.write_all(part)?;
        left -= part.len() as u64;
    }
    Ok(hash.0)
}

fn receive_stream(stream: &TcpStream, bytes: u64) -> io::Result<u64> {
    let mebibytes = u32::try_from(bytes.div_ceil(1 << 20)).expect("not so many");
    let until = Instant::now() + LIMIT_OF_A_MIB * mebibytes;
    let mut hash = Hash::default();
    let mut block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let part = &mut block[..left.min(BLOCK as u64) as usize];
        read_until(stream, part, until).map_err(|error| {
            io::Error::new(error.kind(), format!("{error}, with {left} of {bytes} bytes to come"))
        })?;
        hash.add(part);
        left -= part.len() as u64;
    }
    Ok(hash.0)
}

/// Fills the buffer by this time, at the latest by the next byte after it.
fn read_until(mut stream: &TcpStream, mut buffer: &mut [u8], until: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "too slow"));
        }
        match stream.read(buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => buffer = &mut buffer[length..],
        }
    }
    Ok(())
}

/// A xorshift generator: cheap, and no two blocks alike.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Zero is the one state that xorshift never leaves.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn fill(&mut self, block: &mut [u8]) {
        for chunk in block.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_ne_bytes()[..chunk.len()]);
        }
    }
}

/// FNV-1a over words of 8 bytes instead of bytes, which is fast enough unoptimized.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn add(&mut self, block: &[u8]) {
        for chunk in block.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0 ^ u64::from_ne_bytes(word)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
