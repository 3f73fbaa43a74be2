// SPDX-License-Identifier: GPL-2.0-only
//! A copy of the BPF sources in which something is changed.

use bpfw::datapath::Hook;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The copy, which is removed when this is dropped.
pub struct Patched {
    folder: PathBuf,
}

impl Patched {
    /// Copies all, and replaces what stands in a file of bpf/; panics if it does not stand there.
    pub fn new(name: &str, file: &str, part: &str, instead: &str) -> Self {
        let name = format!("bpfw-patched-{}-{name}", std::process::id());
        let patched = Self { folder: std::env::temp_dir().join(name) };
        for folder in ["bpf", "bpf/shim/asm", "include"] {
            copy(Path::new(folder), &patched.folder.join(folder));
        }
        let path = patched.folder.join("bpf").join(file);
        let text = fs::read_to_string(&path).expect("a source");
        assert!(text.contains(part), "'{part}' does not stand in {file}");
        fs::write(&path, text.replace(part, instead)).expect("written");
        patched
    }

    /// Compiles the hook's object as bpfw's own.
    pub fn compile(&self, hook: Hook) -> PathBuf {
        let flags = fs::read_to_string("bpf/flags").expect("bpf/flags is part of the sources");
        let (target, order) =
            if cfg!(target_endian = "big") { ("bpfeb", "be") } else { ("bpfel", "le") };
        let object = self.folder.join(format!("{}_{order}_bpfw.o", hook.name()));
        let status = Command::new(std::env::var("BPF_CLANG").unwrap_or_else(|_| "clang".into()))
            .current_dir(&self.folder)
            .args(["-target", target])
            .args(flags.split_whitespace())
            // What was changed may leave something unused.
            .arg("-Wno-error")
            .args(["-c", &format!("bpf/{}.bpf.c", hook.name()), "-o"])
            .arg(&object)
            .status();
        assert!(status.expect("clang can be started").success());
        object
    }
}

impl Drop for Patched {
    fn drop(&mut self) {
        // Nothing better can be done about what is left behind.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder of sources").flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}
