// SPDX-License-Identifier: GPL-2.0-only
//! Generic netlink (linux/genetlink.h): which families the kernel has, and requests to them.

use netlink_packet_core::Emitable;

use super::attribute;
use super::socket::Socket;

/// The controller's messages, and its request for a family.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Bytes of `struct genlmsghdr`, which each message begins with.
pub const HEADER: usize = 4;
/// Of all families that are asked here.
const VERSION: u8 = 1;

/// The number of the family of this name, if there is one. Each time that it knows none, the kernel
/// looks for a module, which starts a process.
pub fn find_family(socket: &mut Socket, name: &str) -> Option<u16> {
    let name = [name.as_bytes(), &[0]].concat();
    let request = Request::new(CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, &name);
    let mut number = None;
    let asked = socket.ask("asking for a family", GENL_ID_CTRL, &request, |answer| {
        let attributes = answer.payload.get(HEADER..).unwrap_or_default();
        let found = attribute::find(attributes, CTRL_ATTR_FAMILY_ID);
        number = found.and_then(|value| attribute::u16_at(value, 0));
    });
    asked.ok().and(number)
}

/// The header of generic netlink, and one attribute.
pub struct Request(Vec<u8>);

impl Request {
    /// A command, with what it is about.
    pub fn new(command: u8, attribute: u16, value: &[u8]) -> Self {
        let mut bytes = vec![command, VERSION, 0, 0];
        bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        bytes.extend(attribute.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self(bytes)
    }
}

impl Emitable for Request {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_sys::protocols::NETLINK_GENERIC;

    #[test]
    fn the_controller_is_there_and_others_are_not() {
        let mut socket = Socket::open_for(NETLINK_GENERIC).expect("a socket");
        assert_eq!(find_family(&mut socket, "nlctrl"), Some(GENL_ID_CTRL));
        assert_eq!(find_family(&mut socket, "bpfw_has_none"), None);
    }
}
