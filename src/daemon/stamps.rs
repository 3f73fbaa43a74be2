// SPDX-License-Identifier: GPL-2.0-only
//! Stamps that do not reach the way out (bpf/proof.h): nothing that leaves by such an interface
//! ever takes the fast path.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Daemon;
use crate::abi::bpfw_egress;
use crate::datapath::tc_chain::{AtTc, Handler};
use crate::error::Result;
use crate::netlink::tc::Qdiscs;
use crate::reasons::interface::Problem;

/// So many packets must have asked, for so long, and none have left with a stamp.
const PACKETS: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(10);

/// What was counted when packets began to ask without any success.
struct Window {
    began: Instant,
    asked: u32,
    stamped: u32,
    /// At the last look.
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
    /// Compares the counters with those of the last look; the interfaces to warn of, each of them
    /// once, with the number of packets that have asked.
    fn follow(&mut self, now: Instant, counted: &[(u32, bpfw_egress)]) -> Vec<(u32, u32)> {
        self.windows.retain(|index, _| counted.iter().any(|(other, _)| other == index));
        let mut lost = Vec::new();
        for &(index, bpfw_egress { asked, stamped, .. }) in counted {
            let anew = Window { began: now, asked, stamped, last_asked: asked };
            let window = self.windows.entry(index).or_insert(anew);
            // Nobody asks; or stamps come out; or the daemon has set the counters to 0.
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

impl Daemon<'_> {
    /// Warns of interfaces that packets are to leave by, and no stamp does.
    pub(super) fn watch_stamps(&mut self) -> Result<()> {
        let counted = self.device_maps.counted()?;
        for (index, packets) in self.stamps.follow(Instant::now(), &counted) {
            self.report_lost_stamps(index, packets)?;
        }
        Ok(())
    }

    fn report_lost_stamps(&self, index: u32, packets: u32) -> Result<()> {
        let Some(link) = self.monitor.network().links.get(&index) else {
            return Ok(());
        };
        let port = link.vlan.as_ref().map_or(index, |vlan| vlan.port);
        let mut attached = self.attachments.iter();
        let Some(attachment) = attached.find(|a| [index, port].contains(&a.ifindex())) else {
            return Ok(());
        };
        let mut qdiscs = Qdiscs::read()?;
        let is_ours = |handler: &Handler| attachment.is_ours(handler.program());
        // A VLAN device's packets meet its own programs, then the port's. Without an answer, the
        // warning names nobody.
        let suspect = [index, port]
            .into_iter()
            .find_map(|device| AtTc::read(device, &mut qdiscs).ok()?.before_ours(is_ours).cloned())
            .map(|handler| format!(", and {handler} comes before bpfw at the egress"))
            .unwrap_or_default();
        let detail = format!("{packets} have asked the network stack{suspect}");
        tracing::warn!("{}: {}", link.name, Problem::StampLost.reason().line_about(detail));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks each second from the counters' values of one interface; when it was warned of it.
    fn warnings(values: impl IntoIterator<Item = (u32, u32)>) -> Vec<(usize, u32)> {
        let (mut stamps, start) = (Stamps::default(), Instant::now());
        let looks = values.into_iter().enumerate();
        let warned = looks.filter_map(|(second, (asked, stamped))| {
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
