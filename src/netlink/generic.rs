// SPDX-License-Identifier: GPL-2.0-only
//! Generic netlink (linux/genetlink.h): whether the kernel has a family.

use netlink_packet_core::Emitable;
use netlink_sys::protocols::NETLINK_GENERIC;

use super::socket::Socket;

/// The controller's messages, and its request for a family.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_VERSION: u8 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Whether there is a family of this name. Each time that it knows none, the kernel looks for a
/// module, which starts a process.
pub fn has_family(name: &str) -> bool {
    let ask = |mut socket: Socket| {
        let doing = "asking for a family of generic netlink";
        socket.execute(doing, GENL_ID_CTRL, &Request(name))
    };
    Socket::open_for(NETLINK_GENERIC).and_then(ask).is_ok()
}

/// The header of generic netlink, and the name as an attribute.
struct Request<'a>(&'a str);

impl Request<'_> {
    fn bytes(&self) -> Vec<u8> {
        let name = [self.0.as_bytes(), &[0]].concat();
        let mut bytes = vec![CTRL_CMD_GETFAMILY, CTRL_VERSION, 0, 0];
        bytes.extend((name.len() as u16 + 4).to_ne_bytes());
        bytes.extend(CTRL_ATTR_FAMILY_NAME.to_ne_bytes());
        bytes.extend(&name);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

impl Emitable for Request<'_> {
    fn buffer_len(&self) -> usize {
        self.bytes().len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_there_and_others_are_not() {
        assert!(has_family("nlctrl"));
        assert!(!has_family("bpfw_has_none"));
    }
}
