// SPDX-License-Identifier: GPL-2.0-only
//! One bpfw per interface: whoever runs there holds its claim.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open, openat};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkdir};

use super::interface::Interface;
use crate::error::{Error, Result};

/// Where programs keep what concerns the running system only. OpenWrt has the second.
const PLACES: [&str; 2] = ["/run", "/var/run"];
/// The file with the locks.
const LOCKS: &str = "lock";

/// Locks of single bytes in a file that no other user can open: whoever can open a file can lock it.
///
/// The locks belong to the open file, so they end with the process, however it ends. One file serves all
/// interfaces and namespaces. It stays, and it is empty: a file that is removed can be locked twice.
#[derive(Debug)]
pub struct Claims {
    locks: File,
    namespace: u32,
}

impl Claims {
    /// No interface is claimed yet.
    pub fn open() -> Result<Self> {
        Ok(Self { locks: open_locks()?, namespace: namespace()? })
    }

    /// Claims all of these interfaces, unless another bpfw has one of them.
    pub fn claim_all(&self, interfaces: &[Interface]) -> Result<()> {
        interfaces.iter().try_for_each(|interface| self.claim(interface))
    }

    /// Claims one more, or one that is claimed already, unless another bpfw has it.
    pub fn claim(&self, interface: &Interface) -> Result<()> {
        let Interface { index, name, .. } = interface;
        match self.set(*index, libc::F_WRLCK) {
            Ok(()) => Ok(()),
            Err(Errno::EAGAIN | Errno::EACCES) => Err(claimed(name)),
            Err(errno) => Err(Error::system(format!("claiming {name}"), errno)),
        }
    }

    /// Gives a claim back. A failure leaves it, which matters to nobody but another bpfw.
    pub fn release(&self, index: u32) {
        let _ = self.set(index, libc::F_UNLCK);
    }

    fn set(&self, index: u32, kind: libc::c_int) -> nix::Result<()> {
        let lock = lock(self.namespace, index, kind);
        fcntl(&self.locks, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
    }
}

/// An error if a bpfw has claimed this interface. Makes nothing, and claims nothing.
pub fn refuse_claimed(interface: &Interface) -> Result<()> {
    let Some(path) = path().map(|path| path.join(LOCKS)) else { return Ok(()) };
    let Ok(file) = File::open(&path) else { return Ok(()) };
    let mut lock = lock(namespace()?, interface.index, libc::F_WRLCK);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))
        .map_err(|errno| Error::system(format!("looking at {}", path.display()), errno))?;
    if i32::from(lock.l_type) == libc::F_UNLCK { Ok(()) } else { Err(claimed(&interface.name)) }
}

fn claimed(name: &str) -> Error {
    Error::refused(format!("another bpfw runs at {name}")).with_advice("stop it first")
}

fn lock(namespace: u32, index: u32, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as _,
        l_whence: libc::SEEK_SET as _,
        l_start: place(namespace, index),
        l_len: 1,
        l_pid: 0,
    }
}

/// The byte of an interface. Its index is below 2^31, and another interface's in each namespace.
fn place(namespace: u32, ifindex: u32) -> i64 {
    i64::from(namespace) << 31 | i64::from(ifindex)
}

/// The number that tells our network namespace from all others that there are now.
pub fn namespace() -> Result<u32> {
    let path = "/proc/thread-self/ns/net";
    let number = std::fs::metadata(path).and_then(|found| {
        found.ino().try_into().map_err(|_| io::Error::other("its number has more than 32 bits"))
    });
    number.map_err(|error| Error::system(format!("looking at {path}"), error))
}

/// The directory of all that programs find of bpfw while it runs, made or not.
pub fn path() -> Option<PathBuf> {
    let place = PLACES.map(Path::new).into_iter().find(|place| place.is_dir())?;
    Some(place.join("bpfw"))
}

/// The same, made where it is missing. Nobody else can write to it.
pub fn directory() -> Result<PathBuf> {
    open_directory().map(|(path, _)| path)
}

/// Links are not followed.
fn open_directory() -> Result<(PathBuf, File)> {
    let Some(path) = path() else {
        return Err(Error::refused("there is no directory /run").with_advice("mount a tmpfs there"));
    };
    match mkdir(&path, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(failed("making", &path, errno)),
    }
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let directory =
        open(&path, flags, Mode::empty()).map_err(|errno| failed("opening", &path, errno))?;
    let directory = ours(directory, &path, Mode::S_IWGRP | Mode::S_IWOTH)?;
    Ok((path, directory))
}

/// Opens the file, after making it where it is missing. Links are not followed.
fn open_locks() -> Result<File> {
    let (path, directory) = open_directory()?;
    let path = path.join(LOCKS);
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDWR | OFlag::O_CREAT;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let file = openat(directory.as_fd(), LOCKS, flags, mode)
        .map_err(|errno| failed("opening", &path, errno))?;
    ours(file, &path, Mode::S_IRWXG | Mode::S_IRWXO)
}

/// Takes it as ours if it belongs to us or root, and nobody else may do this with it.
fn ours(file: OwnedFd, path: &Path, others_may_not: Mode) -> Result<File> {
    let file = File::from(file);
    let found = file
        .metadata()
        .map_err(|error| Error::system(format!("looking at {}", path.display()), error))?;
    let is_owner = [0, geteuid().as_raw()].contains(&found.uid());
    if is_owner && found.mode() & others_may_not.bits() == 0 {
        return Ok(file);
    }
    Err(Error::refused(format!("{} is open to other users", path.display()))
        .with_advice("remove it while no bpfw runs"))
}

fn failed(doing: &str, path: &Path, errno: Errno) -> Error {
    let error = Error::system(format!("{doing} {} for locks", path.display()), errno);
    match errno {
        Errno::EACCES | Errno::EPERM => error.with_advice(
            "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON as this directory's owner",
        ),
        Errno::EROFS => error.with_advice("mount a tmpfs there"),
        Errno::ELOOP | Errno::ENOTDIR => error.with_advice("remove it"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_has_a_byte_of_its_own() {
        let most = (u32::MAX, i32::MAX as u32);
        assert_eq!(place(most.0, most.1), i64::MAX);
        assert_ne!(place(1, 2), place(2, 1));
        assert_eq!(place(2, 0) - place(1, most.1), 1);
    }
}
