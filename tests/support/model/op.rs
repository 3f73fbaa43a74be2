// SPDX-License-Identifier: GPL-2.0-only
//! What can happen. An operation that makes no sense at the moment does nothing. So any sequence of
//! them can run, and any part of a sequence.

use proptest::prelude::*;

/// The connections: few, so that operations meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conn {
    /// From the LAN, behind the router's address and another port.
    UdpSnat,
    /// The same with TCP.
    TcpSnat,
    /// From the WAN to a port of the router, which leads to the client.
    UdpDnat,
    /// From the LAN, as it is.
    TcpPlain,
    /// The same over IPv6.
    UdpIpv6,
    TcpIpv6,
}

pub const CONNS: [Conn; 6] =
    [Conn::UdpSnat, Conn::TcpSnat, Conn::UdpDnat, Conn::TcpPlain, Conn::UdpIpv6, Conn::TcpIpv6];

/// A packet's direction, as conntrack calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Original,
    Reply,
}

impl Way {
    pub fn other(self) -> Self {
        if self == Self::Original { Self::Reply } else { Self::Original }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Small,
    /// Fits the usual MTU and not the small one; it must not be split.
    Large,
}

/// How a TCP connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN and its acknowledgement; the second such operation closes the other half.
    Fin(Way),
    Rst(Way),
}

/// Where packets for the server go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Direct,
    /// Out of the same interface, to another MAC address.
    Gateway,
    /// Out of another interface.
    Second,
    Blackhole,
    Prohibit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Lan,
    Wan,
}

/// What the router knows of the host at a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbor {
    /// Nothing: ARP will find its true MAC address.
    Unknown,
    True,
    /// Another MAC address.
    Moved,
}

/// What drops packets, and when that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A new rule: at once.
    Rule,
    /// A new element of a set: within a second.
    Element,
    /// A rule of iptables-legacy, of which the kernel tells nobody: within two periods.
    Silent,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A TCP handshake.
    Open(Conn),
    /// One packet.
    Send(Conn, Way, Size),
    /// Packets both ways; those that may take the fast path must come to take it.
    Exchange(Conn),
    /// More than a TCP window.
    Bulk(Conn),
    /// A packet from the WAN by the interface that the answers do not leave by.
    Stray(Conn),
    Close(Conn, End),
    /// `conntrack -D`
    Delete(Conn),
    /// `conntrack -F`
    Flush,
    /// Sets the connection's mark; 0x10 is one that bpfw is told not to offload.
    Mark(Conn, u32),
    /// A rule that drops it, or no longer, and its entry deleted.
    Forbid(Conn, bool),
    /// The packets of one direction are dropped, or no longer; its entry stays.
    Ban(Conn, Way, How, bool),
    /// Rules are loaded again, without any change.
    Reload,
    /// A rule that gives it a helper, or no longer, and its entry deleted.
    Help(Conn, bool),
    Route(Route),
    /// A route MTU that is small.
    SmallMtu(bool),
    Neighbor(Link, Neighbor),
    Up(Link, bool),
    /// The interface leaves the router's namespace, and comes back at once.
    Vanish(Link),
    /// The WAN interface has another MAC address.
    OtherMac(bool),
    /// One more address at the WAN interface.
    Address(bool),
    /// An IPsec policy that selects `UdpSnat`, and lets it pass in clear.
    Policy(bool),
    /// A routing rule by mark, which concerns none of ours.
    MarkRule(bool),
    /// SIGTERM.
    Stop,
    /// SIGKILL.
    Kill,
    Start,
    /// SIGSTOP, for longer than the heartbeat may be late.
    Pause,
    /// SIGCONT.
    Resume,
    /// While it is paused: more events than its queue can hold.
    Flood,
    Wait,
}

fn conn() -> impl Strategy<Value = Conn> {
    proptest::sample::select(&CONNS[..])
}

