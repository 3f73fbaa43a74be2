// SPDX-License-Identifier: GPL-2.0-only
use netlink_packet_core::{DefaultNla, Emitable, NLM_F_CREATE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteRealm,
};

use super::*;
use crate::netlink::route_message::next_hops;
use std::net::{Ipv4Addr, Ipv6Addr};

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

struct Route(RouteMessage);

impl Route {
    fn to(last: u8) -> Self {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.destination_prefix_length = 32;
        let destination = RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, last));
        route.attributes.push(RouteAttribute::Destination(destination));
        Self(route).with(RouteAttribute::Table(254))
    }

    /// The same destination number in IPv6.
    fn to6(last: u16) -> Self {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet6;
        route.header.destination_prefix_length = 48;
        let destination = RouteAddress::Inet6(Ipv6Addr::new(0x2001, 0xdb8, last, 0, 0, 0, 0, 0));
        route.attributes.push(RouteAttribute::Destination(destination));
        Self(route).with(RouteAttribute::Table(254))
    }

    /// Over several next hops, by their interfaces.
    fn over(self, interfaces: &[u32]) -> Self {
        let hop = |ifindex: &u32| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = *ifindex;
            hop
        };
        self.with(RouteAttribute::MultiPath(interfaces.iter().map(hop).collect()))
    }

    /// As struct rta_cacheinfo tells it, in ticks.
    fn expires(self, ticks: i32) -> Self {
        let mut info = [0; 32];
        info[8..12].copy_from_slice(&ticks.to_ne_bytes());
        self.with(RouteAttribute::Other(DefaultNla::new(12, info.to_vec())))
    }

    fn with(mut self, attribute: RouteAttribute) -> Self {
        self.0.attributes.push(attribute);
        self
    }

    fn dev(self, ifindex: u32) -> Self {
        self.with(RouteAttribute::Oif(ifindex))
    }

    fn mtu(self, mtu: u32) -> Self {
        self.with(RouteAttribute::Metrics(vec![RouteMetric::Lock(4), RouteMetric::Mtu(mtu)]))
    }

    fn via(self, last: u8) -> Self {
        self.with(RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 9, 9, last))))
    }

    fn send(&self, mtus: &mut RouteFacts, kind: u16, flags: u16) -> bool {
        let mut payload = vec![0; self.0.buffer_len()];
        self.0.emit(&mut payload);
        let route = decode(&payload).unwrap();
        mtus.change(&Message { kind, flags, payload: &payload, ..Message::default() }, route)
    }

    fn add(&self, mtus: &mut RouteFacts, flags: u16) -> bool {
        self.send(mtus, RTM_NEWROUTE, flags)
    }

    fn delete(&self, mtus: &mut RouteFacts) -> bool {
        self.send(mtus, RTM_DELROUTE, 0)
    }
}

fn is_empty(mtus: &RouteFacts) -> bool {
    let counts = mtus.by_tos + mtus.with_realms + mtus.multipath;
    mtus.routes.is_empty() && mtus.users.is_empty() && counts == 0
}

#[test]
fn the_smallest_mtu_of_an_interface_counts() {
    let mut mtus = RouteFacts::default();
    assert!(!Route::to(1).dev(2).add(&mut mtus, NEW));
    assert!(is_empty(&mtus), "a route without the metric takes no memory");
    assert!(Route::to(2).dev(2).mtu(1400).add(&mut mtus, NEW));
    assert!(Route::to(3).dev(2).mtu(1280).add(&mut mtus, NEW));
    assert!(!Route::to(4).dev(2).mtu(1280).add(&mut mtus, NEW));
    assert_eq!((mtus.smallest_mtu(2), mtus.smallest_mtu(3)), (Some(1280), None));
    assert!(!Route::to(3).dev(2).mtu(1280).delete(&mut mtus));
    assert!(Route::to(4).dev(2).mtu(1280).delete(&mut mtus));
    assert_eq!(mtus.smallest_mtu(2), Some(1400));
    assert!(Route::to(2).dev(2).mtu(1400).delete(&mut mtus));
    assert!(is_empty(&mtus));
}

#[test]
fn a_replaced_route_loses_its_metric() {
    let mut mtus = RouteFacts::default();
    Route::to(1).dev(2).mtu(1400).add(&mut mtus, NEW);
    assert!(Route::to(1).dev(3).mtu(1300).add(&mut mtus, NLM_F_REPLACE));
    assert_eq!((mtus.smallest_mtu(2), mtus.smallest_mtu(3)), (None, Some(1300)));
    assert!(Route::to(1).dev(3).add(&mut mtus, NLM_F_REPLACE));
    assert!(is_empty(&mtus));
}

