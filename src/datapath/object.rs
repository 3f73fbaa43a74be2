// SPDX-License-Identifier: GPL-2.0-only
//! Loading the BPF object, embedded or from a file, after making sure that it is one of ours.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use clap::ValueEnum;
use libbpf_rs::{Object, ObjectBuilder, OpenObject, ProgramInput, ProgramMut};
use nix::sys::utsname::uname;

use super::attachment::Programs;
use super::map_names::{
    CONN_CELLS, CONN_MAP, CONN_RESTS, EGRESS_MAP, LINK_MAP, SETTINGS, TRANSLATION_MAP,
};
use super::skeleton::{OpenSkeleton, Skeleton, Storage};
use super::{Hook, libbpf_error, probe};
use crate::abi::{self, Pod, bpfw_settings};
use crate::error::{Error, Result};

const BEAT: &str = "bpfw_beat";
const STAMP: &str = "bpfw_stamp";
const EGRESS: &str = "bpfw_egress";
/// For interfaces whose packets begin with the IP header.
const HEADERLESS: &str = "bpfw_tc_l3";
const HEADERLESS_EGRESS: &str = "bpfw_egress_l3";

/// What the programs are written for (README.md, "Kernel requirements").
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// How much the datapath writes to the kernel's trace pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BpfLogLevel {
    /// Nothing; the messages are not even loaded
    Off,
    /// Look-ups, signals, connections that end
    Info,
    /// Every packet's verdict too
    Debug,
}

impl BpfLogLevel {
    fn as_setting(self) -> u32 {
        match self {
            Self::Off => abi::BPFW_LOG_OFF,
            Self::Info => abi::BPFW_LOG_INFO,
            Self::Debug => abi::BPFW_LOG_DEBUG,
        }
    }
}

/// What the datapath must be told before it is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The hook it will be attached to.
    pub hook: Hook,
    /// How much it writes to the kernel's trace pipe.
    pub log_level: BpfLogLevel,
    /// Age in jiffies at which a heartbeat is too old.
    pub beat_limit: u32,
    /// The bits of conntrack's mark that packets are routed by, 0 for none.
    pub route_mark: u32,
    /// How many connections there may be, each in two directions.
    pub max_connections: u32,
    /// How many interfaces there are; as many again may come.
    pub interfaces: usize,
    /// How many cells a hash may lead to, a power of two.
    pub cells: u32,
    /// The key of the tuples' hash and of proofs: nobody else's guess.
    pub seed: u64,
}

/// A loaded object with our programs and maps.
pub enum LoadedObject<'obj> {
    /// The embedded one.
    Embedded(Skeleton<'obj>),
    /// One from a file.
    File(Object),
}

impl<'obj> LoadedObject<'obj> {
    /// Loads the object in the file, or the embedded one if there is none.
    pub fn load(
        file: Option<&Path>,
        settings: &Settings,
        storage: &'obj mut Storage,
    ) -> Result<Self> {
        let Some(path) = file else {
            let doing = || format!("loading the embedded {} object", settings.hook.name());
            let mut skeleton = OpenSkeleton::open(settings.hook, storage)
                .map_err(|error| libbpf_error(doing(), &error))?;
            configure(skeleton.object_mut(), "the embedded object", settings)?;
            let loaded = skeleton.load().map_err(|error| load_error(doing(), &error))?;
            return Ok(Self::Embedded(loaded));
        };
        check_elf(path)?;
        let shown = path.display().to_string();
        let mut object = ObjectBuilder::default()
            .open_file(path)
            .map_err(|error| libbpf_error(format!("opening the object {shown}"), &error))?;
        configure(&mut object, &shown, settings)?;
        let loaded = object
            .load()
            .map_err(|error| load_error(format!("loading the object {shown}"), &error))?;
        Ok(Self::File(loaded))
    }

    /// The object itself.
    pub fn object(&self) -> &Object {
        match self {
            Self::Embedded(skeleton) => skeleton.object(),
            Self::File(object) => object,
        }
    }

