// SPDX-License-Identifier: GPL-2.0-only
//! Asking the daemons of this network namespace.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{About, State, Status, namespace_of};
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
    let mut here = ask()?.here;
    if here.len() > 1 {
        let pids: Vec<_> = here.iter().map(|answer| answer.status.bpfw.pid.to_string()).collect();
        return Err(Error::refused(format!("several bpfw run here: pid {}", pids.join(", "))));
    }
    Ok(here.pop())
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
    paths.retain(|path| namespace_of(path).is_some());
    paths.sort();
    Ok(paths)
}

/// The answer at a socket; `None` if nobody is there any more.
fn ask_at(path: &Path, netns: u64) -> io::Result<Option<Answer>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let patience = TimeVal::seconds(PATIENCE_S);
    setsockopt(&socket, sockopt::SendTimeout, &patience)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    match connect(socket.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) => {}
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => return Ok(None),
        // Others wait already, and nobody answers them.
        Err(Errno::EAGAIN) => return Ok(Some(Answer::late(0, netns))),
        Err(errno) => return Err(errno.into()),
    }
    let pid = getsockopt(&socket, sockopt::PeerCredentials)?.pid();
    let mut bytes = Vec::new();
    let read = UnixStream::from(socket).take(LONGEST).read_to_end(&mut bytes);
    match read {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Ok(Some(Answer::late(pid, netns)))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
        // It has just ended.
        Ok(0) => Ok(None),
        Ok(_) => Answer::read(bytes, pid).map(Some),
    }
}

impl Answer {
    fn read(bytes: Vec<u8>, pid: i32) -> io::Result<Self> {
        let text = String::from_utf8(bytes).map_err(io::Error::other)?.trim_end().to_owned();
        let status = serde_json::from_str(&text)?;
        Ok(Self { text, status, pid })
    }

    /// What is known of a daemon that does not answer.
    fn late(pid: i32, netns: u64) -> Self {
        let status = Status {
            bpfw: About { pid: pid.unsigned_abs(), netns, ..About::default() },
            state: State::Late,
            reason: Some(Pause::Late.reason().into()),
            ..Status::default()
        };
        let text = serde_json::json!({
            "bpfw": {"pid": pid, "netns": netns}, "state": status.state, "reason": status.reason,
        });
        Self { text: text.to_string(), status, pid }
    }
}
