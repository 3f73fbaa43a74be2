// SPDX-License-Identifier: GPL-2.0-only
//! One bpfw per interface: whoever runs there holds its claim.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::attachment::Interface;
use crate::error::{Error, Result};

/// An abstract socket's name: it belongs to the network namespace, as the interface's index does
/// (unix(7)), and is free again when the process ends, however it ends.
#[derive(Debug)]
pub struct Claim {
    _socket: UnixDatagram,
}

impl Claim {
    /// Claims the interface, unless another bpfw has.
    pub fn take(interface: &Interface) -> Result<Self> {
        let Interface { index, name, .. } = interface;
        let bind = || {
            let address = SocketAddr::from_abstract_name(format!("bpfw/{index}"))?;
            UnixDatagram::bind_addr(&address)
        };
        match bind() {
            Ok(socket) => Ok(Self { _socket: socket }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(Error::refused(format!("another bpfw runs at {name}"))
                    .with_advice("stop it first"))
            }
            Err(error) => Err(Error::system(format!("claiming {name}"), error)),
        }
    }
}
