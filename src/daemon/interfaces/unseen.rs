// SPDX-License-Identifier: GPL-2.0-only
//! Drivers that keep an XDP program attached and do not run it.
//!
//! virtio_net does so without mergeable receive buffers, vmxnet3 after a change of its rings. The
//! stack forwards the packets, and nothing else would tell. So the daemon compares the interface's
//! counter with the time of the program's last run. Only the full lane writes that time. But each
//! direction of a connection takes the full lane at least once in a period, and so does every other
//! packet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libbpf_rs::Object;

use super::Interfaces;
use crate::datapath::Hook;
use crate::datapath::seen::Seen;
use crate::error::Result;
use crate::netlink::link::{Counters, Links};
use crate::reasons::interface::Problem;

/// The interfaces are checked in this many parts, one a second.
const PARTS: usize = 5;
/// Fewer frames may be an accident: frames that the driver counts and drops.
const FRAMES: u64 = 100;

/// One interface, since its program last ran.
#[derive(Debug, Default)]
struct Watch {
    /// As the datapath wrote it.
    last_run: Option<u32>,
    /// When that was found unchanged for the first time, with the interface's counter.
    silent: Option<(Instant, u64)>,
    warned: bool,
}

/// What there is to say about an interface.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// This many frames came in, and the program did not run.
    Unseen(u64),
    SeenAgain,
}

impl Watch {
    /// `received` counts the interface's frames, if it still exists; it is asked only where the
    /// program did not run since the last check.
    fn check(
        &mut self,
        last_run: Option<u32>,
        now: Instant,
        window: Duration,
        received: impl FnOnce() -> Option<u64>,
    ) -> Option<News> {
        if self.last_run != last_run {
            let warned = self.warned;
            *self = Self { last_run, ..Self::default() };
            return warned.then_some(News::SeenAgain);
        }
        if self.warned {
            return None;
        }
        let received = received()?;
        let (since, before) = *self.silent.get_or_insert((now, received));
        let frames = received.saturating_sub(before);
        self.warned = now.duration_since(since) >= window && frames >= FRAMES;
        self.warned.then_some(News::Unseen(frames))
    }
}

/// All attached interfaces, by index.
pub(super) struct Unseen {
    watches: BTreeMap<u32, Watch>,
    seen: Seen,
    counters: Counters,
    /// The part that comes next.
    part: usize,
}

impl Unseen {
    pub(super) fn new(object: &Object, hook: Hook) -> Result<Self> {
        let (seen, counters) = (Seen::new(object, hook)?, Counters::open()?);
        Ok(Self { watches: BTreeMap::new(), seen, counters, part: 0 })
    }
}

impl Interfaces {
    /// Finds interfaces whose frames XDP does not see within this time, and those whose frames it sees again;
    /// `true` if there are any. Once a second.
    pub(in crate::daemon) fn watch_unseen(
        &mut self,
        links: &Links,
        window: Duration,
    ) -> Result<bool> {
        let now = Instant::now();
        let mut all_news = Vec::new();
        let Unseen { watches, seen, counters, part } = &mut self.unseen;
        *part = (*part + 1) % PARTS;
        for attachment in self.attachments.iter().skip(*part).step_by(PARTS) {
            let index = attachment.ifindex();
            let Some(last_run) = seen.last(index)? else { break };
            if attachment.off().is_some() || !links.contains_key(&index) {
                let before = watches.remove(&index);
                let is_over = before.is_some_and(|watch| watch.warned);
                all_news.extend(is_over.then_some((index, News::SeenAgain)));
                continue;
            }
            let watch = watches.entry(index).or_default();
            let received = || counters.frames_received(index).ok();
            let news = watch.check(Some(last_run), now, window, received);
            all_news.extend(news.map(|news| (index, news)));
        }
        let mut changed = false;
        for (index, news) in all_news {
            changed |= match news {
                News::Unseen(frames) => {
                    let detail = format!("{frames} frames have come in");
                    self.add_notice(index, Problem::XdpNotRun, detail)
                }
                News::SeenAgain => self.clear_notice(index, Problem::XdpNotRun),
            };
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(16);

    /// Checks once a second, with (last run, frames); the seconds in which there were news.
    fn news(checks: impl IntoIterator<Item = (u32, u64)>) -> Vec<(u64, News)> {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let check = |(second, (run, frames))| {
            let now = start + Duration::from_secs(second);
            let news = watch.check(Some(run), now, WINDOW, || Some(frames));
            news.map(|news| (second, news))
        };
        (0..).zip(checks).filter_map(check).collect()
    }

    #[test]
    fn hazard_19_frames_that_xdp_does_not_see_are_noticed_once() {
        let never_run = (0..60).map(|second| (0, second * 1000));
        assert_eq!(news(never_run), [(17, News::Unseen(16_000))]);
        let stops = (0..60).map(|second: u64| (second.min(10) as u32, second * 10));
        assert_eq!(news(stops), [(27, News::Unseen(160))]);
        let stops_for_a_while = (0..60).map(|second: u64| {
            (if second < 10 { 1 } else { second.saturating_sub(40) as u32 + 1 }, second * 10)
        });
        assert_eq!(news(stops_for_a_while), [(17, News::Unseen(160)), (41, News::SeenAgain)]);
    }

    #[test]
    fn hazard_19_few_frames_and_rare_runs_are_no_news() {
        assert_eq!(news((0..60).map(|_| (7, 1_000_000))), [], "an idle interface");
        assert_eq!(news((0..60).map(|second| (7, second))), [], "less than {FRAMES} frames");
        let rare = (0..60).map(|second| (second as u32 / 15, second * 1000));
        assert_eq!(news(rare), [], "once in a period");
    }
}
