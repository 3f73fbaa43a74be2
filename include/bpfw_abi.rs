// SPDX-License-Identifier: GPL-2.0-only
// Made by bindgen from bpfw_abi.h: see tests/bindings.rs.

pub const BPFW_MAGIC: u32 = 1651533431;
pub const BPFW_ABI_VERSION: u32 = 15;
pub const BPFW_HOOK_XDP: u32 = 1;
pub const BPFW_HOOK_TC: u32 = 2;
pub const BPFW_HOP_SLOTS: u32 = 16384;
pub const BPFW_LINK_SLOTS: u32 = 4096;
pub const BPFW_NEW_CONN_SLOTS: u32 = 4096;
pub const BPFW_REFUSED_SLOTS: u32 = 65536;
pub const BPFW_COUNTING_CPUS: u32 = 64;
pub const BPFW_COUNTERS: u32 = 64;
pub const BPFW_SEEN_SLOTS: u32 = 1024;
pub const BPFW_FACTOR: i64 = -7046029254386353131;
pub const BPFW_PROBES: u32 = 4;
pub const BPFW_FAMILY_IPV4: u32 = 0;
pub const BPFW_FAMILY_IPV6: u32 = 6;
pub const BPFW_CONN_NAT: u32 = 1;
pub const BPFW_CONN_PORTS: u32 = 2;
pub const BPFW_REST_REPLY: u32 = 1;
pub const BPFW_REST_ASSURED: u32 = 2;
pub const BPFW_REST_NAT6: u32 = 4;
pub const BPFW_VOLUME_FULL: u32 = 2147483648;
pub const BPFW_SIGNAL_SEGMENT: i64 = -9223372036854775808;
pub const BPFW_L2_ROOM: u32 = 30;
pub const BPFW_EGRESS_REDIRECT: u32 = 1;
pub const BPFW_EGRESS_NO_HEADER: u32 = 2;
pub const BPFW_FIRST_GENERATION: u32 = 2147483648;
pub const BPFW_PAUSED: u32 = 1;
pub const BPFW_LOG_OFF: u32 = 0;
pub const BPFW_LOG_INFO: u32 = 1;
pub const BPFW_LOG_DEBUG: u32 = 2;
pub type __u8 = ::std::os::raw::c_uchar;
pub type __u16 = ::std::os::raw::c_ushort;
pub type __u32 = ::std::os::raw::c_uint;
pub type __u64 = ::std::os::raw::c_ulonglong;
#[repr(transparent)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct __be16(pub __u16);
#[repr(transparent)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct __be32(pub __u32);
#[repr(C)]
#[repr(align(8))]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_head {
    pub src_addr: __be32,
    pub dst_addr: __be32,
    pub src_port: __be16,
    pub dst_port: __be16,
    pub protocol: __u8,
    pub family: __u8,
    pub idle: __u16,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_head"][::std::mem::size_of::<bpfw_head>() - 16usize];
    ["Alignment of bpfw_head"][::std::mem::align_of::<bpfw_head>() - 8usize];
    [
        "Offset of field: bpfw_head::src_addr",
    ][::std::mem::offset_of!(bpfw_head, src_addr) - 0usize];
    [
        "Offset of field: bpfw_head::dst_addr",
    ][::std::mem::offset_of!(bpfw_head, dst_addr) - 4usize];
    [
        "Offset of field: bpfw_head::src_port",
    ][::std::mem::offset_of!(bpfw_head, src_port) - 8usize];
    [
        "Offset of field: bpfw_head::dst_port",
    ][::std::mem::offset_of!(bpfw_head, dst_port) - 10usize];
    [
        "Offset of field: bpfw_head::protocol",
    ][::std::mem::offset_of!(bpfw_head, protocol) - 12usize];
    [
        "Offset of field: bpfw_head::family",
    ][::std::mem::offset_of!(bpfw_head, family) - 13usize];
    [
        "Offset of field: bpfw_head::idle",
    ][::std::mem::offset_of!(bpfw_head, idle) - 14usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_tuple {
    pub head: bpfw_head,
    pub more: [__be32; 6usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_tuple"][::std::mem::size_of::<bpfw_tuple>() - 40usize];
    ["Alignment of bpfw_tuple"][::std::mem::align_of::<bpfw_tuple>() - 8usize];
    [
        "Offset of field: bpfw_tuple::head",
    ][::std::mem::offset_of!(bpfw_tuple, head) - 0usize];
    [
        "Offset of field: bpfw_tuple::more",
    ][::std::mem::offset_of!(bpfw_tuple, more) - 16usize];
};
#[repr(C)]
#[repr(align(8))]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_rewrite {
    pub src_addr: __be32,
    pub dst_addr: __be32,
    pub src_port: __be16,
    pub dst_port: __be16,
    pub ip_delta: __u16,
    pub addr_delta: __u16,
    pub port_delta: __u16,
    pub l4_delta: __u16,
    pub flags: __u16,
    pub idle: __u16,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_rewrite"][::std::mem::size_of::<bpfw_rewrite>() - 24usize];
    ["Alignment of bpfw_rewrite"][::std::mem::align_of::<bpfw_rewrite>() - 8usize];
    [
        "Offset of field: bpfw_rewrite::src_addr",
    ][::std::mem::offset_of!(bpfw_rewrite, src_addr) - 0usize];
    [
        "Offset of field: bpfw_rewrite::dst_addr",
    ][::std::mem::offset_of!(bpfw_rewrite, dst_addr) - 4usize];
    [
        "Offset of field: bpfw_rewrite::src_port",
    ][::std::mem::offset_of!(bpfw_rewrite, src_port) - 8usize];
    [
        "Offset of field: bpfw_rewrite::dst_port",
    ][::std::mem::offset_of!(bpfw_rewrite, dst_port) - 10usize];
    [
        "Offset of field: bpfw_rewrite::ip_delta",
    ][::std::mem::offset_of!(bpfw_rewrite, ip_delta) - 12usize];
    [
        "Offset of field: bpfw_rewrite::addr_delta",
    ][::std::mem::offset_of!(bpfw_rewrite, addr_delta) - 14usize];
    [
        "Offset of field: bpfw_rewrite::port_delta",
    ][::std::mem::offset_of!(bpfw_rewrite, port_delta) - 16usize];
    [
        "Offset of field: bpfw_rewrite::l4_delta",
    ][::std::mem::offset_of!(bpfw_rewrite, l4_delta) - 18usize];
    [
        "Offset of field: bpfw_rewrite::flags",
    ][::std::mem::offset_of!(bpfw_rewrite, flags) - 20usize];
    [
        "Offset of field: bpfw_rewrite::idle",
    ][::std::mem::offset_of!(bpfw_rewrite, idle) - 22usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_translation {
    pub rewrite: bpfw_rewrite,
    pub more: [__be32; 6usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_translation"][::std::mem::size_of::<bpfw_translation>() - 48usize];
    [
        "Alignment of bpfw_translation",
    ][::std::mem::align_of::<bpfw_translation>() - 8usize];
    [
        "Offset of field: bpfw_translation::rewrite",
    ][::std::mem::offset_of!(bpfw_translation, rewrite) - 0usize];
    [
        "Offset of field: bpfw_translation::more",
    ][::std::mem::offset_of!(bpfw_translation, more) - 24usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_cell {
    pub head: bpfw_head,
    pub rewrite: bpfw_rewrite,
    pub hop_word: __u64,
    pub volume: __u64,
    pub seal: __u32,
    pub last_seen: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_cell"][::std::mem::size_of::<bpfw_cell>() - 64usize];
    ["Alignment of bpfw_cell"][::std::mem::align_of::<bpfw_cell>() - 8usize];
    [
        "Offset of field: bpfw_cell::head",
    ][::std::mem::offset_of!(bpfw_cell, head) - 0usize];
    [
        "Offset of field: bpfw_cell::rewrite",
    ][::std::mem::offset_of!(bpfw_cell, rewrite) - 16usize];
    [
        "Offset of field: bpfw_cell::hop_word",
    ][::std::mem::offset_of!(bpfw_cell, hop_word) - 40usize];
    [
        "Offset of field: bpfw_cell::volume",
    ][::std::mem::offset_of!(bpfw_cell, volume) - 48usize];
    [
        "Offset of field: bpfw_cell::seal",
    ][::std::mem::offset_of!(bpfw_cell, seal) - 56usize];
    [
        "Offset of field: bpfw_cell::last_seen",
    ][::std::mem::offset_of!(bpfw_cell, last_seen) - 60usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_rest {
    pub passed_up: __u64,
    pub packets: __u64,
    pub bytes: __u64,
    pub proof: __u64,
    pub way_back: __u32,
    pub finished: __u16,
    pub flags: __u16,
    pub pass_from: __u32,
    pub idle_limit: __u32,
    pub id: __u32,
    pub mark: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_rest"][::std::mem::size_of::<bpfw_rest>() - 56usize];
    ["Alignment of bpfw_rest"][::std::mem::align_of::<bpfw_rest>() - 8usize];
    [
        "Offset of field: bpfw_rest::passed_up",
    ][::std::mem::offset_of!(bpfw_rest, passed_up) - 0usize];
    [
        "Offset of field: bpfw_rest::packets",
    ][::std::mem::offset_of!(bpfw_rest, packets) - 8usize];
    [
        "Offset of field: bpfw_rest::bytes",
    ][::std::mem::offset_of!(bpfw_rest, bytes) - 16usize];
    [
        "Offset of field: bpfw_rest::proof",
    ][::std::mem::offset_of!(bpfw_rest, proof) - 24usize];
    [
        "Offset of field: bpfw_rest::way_back",
    ][::std::mem::offset_of!(bpfw_rest, way_back) - 32usize];
    [
        "Offset of field: bpfw_rest::finished",
    ][::std::mem::offset_of!(bpfw_rest, finished) - 36usize];
    [
        "Offset of field: bpfw_rest::flags",
    ][::std::mem::offset_of!(bpfw_rest, flags) - 38usize];
    [
        "Offset of field: bpfw_rest::pass_from",
    ][::std::mem::offset_of!(bpfw_rest, pass_from) - 40usize];
    [
        "Offset of field: bpfw_rest::idle_limit",
    ][::std::mem::offset_of!(bpfw_rest, idle_limit) - 44usize];
    ["Offset of field: bpfw_rest::id"][::std::mem::offset_of!(bpfw_rest, id) - 48usize];
    [
        "Offset of field: bpfw_rest::mark",
    ][::std::mem::offset_of!(bpfw_rest, mark) - 52usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_conn {
    pub cell: bpfw_cell,
    pub rest: bpfw_rest,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_conn"][::std::mem::size_of::<bpfw_conn>() - 120usize];
    ["Alignment of bpfw_conn"][::std::mem::align_of::<bpfw_conn>() - 8usize];
    [
        "Offset of field: bpfw_conn::cell",
    ][::std::mem::offset_of!(bpfw_conn, cell) - 0usize];
    [
        "Offset of field: bpfw_conn::rest",
    ][::std::mem::offset_of!(bpfw_conn, rest) - 64usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_signal {
    pub time: __u64,
    pub tuple: bpfw_tuple,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_signal"][::std::mem::size_of::<bpfw_signal>() - 48usize];
    ["Alignment of bpfw_signal"][::std::mem::align_of::<bpfw_signal>() - 8usize];
    [
        "Offset of field: bpfw_signal::time",
    ][::std::mem::offset_of!(bpfw_signal, time) - 0usize];
    [
        "Offset of field: bpfw_signal::tuple",
    ][::std::mem::offset_of!(bpfw_signal, tuple) - 8usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_link_key {
    pub ifindex: __u32,
    pub vlan_id: __u16,
    pub vlan_proto: __be16,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_link_key"][::std::mem::size_of::<bpfw_link_key>() - 8usize];
    ["Alignment of bpfw_link_key"][::std::mem::align_of::<bpfw_link_key>() - 4usize];
    [
        "Offset of field: bpfw_link_key::ifindex",
    ][::std::mem::offset_of!(bpfw_link_key, ifindex) - 0usize];
    [
        "Offset of field: bpfw_link_key::vlan_id",
    ][::std::mem::offset_of!(bpfw_link_key, vlan_id) - 4usize];
    [
        "Offset of field: bpfw_link_key::vlan_proto",
    ][::std::mem::offset_of!(bpfw_link_key, vlan_proto) - 6usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_link {
    pub ifindex: __u32,
    pub ingress: __u32,
    pub reserved: __u16,
    pub mac: [__u8; 6usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_link"][::std::mem::size_of::<bpfw_link>() - 16usize];
    ["Alignment of bpfw_link"][::std::mem::align_of::<bpfw_link>() - 4usize];
    [
        "Offset of field: bpfw_link::ifindex",
    ][::std::mem::offset_of!(bpfw_link, ifindex) - 0usize];
    [
        "Offset of field: bpfw_link::ingress",
    ][::std::mem::offset_of!(bpfw_link, ingress) - 4usize];
    [
        "Offset of field: bpfw_link::reserved",
    ][::std::mem::offset_of!(bpfw_link, reserved) - 8usize];
    [
        "Offset of field: bpfw_link::mac",
    ][::std::mem::offset_of!(bpfw_link, mac) - 10usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_hop_hot {
    pub from: bpfw_link_key,
    pub port: __u32,
    pub mtu: __u32,
    pub express_mtu: __u32,
    pub l2_len: __u16,
    pub from_mac: [__u8; 6usize],
    pub reserved: __u16,
    pub l2: [__u8; 30usize],
    pub reserved2: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_hop_hot"][::std::mem::size_of::<bpfw_hop_hot>() - 64usize];
    ["Alignment of bpfw_hop_hot"][::std::mem::align_of::<bpfw_hop_hot>() - 4usize];
    [
        "Offset of field: bpfw_hop_hot::from",
    ][::std::mem::offset_of!(bpfw_hop_hot, from) - 0usize];
    [
        "Offset of field: bpfw_hop_hot::port",
    ][::std::mem::offset_of!(bpfw_hop_hot, port) - 8usize];
    [
        "Offset of field: bpfw_hop_hot::mtu",
    ][::std::mem::offset_of!(bpfw_hop_hot, mtu) - 12usize];
    [
        "Offset of field: bpfw_hop_hot::express_mtu",
    ][::std::mem::offset_of!(bpfw_hop_hot, express_mtu) - 16usize];
    [
        "Offset of field: bpfw_hop_hot::l2_len",
    ][::std::mem::offset_of!(bpfw_hop_hot, l2_len) - 20usize];
    [
        "Offset of field: bpfw_hop_hot::from_mac",
    ][::std::mem::offset_of!(bpfw_hop_hot, from_mac) - 22usize];
    [
        "Offset of field: bpfw_hop_hot::reserved",
    ][::std::mem::offset_of!(bpfw_hop_hot, reserved) - 28usize];
    [
        "Offset of field: bpfw_hop_hot::l2",
    ][::std::mem::offset_of!(bpfw_hop_hot, l2) - 30usize];
    [
        "Offset of field: bpfw_hop_hot::reserved2",
    ][::std::mem::offset_of!(bpfw_hop_hot, reserved2) - 60usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_hop {
    pub hot: bpfw_hop_hot,
    pub egress: __u32,
    pub reserved: __u32,
    pub neighbor: [__be32; 4usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_hop"][::std::mem::size_of::<bpfw_hop>() - 88usize];
    ["Alignment of bpfw_hop"][::std::mem::align_of::<bpfw_hop>() - 4usize];
    ["Offset of field: bpfw_hop::hot"][::std::mem::offset_of!(bpfw_hop, hot) - 0usize];
    [
        "Offset of field: bpfw_hop::egress",
    ][::std::mem::offset_of!(bpfw_hop, egress) - 64usize];
    [
        "Offset of field: bpfw_hop::reserved",
    ][::std::mem::offset_of!(bpfw_hop, reserved) - 68usize];
    [
        "Offset of field: bpfw_hop::neighbor",
    ][::std::mem::offset_of!(bpfw_hop, neighbor) - 72usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_egress {
    pub port: __u32,
    pub mtu: __u32,
    pub mtu6: __u32,
    pub vlan_id: __u16,
    pub vlan_proto: __be16,
    pub flags: __u32,
    pub asked: __u32,
    pub stamped: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_egress"][::std::mem::size_of::<bpfw_egress>() - 28usize];
    ["Alignment of bpfw_egress"][::std::mem::align_of::<bpfw_egress>() - 4usize];
    [
        "Offset of field: bpfw_egress::port",
    ][::std::mem::offset_of!(bpfw_egress, port) - 0usize];
    [
        "Offset of field: bpfw_egress::mtu",
    ][::std::mem::offset_of!(bpfw_egress, mtu) - 4usize];
    [
        "Offset of field: bpfw_egress::mtu6",
    ][::std::mem::offset_of!(bpfw_egress, mtu6) - 8usize];
    [
        "Offset of field: bpfw_egress::vlan_id",
    ][::std::mem::offset_of!(bpfw_egress, vlan_id) - 12usize];
    [
        "Offset of field: bpfw_egress::vlan_proto",
    ][::std::mem::offset_of!(bpfw_egress, vlan_proto) - 14usize];
    [
        "Offset of field: bpfw_egress::flags",
    ][::std::mem::offset_of!(bpfw_egress, flags) - 16usize];
    [
        "Offset of field: bpfw_egress::asked",
    ][::std::mem::offset_of!(bpfw_egress, asked) - 20usize];
    [
        "Offset of field: bpfw_egress::stamped",
    ][::std::mem::offset_of!(bpfw_egress, stamped) - 24usize];
};
#[repr(C)]
#[repr(align(8))]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_generation {
    pub current: __u32,
    pub policy: __u32,
    pub period: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_generation"][::std::mem::size_of::<bpfw_generation>() - 16usize];
    ["Alignment of bpfw_generation"][::std::mem::align_of::<bpfw_generation>() - 8usize];
    [
        "Offset of field: bpfw_generation::current",
    ][::std::mem::offset_of!(bpfw_generation, current) - 0usize];
    [
        "Offset of field: bpfw_generation::policy",
    ][::std::mem::offset_of!(bpfw_generation, policy) - 4usize];
    [
        "Offset of field: bpfw_generation::period",
    ][::std::mem::offset_of!(bpfw_generation, period) - 8usize];
    [
        "Offset of field: bpfw_generation::reserved",
    ][::std::mem::offset_of!(bpfw_generation, reserved) - 12usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_refused {
    pub until: __u64,
    pub reason: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_refused"][::std::mem::size_of::<bpfw_refused>() - 16usize];
    ["Alignment of bpfw_refused"][::std::mem::align_of::<bpfw_refused>() - 8usize];
    [
        "Offset of field: bpfw_refused::until",
    ][::std::mem::offset_of!(bpfw_refused, until) - 0usize];
    [
        "Offset of field: bpfw_refused::reason",
    ][::std::mem::offset_of!(bpfw_refused, reason) - 8usize];
    [
        "Offset of field: bpfw_refused::reserved",
    ][::std::mem::offset_of!(bpfw_refused, reserved) - 12usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct bpfw_settings {
    pub magic: __u32,
    pub abi_version: __u32,
    pub hook: __u32,
    pub log_level: __u32,
    pub beat_limit: __u32,
    pub route_mark: __u32,
    pub seed: __u64,
    pub first_mask: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of bpfw_settings"][::std::mem::size_of::<bpfw_settings>() - 40usize];
    ["Alignment of bpfw_settings"][::std::mem::align_of::<bpfw_settings>() - 8usize];
    [
        "Offset of field: bpfw_settings::magic",
    ][::std::mem::offset_of!(bpfw_settings, magic) - 0usize];
    [
        "Offset of field: bpfw_settings::abi_version",
    ][::std::mem::offset_of!(bpfw_settings, abi_version) - 4usize];
    [
        "Offset of field: bpfw_settings::hook",
    ][::std::mem::offset_of!(bpfw_settings, hook) - 8usize];
    [
        "Offset of field: bpfw_settings::log_level",
    ][::std::mem::offset_of!(bpfw_settings, log_level) - 12usize];
    [
        "Offset of field: bpfw_settings::beat_limit",
    ][::std::mem::offset_of!(bpfw_settings, beat_limit) - 16usize];
    [
        "Offset of field: bpfw_settings::route_mark",
    ][::std::mem::offset_of!(bpfw_settings, route_mark) - 20usize];
    [
        "Offset of field: bpfw_settings::seed",
    ][::std::mem::offset_of!(bpfw_settings, seed) - 24usize];
    [
        "Offset of field: bpfw_settings::first_mask",
    ][::std::mem::offset_of!(bpfw_settings, first_mask) - 32usize];
    [
        "Offset of field: bpfw_settings::reserved",
    ][::std::mem::offset_of!(bpfw_settings, reserved) - 36usize];
};
pub const BPFW_GO_ON: bpfw_verdict = 0;
pub const BPFW_FORWARDED: bpfw_verdict = 1;
pub const BPFW_DROP_ERROR: bpfw_verdict = 2;
pub const BPFW_PASS_PAUSED: bpfw_verdict = 3;
pub const BPFW_PASS_HEARTBEAT: bpfw_verdict = 4;
pub const BPFW_PASS_SHORT: bpfw_verdict = 5;
pub const BPFW_PASS_TAGS: bpfw_verdict = 6;
pub const BPFW_PASS_NOT_IP: bpfw_verdict = 7;
pub const BPFW_PASS_LINK: bpfw_verdict = 8;
pub const BPFW_PASS_MAC: bpfw_verdict = 9;
pub const BPFW_PASS_IP_HEADER: bpfw_verdict = 10;
pub const BPFW_PASS_IP_OPTIONS: bpfw_verdict = 11;
pub const BPFW_PASS_FRAGMENT: bpfw_verdict = 12;
pub const BPFW_PASS_PROTOCOL: bpfw_verdict = 13;
pub const BPFW_PASS_L4_HEADER: bpfw_verdict = 14;
pub const BPFW_PASS_UNKNOWN: bpfw_verdict = 15;
pub const BPFW_PASS_REFUSED: bpfw_verdict = 16;
pub const BPFW_PASS_REUSED: bpfw_verdict = 17;
pub const BPFW_PASS_FINISHED: bpfw_verdict = 18;
pub const BPFW_PASS_UNASSURED: bpfw_verdict = 19;
pub const BPFW_PASS_IDLE: bpfw_verdict = 20;
pub const BPFW_PASS_INGRESS: bpfw_verdict = 21;
pub const BPFW_PASS_TCP_FLAGS: bpfw_verdict = 22;
pub const BPFW_PASS_TTL: bpfw_verdict = 23;
pub const BPFW_PASS_TOO_BIG: bpfw_verdict = 24;
pub const BPFW_PASS_PARTIAL_SUM: bpfw_verdict = 25;
pub const BPFW_PASS_NO_ROUTE: bpfw_verdict = 26;
pub const BPFW_PASS_NO_NEIGHBOR: bpfw_verdict = 27;
pub const BPFW_PASS_EGRESS: bpfw_verdict = 28;
pub const BPFW_PASS_UNPROVEN: bpfw_verdict = 29;
pub const BPFW_PASS_HOPS_FULL: bpfw_verdict = 30;
pub const BPFW_PASS_RESIZE: bpfw_verdict = 31;
pub const BPFW_PASS_SAME_LINK: bpfw_verdict = 32;
pub const BPFW_VERDICTS: bpfw_verdict = 33;
pub type bpfw_verdict = ::std::os::raw::c_uint;
pub const BPFW_PROVEN: bpfw_testimony = 33;
pub const BPFW_STAMP_OLD: bpfw_testimony = 34;
pub const BPFW_NO_TESTIMONY: bpfw_testimony = 35;
pub const BPFW_TESTIMONIES: bpfw_testimony = 36;
pub type bpfw_testimony = ::std::os::raw::c_uint;
