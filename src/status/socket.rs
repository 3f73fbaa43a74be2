// SPDX-License-Identifier: GPL-2.0-only
//! A socket of the daemon's, where clients look for it.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, UnixAddr, bind, listen, socket};
use nix::unistd::{Gid, Group, chown};

use super::{Service, stem_of};
use crate::datapath::instance_lock;
use crate::error::{Error, Result};

/// Who may ask besides root.
const GROUP: &str = "bpfw";
/// So many clients wait at most before the next ones have to.
const WAITING: i32 = 32;

/// What the names of a daemon's sockets begin with.
#[derive(Debug)]
pub struct Stem(PathBuf);

impl Stem {
    /// One for a daemon of this network namespace. What killed daemons have left is removed.
    pub fn new(namespace: u64) -> Result<Self> {
        let directory = instance_lock::directory()?;
        remove_dead(&directory);
        // A random number: what a hasher with random keys makes of nothing.
        let own = RandomState::new().build_hasher().finish();
        Ok(Self(stem_of(&directory, namespace, own)))
    }
}

/// A socket that is listened at. Nobody waits for its clients.
#[derive(Debug)]
pub struct Socket {
    socket: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Opens it, for root and the group.
    pub fn open(stem: &Stem, service: Service) -> Result<Self> {
        let path = service.path(&stem.0);
        let open = || -> io::Result<Self> {
            let group = Group::from_name(GROUP)?.map(|group| group.gid);
            if let Some((group, directory)) = group.zip(path.parent()) {
                let_in(directory, group, 0o050)?;
            }
            // Under another name until someone listens there: who finds a socket with nobody behind it
            // takes it for a dead daemon's.
            let new = path.with_extension("new");
            let socket =
                socket(AddressFamily::Unix, service.socket_type(), SockFlag::SOCK_CLOEXEC, None)?;
            bind(socket.as_raw_fd(), &UnixAddr::new(&new)?)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
            if let Some(group) = group {
                let_in(&new, group, 0o060)?;
            }
            listen(&socket, Backlog::new(WAITING)?)?;
            // What the standard library says of streams holds for packets as well, as far as it is used here.
            let socket = UnixListener::from(socket);
            socket.set_nonblocking(true)?;
            fs::rename(&new, &path)?;
            Ok(Self { socket, path: path.clone() })
        };
        open().map_err(|cause| Error::system(format!("making {}", path.display()), cause))
    }

    /// A client that has come, if there is one.
    pub fn accept(&self) -> Option<UnixStream> {
        let (client, _) = self.socket.accept().ok()?;
        client.set_nonblocking(true).ok()?;
        Some(client)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::debug!("removing {}: {error}", self.path.display());
        }
    }
}

/// Connects to a socket without waiting for anyone.
fn connect(path: &Path, service: Service) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, service.socket_type(), flags, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
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
    for path in files.map(|file| file.path()) {
        let Some(service) = Service::of(&path) else { continue };
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if connect(&path, service).is_err_and(|error| refused(&error)) {
            // Another daemon may have done so.
            let _ = remove(&path);
        }
    }
}