#[test]
fn routes_with_one_key_are_told_apart() {
    let mut mtus = RouteFacts::default();
    Route::to(1).dev(2).add(&mut mtus, NEW);
    Route::to(1).dev(2).via(1).mtu(1300).add(&mut mtus, NLM_F_CREATE | NLM_F_APPEND);
    Route::to(1).dev(2).via(2).mtu(1300).add(&mut mtus, NLM_F_CREATE | NLM_F_APPEND);
    Route::to(1).dev(2).mtu(1400).add(&mut mtus, NLM_F_REPLACE);
    assert!(!Route::to(1).dev(2).via(1).mtu(1300).delete(&mut mtus));
    assert_eq!(mtus.smallest_mtu(2), Some(1300));
    assert!(Route::to(1).dev(2).via(2).mtu(1300).delete(&mut mtus));
    assert_eq!(mtus.smallest_mtu(2), Some(1400));
    assert!(!Route::to(1).dev(2).via(3).add(&mut mtus, NLM_F_CREATE));
    assert_eq!(mtus.smallest_mtu(2), Some(1400), "a prepended route hides nothing");
    Route::to(1).dev(2).add(&mut mtus, NEW);
    assert!(is_empty(&mtus), "a route that is alone leaves no others");
}

#[test]
fn every_path_of_a_multipath_route_has_the_mtu() {
    let mut mtus = RouteFacts::default();
    let hops = [4, 5].map(|ifindex| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = ifindex;
        let gateway = RouteAddress::Inet(Ipv4Addr::new(10, 9, 9, 9));
        hop.attributes.push(RouteAttribute::Gateway(gateway));
        hop
    });
    Route::to(1).with(RouteAttribute::MultiPath(hops.to_vec())).mtu(1350).add(&mut mtus, NEW);
    assert_eq!([4, 5, 6].map(|index| mtus.smallest_mtu(index)), [Some(1350), Some(1350), None]);
    assert!(!mtus.interface_down(4), "the other path may live on");
    assert_eq!(mtus.smallest_mtu(4), Some(1350));
}

#[test]
fn a_route_by_nexthop_object_counts_everywhere() {
    let mut mtus = RouteFacts::default();
    Route::to(1).with(RouteAttribute::NhId(9)).mtu(1350).add(&mut mtus, NEW);
    Route::to(2).dev(3).mtu(1300).add(&mut mtus, NEW);
    assert_eq!((mtus.smallest_mtu(1), mtus.smallest_mtu(3)), (Some(1350), Some(1300)));
}

#[test]
fn routes_go_with_their_interface() {
    let mut mtus = RouteFacts::default();
    Route::to(1).dev(2).mtu(1400).add(&mut mtus, NEW);
    Route::to(2).dev(3).mtu(1400).add(&mut mtus, NEW);
    assert!(mtus.interface_down(2));
    assert!(!mtus.interface_down(2));
    assert_eq!((mtus.smallest_mtu(2), mtus.smallest_mtu(3)), (None, Some(1400)));
}

#[test]
fn tables_and_priorities_are_different_routes() {
    let mut mtus = RouteFacts::default();
    Route::to(1).dev(2).mtu(1400).add(&mut mtus, NEW);
    Route::to(1).dev(2).with(RouteAttribute::Priority(5)).add(&mut mtus, NLM_F_REPLACE);
    Route::to(1).dev(2).with(RouteAttribute::Table(7)).add(&mut mtus, NLM_F_REPLACE);
    assert_eq!(mtus.smallest_mtu(2), Some(1400));
}

/// Two routes by TOS of one key, of which the first is replaced and then goes: the other one counts.
#[test]
fn hazard_58_routes_by_tos_are_counted() {
    let by_tos = |last| {
        let mut route = Route::to(1).dev(2).via(last);
        route.0.header.tos = 0x10;
        route
    };
    let mut facts = RouteFacts::default();
    Route::to(1).dev(2).add(&mut facts, NEW);
    assert!(!facts.any_by_tos());
    assert!(!by_tos(1).add(&mut facts, NEW), "no MTU changed");
    by_tos(2).add(&mut facts, NLM_F_CREATE | NLM_F_APPEND);
    by_tos(3).add(&mut facts, NLM_F_REPLACE);
    by_tos(3).delete(&mut facts);
    assert!(facts.any_by_tos());
    by_tos(2).delete(&mut facts);
    assert!(is_empty(&facts));
    by_tos(1).add(&mut facts, NEW);
    facts.interface_down(2);
    assert!(is_empty(&facts), "the kernel drops it without an event");
}

#[test]
fn hazard_58_realms_of_routes_and_of_their_next_hops_are_counted() {
    let realm = || RouteAttribute::Realm(RouteRealm { source: 0, destination: 7 });
    let mut facts = RouteFacts::default();
    Route::to(1).dev(2).with(realm()).add(&mut facts, NEW);
    assert!(facts.any_with_realm() && !facts.any_multipath());
    Route::to(1).dev(2).add(&mut facts, NLM_F_REPLACE);
    assert!(is_empty(&facts));
    let mut hop = RouteNextHop::default();
    hop.attributes.push(realm());
    let both = vec![RouteNextHop::default(), hop];
    Route::to(1).with(RouteAttribute::MultiPath(both)).add(&mut facts, NEW);
    assert!(facts.any_with_realm() && facts.any_multipath());
}

