// SPDX-License-Identifier: GPL-2.0-only
//! Stamps that do not reach the way out (bpf/proof.h): nothing that leaves by such an interface
//! ever takes the fast path.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Interfaces;
use crate::abi::bpfw_egress;
use crate::datapath::tc_chain::{AtTc, Handler};
use crate::error::Result;
use crate::netlink::link::Links;
use crate::netlink::tc::Qdiscs;
use crate::reasons::interface::Problem;

/// A warning needs this many packets that asked, for this long, while none left with a stamp.
const PACKETS: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(10);

/// What was counted when packets began to ask without any success.
struct Window {
    began: Instant,
    asked: u32,
    stamped: u32,
    /// At the last comparison.
    last_asked: u32,
}

/// What is known of the interfaces that packets leave by.
#[derive(Default)]
pub(super) struct Stamps {
    windows: BTreeMap<u32, Window>,
    /// Those that were warned of.
    said: BTreeSet<u32>,
}

impl Stamps {
    /// Compares the counters with the last ones; the interfaces to warn of, each of them
    /// once, with the number of packets that have asked.
    fn follow(&mut self, now: Instant, counted: &[(u32, bpfw_egress)]) -> Vec<(u32, u32)> {
        self.windows.retain(|index, _| counted.iter().any(|(other, _)| other == index));
        let mut lost = Vec::new();
        for &(index, bpfw_egress { asked, stamped, .. }) in counted {
            let anew = Window { began: now, asked, stamped, last_asked: asked };
            let window = self.windows.entry(index).or_insert(anew);
            // No packet asks, or stamps come out, or the daemon has set the counters to 0.
            if asked == window.last_asked || stamped != window.stamped || asked < window.asked {
                *window = Window { began: now, asked, stamped, last_asked: asked };
                continue;
            }
            window.last_asked = asked;
            let packets = asked - window.asked;
            let is_long = now.duration_since(window.began) >= PATIENCE;
            if is_long && packets >= PACKETS && self.said.insert(index) {
                lost.push((index, packets));
            }
        }
        lost
    }
}

impl Interfaces {
    /// Finds interfaces by which packets should leave with a stamp and none does; `true` if there
    /// are new ones.
    pub(in crate::daemon) fn watch_stamps(&mut self, links: &Links) -> Result<bool> {
        let counted = self.maps.counted()?;
        let mut news = false;
        for (index, packets) in self.stamps.follow(Instant::now(), &counted) {
            if let Some(suspect) = self.suspect(links, index)? {
                let detail = format!("{packets} have asked the network stack{suspect}");
                news |= self.add_notice(index, Problem::StampLost, detail);
            }
        }
        Ok(news)
    }

    /// Who may clear stamps on the way out of this interface, as the end of a sentence; `None` if it is not
    /// ours.
    fn suspect(&self, links: &Links, index: u32) -> Result<Option<String>> {
        let Some(link) = links.get(&index) else {
            return Ok(None);
        };
        let port = link.vlan.as_ref().map_or(index, |vlan| vlan.port);
        let mut attached = self.attachments.iter();
        let Some(attachment) = attached.find(|a| [index, port].contains(&a.ifindex())) else {
            return Ok(None);
        };
        let mut qdiscs = Qdiscs::read()?;
        let is_ours = |handler: &Handler| attachment.is_ours(handler.program());
        // A VLAN device's packets meet its own programs, then the port's. Without an answer, the
        // warning names nobody.
        let suspect = [index, port]
            .into_iter()
            .find_map(|device| AtTc::read(device, &mut qdiscs).ok()?.before_ours(is_ours).cloned())
            .map(|handler| format!(", and {handler} comes before bpfw at the egress"));
        Ok(Some(suspect.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares each second the counters' values of one interface; when it was warned of it.
    fn warnings(values: impl IntoIterator<Item = (u32, u32)>) -> Vec<(usize, u32)> {
        let (mut stamps, start) = (Stamps::default(), Instant::now());
        let seconds = values.into_iter().enumerate();
        let warned = seconds.filter_map(|(second, (asked, stamped))| {
            let counted = [(7, bpfw_egress { asked, stamped, ..Default::default() })];
            let lost = stamps.follow(start + Duration::from_secs(second as u64), &counted);
            lost.first().map(|(_, packets)| (second, *packets))
        });
        warned.collect()
    }

    #[test]
    fn hazard_68_stamps_that_never_come_out_are_noticed_once() {
        assert_eq!(warnings((0..60).map(|second| (second * 20, 3))), [(10, 200)]);
        assert_eq!(warnings((0..60).map(|second| (second * 4, 0))), [(25, 100)]);
        let again = (0..60).map(|second| (second % 30 * 20, 3));
        assert_eq!(warnings(again), [(10, 200)], "the counters begin anew");
    }

    #[test]
    fn hazard_68_what_proves_now_and_then_is_no_loss() {
        assert_eq!(warnings((0..60).map(|second| (second * 20, second / 9))), []);
        assert_eq!(warnings((0..60).map(|second| (second / 5 * 90, 0))), [], "nobody asks");
        // A burst after a long silence.
        assert_eq!(warnings((0..60).map(|second| (second / 55 * 1000, 0))), []);
    }
}
