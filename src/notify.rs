// SPDX-License-Identifier: GPL-2.0-only
//! Tells the service manager how it goes: the protocol of sd_notify(3), one datagram for each message.
//!
//! Nothing waits for it, and nothing fails with it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// A status that changes all the time is told this often.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// The service manager, if one has asked for messages.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Watchdog>,
    /// What was told last, and when.
    status: Option<(String, Instant)>,
}

/// The manager ends a process that is silent for too long.
#[derive(Debug)]
struct Watchdog {
    /// Half of the time that it waits for.
    interval: Duration,
    told_at: Option<Instant>,
}

impl Notify {
    /// By the environment that the manager gives its services.
    pub fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| open(name.as_bytes()).ok());
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        // It may be meant for another process that we are a child of.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let limit = number("WATCHDOG_USEC").filter(|limit| is_ours && *limit != 0);
        let interval = limit.map(|limit| Duration::from_micros(limit) / 2);
        let watchdog = interval.filter(|_| socket.is_some());
        let watchdog = watchdog.map(|interval| Watchdog { interval, told_at: None });
        Self { socket, watchdog, status: None }
    }

    /// The start is over, or a reload.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// A reload begins.
    pub fn reloading(&self) {
        // systemd tells by the time which reload it is.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The end begins.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=detaching");
    }

    /// Whether there is one.
    pub fn listens(&self) -> bool {
        self.socket.is_some()
    }

    /// What people read: the state at once, and the numbers behind it now and then.
    pub fn status(&mut self, state: &str, numbers: impl FnOnce() -> String, now: Instant) {
        let is_told = self.status.as_ref().is_some_and(|(told, told_at)| {
            told == state && now.duration_since(*told_at) < STATUS_INTERVAL
        });
        if !is_told {
            self.tell(&format!("STATUS={state}{}", numbers()));
            self.status = Some((state.to_owned(), now));
        }
    }

    /// The daemon is alive.
    pub fn alive(&mut self, now: Instant) {
        let is_due = self.wait(now).is_some_and(|wait| wait.is_zero());
        if let Some(watchdog) = self.watchdog.as_mut().filter(|_| is_due) {
            watchdog.told_at = Some(now);
            self.tell("WATCHDOG=1");
        }
    }

    /// How long it may wait until it says so again.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let Watchdog { interval, told_at } = self.watchdog.as_ref()?;
        let passed = |told_at: Instant| now.duration_since(told_at);
        Some(told_at.map_or(Duration::ZERO, |told_at| interval.saturating_sub(passed(told_at))))
    }

    fn tell(&self, message: &str) {
        if let Some((socket, manager)) = &self.socket {
            // A manager that takes no message now has not lost much.
            let _ = socket.send_to_addr(message.as_bytes(), manager);
        }
    }
}

/// A path, or behind an @ a name that is in no file system.
fn open(name: &[u8]) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let manager = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(path)))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, manager))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager() -> (UnixDatagram, Notify) {
        let name = format!("bpfw-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("it is free");
        manager.set_nonblocking(true).expect("a socket");
        let socket = open(format!("@{name}").as_bytes()).ok();
        (manager, Notify { socket, ..Notify::default() })
    }

    fn heard(manager: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 200];
        let length = manager.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    #[test]
    fn a_state_is_told_at_once_and_numbers_now_and_then() {
        let (manager, mut notify) = manager();
        let now = Instant::now();
        let mut told = |state: &str, number: u32, now| {
            notify.status(state, || format!(", {number}"), now);
            heard(&manager)
        };
        assert_eq!(told("forwarding", 1, now).as_deref(), Some("STATUS=forwarding, 1"));
        assert_eq!(told("forwarding", 2, now), None);
        assert_eq!(told("paused", 3, now).as_deref(), Some("STATUS=paused, 3"));
        assert_eq!(told("paused", 4, now + STATUS_INTERVAL).as_deref(), Some("STATUS=paused, 4"));
    }

    #[test]
    fn it_is_alive_twice_in_the_time_that_the_manager_waits() {
        let (manager, mut notify) = manager();
        let (interval, now) = (Duration::from_secs(5), Instant::now());
        assert_eq!(notify.wait(now), None);
        notify.alive(now);
        assert_eq!(heard(&manager), None, "nobody asked for it");
        notify.watchdog = Some(Watchdog { interval, told_at: None });
        let mut alive = |now| {
            notify.alive(now);
            (heard(&manager).is_some(), notify.wait(now))
        };
        assert_eq!(alive(now), (true, Some(interval)));
        assert_eq!(alive(now + interval / 2), (false, Some(interval / 2)));
        assert_eq!(alive(now + interval), (true, Some(interval)));
    }

    #[test]
    fn a_manager_that_is_gone_is_no_matter() {
        let (manager, notify) = manager();
        drop(manager);
        notify.ready();
        Notify::default().stopping();
    }
}
