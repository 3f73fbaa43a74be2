// SPDX-License-Identifier: GPL-2.0-only
//! The tests' own BPF program, which puts VLAN tags beside a frame.

use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, ProgramInput, ProgramOutput};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

/// The loaded program; it ends in a call of another one.
pub struct TagPusher {
    object: Object,
}

impl TagPusher {
    /// Compiles and loads it; `next` is the program to go on with.
    pub fn load(next: &OwnedFd) -> Self {
        let open = ObjectBuilder::default().open_memory(&compile()).expect("opening push_tag");
        let object = open.load().expect("loading push_tag");
        let map = object.maps().find(|map| map.name() == "next").expect("the map next");
        map.update(&0_u32.to_ne_bytes(), &next.as_raw_fd().to_ne_bytes(), MapFlags::ANY)
            .expect("naming the next program");
        Self { object }
    }

    /// Runs it, and so the next one.
    pub fn run<'dat>(&self, input: ProgramInput<'dat>) -> libbpf_rs::Result<ProgramOutput<'dat>> {
        self.object.progs_mut().next().expect("a program").test_run(input)
    }
}

/// The object's bytes, by way of clang's standard output: no file is left behind.
fn compile() -> Vec<u8> {
    let clang = std::env::var("BPF_CLANG").unwrap_or_else(|_| "clang".into());
    let flags = std::fs::read_to_string("bpf/flags").expect("bpf/flags is part of the sources");
    let output = Command::new(&clang)
        .args(["-target", if cfg!(target_endian = "big") { "bpfeb" } else { "bpfel" }])
        .args(flags.split_whitespace())
        .args(["-c", "tests/support/push_tag.bpf.c", "-o", "-"])
        .output()
        .unwrap_or_else(|error| panic!("{clang}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
