// SPDX-License-Identifier: GPL-2.0-only
//! Generates the Rust views of the C headers that bpfw talks to.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    conntrack_bindings(&out)
}

/// Writes the Rust view of libnetfilter_conntrack, only what is used of it.
fn conntrack_bindings(out: &Path) -> Result<(), Box<dyn Error>> {
    const HEADER: &str = "include/conntrack_api.h";
    println!("cargo:rerun-if-changed={HEADER}");
    println!("cargo:rustc-link-lib=netfilter_conntrack");
    bindgen::builder()
        .header(HEADER)
        .rust_target(bindgen::RustTarget::stable(85, 0).map_err(|error| error.to_string())?)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .allowlist_function("nfct_(new|destroy|attr_is_set|nlmsg_(build|parse))")
        .allowlist_function("nfct_[sg]et_attr_u(8|16|32)")
        .allowlist_function("nfct_filter_(create|destroy|add_attr_u32|attach)")
        .allowlist_type("nf_conntrack_attr|nfct_filter_attr|ip_conntrack_status")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .layout_tests(false)
        .generate_comments(false)
        .generate()?
        .write_to_file(out.join("conntrack_api.rs"))?;
    Ok(())
}
