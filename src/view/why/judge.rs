// SPDX-License-Identifier: GPL-2.0-only
//! Why a connection is where it is, from what conntrack, the daemon and the datapath say, in the order in which
//! they decide. What the next packet of an offloaded connection meets: `fate` in `view/flow.rs`.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::clock::Jiffies;
use crate::connections::terms::Terms;
use crate::conntrack::entry::Entry;
use crate::datapath::reader::Reader;
use crate::error::Result;
use crate::flow::decision::{Decision, decide};
use crate::flow::family::{Families, Family, PerFamily};
use crate::flow::mark::OffloadMark;
use crate::flow::tuple::Tuple;
use crate::netlink::monitor::Network;
use crate::netlink::route_query::egress_to;
use crate::netlink::socket::{NETLINK_ROUTE, Socket};
use crate::netlink::xfrm::Xfrm;
use crate::reasons::answer::Answer;
use crate::reasons::connection::Refusal;
use crate::status::{Cause, Options, State, Status};
use crate::view::flow::{Fate, Flow, Surroundings};

/// What decides about connections.
pub(super) struct Judge<'a> {
    status: &'a Status,
    reader: &'a Reader,
    surroundings: &'a Surroundings,
    local_addresses: HashSet<IpAddr>,
    xfrm: Xfrm,
    routes: Socket,
}

/// The answer for one connection.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// Both directions are on the fast path.
    pub(super) fast: bool,
    /// The reason, from the tables of reasons.
    pub(super) cause: Cause,
    /// It is offloaded.
    pub(super) flow: Option<Flow>,
    /// So long the daemon does not look at it again.
    pub(super) refused_for_ms: Option<u64>,
}

impl<'a> Judge<'a> {
    /// Reads what the daemon would decide by.
    pub(super) fn new(
        status: &'a Status,
        reader: &'a Reader,
        surroundings: &'a Surroundings,
    ) -> Result<Self> {
        let mut routes = Socket::open(NETLINK_ROUTE)?;
        let local_addresses = Network::read_local_addresses(&mut routes)?;
        let xfrm = Xfrm::open(Families::FORWARDED)?;
        Ok(Self { status, reader, surroundings, local_addresses, xfrm, routes })
    }

    /// Judges a connection by all that conntrack knows of it.
    pub(super) fn judge(&mut self, entry: &Entry) -> Result<Verdict> {
        let flow = self.flow(entry)?;
        let (cause, refused_for_ms) = self.cause(entry, flow.as_ref())?;
        let fast = [Answer::Fast, Answer::LooksUp].map(|answer| answer.reason().name);
        Ok(Verdict { fast: fast.contains(&&*cause.name), cause, flow, refused_for_ms })
    }

    fn cause(&mut self, entry: &Entry, flow: Option<&Flow>) -> Result<(Cause, Option<u64>)> {
        if let Some(cause) = self.of_all(entry.original.family()) {
            return Ok((cause, None));
        }
        if let Some(refusal) = self.refusal(entry) {
            return Ok((refusal.reason().into(), None));
        }
        let Some(flow) = flow else {
            return self.of_what_is_not_offloaded(entry);
        };
        let fate = flow.fate;
        let passes = matches!(fate, Fate::NotForwarded | Fate::Passes(_));
        if let Some(cause) = passes.then(|| self.of_interfaces(entry)).flatten() {
            return Ok((cause, None));
        }
        Ok((Cause { detail: of_direction(flow), ..fate.reason().into() }, None))
    }

    /// Why no connection of this family is on the fast path, if so.
    fn of_all(&self, family: Family) -> Option<Cause> {
        match self.status.state {
            State::Paused | State::Late => self.status.reason.clone(),
            _ if self.surroundings.is_paused() => Some(Fate::Paused.reason().into()),
            _ => self.status.forbidden.get(family.name()).cloned(),
        }
    }

    /// What the daemon decides by the entry alone.
    fn refusal(&self, entry: &Entry) -> Option<Refusal> {
        let Options { offload_mark, offload_mark_negated, route_mark_mask, route_mark_required } =
            &self.status.options;
        let negated = *offload_mark_negated;
        let mut required = PerFamily::default();
        for family in Family::ALL {
            required[family] = route_mark_required.iter().any(|name| name == family.name());
        }
        let terms = Terms {
            mark: offload_mark.map(|(value, mask)| OffloadMark { value, mask, negated }),
            route_mark: (*route_mark_mask, required),
            ipsec: &self.xfrm.policies().selectors,
        };
        let facts = terms.facts(entry)?;
        let is_local = |address| self.local_addresses.contains(&address);
        match decide(&facts, is_local) {
            Decision::Refuse(refusal) => Some(refusal),
            Decision::Offload { .. } | Decision::Ask => None,
        }
    }

