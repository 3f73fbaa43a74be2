// SPDX-License-Identifier: GPL-2.0-only
//! BPF programs that belong to the tests.

use std::process::Command;

/// Compiles `tests/support/<name>.bpf.c`; `BPFW_TEST_OBJECTS` names a folder in which this was done,
/// for machines without a compiler.
pub fn compile(name: &str) -> Vec<u8> {
    if let Ok(folder) = std::env::var("BPFW_TEST_OBJECTS") {
        let path = format!("{folder}/{name}.o");
        return std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    compile_file(&format!("tests/support/{name}.bpf.c"))
}

/// Compiles a source; the object's bytes come by way of clang's standard output, so that no file
/// is left behind.
pub fn compile_file(source: &str) -> Vec<u8> {
    let clang = std::env::var("BPF_CLANG").unwrap_or_else(|_| "clang".into());
    let flags = std::fs::read_to_string("bpf/flags").expect("bpf/flags is part of the sources");
    let output = Command::new(&clang)
        .args(["-target", if cfg!(target_endian = "big") { "bpfeb" } else { "bpfel" }])
        .args(flags.split_whitespace())
        .args(["-c", source, "-o", "-"])
        .output()
        .unwrap_or_else(|error| panic!("{clang}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
