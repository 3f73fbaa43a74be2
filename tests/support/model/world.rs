// SPDX-License-Identifier: GPL-2.0-only
//! The model beside the real thing: packets are sent, and must fare as the model says.

use super::endpoints::{Endpoints, Shot};
use super::expect::{Daemon, Kind, Model, Phase};
use super::fast_path::FastPath;
use super::net::Net;
use super::op::{CONNS, Conn, Size, Way};
use super::wire::{Arrival, Wire};
use super::{router, tracked};
use crate::support::flow::Side;
use crate::support::lab::Lab;
use std::fmt;
use std::time::{Duration, Instant};

/// How long after a change of the network a packet may still fare as before it. The promise is
/// 100 ms, on a machine that does nothing else.
const SETTLING: Duration = Duration::from_secs(3);
/// Within this time a packet must become fast that may be.
const BECOMING_FAST: Duration = Duration::from_secs(20);
/// How long an expected frame is waited for; shorter when it is sent again anyway.
const DELIVERY: Duration = Duration::from_secs(2);
const DELIVERY_AGAIN: Duration = Duration::from_millis(100);
/// How long to look for a frame that must not come; if it comes later, the next look finds it.
const ABSENCE: Duration = Duration::from_millis(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(1);

/// What was counted, and the worst times.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub sequences: u64,
    pub packets: u64,
    pub fast: u64,
    pub operations: u64,
    /// From an operation's end to the map that agrees with conntrack.
    pub map: Duration,
    /// From a change of the network to the last packet that fared as before.
    pub network: Duration,
    /// From a packet on, until packets both ways were fast.
    pub becoming_fast: Duration,
    /// From the return of an interface on, until packets both ways were fast.
    pub coming_back: Duration,
    /// Until conntrack had forgotten what segments acknowledged.
    pub forgetting: Duration,
}

impl Seen {
    pub fn add(&mut self, other: &Self) {
        self.sequences += other.sequences;
        self.packets += other.packets;
        self.fast += other.fast;
        self.operations += other.operations;
        self.map = self.map.max(other.map);
        self.network = self.network.max(other.network);
        self.becoming_fast = self.becoming_fast.max(other.becoming_fast);
        self.coming_back = self.coming_back.max(other.coming_back);
        self.forgetting = self.forgetting.max(other.forgetting);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequences, operations, packets, fast, .. } = self;
        let Self { map, network, becoming_fast, coming_back, forgetting, .. } = self;
        write!(
            f,
            "{sequences} sequences, {operations} operations, {packets} packets, {fast} of them \
             fast; at most {map:?} until the map was right, {network:?} until packets followed the \
             network, {becoming_fast:?} until they were fast again, {coming_back:?} by an interface that \
             came back, {forgetting:?} until a RST counted"
        )
    }
}

/// How a packet fared.
enum Fate {
    Right {
        fast: bool,
    },
    /// As it would have before a change of the network, a moment ago.
    Outdated,
}

/// A lab, bpfw in it, and the model of both.
pub struct World {
    pub lab: Lab,
    pub hook: String,
    pub model: Model,
    /// The daemon that runs, or the one that ran last.
    pub fast_path: Option<FastPath>,
    pub seen: Seen,
    /// What was attached before the first daemon started.
    pub attached: String,
    wire: Wire,
    endpoints: Endpoints,
    /// The networks before each recent change.
    changes: Vec<(Instant, Net)>,
}

impl World {
    /// A fresh lab in which nothing has happened, without a daemon.
    pub fn new(hook: &str, test: &str) -> Self {
        let lab = router::lab(hook, test);
        let (wire, attached) = (Wire::new(&lab), router::attached(&lab));
        Self {
            lab,
            hook: hook.to_owned(),
            model: Model::new(),
            fast_path: None,
            seen: Seen::default(),
            attached,
            wire,
            endpoints: Endpoints::new(),
            changes: Vec::new(),
        }
    }

    /// The network changes, by these `ip` commands. Without a daemon, too, the kernel takes a
    /// moment. The queue of an interface that is set up drops packets until the kernel notices its
    /// carrier (`dev_activate`).
    pub fn change(&mut self, net: Net, commands: &str) {
        self.changes.push((Instant::now(), self.model.net));
        self.model.net = net;
        self.lab.router.ip(commands);
    }

    /// From here on nothing of what was before may be seen.
    pub fn forget_changes(&mut self) {
        self.changes.clear();
    }

    /// Sends a packet until it fares as it must; whether it took the fast path.
    pub fn send(&mut self, conn: Conn, way: Way, kind: Kind) -> Result<bool, String> {
        let from = self.model.net.ingress(conn.toward(way));
        let may_be_fast = self.model.may_be_fast(conn, kind);
        self.send_from(conn, way, kind, from, may_be_fast)
    }

    /// As `send`, from any side.
    pub fn send_from(
        &mut self,
        conn: Conn,
        way: Way,
        kind: Kind,
        from: Side,
        may_be_fast: bool,
    ) -> Result<bool, String> {
        let mut again = false;
        loop {
            let shot = self.endpoints.shot(conn, way, kind);
            match self.attempt(&shot, from, may_be_fast)? {
                Fate::Right { fast } => {
                    self.note(&shot, from, again);
                    self.seen.fast += u64::from(fast);
                    return Ok(fast);
                }
                Fate::Outdated => again = true,
            }
            // Not so many that they are all that the machine does.
            std::thread::sleep(PAUSE);
        }
    }

