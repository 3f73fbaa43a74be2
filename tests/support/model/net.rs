// SPDX-License-Identifier: GPL-2.0-only
//! The model's network: which way a packet takes through the router at the moment.

use super::op::{Link, Neighbor, Route};
use crate::support::flow::{DMZ, LAN, Side, WAN};
use crate::support::packet::Mac;

pub const MOVED_MAC: Mac = [2, 0, 0, 0, 0xbb, 1];
pub const GATEWAY_MAC: Mac = [2, 0, 0, 0, 0xbb, 2];
pub const OTHER_WAN_MAC: Mac = [2, 0, 0, 0, 0xbb, 3];
/// The largest packet while the route's MTU is small.
pub const SMALL_MTU: usize = 1280;

/// What the operations change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    pub route: Route,
    pub small_mtu: bool,
    /// Of LAN and WAN, as `Link` numbers them.
    pub neighbors: [Neighbor; 2],
    pub up: [bool; 2],
    pub other_mac: bool,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            route: Route::Direct,
            small_mtu: false,
            neighbors: [Neighbor::True; 2],
            up: [true; 2],
            other_mac: false,
        }
    }
}

/// The two sides of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    Lan,
    Wan,
}

/// How a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub side: Side,
    /// Source and destination.
    pub macs: (Mac, Mac),
}

impl Net {
    /// How packets leave, if routing has an answer and the interface is up.
    pub fn hop(&self, toward: Toward) -> Option<Hop> {
        let side = match (toward, self.route) {
            (Toward::Lan, _) => LAN,
            (Toward::Wan, Route::Direct | Route::Gateway) => WAN,
            (Toward::Wan, Route::Second) => DMZ,
            (Toward::Wan, Route::Blackhole | Route::Prohibit) => return None,
        };
        let macs = (self.router_mac(side), self.next_mac(side));
        self.is_up(side).then_some(Hop { side, macs })
    }

    /// By which interface the other end's packets come in.
    pub fn ingress(&self, toward: Toward) -> Side {
        match (toward, self.route) {
            (Toward::Wan, _) => LAN,
            (Toward::Lan, Route::Second) => DMZ,
            (Toward::Lan, _) => WAN,
        }
    }

    pub fn is_up(&self, side: Side) -> bool {
        match side {
            LAN => self.up[Link::Lan as usize],
            WAN => self.up[Link::Wan as usize],
            _ => true,
        }
    }

    pub fn router_mac(&self, side: Side) -> Mac {
        if side == WAN && self.other_mac { OTHER_WAN_MAC } else { side.router_mac }
    }

    /// The largest packet that fits.
    pub fn largest(&self, toward: Toward) -> usize {
        if toward == Toward::Wan && self.small_mtu { SMALL_MTU } else { 1500 }
    }

    fn next_mac(&self, side: Side) -> Mac {
        let neighbor = match side {
            LAN => self.neighbors[Link::Lan as usize],
            WAN if self.route == Route::Gateway => return GATEWAY_MAC,
            WAN => self.neighbors[Link::Wan as usize],
            _ => Neighbor::True,
        };
        if neighbor == Neighbor::Moved { MOVED_MAC } else { side.host_mac }
    }
}