    /// How many programs it has.
    pub fn programs_number(&self) -> usize {
        self.object().progs().count()
    }

    /// The program of this name.
    pub fn program(&self, name: &str) -> Result<ProgramMut<'_>> {
        self.object()
            .progs_mut()
            .find(|program| program.name() == name)
            .ok_or_else(|| Error::refused(format!("the object has no program {name}")))
    }

    /// Lets the datapath see that the daemon is alive; `false` if that comes too late: nothing is
    /// forwarded until [`State::begin_anew`](super::state::State::begin_anew).
    pub fn beat(&self) -> Result<bool> {
        self.program(BEAT)?
            .test_run(ProgramInput::default())
            .map(|output| output.return_value == 0)
            .map_err(|error| libbpf_error("running the heartbeat program", &error))
    }

    /// A descriptor of the hook's own program.
    pub fn hook_program(&self, hook: Hook) -> Result<OwnedFd> {
        self.descriptor(hook.program_name())
    }

    /// All programs that belong at each interface.
    pub fn programs(&self, hook: Hook) -> Result<Programs> {
        let stamp = match hook {
            Hook::Xdp => Some(self.descriptor(STAMP)?),
            Hook::Tc => None,
        };
        let programs =
            Programs::new(hook, self.hook_program(hook)?, stamp, self.descriptor(EGRESS)?);
        if hook == Hook::Xdp || !probe::can_read_without_header() {
            return Ok(programs);
        }
        let (own, egress) = (self.descriptor(HEADERLESS)?, self.descriptor(HEADERLESS_EGRESS)?);
        Ok(programs.with_headerless(own, egress))
    }

    fn descriptor(&self, program: &str) -> Result<OwnedFd> {
        self.program(program)?
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::system("duplicating a program's descriptor", error))
    }
}

/// Looks at the file's first bytes, because libbpf's word for all of this is "invalid argument".
fn check_elf(path: &Path) -> Result<()> {
    let shown = path.display();
    let mut header = [0_u8; 20];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut header))
        .map_err(|error| Error::system(format!("reading the object {shown}"), error))
        .map_err(|error| error.with_advice("give a BPF object made by 'make', or none"))?;
    if header[..4] != *b"\x7fELF" {
        return Err(Error::refused(format!("{shown} is not an object file")));
    }
    let little = header[5] == 1;
    if little != cfg!(target_endian = "little") {
        let (is, wanted) = if little { ("little", "big") } else { ("big", "little") };
        return Err(Error::refused(format!("{shown} is an object for {is}-endian machines"))
            .with_advice(format!("this machine is {wanted}-endian")));
    }
    let machine = [header[18], header[19]];
    let machine = if little { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
    const EM_BPF: u16 = 247;
    if machine != EM_BPF {
        return Err(Error::refused(format!("{shown} is an object file, but not of BPF code")));
    }
    Ok(())
}

/// Writes the settings and the maps' sizes, by name and by bytes. The skeleton of the embedded
/// object has them as Rust fields, but an object from a file has no skeleton.
fn configure(object: &mut OpenObject, name: &str, settings: &Settings) -> Result<()> {
    let mut found = false;
    for mut map in object.maps_mut() {
        if map.name() == SETTINGS {
            let old = map.initial_value().and_then(bpfw_settings::from_bytes).unwrap_or_default();
            let new = checked_settings(old, name, settings)?;
            map.set_initial_value(new.bytes())
                .map_err(|error| libbpf_error(format!("configuring {name}"), &error))?;
            found = true;
        }
        let room = match map.name().to_str() {
            Some(CONN_MAP) => settings.max_connections.saturating_mul(2),
            // Of half of the connections: few networks translate IPv6, and the room takes memory.
            Some(TRANSLATION_MAP) => settings.max_connections,
            Some(CONN_CELLS | CONN_RESTS) => settings.cells + abi::BPFW_PROBES - 1,
            Some(LINK_MAP | EGRESS_MAP) => device_room(settings.interfaces),
            _ => continue,
        };
        map.set_max_entries(room)
            .map_err(|error| libbpf_error(format!("configuring {name}"), &error))?;
    }
    if !probe::can_read_without_header() {
        leave_headerless_out(object);
    }
    if found { Ok(()) } else { Err(not_ours(name)) }
}

