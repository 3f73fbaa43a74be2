// SPDX-License-Identifier: GPL-2.0-only
//! The generator's program at the router, and the sink's at the hosts.

use super::clsact::add_filter;
use super::plan::{Plan, TIMES};
use super::support::bystander::ifindex;
use super::support::lab::Lab;
use super::support::netns::Namespace;
use super::support::tun_device;
use super::way::Way;
use bpfw::abi::Pod;
use bpfw::datapath::sys::{AttachType, link_create};
use libbpf_rs::{
    Map, MapCore, MapFlags, Object, ObjectBuilder, ProgramInput, ProgramMut, TcAttachPoint,
};
use libbpf_sys::{BPF_F_TEST_XDP_LIVE_FRAMES, xdp_md};
use std::fs::File;
use std::mem::offset_of;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const ONLY: [u8; 4] = [0; 4];
const PLAN: &str = ".data.plan";

/// Frames that the kernel takes at once (`NAPI_POLL_WEIGHT` of net/bpf/test_run.c).
const BATCH: u32 = 64;
/// Frames before the time is taken: they fill the pool of pages, and the caches with each of the
/// connections, as far as that can be.
const LEAD_IN: RangeInclusive<u32> = 16 * BATCH..=2048 * BATCH;

/// How many frames are sent, and between which two of them the time is taken.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    first: u32,
    last: u32,
    frames: u32,
}

impl Timed {
    /// These and no others: their time tells little.
    pub fn only(frames: u32) -> Self {
        Self { first: 0, last: frames - 1, frames }
    }

    /// At least so many of these connections, from the start of a batch to that of another, and
    /// some around them.
    pub fn within(frames: u32, connections: u32) -> Self {
        let lead_in = connections.clamp(*LEAD_IN.start(), *LEAD_IN.end());
        let first = lead_in.next_multiple_of(BATCH);
        let last = first + frames.next_multiple_of(BATCH);
        Self { first, last, frames: last + BATCH }
    }

    /// All that are sent.
    pub fn frames(self) -> u32 {
        self.frames
    }
}

/// Loaded programs, which have a router of their own.
pub struct Generator {
    object: Object,
    /// Where packets come in: from the client, and from the server.
    lan: u32,
    back: u32,
    /// Where redirects go.
    wan: u32,
    sinks: Vec<OwnedFd>,
}

impl Generator {
    /// Loads it, and attaches the sinks to the hosts.
    pub fn new(lab: &Lab, way: Way, object: &[u8]) -> Result<Self, String> {
        let failed = |error: libbpf_rs::Error| format!("loading the generator: {error}");
        let open = ObjectBuilder::default().open_memory(object).map_err(failed)?;
        let object = open.load().map_err(failed)?;
        let [lan, back, wan] =
            ["lan0", way.back(), way.names()[1]].map(|name| ifindex(&lab.router, name));
        let mut generator = Self { object, lan, back, wan, sinks: Vec::new() };
        for (host, program) in [(&lab.client, "swallow"), (&lab.server, "sink")] {
            generator.sinks.push(generator.attach(program, host, "eth0", AttachType::Xdp(0))?);
        }
        Ok(generator)
    }

    /// Attaches one of its programs.
    pub fn attach(
        &self,
        program: &str,
        namespace: &Namespace,
        device: &str,
        to: AttachType,
    ) -> Result<OwnedFd, String> {
        let program = self.program(program);
        let (program, index) = (program.as_fd(), ifindex(namespace, device));
        let link = namespace.enter(|| link_create(program, index, to));
        link.map_err(|error| format!("attaching to {device}: {error}"))
    }

    /// Adds one of its programs to a side of clsact, where it stays.
    pub fn add_filter(
        &self,
        program: &str,
        lab: &Lab,
        device: &str,
        side: TcAttachPoint,
    ) -> Result<(), String> {
        add_filter(self.program(program).as_fd(), lab, device, side)
    }

    /// Packets that leave by this tun end there, and are counted.
    pub fn end_at(&self, tun: &File) -> Result<(), String> {
        let program = self.program("sink_tun");
        let set = tun_device::set_filter(tun, program.as_fd());
        set.map_err(|error| format!("counting at the tun: {error}"))
    }

    /// What `Action::Call` calls.
    pub fn set_next(&self, program: BorrowedFd<'_>) -> Result<(), String> {
        let value = program.as_raw_fd().to_ne_bytes();
        let set = self.map("next").update(&ONLY, &value, MapFlags::ANY);
        set.map_err(|error| format!("the generator cannot call this program: {error}"))
    }

    /// Sends frames; says how many nanoseconds one took, which under qemu's -icount are
    /// instructions.
    pub fn run(&self, router: &Namespace, plan: &Plan, timed: Timed) -> libbpf_rs::Result<f64> {
        let Timed { first, last, frames } = timed;
        let bytes = plan.bytes(self.wan, [first, last]);
        self.map(PLAN).update(&ONLY, &bytes, MapFlags::ANY)?;
        self.run_program(router, plan, frames)?;
        let bytes = self.map(PLAN).lookup(&ONLY, MapFlags::ANY)?.unwrap_or_default();
        let times = &bytes[bytes.len() - TIMES..];
        let time = |at: usize| u64::from_bytes(&times[at..at + 8]).expect("eight bytes");
        Ok(time(8).saturating_sub(time(0)) as f64 / f64::from(last - first))
    }

    fn run_program(&self, router: &Namespace, plan: &Plan, frames: u32) -> libbpf_rs::Result<()> {
        let ingress = if plan.step.is_reply() { self.back } else { self.lan };
        let frame = plan.frame();
        let mut context = vec![0; size_of::<xdp_md>()];
        let mut put = |at: usize, value: u32| {
            context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        };
        put(offset_of!(xdp_md, data_end), frame.len() as u32);
        put(offset_of!(xdp_md, ingress_ifindex), ingress);
        router.enter(|| {
            let input = ProgramInput {
                context_in: Some(&mut context),
                data_in: Some(&frame),
                flags: BPF_F_TEST_XDP_LIVE_FRAMES,
                repeat: frames,
                ..Default::default()
            };
            self.program("generate").test_run(input).map(|_| ())
        })
    }

    /// Frames that arrived at the server so far.
    pub fn arrived(&self) -> u64 {
        let values = self.map("arrived").lookup_percpu(&ONLY, MapFlags::ANY);
        let values = values.expect("readable").expect("one entry");
        values.iter().filter_map(|value| u64::from_bytes(value)).sum()
    }

    fn program(&self, name: &str) -> ProgramMut<'_> {
        let mut programs = self.object.progs_mut();
        programs.find(|program| program.name() == name).expect("a program of generator.bpf.c")
    }

    fn map(&self, name: &str) -> Map<'_> {
        let found = self.object.maps().find(|map| map.name() == name);
        found.expect("a map of generator.bpf.c")
    }
}
