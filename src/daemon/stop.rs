// SPDX-License-Identifier: GPL-2.0-only
//! The end: everything is taken off, whatever else fails.

use super::Daemon;
use crate::error::Result;
use crate::reasons::packet::{self, TESTIMONIES, VERDICTS};

impl Daemon<'_> {
    pub(super) fn stop(mut self) -> Result<()> {
        let mut result = self.state.rest();
        for attachment in std::mem::take(&mut self.attachments) {
            result = result.and(attachment.close());
        }
        result.and(self.report())
    }

    fn report(&self) -> Result<()> {
        for reason in VERDICTS.iter().chain(&TESTIMONIES) {
            let packets = self.counters.packets(reason.number)?;
            if packets != 0 {
                tracing::info!("{}", packet::summary(reason, packets));
            }
        }
        for (reason, times) in self.offload.refusals().iter() {
            tracing::info!("{times} times a connection stayed with the stack: {reason}");
        }
        Ok(())
    }
}