    fn attempt(&mut self, shot: &Shot, from: Side, may_be_fast: bool) -> Result<Fate, String> {
        if !self.model.net.is_up(from) {
            // The kernel refuses to send.
            return Ok(Fate::Right { fast: false });
        }
        let expected = self.expected(&self.model, shot, from);
        let last_change = self.last_change();
        let limit = match (&expected, last_change) {
            (None, _) => ABSENCE,
            (_, Some(_)) => DELIVERY_AGAIN,
            (_, None) => DELIVERY,
        };
        let before = self.forwarded();
        self.seen.packets += 1;
        self.wire.send(from, &shot.sent(&self.model.net, from));
        let arrival = self.wire.arrival(shot.id, limit)?;
        let fast = self.forwarded() > before;
        if (!fast || may_be_fast) && arrival == expected {
            return Ok(Fate::Right { fast });
        }
        let forbidden = fast && !self.model.may_be_fast(shot.conn, shot.kind);
        let excused = arrival.is_none() || self.is_outdated(shot, from, &arrival);
        if let (Some(changed), false, true) = (last_change, forbidden, excused) {
            self.seen.network = self.seen.network.max(changed.elapsed());
            self.wire.give_up(shot.id);
            return Ok(Fate::Outdated);
        }
        let path = if fast { "by the fast path" } else { "by the stack" };
        let may = if may_be_fast { "either" } else { "the stack only" };
        Err(format!(
            "{shot:?} from {}: {path}, where {may} was right\nexpected {expected:02x?}\ncame     {arrival:02x?}",
            from.device
        ))
    }

    fn expected(&self, model: &Model, shot: &Shot, from: Side) -> Option<Arrival> {
        let hop = model.delivered(shot.conn, shot.way, from, shot.ip_length())?;
        Some(Arrival { side: hop.side, id: shot.id, bytes: shot.forwarded(&hop) })
    }

    /// Whether it fared as in one of the networks that there were a moment ago.
    fn is_outdated(&self, shot: &Shot, from: Side, arrival: &Option<Arrival>) -> bool {
        self.changes.iter().chain([&(Instant::now(), self.model.net)]).any(|(_, net)| {
            let mut model = self.model;
            model.net = *net;
            self.expected(&model, shot, from) == *arrival
        })
    }

    /// When the network changed last, if it may still be seen.
    fn last_change(&mut self) -> Option<Instant> {
        self.changes.retain(|(changed, _)| changed.elapsed() < SETTLING);
        self.changes.last().map(|(changed, _)| *changed)
    }

    /// The model takes note of a packet that fared as it should.
    fn note(&mut self, shot: &Shot, from: Side, again: bool) {
        let delivered = self.model.delivered(shot.conn, shot.way, from, shot.ip_length()).is_some();
        if self.model.net.is_up(from) {
            self.model.arrived(shot.conn, shot.way, shot.kind, delivered);
        }
        if delivered {
            self.endpoints.arrived(shot);
        }
        if again {
            // Conntrack may have seen the earlier ones, or not.
            let entries = tracked::entries(&self.lab);
            let state = self.model.state_mut(shot.conn);
            state.phase = tracked::phase(tracked::entry_of(&entries, shot.conn), state.phase);
        }
    }

    fn forwarded(&self) -> u64 {
        self.fast_path.as_ref().map_or(0, FastPath::forwarded)
    }

    /// Data, or what a half-closed connection may still send.
    pub fn data(&mut self, conn: Conn, way: Way, size: Size) -> Result<bool, String> {
        let kind = match self.model.state(conn).phase {
            Phase::HalfClosed(closed) if closed == way => Kind::Ack,
            _ => Kind::Data(size),
        };
        self.send(conn, way, kind)
    }

    /// A TCP handshake, if one can be had; whether the connection is open.
    pub fn open(&mut self, conn: Conn) -> Result<bool, String> {
        let state = *self.model.state(conn);
        if !conn.is_tcp() || state.open {
            return Ok(true);
        }
        let fresh = matches!(state.phase, Phase::Unknown | Phase::Closed { reopens: true });
        if !fresh || !self.model.passes(conn) || state.forbidden {
            return Ok(false);
        }
        self.endpoints.restart(conn);
        self.send(conn, Way::Original, Kind::Syn)?;
        self.send(conn, Way::Reply, Kind::Syn)?;
        self.send(conn, Way::Original, Kind::Ack)?;
        self.model.state_mut(conn).open = true;
        Ok(true)
    }

    /// Packets both ways, until they are fast if they must be.
    pub fn exchange(&mut self, conn: Conn) -> Result<(), String> {
        if !self.open(conn)? {
            return Ok(());
        }
        let started = Instant::now();
        loop {
            let there = self.data(conn, Way::Original, Size::Small)?;
            let back = self.data(conn, Way::Reply, Size::Small)?;
            if !self.model.must_be_fast(conn) {
                return Ok(());
            }
            if there && back {
                self.seen.becoming_fast = self.seen.becoming_fast.max(started.elapsed());
                return Ok(());
            }
            if started.elapsed() > BECOMING_FAST {
                return Err(format!("{conn:?} does not become fast: {:?}", self.model.state(conn)));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// What must be true when an operation is over.
    pub fn check(&mut self) -> Result<(), String> {
        tracked::check(&self.model, &tracked::entries(&self.lab))?;
        if self.model.daemon != Daemon::Awake {
            return Ok(());
        }
        let started = Instant::now();
        if let Some(fast_path) = &mut self.fast_path {
            fast_path.settle(&self.lab, &self.model)?;
            fast_path.check_health()?;
        }
        self.seen.map = self.seen.map.max(started.elapsed());
        Ok(())
    }

    /// No frame came that nobody waited for.
    pub fn check_silence(&mut self) -> Result<(), String> {
        let unsent = self.endpoints.shot(CONNS[0], Way::Original, Kind::Ack).id;
        self.wire.arrival(unsent, ABSENCE).map(|_| ())
    }
}