    /// The daemon's last word; else what routing says of its interfaces; else that nobody has asked.
    fn of_what_is_not_offloaded(&mut self, entry: &Entry) -> Result<(Cause, Option<u64>)> {
        for tuple in [entry.original, entry.reply] {
            let Some(refused) = self.reader.refused(&tuple.into())? else { continue };
            let refusal = refusal_of(refused.reason);
            let left = self.surroundings.moment().until(Jiffies(refused.until));
            if let Some((refusal, left)) = refusal.zip(left) {
                let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                return Ok((refusal.reason().into(), Some(left)));
            }
        }
        let cause = self.of_interfaces(entry);
        Ok((cause.unwrap_or_else(|| Answer::NotSeen.reason().into()), None))
    }

    /// Whether the connection's interfaces are ones that packets are forwarded between, by routing's word
    /// now: packets should come from where answers go.
    fn of_interfaces(&mut self, entry: &Entry) -> Option<Cause> {
        let ends: [Tuple; 2] = [entry.original, entry.reply];
        ends.into_iter().find_map(|tuple| {
            let address = tuple.source.ip();
            let ifindex = egress_to(&mut self.routes, address)?;
            self.of_interface(ifindex)
        })
    }

    fn of_interface(&self, ifindex: u32) -> Option<Cause> {
        let name = self.surroundings.name(ifindex);
        let about = |answer: Answer, detail| Cause { detail, ..answer.reason().into() };
        let Some(interface) = self.status.interfaces.iter().find(|one| one.device == name) else {
            let is_given = self.surroundings.is_given(ifindex);
            return (!is_given).then(|| about(Answer::NotHere, Some(name)));
        };
        if interface.is_used() {
            return None;
        }
        let why = interface.reason.as_ref().map(Cause::text).unwrap_or_default();
        Some(about(Answer::LeftInterface, Some(format!("{name}: {why}"))))
    }

    /// The connection, if it is offloaded.
    fn flow(&self, entry: &Entry) -> Result<Option<Flow>> {
        let entry_of = |tuple: Tuple| {
            let found = self.reader.entry(&tuple.into());
            found.map(|found| found.filter(|conn| conn.rest.id == entry.id))
        };
        let (original, reply) = (entry_of(entry.original)?, entry_of(entry.reply)?);
        let reverse = entry.reply.into();
        Ok(original.and_then(|first| self.surroundings.flow(&first, &reverse, reply.as_ref())))
    }
}

/// The reason with this number.
fn refusal_of(number: u32) -> Option<Refusal> {
    Refusal::ALL.iter().copied().find(|refusal| refusal.reason().number == number)
}

/// Of which direction the reason is, if it is of one only.
fn of_direction(flow: &Flow) -> Option<String> {
    let (original, reply) = (flow.original.fate, flow.reply.fate);
    if original == reply || flow.fate == Fate::Lonely {
        return None;
    }
    let tuple = if original == flow.fate { flow.original.tuple } else { flow.reply.tuple };
    Some(format!("from {}", tuple.source.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi;
    use crate::reasons::interface::{Found, Problem};
    use crate::reasons::pause::Pause;

    #[test]
    fn every_reason_of_the_tables_has_an_answer() {
        for refusal in Refusal::ALL {
            assert_eq!(refusal_of(refusal.reason().number), Some(*refusal));
        }
        assert_eq!(refusal_of(0), None);
        for verdict in abi::BPFW_DROP_ERROR..abi::BPFW_VERDICTS {
            assert_eq!(Fate::Passes(verdict).reason().number, verdict);
        }
        let others =
            [Fate::Forwarded, Fate::LooksUp, Fate::NotForwarded, Fate::Lonely, Fate::Paused];
        let names: HashSet<_> = others.iter().map(|fate| fate.reason().name).collect();
        assert_eq!(names.len(), others.len());
        for problem in Problem::ALL {
            let found = Found { problem: *problem, detail: Some("guard".to_owned()) };
            let expected = format!("{}: guard", problem.reason().words);
            assert_eq!(Cause::from(&found).text(), expected);
        }
        for pause in Pause::ALL {
            assert_eq!(Cause::from(pause.reason()).text(), pause.reason().words);
        }
    }
}
