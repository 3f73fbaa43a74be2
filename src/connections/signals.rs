// SPDX-License-Identifier: GPL-2.0-only
//! Connections that the datapath signals. It saw a packet of one that is not offloaded, or of one
//! that has ended, or it handed a TCP segment to the stack.

use std::time::{Duration, Instant};

use super::Offload;
use super::source::Source;
use crate::abi::bpfw_tuple;
use crate::clock::Jiffies;
use crate::conntrack::entry::Entry;
use crate::datapath::signals::Signal;
use crate::error::Result;
use crate::flow::state::TcpState;
use crate::reasons::connection::Refusal;

/// How long conntrack may keep an entry at most after a FIN or a RST.
const LONGEST_END: Duration = Duration::from_secs(300);

/// How long after its admission a TCP connection's first segments may pass up.
const EXPECTED: Duration = Duration::from_millis(100);

/// A signal's time is exact to a jiffy, of 10 ms at most, and so is the clock that it is read by.
const SIGNAL_AGE_ERROR: Duration = Duration::from_millis(20);
/// With the second that conntrack rounds away, within [`crate::flow::expiry::JUST_GIVEN`].
const NEW_ENOUGH: Duration = Duration::from_secs(2);

/// Signals that were taken out of the map and wait to be looked at.
#[derive(Default)]
pub(super) struct Taken {
    signals: Vec<Signal>,
    /// How long they may take yet, all together.
    time: Duration,
}

impl Offload {
    /// Whether a TCP connection has just come, and its first segments may pass up at any moment.
    pub fn expects_signals(&self) -> bool {
        self.last_tcp.is_some_and(|at| at.elapsed() < EXPECTED)
    }

    /// Takes out what the datapath has signaled. Looking at it may take this much time. A
    /// connection that is not looked at by then is signaled again by its next packet.
    pub fn take_signals(&mut self, time: Duration) -> Result<()> {
        let mut signals = self.signals.take(Instant::now() + time)?;
        signals.append(&mut self.taken.signals);
        self.taken = Taken { signals, time };
        Ok(())
    }

    /// Looks at what was taken out, until time is up; `true` if there is more.
    pub fn look_at_signals(&mut self, until: Instant) -> Result<bool> {
        let started = Instant::now();
        let until = until.min(started + self.taken.time);
        while let Some(Signal { tuple, at, is_segment }) = self.taken.signals.pop() {
            if is_segment {
                self.forget_acknowledged(&tuple)?;
            } else {
                self.look_at(&tuple, at)?;
            }
            if Instant::now() >= until {
                break;
            }
        }
        self.flush()?;
        self.taken.time = self.taken.time.saturating_sub(started.elapsed());
        if self.taken.time.is_zero() {
            self.taken.signals.clear();
        }
        Ok(!self.taken.signals.is_empty())
    }

    /// There may be many in each period, so the map is not read first. Conntrack finds a connection
    /// by the tuple of either direction.
    fn forget_acknowledged(&mut self, tuple: &bpfw_tuple) -> Result<()> {
        match tuple.decode() {
            Some(plain) if self.conn_map.may_have(tuple) => {
                self.requests.queue_update(&plain, None, true)
            }
            _ => Ok(()),
        }
    }

    /// Looks at the connection of a packet that the datapath handed up at this time.
    pub(super) fn look_at(&mut self, tuple: &bpfw_tuple, at: Jiffies) -> Result<()> {
        let Some(plain) = tuple.decode() else {
            return Ok(());
        };
        let known = self.conn_map.get(tuple)?;
        match &known {
            // Its event was faster than this signal. While the signal waits, it hides signals of
            // later segments.
            Some(known) if known.rest.finished == 0 => return self.renew_flags(known),
            Some(known) => self.remove_entry(known)?,
            None => {}
        }
        if let Some(reason) = self.why_forbidden(&plain) {
            self.refuse_tuple(&plain, reason);
            return Ok(());
        }
        let Some(entry) = self.requests.get(&plain)? else {
            self.refuse_tuple(&plain, Refusal::NotTracked);
            return Ok(());
        };
        let finished = known.is_some_and(|known| known.rest.finished != 0);
        self.limit_the_end(&entry, finished)?;
        if self.is_outdated(at) {
            return Ok(());
        }
        if let Some(refusal) = self.consider(&entry, Source::Signal)? {
            self.refuse(&entry, refusal);
        }
        Ok(())
    }

    /// Whether the packet of this signal is too old to tell which timeout packets are given.
    fn is_outdated(&self, at: Jiffies) -> bool {
        let is_new = |age: Duration| age + SIGNAL_AGE_ERROR < NEW_ENOUGH;
        self.timeout_policies && !self.clock.age(at).is_some_and(is_new)
    }

    /// A connection that has ended in all likelihood does not stay in conntrack for days. Two
    /// things could keep it there. Conntrack takes the RST for invalid if it has not seen the
    /// sequence numbers for more than 2 GiB. Or a refresh was under way when the connection closed.
    fn limit_the_end(&mut self, entry: &Entry, finished: bool) -> Result<()> {
        use TcpState::{Close, CloseWait, Established, FinWait, LastAck, TimeWait};
        let limit = match entry.tcp_state {
            Some(Established) if finished => LONGEST_END,
            // A refresh never sets less than this. So a lower timeout is the user's, and stays.
            Some(FinWait | CloseWait | LastAck | TimeWait | Close) => {
                LONGEST_END.max(self.timeouts.tcp_established / 2)
            }
            _ => return Ok(()),
        };
        if entry.timeout.is_none_or(|timeout| timeout <= limit) {
            return Ok(());
        }
        tracing::debug!("{}: ends in {LONGEST_END:?} at the latest", entry.original);
        let seconds = LONGEST_END.as_secs() as u32;
        self.requests.queue_update(&entry.original, Some(seconds), false)
    }
}
