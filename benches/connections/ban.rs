// SPDX-License-Identifier: GPL-2.0-only
//! How long a connection goes on after a ban, and how long the ban slows down all others.
//!
//! The clock starts before the command does. The banned connection sends every half millisecond, and its last
//! packet is the last one that the fast path forwards: the network stack drops the others. All other
//! connections send once a second in both directions; each direction has to prove itself again.

use super::crowd::Member;
use super::sender::Sender;
use super::stage::Stage;
use super::traffic::Traffic;
use crate::packets::plan::{Connections, Transport};
use crate::report::percentile;
use serde::Serialize;
use std::ops::Range;
use std::time::{Duration, Instant};

/// The others send so often.
const PER_SECOND: u32 = 1;
/// The connection sends so long before its ban.
const BEFORE: Duration = Duration::from_millis(200);
/// Its last packet was so long ago.
const QUIET: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(20);

const TABLE: &str = "table inet bench_ban {
    set banned { type ipv4_addr . inet_service; }
    chain forward {
        type filter hook forward priority -10; policy accept;
        ip saddr . th sport @banned drop
    }
}";

pub const HEAD: [&str; 9] = [
    "ban",
    "by",
    "connections",
    "bans",
    "last packet, p50 ms",
    "p99 ms",
    "worst ms",
    "others fast, p50 ms",
    "worst ms",
];

/// How somebody is banned.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Means {
    /// A new rule.
    Rule,
    /// A new element of a set that a rule asks.
    Element,
}

/// Both.
pub const MEANS: [Means; 2] = [Means::Rule, Means::Element];

/// What bans have shown. Times from the command's start, in milliseconds; `None`: longer than 20 s.
#[derive(Serialize)]
pub struct Bans {
    transport: Transport,
    means: Means,
    connections: u32,
    bans: u32,
    last_p50: Option<f64>,
    last_p99: Option<f64>,
    last_worst: Option<f64>,
    /// Until the others were fast again.
    others_p50: Option<f64>,
    others_worst: Option<f64>,
}

impl Bans {
    /// A line of the table.
    pub fn line(&self) -> Vec<String> {
        let times =
            [self.last_p50, self.last_p99, self.last_worst, self.others_p50, self.others_worst];
        let mut cells = vec![format!("{:?}", self.transport), format!("{:?}", self.means)];
        cells.extend([self.connections, self.bans].map(|number| number.to_string()));
        cells.extend(times.map(|time| time.map_or("never".into(), |time| format!("{time:.0}"))));
        cells
    }
}

/// Bans these connections, one after the other. Others are those below `others`.
pub fn measure(
    stage: &Stage,
    others: Connections,
    means: Means,
    banned: Range<u32>,
) -> Result<Bans, String> {
    stage.lab.nft(TABLE);
    let bans = banned.len() as u32;
    let (mut last, mut fast) = (Vec::new(), Vec::new());
    for number in banned {
        let mut traffic = Traffic::new(others, PER_SECOND);
        traffic.until_fast(stage, Instant::now(), LIMIT)?;
        let ban = Ban {
            stage,
            means,
            member: Member { family: others.family, transport: others.transport, number },
        };
        let times = ban.run(&mut traffic)?;
        last.push(times[0].unwrap_or(Duration::MAX));
        fast.push(times[1].unwrap_or(Duration::MAX));
    }
    stage.lab.nft("delete table inet bench_ban");
    last.sort();
    fast.sort();
    Ok(Bans {
        transport: others.transport,
        means,
        connections: others.number,
        bans,
        last_p50: percentile(&last, 50),
        last_p99: percentile(&last, 99),
        last_worst: percentile(&last, 100),
        others_p50: percentile(&fast, 50),
        others_worst: percentile(&fast, 100),
    })
}

/// A connection that is to be banned.
struct Ban<'a> {
    stage: &'a Stage,
    means: Means,
    member: Member,
}

impl Ban<'_> {
    /// Says when its last packet left, and when all others were fast again.
    fn run(&self, traffic: &mut Traffic) -> Result<[Option<Duration>; 2], String> {
        let Self { stage, member, .. } = *self;
        let sender = Sender::start(stage, member);
        traffic.go_on_for(stage, BEFORE)?;
        if sender.last().is_none_or(|last| last.elapsed() > BEFORE / 2) {
            return Err(format!("connection {} was not fast before its ban", member.number));
        }
        let started = Instant::now();
        let mut command = stage.nft(&self.words());
        let since = |last: Instant| last.saturating_duration_since(started);
        while command.exited().is_none() || sender.last().is_some_and(|at| at.elapsed() < QUIET) {
            traffic.go_on_or_wait(stage)?;
            if started.elapsed() > LIMIT {
                return Ok([None, None]);
            }
        }
        if !command.wait_exit(LIMIT).success() {
            return Err("nft failed".into());
        }
        let others = traffic.until_fast(stage, started, LIMIT)?;
        Ok([sender.last().map(since), others])
    }

    /// What nft is told.
    fn words(&self) -> String {
        let source = self.member.original().source;
        let (address, port) = (source.ip(), source.port());
        match self.means {
            Means::Rule => {
                format!(
                    "insert rule inet bench_ban forward ip saddr {address} th sport {port} drop"
                )
            }
            Means::Element => format!("add element inet bench_ban banned {{ {address} . {port} }}"),
        }
    }
}
