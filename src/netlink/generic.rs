// SPDX-License-Identifier: GPL-2.0-only
//! Generic netlink (linux/genetlink.h): which families the kernel has, and requests to them.

use super::attribute;
use super::request::Request;
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
    let request = request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY).with(CTRL_ATTR_FAMILY_NAME, &name);
    let mut number = None;
    let asked = socket.ask("asking for a family", request, |answer| {
        let attributes = answer.payload.get(HEADER..).unwrap_or_default();
        let found = attribute::find(attributes, CTRL_ATTR_FAMILY_ID);
        number = found.and_then(|value| attribute::u16_at(value, 0));
    });
    asked.ok().and(number)
}

/// A request to a family, without attributes.
pub fn request(family: u16, command: u8) -> Request {
    Request::new(family, &[command, VERSION, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::super::socket::NETLINK_GENERIC;
    use super::*;

    #[test]
    fn the_controller_is_there_and_others_are_not() {
        let mut socket = Socket::open(NETLINK_GENERIC).expect("a socket");
        assert_eq!(find_family(&mut socket, "nlctrl"), Some(GENL_ID_CTRL));
        assert_eq!(find_family(&mut socket, "bpfw_has_none"), None);
    }
}
