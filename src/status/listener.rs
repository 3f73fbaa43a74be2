// SPDX-License-Identifier: GPL-2.0-only
//! The daemon's end of the socket. A client says nothing: it connects, gets the answer and is done with.
//! So no client has a state here, and none can keep the daemon waiting.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::unistd::{Gid, Group, chown};

use super::{namespace_of, socket_of};
use crate::datapath::instance_lock;
use crate::error::{Error, Result};

/// Who may ask besides root.
const GROUP: &str = "bpfw";
/// So many clients are answered at once; the others wait for the next turn.
const AT_ONCE: usize = 8;
/// So many clients wait at most before the next ones have to.
const WAITING: i32 = 32;

/// Where clients ask.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Opens a socket for this network namespace.
    pub fn open(namespace: u64) -> Result<Self> {
        let directory = instance_lock::directory()?;
        remove_dead(&directory);
        // A random number: what a hasher with random keys makes of nothing.
        let own = RandomState::new().build_hasher().finish();
        let path = socket_of(&directory, namespace, own);
        let open = || -> io::Result<Self> {
            let group = Group::from_name(GROUP)?.map(|group| group.gid);
            if let Some(group) = group {
                let_in(&directory, group, 0o050)?;
            }
            // Under another name until someone listens there: who finds a socket with nobody behind it
            // takes it for a dead daemon's.
            let new = path.with_extension("new");
            let socket =
                socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            bind(socket.as_raw_fd(), &UnixAddr::new(&new)?)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
            if let Some(group) = group {
                let_in(&new, group, 0o060)?;
            }
            listen(&socket, Backlog::new(WAITING)?)?;
            let socket = UnixListener::from(socket);
            socket.set_nonblocking(true)?;
            fs::rename(&new, &path)?;
            Ok(Self { socket, path: path.clone() })
        };
        open().map_err(|cause| Error::system(format!("making {}", path.display()), cause))
    }

    /// Answers some of those who wait; all get the same. What does not fit into a socket's buffer
    /// is lost: the daemon does not wait.
    pub fn answer(&self, answer: &[u8]) {
        for _ in 0..AT_ONCE {
            // Else nobody waits any longer.
            let Ok((client, _)) = self.socket.accept() else { return };
            if let Err(error) = say(&client, answer) {
                tracing::debug!("a client was not answered: {error}");
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::debug!("removing {}: {error}", self.path.display());
        }
    }
}

fn say(mut client: &UnixStream, answer: &[u8]) -> io::Result<()> {
    client.set_nonblocking(true)?;
    client.write_all(answer)
}

/// Gives a file of ours to a group as well, with these rights.
fn let_in(path: &Path, group: Gid, rights: u32) -> io::Result<()> {
    let about = fs::metadata(path)?;
    // A service of this group's has no right to change groups, and no need.
    if about.gid() != group.as_raw() {
        chown(path, None, Some(group))?;
    }
    let mode = about.permissions().mode() | rights;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Removes a file, if there is one.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the sockets of daemons that were killed.
fn remove_dead(directory: &Path) {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let sockets = files.map(|file| file.path()).filter(|path| namespace_of(path).is_some());
    for path in sockets {
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if connect(&path).is_err_and(|error| refused(&error)) {
            // Another daemon may have done so.
            let _ = remove(&path);
        }
    }
}

/// Connects without waiting for anyone.
fn connect(path: &Path) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    Ok(nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?)
}