/// The kernel would refuse these programs, and all others with them.
fn leave_headerless_out(object: &mut OpenObject) {
    let headerless = |name: &OsStr| name == HEADERLESS || name == HEADERLESS_EGRESS;
    for mut program in object.progs_mut().filter(|program| headerless(program.name())) {
        program.set_autoload(false);
    }
}

/// A VLAN interface that is named as well as its port takes two entries. An entry that is not used takes 16
/// bytes of memory.
fn device_room(interfaces: usize) -> u32 {
    u32::try_from(interfaces * 4).unwrap_or(u32::MAX).max(abi::BPFW_LINK_SLOTS)
}

fn checked_settings(old: bpfw_settings, name: &str, settings: &Settings) -> Result<bpfw_settings> {
    if old.magic != abi::BPFW_MAGIC {
        return Err(not_ours(name));
    }
    if old.abi_version != abi::BPFW_ABI_VERSION {
        return Err(Error::refused(format!(
            "{name} belongs to another version of bpfw (its interface is {}, not {})",
            old.abi_version,
            abi::BPFW_ABI_VERSION
        ))
        .with_advice("use the object that came with this bpfw, or none"));
    }
    let hook = match settings.hook {
        Hook::Xdp => abi::BPFW_HOOK_XDP,
        Hook::Tc => abi::BPFW_HOOK_TC,
    };
    if old.hook != hook {
        return Err(Error::refused(format!(
            "{name} is not made for the hook {}",
            settings.hook.name()
        ))
        .with_advice("XDP and TC have objects of their own"));
    }
    Ok(bpfw_settings {
        log_level: settings.log_level.as_setting(),
        beat_limit: settings.beat_limit,
        route_mark: settings.route_mark,
        seed: settings.seed | 1,
        first_mask: settings.cells - 1,
        ..old
    })
}

fn not_ours(name: &str) -> Error {
    Error::refused(format!("{name} is a BPF object, but not one of bpfw"))
}

fn load_error(doing: String, error: &libbpf_rs::Error) -> Error {
    let debug = "RUST_LOG=libbpf=debug shows what the kernel says";
    let advice = match (error.kind(), too_old_kernel()) {
        (libbpf_rs::ErrorKind::PermissionDenied, _) => "run as root, or with CAP_BPF, \
             CAP_NET_ADMIN and CAP_PERFMON; if you do, the kernel's verifier said no: see \
             RUST_LOG=libbpf=debug"
            .to_owned(),
        (libbpf_rs::ErrorKind::OutOfMemory, _) => "lower --max-connections".to_owned(),
        (_, Some(release)) => {
            format!("this is Linux {release}, and bpfw needs 5.15 or later; {debug}")
        }
        (_, None) => debug.to_owned(),
    };
    libbpf_error(doing, error).with_advice(advice)
}

/// This kernel's release, if it is older than the programs need.
fn too_old_kernel() -> Option<String> {
    let release = uname().ok()?.release().to_string_lossy().into_owned();
    is_too_old(&release).then_some(release)
}

fn is_too_old(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version < OLDEST_KERNEL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_61_the_device_maps_have_room_for_twice_the_interfaces() {
        assert_eq!(device_room(3), abi::BPFW_LINK_SLOTS);
        assert_eq!(device_room(1024), abi::BPFW_LINK_SLOTS);
        assert_eq!(device_room(10_000), 40_000);
    }

    #[test]
    fn releases_are_compared_by_number() {
        for old in ["5.10.0-46-amd64", "5.14.21", "4.19.0", "5.9-rc1"] {
            assert!(is_too_old(old), "{old}");
        }
        for new in ["5.15.0", "5.15", "5.100.1", "6.1.0-50-amd64", "7.2.13+deb14-s390x"] {
            assert!(!is_too_old(new), "{new}");
        }
    }
}
