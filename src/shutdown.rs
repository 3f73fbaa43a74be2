// SPDX-License-Identifier: GPL-2.0-only
//! Unix signals. Those that ask for an end, or for a reload, become something to poll for: nothing is done inside of a
//! signal handler. All others are ignored, because by default they would end the process with its
//! TC filter left behind.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::signal::SigSet;
use signal_hook::consts::*;
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::datapath::sys;
use crate::error::{Error, Result};

/// They end the process in any case. A shell without job control starts background jobs with SIGINT
/// ignored, but `kill -INT` works for them too.
const END: [i32; 2] = [SIGTERM, SIGINT];
/// They end the process unless its parent had them ignored, as nohup does. The terminal is gone,
/// its user typed Ctrl-\, or the process has used up its CPU time.
const END_IF_HEARD: [i32; 3] = [SIGHUP, SIGQUIT, SIGXCPU];
/// It asks a daemon with a configuration file to read the file again, and does not end it.
const RELOAD: i32 = SIGHUP;
/// Faults of the program must end it. Nobody can change SIGKILL and SIGSTOP. SIGTSTP halts the
/// process on purpose, and the others do nothing by default.
const LEFT_ALONE: [i32; 14] = [
    SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP, SIGKILL, SIGSTOP, SIGTSTP, SIGCONT,
    SIGCHLD, SIGURG, SIGWINCH,
];

/// Becomes readable when the process is asked to end.
pub struct Shutdown {
    reader: UnixStream,
    /// Set by the signal itself, because the write that wakes the reader can fail.
    asked: Arc<AtomicBool>,
    /// The same for a reload.
    must_reload: Arc<AtomicBool>,
}

impl Shutdown {
    /// From here on no signal ends the process by itself, except SIGKILL and faults.
    pub fn watch(can_reload: bool) -> Result<Self> {
        let make = || -> std::io::Result<Self> {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            let asked = Arc::new(AtomicBool::new(false));
            let must_reload = Arc::new(AtomicBool::new(false));
            let watch = |signal, flag: &Arc<AtomicBool>| {
                flag::register(signal, Arc::clone(flag))?;
                pipe::register(signal, writer.try_clone()?)
            };
            for signal in END {
                watch(signal, &asked)?;
            }
            for signal in END_IF_HEARD {
                if can_reload && signal == RELOAD {
                    watch(signal, &must_reload)?;
                } else if !sys::is_ignored(signal)? {
                    watch(signal, &asked)?;
                }
            }
            ignore_others();
            // A parent may have blocked some.
            SigSet::all().thread_unblock()?;
            Ok(Self { reader, asked, must_reload })
        };
        make().map_err(|error| Error::system("watching for signals", error))
    }

    /// What to poll.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Whether a signal has come.
    pub fn is_asked(&mut self) -> bool {
        // Only so that it is not readable any longer.
        let _ = self.reader.read(&mut [0; 16]);
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether a signal has asked for a reload since the last call.
    pub fn must_reload(&self) -> bool {
        self.must_reload.swap(false, Ordering::Relaxed)
    }
}

fn ignore_others() {
    for signal in 1..=libc::SIGRTMAX() {
        if ![&END[..], &END_IF_HEARD, &LEFT_ALONE].concat().contains(&signal) {
            // The C library keeps some for itself.
            let _ = sys::ignore(signal);
        }
    }
}
