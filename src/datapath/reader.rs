// SPDX-License-Identifier: GPL-2.0-only
//! A running daemon's datapath as another process reads it: whatever is long, without a question to the
//! daemon.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, MapHandle};

use super::cells::{self, cells_of};
use super::map_names;
use super::sys::Mapped;
use super::translations;
use super::typed_map::{Cursor, TypedMap};
use crate::abi::{
    self, Pod, bpfw_cell, bpfw_conn, bpfw_egress, bpfw_generation, bpfw_hop, bpfw_link,
    bpfw_link_key, bpfw_refused, bpfw_rest, bpfw_settings, bpfw_translation, bpfw_tuple,
};
use crate::clock::{Hz, Jiffies};
use crate::error::{Error, Result};

/// What 15 characters, all that the kernel keeps, leave of the name of section .rodata.settings.
const SETTINGS: &str = ".rodata.setting";
const RIGHTS: &str = "run as root; 'bpfw status' needs the group bpfw only";
/// A walk through a map of the kernel's ends long before.
const LONG: Duration = Duration::from_secs(3600);

/// The maps of a daemon.
pub struct Reader {
    settings: bpfw_settings,
    pub(super) cells: Mapped<bpfw_cell>,
    pub(super) rests: Mapped<bpfw_rest>,
    conn_map: TypedMap<u64, bpfw_conn>,
    translation_map: TypedMap<u64, bpfw_translation>,
    refused_map: TypedMap<u64, bpfw_refused>,
    link_map: TypedMap<bpfw_link_key, bpfw_link>,
    egress_map: TypedMap<u32, bpfw_egress>,
    hop_index: TypedMap<bpfw_hop, u32>,
    generation: TypedMap<u32, bpfw_generation>,
    beat: TypedMap<u32, u64>,
}

/// The datapath's time and generation.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    generation: bpfw_generation,
    /// The last heartbeat: now, or an interval ago.
    now: Jiffies,
    settings: bpfw_settings,
    hz: Hz,
}

impl Reader {
    /// The maps of the daemon with this process.
    pub fn of(pid: u32) -> Result<Self> {
        let maps = maps_of(pid)?;
        let settings = open::<u32, bpfw_settings>(&maps, SETTINGS)?.get(&0)?.unwrap_or_default();
        check(&settings, pid)?;
        Ok(Self {
            settings,
            cells: open::<u32, _>(&maps, map_names::CONN_CELLS)?.map_all()?,
            rests: open::<u32, _>(&maps, map_names::CONN_RESTS)?.map_all()?,
            conn_map: open(&maps, map_names::CONN_MAP)?,
            translation_map: open(&maps, map_names::TRANSLATION_MAP)?,
            refused_map: open(&maps, map_names::REFUSED_MAP)?,
            link_map: open(&maps, map_names::LINK_MAP)?,
            egress_map: open(&maps, map_names::EGRESS_MAP)?,
            hop_index: open(&maps, map_names::HOP_INDEX)?,
            generation: open(&maps, map_names::TOPOLOGY)?,
            beat: open(&maps, map_names::BEAT)?,
        })
    }

    /// Hands out each entry, until `each` has seen enough. Those that come or go meanwhile may be missed.
    pub fn entries(&self, mut each: impl FnMut(bpfw_conn) -> Result<bool>) -> Result<()> {
        for number in 0..self.cells.len() {
            let cell = self.cells.get(number).filter(|cell| cell.head.protocol != 0);
            let Some((cell, rest)) = cell.zip(self.rests.get(number)) else { continue };
            if !each(bpfw_conn { cell, rest })? {
                return Ok(());
            }
        }
        let mut goes_on = Ok(true);
        self.others(|_, conn| {
            if let Ok(true) = goes_on {
                goes_on = each(conn);
            }
        })?;
        goes_on.map(drop)
    }

    /// Hands out each entry that is in no cell, with its key.
    pub(super) fn others(&self, each: impl FnMut(u64, bpfw_conn)) -> Result<()> {
        self.conn_map.walk(&mut Cursor::default(), Instant::now() + LONG, each).map(drop)
    }

    /// The entry with this tuple.
    pub fn entry(&self, tuple: &bpfw_tuple) -> Result<Option<bpfw_conn>> {
        for number in cells_of(tuple, &self.settings) {
            let cell = self.cells.get(number as usize);
            if let Some(cell) = cell.filter(|cell| cell.tuple() == *tuple) {
                let rest = self.rests.get(number as usize).unwrap_or_default();
                return Ok(Some(bpfw_conn { cell, rest }));
            }
        }
        let conn = self.conn_map.get(&cells::hash(tuple, &self.settings))?;
        Ok(conn.filter(|conn| conn.tuple() == *tuple))
    }

    /// The tuple of an entry's other direction.
    pub fn reverse(&self, conn: &bpfw_conn) -> Result<bpfw_tuple> {
        translations::reverse(&self.translation_map, conn, &self.settings)
    }

    /// The daemon's last word about a connection that it left to the stack, if that is kept.
    pub fn refused(&self, tuple: &bpfw_tuple) -> Result<Option<bpfw_refused>> {
        self.refused_map.get(&cells::hash(tuple, &self.settings))
    }

    /// All next hops by slot.
    pub fn hops(&self) -> Result<HashMap<u32, bpfw_hop>> {
        let hops = self.hop_index.entries()?;
        Ok(hops.into_iter().map(|(hop, slot)| (slot, hop)).collect())
    }

    /// The L3 interfaces by where their frames come in.
    pub fn links(&self) -> Result<Vec<(bpfw_link_key, bpfw_link)>> {
        self.link_map.entries()
    }

