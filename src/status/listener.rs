// SPDX-License-Identifier: GPL-2.0-only
//! Where the status is asked for. A client says nothing: it connects, gets the answer and is done with. So no
//! client has a state here, and none can keep the daemon waiting.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use super::Service;
use super::socket::{Socket, Stem};
use crate::error::Result;

/// So many clients are answered at once; the others wait for the next turn.
const AT_ONCE: usize = 8;

/// The socket.
#[derive(Debug)]
pub struct Listener(Socket);

impl Listener {
    /// Opens it.
    pub fn open(stem: &Stem) -> Result<Self> {
        Socket::open(stem, Service::Status).map(Self)
    }

    /// Answers some of those who wait; all get the same. What does not fit into a socket's buffer
    /// is lost: the daemon does not wait.
    pub fn answer(&self, answer: &[u8]) {
        for _ in 0..AT_ONCE {
            let Some(mut client) = self.0.accept() else { return };
            if let Err(error) = client.write_all(answer) {
                tracing::debug!("a client was not answered: {error}");
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
