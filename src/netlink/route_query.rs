// SPDX-License-Identifier: GPL-2.0-only
//! Where routing sends a packet now, for a question of a user's.

use std::net::IpAddr;

use super::attribute::{find, u32_at};
use super::failure::outcome;
use super::message::{NLM_F_REQUEST, NLMSG_ERROR};
use super::request::Request;
use super::rtnetlink::{AF_INET, AF_INET6, RTM_GETROUTE, RTM_NEWROUTE};
use super::socket::Socket;

/// struct rtmsg.
const HEADER: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;

/// The interface by which packets to this address leave; `None` if there is no route.
pub fn egress_to(socket: &mut Socket, address: IpAddr) -> Option<u32> {
    let (family, bits, bytes) = match address {
        IpAddr::V4(address) => (AF_INET, 32, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, 128, address.octets().to_vec()),
    };
    let mut header = [0; HEADER];
    [header[0], header[1]] = [family, bits];
    let mut request = Request::new(RTM_GETROUTE, &header).with(RTA_DST, &bytes);
    let sequence = socket.next_sequence();
    let answer =
        socket.exchange(request.bytes(NLM_F_REQUEST, sequence), sequence, |message| match message
            .kind
        {
            RTM_NEWROUTE => {
                let attributes = message.payload.get(HEADER..).unwrap_or_default();
                Some(Ok(find(attributes, RTA_OIF).and_then(|value| u32_at(value, 0))))
            }
            NLMSG_ERROR => outcome(message).err().map(Err),
            _ => None,
        });
    answer.ok().flatten()
}
