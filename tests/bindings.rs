// SPDX-License-Identifier: GPL-2.0-only
//! The Rust twins of the headers in include/, for machines without libclang and for other machines,
//! are what bindgen makes here. `BPFW_BLESS=1 cargo test --test bindings` writes them anew.

mod support;

use std::fs;
use support::live;

/// Fails where the build's bindings differ from the file in include/, unless they are its copy.
fn compare(test: &str, file: &str, made: &str) {
    if env!("BPFW_BINDINGS") != "made" {
        live::skip(test, "bindgen found no libclang when this was built");
        return;
    }
    let path = format!("include/{file}");
    if std::env::var_os("BPFW_BLESS").is_some() {
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(made.lines()).find(|(kept, made)| kept != made);
    assert!(kept == made, "{path} is not what bindgen makes: {differs:?}; BPFW_BLESS=1 writes it");
}

#[test]
fn those_of_the_maps_are_up_to_date() {
    compare(
        "those_of_the_maps_are_up_to_date",
        "bpfw_abi.rs",
        include_str!(concat!(env!("OUT_DIR"), "/bpfw_abi.rs")),
    );
}

#[test]
fn those_of_libnetfilter_conntrack_are_up_to_date() {
    compare(
        "those_of_libnetfilter_conntrack_are_up_to_date",
        "conntrack_api.rs",
        include_str!(concat!(env!("OUT_DIR"), "/conntrack_api.rs")),
    );
}
