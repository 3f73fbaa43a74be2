// SPDX-License-Identifier: GPL-2.0-only
//! Conversations in which both ends go on sending whatever they hear, so that it shows for each
//! direction alone whether its packets arrive.

use super::lab::{CLIENT, Lab, SERVER};
use super::netns::Namespace;
use super::router::at;
use super::tcp::{Path as TcpPath, TcpPair};
use super::wait::eventually;
use bpfw::flow::tuple::Protocol;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two packets of an end.
const PACE: Duration = Duration::from_millis(5);

/// What an end hears, in packets or, of TCP, bytes.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<[AtomicU64; 2]>);

impl Heard {
    /// So far: by the server, by the client.
    pub fn so_far(&self) -> [u64; 2] {
        [0, 1].map(|end: usize| self.0[end].load(Ordering::Relaxed))
    }

    /// Within this time from now: by the server, by the client.
    pub fn within(&self, time: Duration) -> [u64; 2] {
        let before = self.so_far();
        std::thread::sleep(time);
        let after = self.so_far();
        [0, 1].map(|end| after[end] - before[end])
    }
}

/// The sockets of one conversation.
enum Ends {
    Udp { client: UdpSocket, server: UdpSocket },
    Tcp(TcpPair),
}

/// Conversations of one lab; they end when this is dropped.
pub struct Talks {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    heard: Vec<Heard>,
}

impl Talks {
    /// One conversation for each protocol and port of the server; the client has the same port.
    pub fn start(lab: &Lab, talks: &[(Protocol, u16)]) -> Self {
        for host in [&lab.client, &lab.server] {
            try_often(host);
        }
        let mut ends: Vec<_> = talks
            .iter()
            .map(|(protocol, port)| (open(lab, *protocol, *port), Heard::default()))
            .collect();
        let heard = ends.iter().map(|(_, heard)| heard.clone()).collect();
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                ends.iter_mut().for_each(|(ends, heard)| ends.turn(heard));
                std::thread::sleep(PACE);
            }
        });
        Self { stop, thread: Some(thread), heard }
    }

    /// What is heard in each, in the order in which they were asked for.
    pub fn heard(&self) -> &[Heard] {
        &self.heard
    }

    /// Waits until all hear each other.
    pub fn wait_until_heard(&self, limit: Duration) {
        for (number, heard) in self.heard.iter().enumerate() {
            let before = heard.so_far();
            eventually(limit, &format!("both ends of conversation {number} are heard"), || {
                let now = heard.so_far();
                now[0] > before[0] && now[1] > before[1]
            });
        }
    }
}

impl Drop for Talks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// TCP that heard nothing for long tries again within a second, where the kernel (6.15) can do that.
fn try_often(host: &Namespace) {
    let path = "/proc/sys/net/ipv4/tcp_rto_max_ms";
    host.enter(|| {
        if Path::new(path).exists() {
            std::fs::write(path, "1000").expect("the sysctl can be set");
        }
    });
}

fn open(lab: &Lab, protocol: Protocol, port: u16) -> Ends {
    match protocol {
        Protocol::Udp => {
            let server = lab.server.enter(|| UdpSocket::bind(at(SERVER, port))).expect("bound");
            let client = lab.client.enter(|| UdpSocket::bind(at(CLIENT, port))).expect("bound");
            client.connect(at(SERVER, port)).expect("connected");
            for end in [&client, &server] {
                end.set_nonblocking(true).expect("not blocking");
            }
            Ends::Udp { client, server }
        }
        Protocol::Tcp => {
            let pair = TcpPair::open(&lab.client, &lab.server, TcpPath::direct(at(SERVER, port)));
            for end in [&pair.client, &pair.server] {
                end.set_nonblocking(true).expect("not blocking");
            }
            Ends::Tcp(pair)
        }
    }
}

impl Ends {
    /// Both ends send once, and count what has arrived.
    fn turn(&mut self, Heard(heard): &Heard) {
        let mut buffer = [0; 2048];
        match self {
            Self::Udp { client, server } => {
                // ICMP errors of earlier packets are no matter.
                let _ = client.send(&[1; 64]);
                while let Ok((_, from)) = server.recv_from(&mut buffer) {
                    heard[0].fetch_add(1, Ordering::Relaxed);
                    // Now the server knows to whom it talks.
                    let _ = server.connect(from);
                }
                let _ = server.send(&[2; 64]);
                while client.recv(&mut buffer).is_ok() {
                    heard[1].fetch_add(1, Ordering::Relaxed);
                }
            }
            Self::Tcp(pair) => {
                for (end, index) in [(&pair.server, 0), (&pair.client, 1)] {
                    heard[index].fetch_add(say_and_hear(end, &mut buffer), Ordering::Relaxed);
                }
            }
        }
    }
}

/// Of TCP, little is on its way: what a closed direction holds back is soon through again.
fn say_and_hear(mut end: &TcpStream, buffer: &mut [u8]) -> u64 {
    let _ = end.write(&[3; 16]);
    let mut bytes = 0;
    loop {
        match end.read(buffer) {
            Ok(0) => return bytes,
            Ok(length) => bytes += length as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return bytes,
        }
    }
}

/// An end of a conversation: 0 is the server, 1 the client.
pub type Listener<'a> = (&'a Heard, usize);

/// Waits until each of them hears nothing for this time; tells how long before that it last did.
pub fn silence(listeners: &[Listener], quiet: Duration, limit: Duration) -> Vec<Option<Duration>> {
    let started = Instant::now();
    let number = |(heard, end): &Listener| heard.so_far()[*end];
    let mut seen: Vec<_> = listeners.iter().map(|one| (number(one), Duration::ZERO)).collect();
    loop {
        std::thread::sleep(Duration::from_millis(2));
        let now = started.elapsed();
        for (listener, (before, last)) in listeners.iter().zip(&mut seen) {
            let number = number(listener);
            if number != *before {
                (*before, *last) = (number, now);
            }
        }
        let is_quiet = |last: Duration| now.saturating_sub(last) >= quiet;
        if now >= limit || seen.iter().all(|(_, last)| is_quiet(*last)) {
            return seen.iter().map(|(_, last)| is_quiet(*last).then_some(*last)).collect();
        }
    }
}

/// [`silence`] of one end.
pub fn falls_silent(
    heard: &Heard,
    end: usize,
    quiet: Duration,
    limit: Duration,
) -> Option<Duration> {
    silence(&[(heard, end)], quiet, limit)[0]
}
