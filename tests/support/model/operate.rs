// SPDX-License-Identifier: GPL-2.0-only
//! Each operation, done to the real thing and to the model.

use super::expect::{Daemon, Kind, Phase};
use super::fast_path::{self, FastPath};
use super::net::{Net, OTHER_WAN_MAC, Toward};
use super::op::{CONNS, Conn, End, How, Link, Neighbor, Op, Route, Size, Way};
use super::world::{Seen, World};
use super::{router, tracked};
use crate::support::conntrack;
use crate::support::flow::{DMZ, WAN};
use crate::support::lab::show;
use crate::support::router::LIMIT;
use crate::support::wait::becomes_true;
use bpfw::conntrack::entry::Entry;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Longer than the heartbeat may be late.
const PAUSE: Duration = Duration::from_millis(1250);
const WAIT: Duration = Duration::from_millis(300);

impl How {
    /// Until it counts, and some more for a busy machine.
    fn time(self) -> Duration {
        Duration::from_millis(match self {
            Self::Rule => 250,
            Self::Element => 1250,
            Self::Silent => 2 * 1000 * fast_path::PERIOD + 250,
        })
    }
}

/// Runs the operations in a lab of their own, where all connections are fast. An error says what the model did not allow.
pub fn run(hook: &str, test: &str, ops: &[Op]) -> Result<Seen, String> {
    let mut world = World::new(hook, test);
    world.begin().map_err(|error| world.explain("the start", &error))?;
    for (number, op) in ops.iter().enumerate() {
        let done = world.apply(*op).and_then(|()| world.check());
        done.map_err(|error| world.explain(&format!("operation {number}, {op:?}"), &error))?;
    }
    world.finish().map_err(|error| world.explain("the end", &error))?;
    Ok(Seen { sequences: 1, operations: ops.len() as u64, ..world.seen })
}

impl World {
    fn begin(&mut self) -> Result<(), String> {
        self.apply(Op::Start)?;
        CONNS.into_iter().try_for_each(|conn| self.exchange(conn))?;
        self.check()
    }

    /// All must still work, and the daemon go without a trace.
    fn finish(&mut self) -> Result<(), String> {
        self.apply(Op::Resume)?;
        for conn in CONNS {
            self.exchange(conn)?;
            self.check()?;
        }
        self.apply(Op::Stop)?;
        self.check_silence()?;
        match router::invalid_packets(&self.lab) {
            0 => Ok(()),
            number => Err(format!("conntrack called {number} packets invalid")),
        }
    }