fn tcp() -> impl Strategy<Value = Conn> {
    prop_oneof![Just(Conn::TcpSnat), Just(Conn::TcpPlain), Just(Conn::TcpIpv6)]
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![Just(Way::Original), Just(Way::Reply)]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![2 => way().prop_map(End::Fin), 1 => way().prop_map(End::Rst)]
}

fn link() -> impl Strategy<Value = Link> {
    prop_oneof![Just(Link::Lan), Just(Link::Wan)]
}

fn route() -> impl Strategy<Value = Route> {
    use Route::{Blackhole, Direct, Gateway, Prohibit, Second};
    proptest::sample::select(
        &[Direct, Direct, Gateway, Gateway, Second, Second, Blackhole, Prohibit][..],
    )
}

fn neighbor() -> impl Strategy<Value = Neighbor> {
    prop_oneof![Just(Neighbor::Unknown), Just(Neighbor::True), Just(Neighbor::Moved)]
}

fn traffic() -> impl Strategy<Value = Op> {
    let size = prop_oneof![3 => Just(Size::Small), 1 => Just(Size::Large)];
    prop_oneof![
        6 => conn().prop_map(Op::Exchange),
        4 => (conn(), way(), size).prop_map(|(conn, way, size)| Op::Send(conn, way, size)),
        2 => tcp().prop_map(Op::Open),
        2 => tcp().prop_map(Op::Bulk),
        1 => conn().prop_map(Op::Stray),
        3 => (tcp(), end()).prop_map(|(conn, end)| Op::Close(conn, end)),
    ]
}

/// More often back to what is usual.
fn seldom() -> impl Strategy<Value = bool> {
    proptest::bool::weighted(0.35)
}

fn ban() -> impl Strategy<Value = Op> {
    let how = prop_oneof![4 => Just(How::Rule), 1 => Just(How::Element), 1 => Just(How::Silent)];
    (conn(), way(), how, seldom()).prop_map(|(conn, way, how, yes)| Op::Ban(conn, way, how, yes))
}

fn policy() -> impl Strategy<Value = Op> {
    let mark = proptest::sample::select(&[0_u32, 0, 0x01, 0x10, 0x11][..]);
    prop_oneof![
        4 => conn().prop_map(Op::Delete),
        1 => Just(Op::Flush),
        3 => (conn(), mark).prop_map(|(conn, mark)| Op::Mark(conn, mark)),
        2 => (conn(), seldom()).prop_map(|(conn, yes)| Op::Forbid(conn, yes)),
        4 => ban(),
        1 => Just(Op::Reload),
        2 => (conn(), seldom()).prop_map(|(conn, yes)| Op::Help(conn, yes)),
        2 => seldom().prop_map(Op::Policy),
        2 => seldom().prop_map(Op::MarkRule),
    ]
}

fn topology() -> impl Strategy<Value = Op> {
    let up = proptest::bool::weighted(0.65);
    prop_oneof![
        6 => route().prop_map(Op::Route),
        2 => any::<bool>().prop_map(Op::SmallMtu),
        3 => (link(), neighbor()).prop_map(|(link, neighbor)| Op::Neighbor(link, neighbor)),
        3 => (link(), up).prop_map(|(link, up)| Op::Up(link, up)),
        2 => link().prop_map(Op::Vanish),
        1 => any::<bool>().prop_map(Op::OtherMac),
        1 => any::<bool>().prop_map(Op::Address),
    ]
}

fn daemon() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::Stop),
        1 => Just(Op::Kill),
        5 => Just(Op::Start),
        2 => Just(Op::Pause),
        3 => Just(Op::Resume),
        2 => Just(Op::Flood),
        1 => Just(Op::Wait),
    ]
}

/// Sequences of operations.
pub fn sequences() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![8 => traffic(), 5 => policy(), 5 => topology(), 3 => daemon()];
    proptest::collection::vec(op, 1..50)
}
