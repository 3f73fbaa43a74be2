// SPDX-License-Identifier: GPL-2.0-only
//! Connections that IPsec policies cover, which stay with the stack. `netlink/xfrm.rs` reads the policies.

use std::time::Instant;

use super::Offload;
use crate::error::Result;
use crate::flow::selector::Selectors;
use crate::reasons::connection::Refusal;

impl Offload {
    /// Sets what IPsec policies may cover: those connections are not ours. `true` if there is more
    /// of it than before, which a resync must carry out. Connections that are no longer covered are
    /// found by their next packet. Refusals that cannot be deleted in time end soon anyway.
    pub fn set_ipsec_selectors(&mut self, covered: &Selectors, until: Instant) -> Result<bool> {
        if self.ipsec == *covered {
            return Ok(false);
        }
        let number = covered.len();
        match (self.ipsec.is_empty(), covered.is_empty()) {
            (true, false) => tracing::info!(
                "connections that IPsec policies cover stay with the stack: there are {number} \
                 for forwarded packets"
            ),
            (_, true) => tracing::info!("there are no IPsec policies for forwarded packets now"),
            _ => tracing::debug!("there are {number} IPsec policies for forwarded packets now"),
        }
        let grown = !covered.are_among(&self.ipsec);
        self.ipsec.clone_from(covered);
        if !grown {
            self.signals.forget_refusals(Refusal::Ipsec as u32, until)?;
        }
        Ok(grown)
    }
}