    /// How packets leave by this L3 interface, if they can.
    pub fn egress(&self, ifindex: u32) -> Result<Option<bpfw_egress>> {
        self.egress_map.get(&ifindex)
    }

    /// The datapath's time and generation.
    pub fn moment(&self) -> Result<Moment> {
        Ok(Moment {
            generation: self.generation.get(&0)?.unwrap_or_default(),
            now: Jiffies(self.beat.get(&0)?.unwrap_or_default()),
            settings: self.settings,
            hz: Hz::from_kernel()?,
        })
    }
}

impl Moment {
    /// Whether the fast path as a whole pauses. A daemon that is late tells by its answer.
    pub fn is_paused(&self) -> bool {
        self.generation.current == abi::BPFW_PAUSED
    }

    /// Whether the next packet of this direction takes the next hop that the last one has found: as
    /// `hop_generation_now` in bpf/proof.h.
    pub fn is_current(&self, conn: &bpfw_conn) -> bool {
        let period = self.period_of(conn, self.now);
        conn.cell.hop_word as u32 == self.generation.current.wrapping_add(period as u32)
    }

    /// Whether the stack has sent a packet of this direction by this way, under the current rules
    /// and in the current period. The same as `check_proof` in bpf/next_hop.h.
    pub fn is_proven(&self, conn: &bpfw_conn, hop: &bpfw_hop, ingress: u32) -> bool {
        let period = self.period_of(conn, self.now);
        let epoch = self.generation.policy.wrapping_add(period as u32);
        let macs = &hop.hot.l2;
        let half = |at: usize| u16::from_ne_bytes([macs[at], macs[at + 1]]);
        let word =
            |at: usize| u32::from_ne_bytes([macs[at], macs[at + 1], macs[at + 2], macs[at + 3]]);
        let both = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let words = [
            both(conn.cell.seal, conn.rest.id),
            both(epoch, ingress),
            both(hop.egress, conn.rest.way_back),
            both(half(0).into(), word(2)),
            both(half(10).into(), word(6)),
        ];
        conn.rest.proof == words.into_iter().fold(self.settings.seed, mix).max(1)
    }

    /// Whether this direction's last packet went to the stack, in this period.
    pub fn has_asked(&self, conn: &bpfw_conn) -> bool {
        let passed_up = conn.passed_up();
        passed_up > conn.last_seen(self.now)
            && self.period_of(conn, passed_up) == self.period_of(conn, self.now)
    }

    fn period_of(&self, conn: &bpfw_conn, at: Jiffies) -> u64 {
        let hash = cells::hash(&conn.tuple(), &self.settings);
        at.after(hash >> 48).0 >> self.generation.period
    }

    /// The datapath's time.
    pub fn now(&self) -> Jiffies {
        self.now
    }

    /// How long ago this was.
    pub fn age(&self, then: Jiffies) -> Duration {
        then.age(self.now, self.hz)
    }

    /// How long it is until then; `None` if that is past.
    pub fn until(&self, then: Jiffies) -> Option<Duration> {
        let left = then.since(self.now);
        (left > 0).then(|| self.hz.duration(left))
    }
}

/// As in bpf/proof.h.
fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(abi::BPFW_FACTOR as u64);
    hash ^ hash >> 32
}

/// The maps that a process has open, by name.
fn maps_of(pid: u32) -> Result<HashMap<String, MapHandle>> {
    let failed = |cause: io::Error| {
        Error::system(format!("looking for the maps of process {pid}"), cause).with_advice(RIGHTS)
    };
    let mut maps = HashMap::new();
    for file in fs::read_dir(format!("/proc/{pid}/fdinfo")).map_err(failed)? {
        // One that was just closed.
        let Ok(text) = fs::read_to_string(file.map_err(failed)?.path()) else { continue };
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
        let Some(id) = id.and_then(|id| id.trim().parse().ok()) else { continue };
        let map = MapHandle::from_map_id(id);
        let map = map.map_err(|error| {
            super::libbpf_error("reading the datapath", &error).with_advice(RIGHTS)
        })?;
        maps.insert(map.name().to_string_lossy().into_owned(), map);
    }
    Ok(maps)
}

fn open<K: Pod, V: Pod>(
    maps: &HashMap<String, MapHandle>,
    name: &'static str,
) -> Result<TypedMap<K, V>> {
    let map = maps.get(name).ok_or_else(|| {
        Error::refused(format!("the daemon has no map {name}"))
            .with_advice("it is another version: restart it")
    })?;
    let again = MapHandle::try_from(map)
        .map_err(|error| super::libbpf_error(format!("opening the map {name}"), &error))?;
    TypedMap::of(again, name)
}

fn check(settings: &bpfw_settings, pid: u32) -> Result<()> {
    let (theirs, ours) = (settings.abi_version, abi::BPFW_ABI_VERSION);
    if settings.magic == abi::BPFW_MAGIC && theirs == ours {
        return Ok(());
    }
    Err(Error::refused(format!("the datapath has ABI {theirs}, this bpfw knows {ours}"))
        .with_advice(format!("the daemon, pid {pid}, is another version: restart it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_tells_what_was_and_what_will_be() {
        let hz = Hz::from_kernel().unwrap();
        let second = hz.count(Duration::from_secs(1));
        let moment = Moment {
            generation: bpfw_generation::default(),
            now: Jiffies(7 << 32),
            settings: bpfw_settings::default(),
            hz,
        };
        let (before, after) = (moment.now.before(second), moment.now.after(second));
        assert_eq!((moment.age(before), moment.until(before)), (Duration::from_secs(1), None));
        assert_eq!(moment.age(after), Duration::ZERO, "an interval's packets are newer");
        assert_eq!(moment.until(after), Some(Duration::from_secs(1)));
    }
}