#[test]
fn cut_next_hops_end_the_list() {
    let whole = [&8u16.to_ne_bytes()[..], &[0, 0], &4u32.to_ne_bytes()].concat();
    assert_eq!(next_hops(&whole), [(Some(4), vec![])]);
    for length in 0..8 {
        assert_eq!(next_hops(&whole[..length]), []);
    }
    assert_eq!(next_hops(&[0; 16]), [], "a length of 0 does not loop");
}

/// An event says that a route has gained a next hop by all of them, and that it has lost one by that one.
#[test]
fn hazard_44_routes_of_ipv6_are_read_again_when_a_next_hop_goes() {
    let now = Instant::now();
    let mut facts = RouteFacts::default();
    Route::to6(1).dev(2).add(&mut facts, NEW);
    assert!(!facts.any_multipath() && !facts.must_be_read(now));
    Route::to6(1).over(&[2, 3]).add(&mut facts, NLM_F_CREATE | NLM_F_APPEND);
    assert!(facts.any_multipath() && !facts.must_be_read(now));
    Route::to6(2).dev(3).delete(&mut facts);
    assert!(!facts.must_be_read(now), "another route");
    Route::to6(1).dev(3).delete(&mut facts);
    assert!(facts.any_multipath() && facts.must_be_read(now), "nobody knows until then");
    facts.was_read();
    facts.interface_down(4);
    assert!(!facts.must_be_read(now));
    facts.interface_down(3);
    assert!(facts.must_be_read(now), "the other next hop may be left");
    facts.was_read();
    Route::to6(1).over(&[2, 3]).delete(&mut facts);
    assert!(is_empty(&facts));
}

#[test]
fn hazard_44_a_route_for_some_sources_is_another_route() {
    let from = |last| {
        let mut route = Route::to6(1);
        route.0.header.source_prefix_length = 64;
        let source = RouteAddress::Inet6(Ipv6Addr::new(0x2001, 0xdb8, 9, last, 0, 0, 0, 0));
        route.with(RouteAttribute::Source(source))
    };
    let mut facts = RouteFacts::default();
    from(1).over(&[2, 3]).add(&mut facts, NEW);
    from(2).dev(3).add(&mut facts, NEW);
    Route::to6(1).dev(3).add(&mut facts, NEW);
    assert!(facts.any_multipath() && !facts.must_be_read(Instant::now()));
}

#[test]
fn hazard_43_the_first_expiry_counts() {
    let mut facts = RouteFacts::default();
    let is_due = |facts: &RouteFacts, seconds| {
        facts.must_be_read(Instant::now() + Duration::from_secs(seconds))
    };
    Route::to6(1).dev(2).expires(600).add(&mut facts, NEW);
    assert!(!is_due(&facts, 5) && is_due(&facts, 7));
    Route::to6(2).dev(2).expires(300).add(&mut facts, NEW);
    Route::to6(3).dev(2).expires(9000).add(&mut facts, NEW);
    assert!(!is_due(&facts, 2) && is_due(&facts, 4));
    let mut facts = RouteFacts::default();
    for over_already in [-400, 0] {
        Route::to6(1).dev(2).expires(over_already).add(&mut facts, NEW);
    }
    Route::to6(1).dev(2).expires(300).delete(&mut facts);
    assert!(!is_due(&facts, 1_000_000) && is_empty(&facts));
}

#[test]
fn hazard_48_the_metric_of_a_route_of_ipv6_counts() {
    let (mut facts, now) = (RouteFacts::default(), Instant::now());
    assert!(Route::to6(1).dev(2).mtu(1280).add(&mut facts, NEW));
    assert_eq!((facts.smallest_mtu(2), facts.smallest_mtu(3)), (Some(1280), None));
    assert!(!facts.must_be_read(now));
    facts.doubt_mtus();
    assert!(facts.must_be_read(now), "the interface has another MTU, and the route perhaps, too");
    assert!(Route::to6(1).dev(2).mtu(1280).delete(&mut facts));
    assert!(is_empty(&facts));
    facts.was_read();
    facts.doubt_mtus();
    assert!(!facts.must_be_read(now), "no route has the metric");
}

/// A dump has them beside the routes.
#[test]
fn what_the_kernel_has_learned_of_destinations_is_no_route_of_ipv6() {
    let mut route = Route::to6(1).over(&[2, 3]);
    route.0.header.flags = RouteFlags::Cloned;
    let mut payload = vec![0; route.0.buffer_len()];
    route.0.emit(&mut payload);
    assert!(decode(&payload).is_none());
    assert!((0..payload.len()).all(|length| decode(&payload[..length]).is_none()));
}
