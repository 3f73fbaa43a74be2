// SPDX-License-Identifier: GPL-2.0-only
//! What stands at the router's interfaces, and is measured.

use super::clsact::{add_qdisc, replace_tcx};
use super::cpu::{leave_the_last, wait_for_rest};
use super::generator::Generator;
use super::plan::Connections;
use super::router::{add_flowtable, count_slow, slow_packets};
use super::row::Row;
use super::support::bystander::ifindex;
use super::support::daemon::Daemon;
use super::support::lab::Lab;
use super::support::maps::Maps;
use super::support::router::start_at;
use bpfw::abi;
use bpfw::datapath::sys::AttachType;
use libbpf_rs::query::{ProgInfoIter, ProgramInfo};
use libbpf_rs::{
    MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder, Program, ProgramType, TC_EGRESS,
    TC_INGRESS,
};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What a row's packets meet; it stays for as long as this is held.
pub enum Subject {
    /// Nothing, the stack, or what goes with the lab.
    Kernel,
    /// The kernel's flow table.
    Flowtable,
    /// The generator's own program at TC.
    Redirect { _links: Vec<OwnedFd> },
    /// bpfw
    Daemon { daemon: Daemon, maps: Maps, verified: u32 },
    /// Somebody's XDP program.
    Object { _object: Object, verified: u32 },
}

impl Subject {
    /// Sets up what the row needs, or says why it cannot be measured.
    pub fn new(
        row: Row,
        lab: &Lab,
        generator: &Generator,
        connections: Connections,
        object: Option<&Path>,
    ) -> Result<Self, String> {
        let [lan, wan] = connections.way.names();
        match row {
            Row::Generator | Row::XdpRedirect | Row::Stack => Ok(Self::Kernel),
            Row::TcRedirect | Row::TcRedirectEgress => {
                let attach = |name, device, to| generator.attach(name, &lab.router, device, to);
                let mut links = vec![attach("redirect_tc", lan, AttachType::TcxIngress)?];
                if row == Row::TcRedirectEgress {
                    links.push(attach("pass_tc", wan, AttachType::TcxEgress)?);
                }
                Ok(Self::Redirect { _links: links })
            }
            Row::BpfwXdp => daemon("xdp", lab, generator, connections),
            Row::BpfwTc => daemon("tc", lab, generator, connections),
            Row::ClsactRedirect | Row::ClsactRedirectEgress => {
                add_qdisc(lab, lan);
                generator.add_filter("redirect_tc", lab, lan, TC_INGRESS)?;
                if row == Row::ClsactRedirectEgress {
                    add_qdisc(lab, wan);
                    generator.add_filter("pass_tc", lab, wan, TC_EGRESS)?;
                }
                Ok(Self::Kernel)
            }
            Row::BpfwClsact => {
                let subject = daemon("tc", lab, generator, connections)?;
                if let Self::Daemon { daemon, .. } = &subject {
                    replace_tcx(daemon.pid(), lab, [lan, wan])?;
                }
                Ok(subject)
            }
            Row::Flowtable => {
                add_flowtable(lab, connections)?;
                count_slow(lab);
                Ok(Self::Flowtable)
            }
            Row::XdpObject => {
                let path = object.ok_or("--xdp-object is not given")?;
                // Some programs use it; others find a stack as in the row of the kernel's.
                let _ = add_flowtable(lab, connections);
                count_slow(lab);
                load(path, lab, generator)
            }
        }
    }

    /// Packets that took the fast path so far, where there is one and `sent` were sent.
    pub fn forwarded(&self, lab: &Lab) -> Option<Count> {
        match self {
            Self::Kernel | Self::Redirect { .. } => None,
            Self::Daemon { maps, .. } => Some(Count::Fast(maps.packets(abi::BPFW_FORWARDED))),
            Self::Flowtable | Self::Object { .. } => Some(Count::Slow(slow_packets(lab))),
        }
    }

    /// Whether this connection has yet to come to bpfw's fast path.
    pub fn lacks(&self, connections: Connections, number: u32) -> bool {
        match self {
            Self::Daemon { maps, .. } => !maps.has_connection(connections.tuple(number)),
            _ => false,
        }
    }

    /// Until a daemon has done what the connections gave it to do.
    pub fn wait_for_rest(&self) {
        if let Self::Daemon { daemon, .. } = self {
            wait_for_rest(daemon.pid());
        }
    }

