// SPDX-License-Identifier: GPL-2.0-only
//! Compiles the BPF objects, embeds those of the target's byte order, makes the Rust twins of
//! the C headers. `BPF_CLANG` names the compiler, `BPF_CFLAGS` adds flags to those of bpf/flags.

use std::env;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;

const HOOKS: [&str; 2] = ["xdp", "tc"];
/// Clang's target and the name used in file names, for both byte orders.
const BYTE_ORDERS: [(&str, &str); 2] = [("bpfel", "le"), ("bpfeb", "be")];

fn main() {
    // Not bpf/ as a whole: make writes its objects below it.
    for path in ["bpf/flags", "bpf/shim", "include"] {
        println!("cargo:rerun-if-changed={path}");
    }
    for entry in fs::read_dir("bpf").expect("bpf/ is part of the sources").flatten() {
        if entry.path().is_file() {
            println!("cargo:rerun-if-changed={}", entry.path().display());
        }
    }
    for variable in ["BPF_CLANG", "BPF_CFLAGS"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    // Not one of libbpf's options would arrive as it was meant: their declarations in libbpf-sys have
    // the padding of 64-bit compilers.
    if env::var("CARGO_CFG_TARGET_POINTER_WIDTH").as_deref() != Ok("64") {
        fail("bpfw runs on 64-bit machines only: libbpf-sys declares libbpf's structs for these");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for hook in HOOKS {
        for (target, order) in BYTE_ORDERS {
            compile(hook, target, &out.join(format!("{hook}_{order}_bpfw.o")));
        }
        embed(hook, &out);
    }
    bindings(&out);
    println!("cargo:rustc-link-lib=netfilter_conntrack");
}

/// Ends the build with a message that says what to do, instead of a panic's backtrace.
fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(1);
}

fn compile(hook: &str, target: &str, object: &Path) {
    let clang = env::var("BPF_CLANG").unwrap_or_else(|_| "clang".into());
    let flags = fs::read_to_string("bpf/flags").expect("bpf/flags is part of the sources");
    let more = env::var("BPF_CFLAGS").unwrap_or_default();
    let status = Command::new(&clang)
        .args(["-target", target])
        .args(flags.split_whitespace())
        .args(more.split_whitespace())
        .args(["-c", &format!("bpf/{hook}.bpf.c"), "-o"])
        .arg(object)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("{clang} could not compile bpf/{hook}.bpf.c ({status})")),
        Err(error) => fail(&format!(
            "cannot run {clang}: {error}; install the package clang, or name another by BPF_CLANG"
        )),
    }
}

/// Skeletons are named by their object's file name, so the byte order must not be part of it.
fn embed(hook: &str, out: &Path) {
    let order = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "be",
        _ => "le",
    };
    let full = out.join(format!("{hook}_{order}_bpfw.o"));
    let stripped = out.join(format!("{hook}_bpfw.o"));
    // libbpf's linker leaves the debug information out that only people read.
    let linked = libbpf_rs::Linker::new(&stripped)
        .and_then(|mut linker| linker.add_file(&full).and_then(|()| linker.link()));
    if let Err(error) = linked {
        fail(&format!("cannot link {}: {error}", full.display()));
    }
    let skeleton = out.join(format!("{hook}_bpfw.skel.rs"));
    if let Err(error) = libbpf_cargo::SkeletonBuilder::new().obj(&stripped).generate(&skeleton) {
        fail(&format!("cannot make the skeleton of {}: {error}", stripped.display()));
    }
}

fn abi_bindings() -> bindgen::Builder {
    bindgen::Builder::default()
        .header("include/bpfw_abi.h")
        .clang_args(["-target", "bpf", "-isystem", "bpf/shim"])
        .allowlist_file(".*bpfw_abi.h")
        .derive_default(true)
        .derive_eq(true)
        .new_type_alias("__be(16|32)")
        .prepend_enum_name(false)
        .layout_tests(true)
}

/// Only what is used of the library; `src/conntrack/ffi.rs` is its one reader.
fn conntrack_bindings() -> bindgen::Builder {
    bindgen::Builder::default()
        .header("include/conntrack_api.h")
        .allowlist_function("nfct_(new|destroy|get_attr|nlmsg_(build|parse))")
        .allowlist_function("nfct_set_attr(_u(8|16|32))?")
        .allowlist_type("nf_conntrack_attr|ip_conntrack_status")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .layout_tests(false)
        .generate_comments(false)
}

/// Writes the Rust twins of the headers. They are alike for all machines, so those of include/ are
/// taken where bindgen cannot run, and for other machines, whose headers it would need.
/// `tests/bindings.rs` compares them with what bindgen makes.
fn bindings(out: &Path) {
    let native = env::var_os("TARGET") == env::var_os("HOST");
    let mut made = native;
    for (name, builder) in [("bpfw_abi", abi_bindings()), ("conntrack_api", conntrack_bindings())] {
        let fresh = if native { generate(name, builder) } else { None };
        let path = out.join(format!("{name}.rs"));
        match fresh {
            Some(fresh) => fresh.write_to_file(path).expect("OUT_DIR is writable"),
            None => {
                made = false;
                fs::copy(format!("include/{name}.rs"), path).expect("include/ is complete");
            }
        }
    }
    if native && !made {
        println!("cargo:warning=no libclang here: include/*.rs are used as they are");
    }
    println!("cargo:rustc-env=BPFW_BINDINGS={}", if made { "made" } else { "copied" });
}

/// What bindgen makes of the header; nothing where there is no libclang.
fn generate(name: &str, builder: bindgen::Builder) -> Option<bindgen::Bindings> {
    let oldest = bindgen::RustTarget::stable(85, 0).expect("rust-version of Cargo.toml");
    let builder = builder
        .rust_target(oldest)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .disable_header_comment()
        .raw_line("// SPDX-License-Identifier: GPL-2.0-only")
        .raw_line(format!("// Made by bindgen from {name}.h: see tests/bindings.rs."))
        .formatter(bindgen::Formatter::Prettyplease);
    // bindgen panics when it finds no libclang, which would be printed.
    std::panic::set_hook(Box::new(|_| {}));
    let bindings = std::panic::catch_unwind(AssertUnwindSafe(|| builder.generate())).ok();
    drop(std::panic::take_hook());
    bindings.map(|result| {
        result.unwrap_or_else(|error| {
            fail(&format!(
                "bindgen cannot read include/{name}.h: {error}; is the package \
                 libnetfilter-conntrack-dev installed?"
            ))
        })
    })
}
