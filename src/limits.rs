// SPDX-License-Identifier: GPL-2.0-only
//! Limits of the process. The start makes sure of what the process needs. Without, the first call that
//! meets a limit would fail, and its error would name anything but the limit.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::error::{Error, Result};

/// Files that are open at once during the start, 64 in a trial, and some to spare.
const FILES: rlim_t = 96;
/// Links at an interface: of XDP, of both sides of TC.
const LINKS: rlim_t = 3;
/// Bytes that the daemon keeps for each cell.
const CELL: usize = 9;
/// Bytes for all else.
const REST: usize = 8 << 20;

/// Sees to it that enough files can be open, with all links of each interface.
pub fn ensure_files(interfaces: usize) -> Result<()> {
    let failed = |errno| Error::system("looking at the limit of open files", errno);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    let needed = FILES + LINKS * interfaces as rlim_t;
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        return Err(Error::refused(format!("only {hard} files can be open, {needed} are needed"))
            .with_advice("raise the limit: ulimit -n, or LimitNOFILE= of systemd"));
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard)
        .map_err(|errno| Error::system("raising the limit of open files", errno))
}

/// Sees to it that there is memory for so many cells. Without, an allocation would abort the process.
pub fn ensure_memory(cells: u32) -> Result<()> {
    let needed = cells as usize * CELL + REST;
    // It is not used, so that no page of it is taken.
    Vec::<u8>::new().try_reserve_exact(needed).map_err(|_| {
        Error::refused(format!("there is no memory of {} MiB for the daemon", needed >> 20))
            .with_advice("raise its limit, or lower --max-connections")
    })
}
