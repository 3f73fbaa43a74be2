// SPDX-License-Identifier: GPL-2.0-only
//! The end: everything is taken off, whatever else fails.

use super::Daemon;
use crate::datapath::counters::{TESTIMONIES, VERDICTS};
use crate::error::Result;

impl Daemon<'_> {
    pub(super) fn stop(mut self) -> Result<()> {
        let mut result = self.state.rest();
        for attachment in std::mem::take(&mut self.attachments) {
            result = result.and(attachment.close());
        }
        result.and(self.report())
    }

    fn report(&self) -> Result<()> {
        for (verdict, name) in VERDICTS.into_iter().chain(TESTIMONIES) {
            let packets = self.counters.packets(verdict)?;
            if packets != 0 {
                tracing::info!("{packets} packets {name}");
            }
        }
        for (reason, times) in self.offload.refusals().iter() {
            tracing::info!("{times} times a connection stayed with the stack: {reason}");
        }
        Ok(())
    }
}
