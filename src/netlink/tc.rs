// SPDX-License-Identifier: GPL-2.0-only
//! What stands at an interface's TC ingress and egress (tc(8), linux/pkt_sched.h, linux/pkt_cls.h).

use std::collections::HashMap;

use super::attribute::{find, text, u32_at};
use super::message::Message;
use super::request::Request;
use super::rtnetlink::{
    RTM_DELQDISC, RTM_DELTFILTER, RTM_GETQDISC, RTM_GETTFILTER, RTM_NEWQDISC, RTM_NEWTFILTER,
};
use super::socket::{NETLINK_ROUTE, Socket};
use crate::error::{Error, Result};

/// struct tcmsg: family, interface, handle, parent, and what else there is to say.
const HEADER: usize = 20;
const TC_H_ROOT: u32 = 0xffff_ffff;
/// Also TC_H_CLSACT.
const TC_H_INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;

/// The qdiscs that ingress filters hang on; an interface has at most one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressQdisc {
    /// Ingress and egress filters.
    Clsact,
    /// Ingress filters only.
    Ingress,
}

/// A queueing discipline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// The index of its interface.
    pub ifindex: u32,
    /// Where it stands: the handle of a class, or one of `TC_H_*`.
    pub parent: u32,
    /// Its kind, e.g. `fq_codel`.
    pub kind: String,
}

/// A classifier's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// At clsact's egress side.
    pub egress: bool,
    /// The smaller comes first.
    pub priority: u16,
    /// EtherType in the machine's byte order; 3 is all of them (ETH_P_ALL).
    pub protocol: u16,
    /// Unique within the priority. 0 for a classifier that lists no entries.
    pub handle: u32,
    /// The classifier: bpf, u32, flower, matchall, ...
    pub kind: String,
    /// What the owner of a bpf filter called it, e.g. `file.o:[section]`.
    pub bpf_name: Option<String>,
    /// The id of a bpf filter's program; classic bytecode has none.
    pub bpf_program: Option<u32>,
    /// Packets begin at chain 0.
    pub chain: u32,
}

/// All that looks at packets before the stack, and clsact's egress filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingress {
    /// The qdisc, if there is one.
    pub qdisc: Option<IngressQdisc>,
    /// Its filters.
    pub filters: Vec<Filter>,
}

/// The qdiscs of all interfaces, as they were when this was read.
///
/// The kernel dumps the qdiscs of all interfaces, never those of one. Reading them once for many
/// interfaces keeps the cost proportional to the number of interfaces.
pub struct Qdiscs {
    socket: Socket,
    /// By interface.
    ingress: HashMap<u32, IngressQdisc>,
    /// The kind of the root qdisc by interface.
    roots: HashMap<u32, String>,
}

impl Qdiscs {
    /// Reads them by one dump.
    pub fn read() -> Result<Self> {
        let mut socket = Socket::open(NETLINK_ROUTE)?;
        let start = || (HashMap::new(), HashMap::new());
        let request = request(RTM_GETQDISC, [0; 4]);
        let (ingress, roots) =
            socket.dump("reading the qdiscs", request, start, |(ingress, roots), message| {
                let Some(Qdisc { ifindex, parent, kind }) = parse_qdisc(message) else { return };
                match (parent, kind.as_str()) {
                    (TC_H_INGRESS, "clsact") => {
                        ingress.insert(ifindex, IngressQdisc::Clsact);
                    }
                    (TC_H_INGRESS, "ingress") => {
                        ingress.insert(ifindex, IngressQdisc::Ingress);
                    }
                    (TC_H_ROOT, _) => {
                        roots.insert(ifindex, kind);
                    }
                    _ => {}
                }
            })?;
        Ok(Self { socket, ingress, roots })
    }

    /// What stands at the interface's ingress. The filters are read now.
    pub fn ingress(&mut self, ifindex: u32) -> Result<Ingress> {
        let qdisc = self.ingress.get(&ifindex).copied();
        let mut filters = Vec::new();
        let parents: &[u32] = match qdisc {
            Some(IngressQdisc::Clsact) => &[CLSACT_INGRESS, CLSACT_EGRESS],
            Some(IngressQdisc::Ingress) => &[INGRESS_HANDLE],
            None => &[],
        };
        for &parent in parents {
            filters.extend(dump_filters(&mut self.socket, ifindex, parent)?);
        }
        Ok(Ingress { qdisc, filters })
    }

    /// The kind of the interface's egress qdisc, e.g. `fq_codel`, `htb`, `noqueue`.
    pub fn root_kind(&self, ifindex: u32) -> Option<&str> {
        self.roots.get(&ifindex).map(String::as_str)
    }
}

/// What stands at the ingress of one interface.
pub fn ingress(ifindex: u32) -> Result<Ingress> {
    Qdiscs::read()?.ingress(ifindex)
}

/// Removes the interface's clsact qdisc with all that is attached to it. An `ingress` qdisc is
/// refused by the kernel (EINVAL).
pub fn delete_clsact(ifindex: u32) -> Result<()> {
    let request = request(RTM_DELQDISC, [ifindex, INGRESS_HANDLE, TC_H_INGRESS, 0]);
    let doing = format!("removing clsact from interface {ifindex}");
    Socket::open(NETLINK_ROUTE)?.execute(&doing, request.with(TCA_KIND, b"clsact\0"))
}

