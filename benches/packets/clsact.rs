// SPDX-License-Identifier: GPL-2.0-only
//! Programs at TC as a kernel without TCX has them, on one that has it: as filters of clsact.

use super::subject::{ids_in_fdinfo, program_of};
use super::support::bystander::ifindex;
use super::support::lab::Lab;
use libbpf_rs::{Program, TC_EGRESS, TC_INGRESS, TcAttachPoint, TcHookBuilder};
use std::os::fd::{AsFd, BorrowedFd};

/// As src/datapath/attach_tc.rs has them.
const PRIORITY: u32 = u16::MAX as u32;
const HANDLE: u32 = 0xbf;

/// Adds a filter to a side of one of the router's interfaces, which has the qdisc.
pub fn add_filter(
    program: BorrowedFd<'_>,
    lab: &Lab,
    device: &str,
    side: TcAttachPoint,
) -> Result<(), String> {
    let index = ifindex(&lab.router, device) as i32;
    let add = || {
        let mut hook = TcHookBuilder::new(program)
            .ifindex(index)
            .replace(false)
            .handle(HANDLE)
            .priority(PRIORITY)
            .hook(side);
        hook.attach().map(|_| ())
    };
    lab.router.enter(add).map_err(|error| format!("adding a filter to {device}: {error}"))
}

/// Adds the qdisc to one of the router's interfaces.
pub fn add_qdisc(lab: &Lab, device: &str) {
    lab.router.sh(&format!("tc qdisc add dev {device} clsact"));
}

/// Adds filters with the daemon's programs, then takes its links off. The daemon looks for its programs at the
/// interfaces, and does not ask in which way they are there.
pub fn replace_tcx(pid: u32, lab: &Lab, devices: [&str; 2]) -> Result<(), String> {
    let links = ids_in_fdinfo(pid, "link_id:")?;
    if links.is_empty() {
        return Err("without TCX the row bpfw tc is the same".into());
    }
    let open = |name| {
        let program = Program::fd_from_id(program_of(pid, name)?.id);
        program.map_err(|error| format!("opening {name}: {error}"))
    };
    let (ingress, egress) = (open("bpfw_tc")?, open("bpfw_egress")?);
    for device in devices {
        add_qdisc(lab, device);
        add_filter(ingress.as_fd(), lab, device, TC_INGRESS)?;
        add_filter(egress.as_fd(), lab, device, TC_EGRESS)?;
    }
    for link in links {
        lab.router.sh(&format!("bpftool link detach id {link}"));
    }
    Ok(())
}
