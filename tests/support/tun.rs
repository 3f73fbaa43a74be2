// SPDX-License-Identifier: GPL-2.0-only
//! Devices without an Ethernet header: tuns, whose other side is this process.

use super::lab::Lab;
use super::lab::{CLIENT, ROUTER_LAN, ROUTER_WAN, SERVER};
use super::netns::Namespace;
use super::port::PortFrame;
use super::tun_device;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// With `struct virtio_net_hdr` in front of it.
const LARGEST: usize = 66 << 10;
const TICK: Duration = Duration::from_millis(20);

/// A tun device in a namespace, and the process's end of it. It goes with this.
pub struct Tun(File);

impl Tun {
    /// A device that is up. Its packets may be aggregated, and their checksums unfinished.
    pub fn open(namespace: &Namespace, name: &str) -> Self {
        let tun = namespace.enter(|| tun_device::open(name)).expect("a tun");
        namespace.ip(&format!("link set {name} up\n"));
        Self(tun)
    }

    /// A packet comes in at the device.
    pub fn send(&self, packet: &PortFrame) {
        (&self.0).write_all(&packet.with_header(0)).expect("writing to a tun");
    }

    /// The next packet that leaves by the device, and is wanted.
    pub fn next(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(&PortFrame) -> bool,
    ) -> Option<PortFrame> {
        let end = Instant::now() + limit;
        let mut buffer = vec![0; LARGEST];
        while Instant::now() < end {
            if self.wait() {
                let length = (&self.0).read(&mut buffer).expect("reading from a tun");
                let packet = PortFrame::without_header(&buffer[..length]);
                if wanted(&packet) {
                    return Some(packet);
                }
            }
        }
        None
    }

    /// Waits for a packet, but not for long.
    fn wait(&self) -> bool {
        let timeout = PollTimeout::try_from(TICK).expect("a short wait");
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, timeout).expect("polling a tun") > 0
    }

    /// Carries what leaves here to another tun, until told to stop.
    fn carry(&self, to: &Self, stop: &AtomicBool) {
        let mut buffer = vec![0; LARGEST];
        while !stop.load(Ordering::Relaxed) {
            if self.wait() {
                // A device that is down takes and gives nothing.
                let Ok(length) = (&self.0).read(&mut buffer) else { continue };
                let _ = (&to.0).write_all(&buffer[..length]);
            }
        }
    }
}

/// Two tuns, joined by threads that carry packets to and fro; stops when dropped.
pub struct TunCable {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl TunCable {
    pub fn join(left: Tun, right: Tun) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let ends = [Arc::new(left), Arc::new(right)];
        let threads = [0, 1].map(|from| {
            let (from, to) = (Arc::clone(&ends[from]), Arc::clone(&ends[1 - from]));
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || from.carry(&to, &stop))
        });
        Self { stop, threads: threads.into() }
    }
}

impl Drop for TunCable {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Makes a tun of the router's `wan0`; the server's end is the test's.
pub fn wan_by_tun(lab: &Lab) -> Tun {
    lab.router.ip("link del wan0\n");
    let tun = Tun::open(&lab.router, "wan0");
    lab.router.ip(&format!("addr add {ROUTER_WAN}/24 dev wan0\n"));
    tun
}

/// Makes tuns of the cable between router and server.
pub fn join_wan(lab: &Lab) -> TunCable {
    let near = wan_by_tun(lab);
    let far = Tun::open(&lab.server, "eth0");
    lab.server.ip(&format!("addr add {SERVER}/24 dev eth0\nroute add default via {ROUTER_WAN}\n"));
    TunCable::join(near, far)
}

/// Makes tuns of the cable between router and client.
pub fn join_lan(lab: &Lab) -> TunCable {
    lab.router.ip("link del lan0\n");
    let near = Tun::open(&lab.router, "lan0");
    lab.router.ip(&format!("addr add {ROUTER_LAN}/24 dev lan0\n"));
    let far = Tun::open(&lab.client, "eth0");
    lab.client.ip(&format!("addr add {CLIENT}/24 dev eth0\nroute add default via {ROUTER_LAN}\n"));
    TunCable::join(near, far)
}
