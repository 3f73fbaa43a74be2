// SPDX-License-Identifier: GPL-2.0-only
//! Asking the daemons of this network namespace.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, UnixAddr, connect, getsockopt, recv, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::feed;
use super::{About, Service, State, Status, namespace_of};
use crate::datapath::instance_lock::{self, namespace};
use crate::error::{Error, Result};
use crate::reasons::pause::Pause;

/// A daemon that answers later than this is late: the datapath does not wait longer for a heartbeat.
const PATIENCE_S: i64 = 1;
/// No answer is longer.
const LONGEST: u64 = 1 << 20;
const RIGHTS: &str = "run as root, or in the group bpfw";

/// What a daemon has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As it came, without the line's end.
    pub text: String,
    /// What it means.
    pub status: Status,
    /// Its process as we see it, 0 if we do not.
    pub pid: i32,
    /// The socket that it came from.
    path: PathBuf,
}

/// All daemons.
#[derive(Debug, Default)]
pub struct Daemons {
    /// Those of this network namespace.
    pub here: Vec<Answer>,
    /// How many sockets there are of other network namespaces.
    pub elsewhere: usize,
}

/// Asks all daemons of this network namespace.
pub fn ask() -> Result<Daemons> {
    let own = u64::from(namespace()?);
    let mut daemons = Daemons::default();
    for path in sockets()? {
        if namespace_of(&path) != Some(own) {
            daemons.elsewhere += 1;
            continue;
        }
        let answer = ask_at(&path, own)
            .map_err(|cause| Error::system(format!("asking at {}", path.display()), cause));
        daemons.here.extend(answer.map_err(|error| error.with_advice(RIGHTS))?);
    }
    Ok(daemons)
}

/// The daemon of this network namespace, if exactly one runs here.
pub fn ask_one() -> Result<Option<Answer>> {
    Ok(ask()?.only()?.cloned())
}

impl Daemons {
    /// The only one of this network namespace, if there is one; an error if there are several.
    pub fn only(&self) -> Result<Option<&Answer>> {
        if self.here.len() > 1 {
            let pids: Vec<_> =
                self.here.iter().map(|answer| answer.status.bpfw.pid.to_string()).collect();
            return Err(Error::refused(format!("several bpfw run here: pid {}", pids.join(", ")))
                .with_advice("bpfw status shows them"));
        }
        Ok(self.here.first())
    }
}

/// The paths of all sockets, in the same order each time.
fn sockets() -> Result<Vec<PathBuf>> {
    let Some(directory) = instance_lock::path() else { return Ok(Vec::new()) };
    let failed = |cause: io::Error| {
        Error::system(format!("reading {}", directory.display()), cause).with_advice(RIGHTS)
    };
    let files = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for file in files {
        paths.push(file.map_err(failed)?.path());
    }
    paths.retain(|path| Service::of(path) == Some(Service::Status));
    paths.sort();
    Ok(paths)
}

/// The answer at a socket; `None` if nobody is there any more.
fn ask_at(path: &Path, netns: u64) -> io::Result<Option<Answer>> {
    let socket = match connect_to(path, Service::Status) {
        Err(error) => {
            return match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(None),
                // Others wait already, and nobody answers them.
                Some(Errno::EAGAIN) => Ok(Some(Answer::late(path, 0, netns))),
                _ => Err(error),
            };
        }
        Ok(socket) => socket,
    };
    let pid = getsockopt(&socket, sockopt::PeerCredentials)?.pid();
    let mut bytes = Vec::new();
    let read = UnixStream::from(socket).take(LONGEST).read_to_end(&mut bytes);
    match read {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Ok(Some(Answer::late(path, pid, netns)))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
        // It has just ended.
        Ok(0) => Ok(None),
        Ok(_) => Answer::read(path, bytes, pid).map(Some),
    }
}

/// A connection to a socket of a daemon's, for which nobody waits too long.
fn connect_to(path: &Path, service: Service) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, service.socket_type(), flags, None)?;
    let patience = TimeVal::seconds(PATIENCE_S);
    setsockopt(&socket, sockopt::SendTimeout, &patience)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

impl Answer {
    fn read(path: &Path, bytes: Vec<u8>, pid: i32) -> io::Result<Self> {
        let text = String::from_utf8(bytes).map_err(io::Error::other)?.trim_end().to_owned();
        let status = serde_json::from_str(&text)?;
        Ok(Self { text, status, pid, path: path.to_owned() })
    }

    /// What is known of a daemon that does not answer.
    fn late(path: &Path, pid: i32, netns: u64) -> Self {
        let status = Status {
            bpfw: About { pid: pid.unsigned_abs(), netns, ..About::default() },
            state: State::Late,
            reason: Some(Pause::Late.reason().into()),
            ..Status::default()
        };
        let text = serde_json::json!({
            "bpfw": {"pid": pid, "netns": netns}, "state": status.state, "reason": status.reason,
        });
        Self { text: text.to_string(), status, pid, path: path.to_owned() }
    }

    /// Whether the same daemon still answers, and in time.
    pub fn is_in_time(&self) -> Result<bool> {
        let answer = ask_at(&self.path, self.status.bpfw.netns)
            .map_err(|cause| Error::system(format!("asking at {}", self.path.display()), cause))?;
        Ok(answer.is_some_and(|answer| answer.status.state != State::Late))
    }

    /// Begins to listen to what the daemon tells of connections; its first line.
    pub fn listen(&self) -> Result<(Listening, String)> {
        let path = Service::Events.path(&self.path);
        let begin = || -> io::Result<(Listening, Heard)> {
            let listening = Listening(connect_to(&path, Service::Events)?);
            let until = Instant::now() + Duration::from_secs(PATIENCE_S.unsigned_abs());
            let heard = listening.hear(Some(until))?;
            Ok((listening, heard))
        };
        let failed = |cause| Error::system(format!("listening at {}", path.display()), cause);
        match begin().map_err(failed)? {
            (listening, Heard::Lines(lines)) => Ok((listening, lines)),
            (_, Heard::Nothing) => Err(Error::refused(Pause::Late.reason().line())),
            (_, Heard::End) => {
                Err(Error::refused("as many listen to this bpfw as it has room for")
                    .with_advice("end one of them"))
            }
        }
    }
}

/// A connection by which a daemon tells of connections.
#[derive(Debug)]
pub struct Listening(OwnedFd);

/// What is heard there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Some lines.
    Lines(String),
    /// None until now.
    Nothing,
    /// The daemon has ended.
    End,
}

impl Listening {
    /// What comes next, until this time.
    pub fn hear(&self, until: Option<Instant>) -> io::Result<Heard> {
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up, so that the time is over then.
            PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::NONE)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Heard::Nothing),
            ready => ready.map(drop)?,
        }
        let mut packet = vec![0; feed::LONGEST];
        let length = recv(self.0.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)?;
        packet.truncate(length);
        match length {
            0 => Ok(Heard::End),
            _ => String::from_utf8(packet).map(Heard::Lines).map_err(io::Error::other),
        }
    }
}