    fn apply(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Open(conn) => self.open(conn).map(|_| ()),
            Op::Send(conn, way, size) => self.send_one(conn, way, size),
            Op::Exchange(conn) => self.exchange(conn),
            Op::Bulk(conn) => self.bulk(conn),
            Op::Stray(conn) => self.stray(conn),
            Op::Close(conn, end) => self.close(conn, end),
            Op::Delete(_) | Op::Flush | Op::Mark(..) | Op::Forbid(..) | Op::Help(..) => {
                self.conntrack(op);
                Ok(())
            }
            Op::Ban(conn, way, how, yes) => self.ban(conn, way, how, yes),
            Op::Reload => {
                router::reload(&self.lab);
                self.probe()
            }
            Op::Start | Op::Stop | Op::Kill | Op::Pause | Op::Resume | Op::Flood => self.daemon(op),
            Op::Wait => {
                std::thread::sleep(WAIT);
                Ok(())
            }
            Op::Vanish(link) => self.vanish(link),
            Op::Policy(_) | Op::MarkRule(_) => {
                self.network(op);
                // Until the daemon knows, packets go on as before.
                self.check()?;
                self.probe()
            }
            _ => {
                self.network(op);
                self.probe()
            }
        }
    }

    fn send_one(&mut self, conn: Conn, way: Way, size: Size) -> Result<(), String> {
        if self.open(conn)? {
            self.data(conn, way, size)?;
        }
        Ok(())
    }

    /// Acknowledged often enough for a window that nobody enlarges.
    fn bulk(&mut self, conn: Conn) -> Result<(), String> {
        self.exchange(conn)?;
        if !self.model.must_be_fast(conn) {
            return Ok(());
        }
        for _ in 0..5 {
            for _ in 0..16 {
                self.data(conn, Way::Original, Size::Large)?;
            }
            self.data(conn, Way::Reply, Size::Small)?;
        }
        Ok(())
    }

    fn stray(&mut self, conn: Conn) -> Result<(), String> {
        let way = if conn.toward(Way::Reply) == Toward::Lan { Way::Reply } else { Way::Original };
        let other = if self.model.net.ingress(Toward::Lan) == WAN { DMZ } else { WAN };
        let is_alive = !conn.is_tcp() || self.model.state(conn).open;
        let is_closing = matches!(self.model.state(conn).phase, Phase::HalfClosed(_));
        if is_alive && !is_closing {
            self.send_from(conn, way, Kind::Data(Size::Small), other, false)?;
        }
        Ok(())
    }

    fn close(&mut self, conn: Conn, end: End) -> Result<(), String> {
        let state = self.model.state(conn);
        let half = match state.phase {
            Phase::HalfClosed(way) => Some(way),
            Phase::Established => None,
            _ => return Ok(()),
        };
        if !state.open || !self.model.passes(conn) {
            return Ok(());
        }
        match end {
            End::Rst(way) => {
                self.wait_until_a_rst_counts(conn)?;
                // What it acknowledges was sent, and is acknowledged itself.
                self.data(conn, way.other(), Size::Small)?;
                self.send(conn, way, Kind::Rst)?;
            }
            End::Fin(way) => {
                let way = half.map_or(way, Way::other);
                self.send(conn, way, Kind::Fin)?;
                self.send(conn, way.other(), Kind::Ack)?;
            }
        }
        Ok(())
    }

    /// After a segment that the stack has seen, the daemon makes conntrack forget what it
    /// acknowledged. A RST before that is a limit that README.md names.
    fn wait_until_a_rst_counts(&mut self, conn: Conn) -> Result<(), String> {
        if self.model.daemon != Daemon::Awake {
            return Ok(());
        }
        let started = Instant::now();
        let forgot = becomes_true(LIMIT, || {
            let entries = tracked::entries(&self.lab);
            let entry = tracked::entry_of(&entries, conn);
            !entry.is_some_and(Entry::knows_acknowledgement) || !self.is_offloaded(conn)
        });
        self.seen.forgetting = self.seen.forgetting.max(started.elapsed());
        if forgot { Ok(()) } else { Err("conntrack's memory of a segment is not cleared".into()) }
    }

    fn is_offloaded(&self, conn: Conn) -> bool {
        let fast_path = self.fast_path.as_ref();
        fast_path.is_some_and(|fast_path| fast_path.holds(conn.flow().tuple(false)))
    }

    fn conntrack(&mut self, op: Op) {
        match op {
            Op::Delete(conn) => self.delete(conn),
            Op::Flush => {
                self.lab.conntrack(&["-F"]);
                CONNS.into_iter().for_each(|conn| self.model.forget(conn));
            }
            Op::Mark(conn, mark) => {
                let state = self.model.state(conn);
                let ended = matches!(state.phase, Phase::HalfClosed(_) | Phase::Closed { .. });
                // The tool calls it a failure when nothing changes.
                if state.phase != Phase::Unknown && !ended && state.mark != mark {
                    let tuple = conn.flow().tuple(false);
                    conntrack::update(&self.lab, tuple, &format!("-m {mark}"));
                    self.model.state_mut(conn).mark = mark;
                }
            }
            Op::Forbid(conn, yes) if self.model.state(conn).forbidden != yes => {
                router::set_member(&self.lab, "forbidden", conn, yes);
                self.model.state_mut(conn).forbidden = yes;
                self.delete(conn);
            }
            Op::Help(conn, yes) if self.model.state(conn).helped != yes => {
                router::set_member(&self.lab, "helped", conn, yes);
                self.model.state_mut(conn).helped = yes;
                self.delete(conn);
            }
            _ => {}
        }
    }

    /// Soon no packet of this direction is forwarded any more.
    fn ban(&mut self, conn: Conn, way: Way, how: How, yes: bool) -> Result<(), String> {
        let is_banned = self.model.state(conn).banned[way as usize][how as usize];
        if is_banned == yes || !router::ban(&self.lab, conn, way, how, yes) {
            return Ok(());
        }
        self.model.state_mut(conn).banned[way as usize][how as usize] = yes;
        std::thread::sleep(how.time());
        self.check()?;
        for way in [way, way.other()] {
            if !conn.is_tcp() || self.model.state(conn).open {
                self.data(conn, way, Size::Small)?;
            }
        }
        Ok(())
    }

    fn delete(&mut self, conn: Conn) {
        router::delete(&self.lab, conn);
        self.model.forget(conn);
    }

    fn network(&mut self, op: Op) {
        let net = self.model.net;
        match op {
            Op::Route(route) => self.reroute(Net { route, ..net }),
            Op::SmallMtu(small_mtu) => self.reroute(Net { small_mtu, ..net }),
            Op::Neighbor(link, known) if net.up[link as usize] => {
                let mut net = net;
                net.neighbors[link as usize] = known;
                self.change(net, &router::neighbor(link, known));
                if known == Neighbor::Unknown {
                    router::forget_neighbor(&self.lab, link);
                }
            }
            Op::Up(link, up) if net.up[link as usize] != up => self.turn(link, up),
            Op::OtherMac(other_mac) => {
                let net = Net { other_mac, ..net };
                let mac = if other_mac { OTHER_WAN_MAC } else { WAN.router_mac };
                let command = format!("link set wan0 address {}\n", show(mac));
                // The kernel forgets the neighbors of an interface with another address.
                self.change(net, &(command + &router::neighbors(&net)));
            }
            Op::Address(yes) => {
                self.change(net, "");
                router::second_address(&self.lab, yes);
            }
            Op::Policy(yes) if self.model.ipsec != yes => {
                let selector = "src 192.0.2.2/32 dst 198.51.100.2/32 proto udp sport 40000 dir fwd";
                let (verb, action) = if yes { ("add", "action allow") } else { ("delete", "") };
                self.lab.router.ip(&format!("xfrm policy {verb} {selector} {action}\n"));
                self.model.ipsec = yes;
            }
            Op::MarkRule(yes) if self.model.mark_rule != yes => {
                router::mark_rule(&self.lab, yes);
                self.model.mark_rule = yes;
            }
            _ => {}
        }
    }

    /// Another route, where its interface is up.
    fn reroute(&mut self, net: Net) {
        let by_wan = matches!(net.route, Route::Direct | Route::Gateway);
        if !by_wan || net.is_up(WAN) {
            self.change(net, &router::route(&net));
        }
    }

    /// An interface that goes down takes its routes and neighbors with it.
    fn turn(&mut self, link: Link, up: bool) {
        let mut net = self.model.net;
        net.up[link as usize] = up;
        let device = router::side(link).device;
        if !up {
            return self.change(net, &format!("link set {device} down\n"));
        }
        let commands = format!("link set {device} up\n{}", restored(&net, link));
        self.change(net, &commands);
    }

    /// An interface comes back without anything but its name.
    fn vanish(&mut self, link: Link) -> Result<(), String> {
        let net = self.model.net;
        if !net.up[link as usize] {
            return Ok(());
        }
        self.change(net, "");
        router::vanish(&self.lab, link);
        self.change(net, &restored(&net, link));
        let back = Instant::now();
        for conn in [Conn::UdpSnat, Conn::UdpIpv6] {
            self.exchange(conn)?;
            if self.model.must_be_fast(conn) {
                self.seen.coming_back = self.seen.coming_back.max(back.elapsed());
            }
        }
        self.probe()
    }

    fn daemon(&mut self, op: Op) -> Result<(), String> {
        match (op, self.model.daemon) {
            (Op::Start, Daemon::Dead) => {
                self.fast_path = Some(FastPath::start(&self.lab, &self.hook));
                self.forget_changes();
                self.model.daemon = Daemon::Awake;
            }
            (Op::Stop, Daemon::Awake) => self.end(Signal::SIGTERM)?,
            (Op::Kill, Daemon::Awake | Daemon::Paused) => self.end(Signal::SIGKILL)?,
            (Op::Pause, Daemon::Awake) => {
                self.signal(Signal::SIGSTOP);
                std::thread::sleep(PAUSE);
                self.forget_changes();
                self.model.daemon = Daemon::Paused;
            }
            (Op::Resume, Daemon::Paused) => {
                self.signal(Signal::SIGCONT);
                self.model.daemon = Daemon::Awake;
                return self.revive();
            }
            (Op::Flood, Daemon::Paused) => router::flood(&self.lab),
            _ => {}
        }
        Ok(())
    }

    /// In the moment when the daemon goes on, nothing of what changed meanwhile may be forwarded.
    fn revive(&mut self) -> Result<(), String> {
        (0..5).try_for_each(|_| self.probe())
    }

    /// A packet of each connection, at once.
    fn probe(&mut self) -> Result<(), String> {
        for conn in CONNS {
            if !conn.is_tcp() || self.model.state(conn).open {
                self.data(conn, Way::Original, Size::Small)?;
            }
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(fast_path) = &self.fast_path {
            fast_path.signal(signal);
        }
    }

    fn end(&mut self, signal: Signal) -> Result<(), String> {
        self.forget_changes();
        self.model.daemon = Daemon::Dead;
        let fast_path = self.fast_path.as_mut().expect("a daemon that is not dead");
        fast_path.end(&self.lab, signal, &self.attached)
    }

    /// What helps to understand a failure.
    fn explain(&self, when: &str, error: &str) -> String {
        let entries = tracked::entries(&self.lab);
        let told = self.fast_path.as_ref().map(FastPath::lines).unwrap_or_default();
        let told = told[told.len().saturating_sub(40)..].join("\n");
        let counters = self.fast_path.as_ref().map(FastPath::verdicts).unwrap_or_default();
        format!("{when}: {error}\n{:#?}\n{entries:#?}\n{counters}\n{told}", self.model)
    }
}

/// The commands for what an interface that was down or away has lost.
fn restored(net: &Net, link: Link) -> String {
    let routes = if link == Link::Wan { router::route(net) } else { String::new() };
    router::neighbors(net) + &routes
}
