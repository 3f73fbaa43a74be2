// SPDX-License-Identifier: GPL-2.0-only
//! The end: detaches everything, whatever else fails.

use super::Daemon;
use crate::error::Result;
use crate::reasons::packet::{self, TESTIMONIES, VERDICTS};

impl Daemon<'_> {
    pub(super) fn stop(mut self) -> Result<()> {
        self.manager.stopping();
        let mut result = self.datapath.state.pause();
        for attachment in self.interfaces.take_attachments() {
            result = result.and(attachment.close());
        }
        result = result.and(self.tell_last_news());
        result.and(self.report())
    }

    fn report(&self) -> Result<()> {
        for reason in VERDICTS.iter().chain(&TESTIMONIES) {
            let packets = self.datapath.counters.packets(reason.number)?;
            if packets != 0 {
                tracing::info!("{}", packet::summary(reason, packets));
            }
        }
        for (reason, times) in self.connections.offload.refusals().iter() {
            tracing::info!("{times} times a connection stayed with the stack: {reason}");
        }
        Ok(())
    }
}
