// SPDX-License-Identifier: GPL-2.0-only
//! Who handles an interface's packets at TC, and in which order.

use std::fmt;

use libbpf_rs::ProgramHandle;

use super::interface::Side;
use super::sys;
use crate::error::{Error, Result};
use crate::netlink::tc::{Filter, IngressQdisc, Qdiscs};

/// A program or filter at a TC hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// A TCX program, by its id.
    Tcx(u32),
    /// A filter of clsact or ingress.
    Filter(Filter),
}

impl Handler {
    /// The id of its BPF program, if it is one.
    pub fn program(&self) -> Option<u32> {
        match self {
            Self::Tcx(program) => Some(*program),
            Self::Filter(filter) => filter.bpf_program,
        }
    }
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcx(program) => write!(f, "the TCX program {}", describe_program(*program)),
            Self::Filter(Filter { kind, priority, .. }) => {
                write!(f, "the TC filter {kind} of priority {priority}")
            }
        }
    }
}

/// A BPF program as people know it.
pub(super) fn describe_program(id: u32) -> String {
    ProgramHandle::from_prog_id(id).map_or_else(
        |_| format!("id {id}"),
        |program| format!("{}, id {id}", program.name().to_string_lossy()),
    )
}

/// What an interface's packets meet at TC, in this order: TCX programs as they are listed, then
/// filters by priority. Filters of bpf with one priority come as they are listed
/// (`sch_handle_ingress`, `cls_bpf`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtTc {
    /// When they come in.
    pub ingress: Vec<Handler>,
    /// When they go out.
    pub egress: Vec<Handler>,
    /// What the filters hang on.
    pub qdisc: Option<IngressQdisc>,
}

impl AtTc {
    /// Asks the kernel. The qdiscs were read before, for all interfaces at once.
    pub fn read(ifindex: u32, qdiscs: &mut Qdiscs) -> Result<Self> {
        let programs = |side: Side| {
            let programs = sys::tcx_programs(ifindex, side.tcx()).map_err(|error| {
                Error::system(format!("reading the TCX programs of interface {ifindex}"), error)
            })?;
            Ok::<_, Error>(programs.into_iter().map(Handler::Tcx).collect::<Vec<_>>())
        };
        let found = qdiscs.ingress(ifindex)?;
        let mut all = Self {
            ingress: programs(Side::Ingress)?,
            egress: programs(Side::Egress)?,
            qdisc: found.qdisc,
        };
        // Packets get to the other chains only by way of a filter in chain 0.
        for filter in found.filters.into_iter().filter(|filter| filter.chain == 0) {
            let side = if filter.egress { &mut all.egress } else { &mut all.ingress };
            side.push(Handler::Filter(filter));
        }
        Ok(all)
    }

    /// Whether packets meet this program at this side.
    pub fn has(&self, side: Side, program: u32) -> bool {
        let mut handlers = match side {
            Side::Ingress => self.ingress.iter(),
            Side::Egress => self.egress.iter(),
        };
        handlers.any(|handler| handler.program() == Some(program))
    }

    /// The first handler that packets meet after this program: those that it redirects, never.
    pub fn behind(&self, program: u32) -> Option<&Handler> {
        let ours = |handler: &&Handler| handler.program() == Some(program);
        self.ingress.iter().skip_while(|handler| !ours(handler)).find(|handler| !ours(handler))
    }

    /// The first handler that packets meet on their way out before any of ours.
    pub fn before_ours(&self, is_ours: impl Fn(&Handler) -> bool) -> Option<&Handler> {
        self.egress.first().filter(|first| !is_ours(first))
    }

    /// Whether packets that come in meet filters.
    pub fn has_ingress_filters(&self) -> bool {
        self.ingress.iter().any(|handler| matches!(handler, Handler::Filter(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(priority: u16, bpf_program: Option<u32>) -> Handler {
        Handler::Filter(Filter {
            egress: false,
            priority,
            protocol: 3,
            handle: 1,
            kind: "bpf".into(),
            bpf_name: None,
            bpf_program,
            chain: 0,
        })
    }

    fn ingress(handlers: &[Handler]) -> AtTc {
        AtTc { ingress: handlers.to_vec(), ..AtTc::default() }
    }

    #[test]
    fn hazard_31_what_stands_behind_ours_is_found() {
        let (first, ours, last) = (Handler::Tcx(1), Handler::Tcx(2), Handler::Tcx(3));
        let by_tcx = ingress(&[first.clone(), ours.clone(), last.clone()]);
        assert_eq!(by_tcx.behind(2), Some(&last));
        assert_eq!(ingress(&[first.clone(), ours.clone()]).behind(2), None);
        let ordinary = filter(5, None);
        assert_eq!(ingress(&[ours, ordinary.clone()]).behind(2), Some(&ordinary));
        assert_eq!(ingress(&[last, ordinary.clone(), filter(65535, Some(2))]).behind(2), None);
        let both = ingress(&[Handler::Tcx(2), filter(65535, Some(2))]);
        assert_eq!(both.behind(2), None, "moving, ours is there twice");
        assert_eq!(ingress(&[first, ordinary]).behind(2), None);
    }
}
