// SPDX-License-Identifier: GPL-2.0-only
//! `make OPENWRT_DIR=... TARGET=...` in trees that are not as they should be: what it says, and that
//! it builds nothing. `make test-cross` builds in a good one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const AARCH64: &str = "aarch64_cortex-a53";

/// A folder with no more than empty files and scripts in the places of OpenWrt's; removed at the end.
struct Tree(PathBuf);

impl Tree {
    fn empty(test: &str) -> Self {
        let root = std::env::temp_dir().join(format!("bpfw-tree-{test}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    /// One in which nothing is missing for aarch64, but a Rust that could build anything.
    fn complete(test: &str) -> Self {
        let tree = Self::empty(test);
        tree.target("aarch64_cortex-a53", "13.3.0_musl", "aarch64-openwrt-linux-musl");
        tree
    }

    /// Toolchain, libraries and Rust of a target of 64 bits.
    fn target(&self, name: &str, compiler: &str, machine: &str) {
        let libc = compiler.rsplit('_').next().unwrap();
        self.toolchain(&format!("{name}_gcc-{compiler}"), machine, 8);
        self.libraries(&format!("{name}_{libc}"), &["elf", "z", "netfilter_conntrack"]);
        self.rust("1.85.0");
    }

    /// A Rust that has no standard library, in the tree.
    fn rust(&self, version: &str) {
        self.rust_in("staging_dir/hostpkg/bin", version);
    }

    fn rust_in(&self, folder: &str, version: &str) {
        self.script(&format!("{folder}/cargo"), "echo built >&2; exit 1");
        let version = format!("rustc {version} (4d91de4e4 2025-02-17)");
        self.script(
            &format!("{folder}/rustc"),
            &format!("[ $1 = --version ] && echo '{version}' || echo /nowhere/{folder}"),
        );
    }

    fn file(&self, path: &str, content: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn script(&self, path: &str, content: &str) {
        let path = self.file(path, &format!("#!/bin/sh\n{content}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A compiler that knows its machine's size of a pointer, and is little-endian.
    fn toolchain(&self, name: &str, machine: &str, pointer: u32) {
        self.script(
            &format!("staging_dir/toolchain-{name}/bin/{machine}-gcc"),
            &format!("sed 's/__SIZEOF_POINTER__/{pointer}/; s/__BYTE_ORDER__/1234/'"),
        );
    }

    fn libraries(&self, name: &str, libraries: &[&str]) {
        let usr = format!("staging_dir/target-{name}/usr");
        for header in ["libelf.h", "zlib.h", "libnetfilter_conntrack/libnetfilter_conntrack.h"] {
            self.file(&format!("{usr}/include/{header}"), "");
        }
        for library in libraries {
            self.file(&format!("{usr}/lib/lib{library}.so"), "");
        }
    }

    /// What make says when it fails, which it must.
    fn refusal(&self, target: &str) -> String {
        refusal(&self.0, target)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Nothing but a temporary folder would be left.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn refusal(root: &Path, target: &str) -> String {
    refusal_with(root, target, &[])
}

/// With these folders in front of PATH.
fn refusal_with(root: &Path, target: &str, folders: &[PathBuf]) -> String {
    let path = std::env::var_os("PATH").unwrap();
    let path = folders.iter().cloned().chain(std::env::split_paths(&path));
    let output = Command::new("make")
        .env("PATH", std::env::join_paths(path).unwrap())
        .args(["--no-print-directory", &format!("OPENWRT_DIR={}", root.display())])
        .arg(format!("TARGET={target}"))
        .output()
        .expect("make is there");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    said
}

/// What was looked for, what was found, what to do: each is said.
fn says(said: &str, parts: &[&str]) {
    for part in ["looked for: ", "found: ", "to do: "].iter().chain(parts) {
        assert!(said.contains(part), "no '{part}' in:\n{said}");
    }
}

#[test]
fn a_folder_that_is_not_there() {
    let said = refusal(Path::new("/nonexistent"), AARCH64);
    says(&said, &["/nonexistent/staging_dir", "no such folder"]);
}

#[test]
fn a_folder_that_is_no_tree() {
    let tree = Tree::empty("wrong");
    tree.file("something/else", "");
    says(&tree.refusal(AARCH64), &["is not the root of an OpenWrt tree", "found: something"]);
}

#[test]
fn no_target_named() {
    assert!(Tree::complete("unnamed").refusal("").contains("TARGET=<x86_64|aarch64|...>"));
}

#[test]
fn no_toolchain_of_that_name() {
    let said = Tree::complete("toolchain").refusal("x86_64");
    says(
        &said,
        &["no toolchain for 'x86_64'", "toolchain-aarch64_cortex-a53", "toolchain/install"],
    );
}

#[test]
fn a_name_must_end_at_a_word() {
    says(&Tree::complete("word").refusal("aarch"), &["no toolchain for 'aarch'"]);
}

#[test]
fn two_toolchains_of_that_name() {
    let tree = Tree::complete("ambiguous");
    tree.toolchain("aarch64_generic_gcc-12.3.0_musl", "aarch64-openwrt-linux-musl", 8);
    let said = tree.refusal("aarch64");
    says(
        &said,
        &["more than one toolchain", "aarch64_generic_gcc-12.3.0", "aarch64_cortex-a53_gcc"],
    );
    // More of its name tells them apart, and the next thing is missing.
    says(&tree.refusal("aarch64_generic"), &["no target for 'aarch64_generic_musl'"]);
    says(&tree.refusal("aarch64_generic_gcc-12.3.0_musl"), &["no target for"]);
}

#[test]
fn two_targets_of_one_toolchain() {
    let tree = Tree::complete("targets");
    tree.libraries("aarch64_cortex-a53_musl_mine", &[]);
    says(&tree.refusal("aarch64"), &["more than one target", "aarch64_cortex-a53_musl_mine"]);
}

#[test]
fn a_toolchain_without_a_compiler() {
    let tree = Tree::complete("compiler");
    fs::remove_dir_all(tree.0.join("staging_dir/toolchain-aarch64_cortex-a53_gcc-13.3.0_musl/bin"))
        .unwrap();
    says(&tree.refusal("aarch64"), &["not one C compiler", "found: nothing"]);
}

#[test]
fn a_missing_library() {
    let tree = Tree::empty("library");
    tree.toolchain("x86_64_gcc-13.3.0_musl", "x86_64-openwrt-linux-musl", 8);
    tree.libraries("x86_64_musl", &["z", "netfilter_conntrack"]);
    says(&tree.refusal("x86_64"), &["found: all but lib/libelf.so\n", "package/{elfutils,"]);
}

#[test]
fn a_missing_rust_target() {
    let said = Tree::complete("rust").refusal("aarch64");
    says(&said, &["no standard library for aarch64-unknown-linux-musl", "/nowhere"]);
    says(&said, &["rustup target add aarch64-unknown-linux-musl"]);
}

/// CPU parts, versions of gcc and libcs; the last word is what Rust calls such a machine.
#[test]
fn each_kind_of_machine_has_a_name_in_rust() {
    for (name, compiler, machine, triple) in [
        ("x86_64", "12.3.0_musl", "x86_64-openwrt-linux-musl", "x86_64-unknown-linux-musl"),
        ("x86_64", "14.3.0_glibc", "x86_64-openwrt-linux-gnu", "x86_64-unknown-linux-gnu"),
        ("aarch64", "14.3.0_musl", "aarch64-openwrt-linux-musl", "aarch64-unknown-linux-musl"),
        ("riscv64", "13.3.0_musl", "riscv64-openwrt-linux-musl", "riscv64gc-unknown-linux-musl"),
        (
            "mips64_octeonplus_64",
            "13.3.0_musl",
            "mips64-openwrt-linux-musl",
            "mips64-openwrt-linux-musl",
        ),
    ] {
        let tree = Tree::empty(&format!("{name}-{compiler}"));
        tree.target(name, compiler, machine);
        says(&tree.refusal(name), &[&format!("no standard library for {triple}\n")]);
    }
}

#[test]
fn a_rust_that_is_too_old() {
    let tree = Tree::complete("old-rust");
    let said_with = |in_tree: &str, in_path: &str| {
        tree.rust(in_tree);
        tree.rust_in("host", in_path);
        refusal_with(&tree.0, "aarch64", &[tree.0.join("host")])
    };
    for version in ["1.84.1", "1.9.0"] {
        let said = said_with("1.84.0", version);
        says(&said, &["this Rust is too old", "Rust 1.85 or later", &format!("rustc {version}")]);
    }
    for version in ["1.85.0", "1.85.1-nightly", "1.100.0", "2.0.0"] {
        // The tree's is taken where it will do, else the host's.
        let said = said_with(version, "1.84.0");
        says(&said, &["no standard library for", "looked for: /nowhere/staging_dir"]);
        let said = said_with("1.84.0", version);
        says(&said, &["no standard library for", "looked for: /nowhere/host"]);
    }
}

/// For who builds without OpenWrt's make target.
#[test]
fn the_build_script_refuses_32_bits() {
    let build = Path::new(env!("OUT_DIR")).ancestors().nth(2).expect("target/debug/build");
    let entries = fs::read_dir(build).unwrap().flatten();
    let scripts = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("bpfw-"));
    let scripts = scripts.map(|entry| entry.path().join("build-script-build"));
    let newest = scripts
        .filter_map(|script| Some((fs::metadata(&script).ok()?.modified().ok()?, script)))
        .max()
        .expect("it was run to build this");
    let output = Command::new(newest.1)
        .env("CARGO_CFG_TARGET_POINTER_WIDTH", "32")
        .env("OUT_DIR", "/nonexistent")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: bpfw runs on 64-bit machines only"), "{said}");
}

#[test]
fn a_32_bit_machine() {
    let tree = Tree::empty("bits");
    tree.toolchain("mipsel_24kc_gcc-13.3.0_musl", "mipsel-openwrt-linux-musl", 4);
    tree.libraries("mipsel_24kc_musl", &["elf", "z", "netfilter_conntrack"]);
    let said = tree.refusal("mipsel");
    assert!(said.contains("mipsel-openwrt-linux-musl is a 32-bit machine"), "{said}");
}