    /// The instructions that the verifier went through.
    pub fn verified(&self) -> Option<u32> {
        match self {
            Self::Daemon { verified, .. } | Self::Object { verified, .. } => Some(*verified),
            _ => None,
        }
    }
}

/// Packets so far: those of the fast path, or those of the slow one.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    Fast(u64),
    Slow(u64),
}

impl Count {
    /// Packets of the fast path since `before`, when so many were sent.
    pub fn fast_since(self, before: Self, sent: u64) -> u64 {
        match (before, self) {
            (Self::Fast(before), Self::Fast(now)) => now - before,
            (Self::Slow(before), Self::Slow(now)) => sent.saturating_sub(now - before),
            _ => 0,
        }
    }
}

fn daemon(
    hook: &str,
    lab: &Lab,
    generator: &Generator,
    connections: Connections,
) -> Result<Subject, String> {
    let number = connections.number.to_string();
    let options = ["--max-connections", &number, "--log-level", "info"];
    let daemon = start_at(lab, hook, &options, &connections.way.names());
    leave_the_last(daemon.pid())?;
    let info = program_of(daemon.pid(), &format!("bpfw_{hook}"))?;
    if hook == "xdp" {
        let program = Program::fd_from_id(info.id).map_err(|error| error.to_string())?;
        generator.set_next(program.as_fd())?;
    }
    let maps = Maps::of(daemon.pid());
    Ok(Subject::Daemon { daemon, maps, verified: info.verified_insns })
}

/// The program of this name that a process holds open.
pub fn program_of(pid: u32, name: &str) -> Result<ProgramInfo, String> {
    let ids = ids_in_fdinfo(pid, "prog_id:")?;
    let mut all = ProgInfoIter::default();
    let found = all.find(|each| ids.contains(&each.id) && each.name.to_str() == Some(name));
    found.ok_or_else(|| format!("process {pid} has no program {name}"))
}

/// The numbers behind this word, one for each open file that has it.
pub fn ids_in_fdinfo(pid: u32, word: &str) -> Result<Vec<u32>, String> {
    let directory = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    let directory = directory.map_err(|error| format!("process {pid}: {error}"))?;
    let texts = directory.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    let id =
        |text: String| text.lines().find_map(|line| line.strip_prefix(word))?.trim().parse().ok();
    Ok(texts.filter_map(id).collect())
}

/// The first XDP program of an object, or the one whose name follows a colon.
fn load(path: &Path, lab: &Lab, generator: &Generator) -> Result<Subject, String> {
    let text = path.to_string_lossy();
    let (file, name) = match text.split_once(':') {
        Some((file, name)) => (file, Some(name)),
        None => (&*text, None),
    };
    let failed = |error: libbpf_rs::Error| format!("{file}: {error}");
    let object = ObjectBuilder::default().open_file(file).map_err(failed)?;
    let object = object.load().map_err(failed)?;
    fill_devmaps(&object, lab).map_err(failed)?;
    let is_wanted = |program: &libbpf_rs::ProgramMut<'_>| match name {
        Some(name) => program.name() == name,
        None => program.prog_type() == ProgramType::Xdp,
    };
    let found = object.progs_mut().find(is_wanted);
    let verified = {
        let program = found.ok_or_else(|| format!("{file} has no such XDP program"))?;
        generator.set_next(program.as_fd())?;
        verified(program.as_fd()).map_err(failed)?
    };
    Ok(Subject::Object { _object: object, verified })
}

fn verified(program: BorrowedFd<'_>) -> libbpf_rs::Result<u32> {
    let id = Program::id_from_fd(program)?;
    Ok(ProgInfoIter::default().find(|each| each.id == id).map_or(0, |info| info.verified_insns))
}

/// Programs that redirect by a map of devices find both interfaces under their own numbers.
fn fill_devmaps(object: &Object, lab: &Lab) -> libbpf_rs::Result<()> {
    for map in object.maps() {
        if !matches!(map.map_type(), MapType::Devmap | MapType::DevmapHash) {
            continue;
        }
        let map = MapHandle::try_from(&map)?;
        for device in ["lan0", "wan0"] {
            let index = ifindex(&lab.router, device).to_ne_bytes();
            let mut value = vec![0; map.value_size() as usize];
            value[..4].copy_from_slice(&index);
            lab.router.enter(|| map.update(&index, &value, MapFlags::ANY))?;
        }
    }
    Ok(())
}
