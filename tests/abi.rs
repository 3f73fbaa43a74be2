// SPDX-License-Identifier: GPL-2.0-only
//! The four BPF objects and the daemon lay out the maps' keys and values alike: what is compared is
//! the objects' BTF.

use std::collections::BTreeMap;
use std::mem::size_of;

use bpfw::abi;
use libbpf_rs::HasSize;
use libbpf_rs::btf::types::{Array, Int, MemberAttr, Struct};
use libbpf_rs::btf::{Btf, BtfType};

/// By name: a struct's size in bytes, and its members' names, offsets in bits, and types.
type Layouts = BTreeMap<String, (usize, Vec<(String, u32, String)>)>;

/// The layouts of all structs of ours in the object of this hook and byte order.
fn layouts(hook: &str, order: &str) -> Layouts {
    let path = format!("{}/{hook}_{order}_bpfw.o", env!("OUT_DIR"));
    let btf = Btf::from_path(&path).unwrap_or_else(|error| panic!("BTF of {path}: {error}"));
    let structs = btf.type_by_kind::<Struct<'_>>();
    structs
        .filter_map(|of| Some((of.name()?.to_str()?.to_owned(), of)))
        .filter(|(name, _)| name.starts_with("bpfw_"))
        .map(|(name, of)| {
            let members = of.iter().map(|member| {
                let MemberAttr::Normal { offset } = member.attr else {
                    panic!("{name} has a bitfield, which byte orders lay out differently")
                };
                let of = btf.type_by_id::<BtfType<'_>>(member.ty).expect("BTF is complete");
                let member = member.name.expect("no struct of ours has a nameless member");
                (member.to_string_lossy().into_owned(), offset, describe(of))
            });
            let members = members.collect();
            (name, (of.size(), members))
        })
        .collect()
}

/// A member's type, without the names that it goes by.
fn describe(of: BtfType<'_>) -> String {
    let of = of.skip_mods_and_typedefs();
    if let Ok(array) = Array::try_from(of) {
        return format!("{} of {}", array.capacity(), describe(array.contained_type()));
    }
    match Int::try_from(of) {
        Ok(int) => format!("{} bits", int.bits),
        Err(other) => format!("{:?} {:?}", other.kind(), other.name()),
    }
}

#[test]
fn all_four_objects_lay_out_the_maps_alike() {
    let first = layouts("xdp", "le");
    for (hook, order) in [("xdp", "be"), ("tc", "le"), ("tc", "be")] {
        assert_eq!(layouts(hook, order), first, "{hook}_{order} and xdp_le");
    }
}

/// The members are compared when the daemon is compiled: `include/bpfw_abi.rs` asserts them all.
#[test]
fn the_daemon_lays_them_out_as_the_objects_do() {
    let objects = layouts("xdp", "le");
    let sizes = [
        ("bpfw_head", size_of::<abi::bpfw_head>()),
        ("bpfw_tuple", size_of::<abi::bpfw_tuple>()),
        ("bpfw_rewrite", size_of::<abi::bpfw_rewrite>()),
        ("bpfw_translation", size_of::<abi::bpfw_translation>()),
        ("bpfw_cell", size_of::<abi::bpfw_cell>()),
        ("bpfw_rest", size_of::<abi::bpfw_rest>()),
        ("bpfw_conn", size_of::<abi::bpfw_conn>()),
        ("bpfw_signal", size_of::<abi::bpfw_signal>()),
        ("bpfw_link_key", size_of::<abi::bpfw_link_key>()),
        ("bpfw_link", size_of::<abi::bpfw_link>()),
        ("bpfw_hop_hot", size_of::<abi::bpfw_hop_hot>()),
        ("bpfw_hop", size_of::<abi::bpfw_hop>()),
        ("bpfw_egress", size_of::<abi::bpfw_egress>()),
        ("bpfw_generation", size_of::<abi::bpfw_generation>()),
        ("bpfw_refused", size_of::<abi::bpfw_refused>()),
        ("bpfw_settings", size_of::<abi::bpfw_settings>()),
    ];
    for (name, size) in sizes {
        assert_eq!(objects.get(name).map(|(size, _)| *size), Some(size), "{name}");
    }
    assert_eq!(objects.len(), sizes.len(), "a struct is missing above: {:?}", objects.keys());
}
