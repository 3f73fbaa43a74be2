// SPDX-License-Identifier: GPL-2.0-only
//! The generator's program at the router, and the sink's at the hosts.

use super::plan::{Plan, Step, TIMES};
use super::support::bystander::ifindex;
use super::support::compile::compile_file;
use super::support::lab::Lab;
use super::support::netns::Namespace;
use bpfw::abi::Pod;
use bpfw::datapath::sys::{AttachType, link_create};
use libbpf_rs::{Map, MapCore, MapFlags, Object, ObjectBuilder, ProgramInput, ProgramMut};
use libbpf_sys::{BPF_F_TEST_XDP_LIVE_FRAMES, xdp_md};
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const ONLY: [u8; 4] = [0; 4];
const PLAN: &str = ".data.plan";

/// Frames that the kernel takes at once (`NAPI_POLL_WEIGHT` of net/bpf/test_run.c). The time is
/// taken from the start of one batch to the start of another.
const BATCH: u32 = 64;
/// Frames before the time is taken: they fill the pool of pages, and the caches.
const LEAD_IN: u32 = 16 * BATCH;

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub sent: u64,
    /// Nanoseconds per frame; under qemu's -icount that many instructions.
    pub cost: f64,
}

/// Loaded programs, which have a router of their own.
pub struct Generator {
    object: Object,
    lan: u32,
    wan: u32,
    _links: Vec<OwnedFd>,
}

impl Generator {
    /// Compiles and loads it, and attaches the sink to both hosts.
    pub fn new(lab: &Lab) -> Self {
        let open = ObjectBuilder::default()
            .open_memory(&compile_file("benches/bpf/generator.bpf.c"))
            .expect("opening the generator");
        let object = open.load().expect("loading the generator");
        let (lan, wan) = (ifindex(&lab.router, "lan0"), ifindex(&lab.router, "wan0"));
        let mut generator = Self { object, lan, wan, _links: Vec::new() };
        for host in [&lab.client, &lab.server] {
            let link = generator.attach("sink", host, "eth0", AttachType::Xdp(0));
            generator._links.push(link);
        }
        generator
    }

    /// Attaches one of its programs.
    pub fn attach(
        &self,
        program: &str,
        namespace: &Namespace,
        device: &str,
        to: AttachType,
    ) -> OwnedFd {
        let program = self.program(program);
        let (program, index) = (program.as_fd(), ifindex(namespace, device));
        let link = namespace.enter(|| link_create(program, index, to));
        link.expect("attaching to an interface of our own")
    }

    /// What `Action::Call` calls.
    pub fn set_next(&self, program: BorrowedFd<'_>) {
        let value = program.as_raw_fd().to_ne_bytes();
        self.map("next").update(&ONLY, &value, MapFlags::ANY).expect("the same kind of program");
    }

    /// Sends so many frames. Says how many were really sent, and how long one took.
    pub fn run(&self, router: &Namespace, plan: &Plan, frames: u32) -> libbpf_rs::Result<Run> {
        let frames = frames.next_multiple_of(BATCH);
        let last = LEAD_IN + frames;
        let bytes = plan.bytes(self.wan, [LEAD_IN, last]);
        self.map(PLAN).update(&ONLY, &bytes, MapFlags::ANY)?;
        self.run_program(router, plan, last + BATCH)?;
        let bytes = self.map(PLAN).lookup(&ONLY, MapFlags::ANY)?.unwrap_or_default();
        let times = &bytes[bytes.len() - TIMES..];
        let time = |at: usize| u64::from_bytes(&times[at..at + 8]).expect("eight bytes");
        let cost = (time(8) - time(0)) as f64 / f64::from(frames);
        Ok(Run { sent: u64::from(last + BATCH), cost })
    }

    fn run_program(&self, router: &Namespace, plan: &Plan, frames: u32) -> libbpf_rs::Result<()> {
        let ingress = if plan.step == Step::Answer { self.wan } else { self.lan };
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

    /// Frames that arrived at the hosts so far.
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
