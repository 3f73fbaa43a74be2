// SPDX-License-Identifier: GPL-2.0-only
//! Drivers that keep an XDP program attached and do not run it.
//!
//! virtio_net does so without mergeable receive buffers, vmxnet3 after a change of its rings. The
//! packets go by the stack, and nothing else would tell. So the daemon compares the interface's
//! counter with the time of the program's last run. Only the full lane notes that time, but each
//! direction of a connection takes the full lane at least once in a period, and so does every packet
//! of other traffic.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libbpf_rs::Object;

use super::Daemon;
use crate::datapath::Hook;
use crate::datapath::attachment::Attachment;
use crate::datapath::seen::Seen;
use crate::datapath::state::NO_PERIODS;
use crate::error::Result;
use crate::netlink::link::Counters;
use crate::reasons::interface::Problem;

/// Of so many parts of the interfaces, one is looked at each second.
const PARTS: usize = 5;
/// So many frames are no accident, such as frames that the driver counts and drops.
const FRAMES: u64 = 100;

/// One interface, since its program last ran.
#[derive(Debug, Default)]
struct Watch {
    /// As the datapath noted it.
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
    /// program did not run since the last look.
    fn look(
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

impl Daemon<'_> {
    /// Warns of an interface whose frames XDP does not see, and says when it sees them again. Once a
    /// second.
    pub(super) fn watch_unseen(&mut self) -> Result<()> {
        // Without periods, nothing takes a fast connection to the full lane.
        if self.state.period() == NO_PERIODS {
            return Ok(());
        }
        let now = Instant::now();
        let window = self.hz.duration(2 << self.state.period());
        let Self { attachments, unseen, monitor, .. } = self;
        let Unseen { watches, seen, counters, part } = unseen;
        *part = (*part + 1) % PARTS;
        for attachment in attachments.iter().skip(*part).step_by(PARTS) {
            let index = attachment.ifindex();
            let Some(last_run) = seen.last(index)? else { return Ok(()) };
            if attachment.off().is_some() || !monitor.network().links.contains_key(&index) {
                watches.remove(&index);
                continue;
            }
            let watch = watches.entry(index).or_default();
            let received = || counters.frames_received(index).ok();
            if let Some(news) = watch.look(Some(last_run), now, window, received) {
                report(attachment, &news);
            }
        }
        Ok(())
    }
}

fn report(attachment: &Attachment, news: &News) {
    let name = attachment.name();
    match news {
        News::Unseen(frames) => {
            let detail = format!("{frames} frames have come in");
            tracing::warn!("{name}: {}", Problem::XdpNotRun.reason().line_about(detail));
        }
        News::SeenAgain => tracing::info!("{name}: its driver runs XDP again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(16);

    /// Looks once a second, at (last run, frames); the seconds in which there were news.
    fn news(looks: impl IntoIterator<Item = (u32, u64)>) -> Vec<(u64, News)> {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let look = |(second, (run, frames))| {
            let now = start + Duration::from_secs(second);
            let news = watch.look(Some(run), now, WINDOW, || Some(frames));
            news.map(|news| (second, news))
        };
        (0..).zip(looks).filter_map(look).collect()
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
