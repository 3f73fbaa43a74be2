// SPDX-License-Identifier: GPL-2.0-only
//! Groups of nexthop objects (ip-nexthop(8), linux/nexthop.h). Routes may name a group by its number
//! alone (`nexthop_compat_mode`), so the groups themselves are followed.

use std::collections::HashMap;

use super::attribute::{attributes, u16_at, u32_at};
use super::message::Message;
use super::request::Request;
use super::rtnetlink::{RTM_DELNEXTHOP, RTM_GETNEXTHOP, RTM_NEWNEXTHOP};
use super::socket::Socket;
use crate::error::Result;

/// struct nhmsg.
const HEADER: usize = 8;
/// struct nexthop_grp, one for each member.
const MEMBER: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_GROUP_TYPE: u16 = 3;
const NHA_GROUPS: u16 = 9;
const NHA_FDB: u16 = 11;
const NEXTHOP_GRP_TYPE_RES: u16 = 1;

/// The groups with several members. Those of bridges' forwarding databases are not among them.
///
/// The kernel removes groups without an event when an interface goes down. Such leftovers keep
/// packets with the stack, until everything is read anew.
#[derive(Clone, Debug, Default)]
pub struct NexthopGroups {
    /// By number: whether it is resilient.
    groups: HashMap<u32, bool>,
}

impl NexthopGroups {
    /// The groups of this network namespace.
    pub(super) fn dump(socket: &mut Socket) -> Result<Self> {
        let doing = "reading the groups of nexthop objects";
        let request = Request::new(RTM_GETNEXTHOP, &[0; HEADER]).with(NHA_GROUPS, &[]);
        socket.dump(doing, request, Self::default, |all, message| {
            all.change(message);
        })
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Whether there is a resilient one. Its buckets move when the stack has not used them for a
    /// while (nh_res_table_upkeep in net/ipv4/nexthop.c). The fast path uses none.
    pub fn any_resilient(&self) -> bool {
        self.groups.values().any(|resilient| *resilient)
    }

    /// Applies RTM_NEWNEXTHOP or RTM_DELNEXTHOP.
    pub(super) fn change(&mut self, message: &Message<'_>) {
        let (mut id, mut members, mut resilient, mut routed) = (None, 0, false, true);
        for (kind, value) in attributes(message.payload.get(HEADER..).unwrap_or_default()) {
            match kind {
                NHA_ID => id = u32_at(value, 0),
                NHA_GROUP => members = value.len() / MEMBER,
                NHA_GROUP_TYPE => resilient = u16_at(value, 0) == Some(NEXTHOP_GRP_TYPE_RES),
                NHA_FDB => routed = false,
                _ => {}
            }
        }
        match (message.kind, id) {
            (RTM_NEWNEXTHOP, Some(id)) if members > 1 && routed => {
                self.groups.insert(id, resilient);
            }
            (RTM_NEWNEXTHOP | RTM_DELNEXTHOP, Some(id)) => {
                self.groups.remove(&id);
            }
            _ => {}
        }
    }
}
