// SPDX-License-Identifier: GPL-2.0-only
//! The tests' own BPF programs, which do something to a frame before the program under test.

use super::compile::compile;
use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, ProgramInput, ProgramOutput};
use std::os::fd::{AsRawFd, OwnedFd};

/// A loaded program; it ends in a call of another one.
pub struct Prelude {
    object: Object,
}

impl Prelude {
    /// Compiles and loads `tests/support/<name>.bpf.c`; `next` is the program to go on with.
    pub fn load(name: &str, next: &OwnedFd) -> Self {
        let open = ObjectBuilder::default().open_memory(&compile(name)).expect("opening a prelude");
        let prelude = Self { object: open.load().expect("loading a prelude") };
        prelude.set("next", next.as_raw_fd().to_ne_bytes());
        prelude
    }

    /// Writes a map's only slot.
    pub fn set(&self, map: &str, value: [u8; 4]) {
        let found = self.object.maps().find(|each| each.name() == map).expect("a map");
        found.update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY).expect("writing a map");
    }

    /// Runs it, and so the next one.
    pub fn run<'dat>(&self, input: ProgramInput<'dat>) -> libbpf_rs::Result<ProgramOutput<'dat>> {
        self.object.progs_mut().next().expect("a program").test_run(input)
    }
}
