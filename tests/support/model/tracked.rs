// SPDX-License-Identifier: GPL-2.0-only
//! Conntrack's table, and whether it is what the model says.

use super::expect::{Model, Phase};
use super::op::{CONNS, Conn};
use crate::support::lab::Lab;
use bpfw::conntrack::dump::{Dump, DumpProgress};
use bpfw::conntrack::entry::Entry;
use bpfw::flow::family::Families;
use bpfw::flow::state::{Status, TcpState};
use std::time::{Duration, Instant};

/// All entries.
pub fn entries(lab: &Lab) -> Vec<Entry> {
    lab.router.enter(|| {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let mut entries = Vec::new();
            let mut dump = Dump::start(Families::Both).expect("a dump");
            match dump.read(until, &mut |entry| entries.push(entry)).expect("a whole dump") {
                DumpProgress::Done => return entries,
                DumpProgress::Interrupted => {}
                DumpProgress::More => panic!("the dump does not end"),
            }
        }
    })
}

/// The entry of a connection.
pub fn entry_of(entries: &[Entry], conn: Conn) -> Option<&Entry> {
    entries.iter().find(|entry| entry.original == conn.flow().tuple(false))
}

/// Whether conntrack's word alone lets a connection be offloaded; written down here once more.
pub fn is_established(entry: &Entry) -> bool {
    let status = entry.status.unwrap_or_default();
    let answered = status.contains(Status::SEEN_REPLY | Status::CONFIRMED);
    let assured = status.contains(Status::ASSURED);
    let tcp = entry.tcp_state.is_none_or(|state| state == TcpState::Established && assured);
    answered && tcp && !status.intersects(Status::DYING)
}

/// Whether each connection's entry is what the model says.
pub fn check(model: &Model, entries: &[Entry]) -> Result<(), String> {
    for conn in CONNS {
        let (state, entry) = (model.state(conn), entry_of(entries, conn));
        let fits = match entry {
            Some(entry) => {
                fits(state.phase, entry)
                    && entry.reply == conn.flow().tuple(true)
                    && entry.mark == state.mark
                    && entry.has_helper == state.has_helper
            }
            // Those that have ended go after a while.
            None => matches!(state.phase, Phase::Unknown | Phase::Closed { .. }),
        };
        if !fits {
            return Err(format!("conntrack has {entry:?}, but {conn:?} is {state:?}"));
        }
    }
    Ok(())
}

fn fits(phase: Phase, entry: &Entry) -> bool {
    let answered = entry.status.unwrap_or_default().contains(Status::SEEN_REPLY);
    match (phase, entry.tcp_state) {
        (Phase::Unknown, _) => false,
        (Phase::Unanswered, _) => !answered,
        (Phase::Answered, _) => answered && !is_established(entry),
        (Phase::Established, _) => is_established(entry),
        // Conntrack may take a FIN sent again for the other side's.
        (Phase::HalfClosed(_), Some(state)) => matches!(
            state,
            TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck | TcpState::TimeWait
        ),
        (Phase::Closed { .. }, Some(state)) => {
            matches!(state, TcpState::TimeWait | TcpState::Close)
        }
        (Phase::HalfClosed(_) | Phase::Closed { .. }, None) => false,
    }
}

/// What the model takes from conntrack when it cannot know which of several packets arrived.
pub fn phase(entry: Option<&Entry>, before: Phase) -> Phase {
    let Some(entry) = entry else { return Phase::Unknown };
    let answered = entry.status.unwrap_or_default().contains(Status::SEEN_REPLY);
    match entry.tcp_state {
        _ if is_established(entry) => Phase::Established,
        None | Some(TcpState::Established | TcpState::SynSent | TcpState::SynRecv) if answered => {
            Phase::Answered
        }
        None | Some(TcpState::Established | TcpState::SynSent) => Phase::Unanswered,
        _ => before,
    }
}