/// Removes one filter from chain 0 of the interface's ingress or egress. A priority or handle of 0,
/// which means "all" to the kernel, is refused.
pub fn delete_filter(ifindex: u32, filter: &Filter) -> Result<()> {
    let Filter { priority, handle, protocol, egress, .. } = *filter;
    let (side, parent) =
        if egress { ("egress", CLSACT_EGRESS) } else { ("ingress", CLSACT_INGRESS) };
    let doing = format!("removing filter {handle:#x} from the {side} of interface {ifindex}");
    if priority == 0 || handle == 0 {
        return Err(Error::refused(format!("{doing}: no priority or handle given")));
    }
    let info = u32::from(priority) << 16 | u32::from(protocol.to_be());
    let request = request(RTM_DELTFILTER, [ifindex, handle, parent, info]);
    Socket::open(NETLINK_ROUTE)?.execute(&doing, request)
}

/// A request with the interface, handle, parent and info of struct tcmsg.
fn request(kind: u16, numbers: [u32; 4]) -> Request {
    let mut header = [0; HEADER];
    for (place, number) in header[4..].chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    Request::new(kind, &header)
}

/// Reads RTM_NEWQDISC.
pub(super) fn parse_qdisc(message: &Message<'_>) -> Option<Qdisc> {
    if message.kind != RTM_NEWQDISC {
        return None;
    }
    let (ifindex, parent) = (u32_at(message.payload, 4)?, u32_at(message.payload, 12)?);
    let kind = find(message.payload.get(HEADER..)?, TCA_KIND).map(text)?;
    Some(Qdisc { ifindex, parent, kind })
}

fn dump_filters(socket: &mut Socket, ifindex: u32, parent: u32) -> Result<Vec<Filter>> {
    let doing = format!("reading the filters of interface {ifindex}");
    let request = request(RTM_GETTFILTER, [ifindex, 0, parent, 0]);
    socket.dump(&doing, request, Vec::new, |filters, message| {
        if let Some(filter) = parse_filter(message, parent == CLSACT_EGRESS) {
            push(filters, filter);
        }
    })
}

/// Each classifier is listed with handle 0 before its entries: they make that line superfluous.
fn push(filters: &mut Vec<Filter>, filter: Filter) {
    let header = Filter { handle: 0, bpf_name: None, bpf_program: None, ..filter.clone() };
    if filters.last() == Some(&header) {
        filters.pop();
    }
    filters.push(filter);
}

/// Filters of a shared block name no interface: the dump lists only what was asked for anyway.
pub(super) fn parse_filter(message: &Message<'_>, egress: bool) -> Option<Filter> {
    if message.kind != RTM_NEWTFILTER {
        return None;
    }
    let info = u32_at(message.payload, 16)?;
    let attributes = message.payload.get(HEADER..)?;
    let kind = text(find(attributes, TCA_KIND)?);
    let options = find(attributes, TCA_OPTIONS).filter(|_| kind == "bpf");
    Some(Filter {
        egress,
        priority: (info >> 16) as u16,
        protocol: u16::from_be(info as u16),
        handle: u32_at(message.payload, 8)?,
        bpf_name: options.and_then(|options| find(options, TCA_BPF_NAME)).map(text),
        bpf_program: options
            .and_then(|options| find(options, TCA_BPF_ID))
            .and_then(|id| u32_at(id, 0)),
        chain: find(attributes, TCA_CHAIN).and_then(|chain| u32_at(chain, 0)).unwrap_or(0),
        kind,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, Emitable};
    use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

    use super::*;

    fn filter(handle: u32, attributes: Vec<TcAttribute>) -> Option<Filter> {
        let mut message = TcMessage::default();
        message.header.index = 3;
        message.header.parent = TcHandle::from(CLSACT_INGRESS);
        message.header.handle = handle.into();
        message.header.info = 7 << 16 | u32::from(0x0800u16.to_be());
        message.attributes = attributes;
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        let message = Message { kind: RTM_NEWTFILTER, payload: &payload, ..Message::default() };
        parse_filter(&message, false)
    }

    #[test]
    fn a_bpf_filter_has_a_name_and_a_program() {
        let name = TcOption::Other(DefaultNla::new(TCA_BPF_NAME, b"mine\0".to_vec()));
        let id = TcOption::Other(DefaultNla::new(TCA_BPF_ID, 77_u32.to_ne_bytes().to_vec()));
        let attributes = vec![
            TcAttribute::Kind("bpf".into()),
            TcAttribute::Chain(4),
            TcAttribute::Options(vec![name, id]),
        ];
        let expected = Filter {
            egress: false,
            priority: 7,
            protocol: 0x0800,
            handle: 1,
            kind: "bpf".into(),
            bpf_name: Some("mine".into()),
            bpf_program: Some(77),
            chain: 4,
        };
        assert_eq!(filter(1, attributes), Some(expected));
        assert_eq!(filter(1, vec![]), None);
    }

    #[test]
    fn a_classifier_without_entries_is_not_lost() {
        let mut filters = Vec::new();
        let kind = |kind: &str| vec![TcAttribute::Kind(kind.into())];
        push(&mut filters, filter(0, kind("odd")).unwrap());
        push(&mut filters, filter(0, kind("u32")).unwrap());
        push(&mut filters, filter(8, kind("u32")).unwrap());
        push(&mut filters, filter(9, kind("u32")).unwrap());
        assert_eq!(filters.iter().map(|one| one.handle).collect::<Vec<_>>(), [0, 8, 9]);
    }

    #[test]
    fn zeros_do_not_remove_everything() {
        let found = filter(1, vec![TcAttribute::Kind("bpf".into())]).unwrap();
        assert!(delete_filter(1, &Filter { priority: 0, ..found.clone() }).is_err());
        assert!(delete_filter(1, &Filter { handle: 0, ..found }).is_err());
    }
}
