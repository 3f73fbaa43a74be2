// SPDX-License-Identifier: GPL-2.0-only
// Made by bindgen from conntrack_api.h: see tests/bindings.rs.

pub type __u16 = ::std::os::raw::c_ushort;
pub type __u32 = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct nlmsghdr {
    pub nlmsg_len: __u32,
    pub nlmsg_type: __u16,
    pub nlmsg_flags: __u16,
    pub nlmsg_seq: __u32,
    pub nlmsg_pid: __u32,
}
pub const IPS_EXPECTED_BIT: ip_conntrack_status = 0;
pub const IPS_EXPECTED: ip_conntrack_status = 1;
pub const IPS_SEEN_REPLY_BIT: ip_conntrack_status = 1;
pub const IPS_SEEN_REPLY: ip_conntrack_status = 2;
pub const IPS_ASSURED_BIT: ip_conntrack_status = 2;
pub const IPS_ASSURED: ip_conntrack_status = 4;
pub const IPS_CONFIRMED_BIT: ip_conntrack_status = 3;
pub const IPS_CONFIRMED: ip_conntrack_status = 8;
pub const IPS_SRC_NAT_BIT: ip_conntrack_status = 4;
pub const IPS_SRC_NAT: ip_conntrack_status = 16;
pub const IPS_DST_NAT_BIT: ip_conntrack_status = 5;
pub const IPS_DST_NAT: ip_conntrack_status = 32;
pub const IPS_NAT_MASK: ip_conntrack_status = 48;
pub const IPS_SEQ_ADJUST_BIT: ip_conntrack_status = 6;
pub const IPS_SEQ_ADJUST: ip_conntrack_status = 64;
pub const IPS_SRC_NAT_DONE_BIT: ip_conntrack_status = 7;
pub const IPS_SRC_NAT_DONE: ip_conntrack_status = 128;
pub const IPS_DST_NAT_DONE_BIT: ip_conntrack_status = 8;
pub const IPS_DST_NAT_DONE: ip_conntrack_status = 256;
pub const IPS_NAT_DONE_MASK: ip_conntrack_status = 384;
pub const IPS_DYING_BIT: ip_conntrack_status = 9;
pub const IPS_DYING: ip_conntrack_status = 512;
pub const IPS_FIXED_TIMEOUT_BIT: ip_conntrack_status = 10;
pub const IPS_FIXED_TIMEOUT: ip_conntrack_status = 1024;
pub const IPS_TEMPLATE_BIT: ip_conntrack_status = 11;
pub const IPS_TEMPLATE: ip_conntrack_status = 2048;
pub const IPS_UNTRACKED_BIT: ip_conntrack_status = 12;
pub const IPS_UNTRACKED: ip_conntrack_status = 4096;
pub const IPS_HELPER_BIT: ip_conntrack_status = 13;
pub const IPS_HELPER: ip_conntrack_status = 8192;
pub const IPS_OFFLOAD_BIT: ip_conntrack_status = 14;
pub const IPS_OFFLOAD: ip_conntrack_status = 16384;
pub const IPS_HW_OFFLOAD_BIT: ip_conntrack_status = 15;
pub const IPS_HW_OFFLOAD: ip_conntrack_status = 32768;
pub const IPS_UNCHANGEABLE_MASK: ip_conntrack_status = 56313;
pub const __IPS_MAX_BIT: ip_conntrack_status = 16;
pub type ip_conntrack_status = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug)]
pub struct nf_conntrack {
    _unused: [u8; 0],
}
pub const ATTR_ORIG_IPV4_SRC: nf_conntrack_attr = 0;
pub const ATTR_IPV4_SRC: nf_conntrack_attr = 0;
pub const ATTR_ORIG_IPV4_DST: nf_conntrack_attr = 1;
pub const ATTR_IPV4_DST: nf_conntrack_attr = 1;
pub const ATTR_REPL_IPV4_SRC: nf_conntrack_attr = 2;
pub const ATTR_REPL_IPV4_DST: nf_conntrack_attr = 3;
pub const ATTR_ORIG_IPV6_SRC: nf_conntrack_attr = 4;
pub const ATTR_IPV6_SRC: nf_conntrack_attr = 4;
pub const ATTR_ORIG_IPV6_DST: nf_conntrack_attr = 5;
pub const ATTR_IPV6_DST: nf_conntrack_attr = 5;
pub const ATTR_REPL_IPV6_SRC: nf_conntrack_attr = 6;
pub const ATTR_REPL_IPV6_DST: nf_conntrack_attr = 7;
pub const ATTR_ORIG_PORT_SRC: nf_conntrack_attr = 8;
pub const ATTR_PORT_SRC: nf_conntrack_attr = 8;
pub const ATTR_ORIG_PORT_DST: nf_conntrack_attr = 9;
pub const ATTR_PORT_DST: nf_conntrack_attr = 9;
pub const ATTR_REPL_PORT_SRC: nf_conntrack_attr = 10;
pub const ATTR_REPL_PORT_DST: nf_conntrack_attr = 11;
pub const ATTR_ICMP_TYPE: nf_conntrack_attr = 12;
pub const ATTR_ICMP_CODE: nf_conntrack_attr = 13;
pub const ATTR_ICMP_ID: nf_conntrack_attr = 14;
pub const ATTR_ORIG_L3PROTO: nf_conntrack_attr = 15;
pub const ATTR_L3PROTO: nf_conntrack_attr = 15;
pub const ATTR_REPL_L3PROTO: nf_conntrack_attr = 16;
pub const ATTR_ORIG_L4PROTO: nf_conntrack_attr = 17;
pub const ATTR_L4PROTO: nf_conntrack_attr = 17;
pub const ATTR_REPL_L4PROTO: nf_conntrack_attr = 18;
pub const ATTR_TCP_STATE: nf_conntrack_attr = 19;
pub const ATTR_SNAT_IPV4: nf_conntrack_attr = 20;
pub const ATTR_DNAT_IPV4: nf_conntrack_attr = 21;
pub const ATTR_SNAT_PORT: nf_conntrack_attr = 22;
pub const ATTR_DNAT_PORT: nf_conntrack_attr = 23;
pub const ATTR_TIMEOUT: nf_conntrack_attr = 24;
pub const ATTR_MARK: nf_conntrack_attr = 25;
pub const ATTR_ORIG_COUNTER_PACKETS: nf_conntrack_attr = 26;
pub const ATTR_REPL_COUNTER_PACKETS: nf_conntrack_attr = 27;
pub const ATTR_ORIG_COUNTER_BYTES: nf_conntrack_attr = 28;
pub const ATTR_REPL_COUNTER_BYTES: nf_conntrack_attr = 29;
pub const ATTR_USE: nf_conntrack_attr = 30;
pub const ATTR_ID: nf_conntrack_attr = 31;
pub const ATTR_STATUS: nf_conntrack_attr = 32;
pub const ATTR_TCP_FLAGS_ORIG: nf_conntrack_attr = 33;
pub const ATTR_TCP_FLAGS_REPL: nf_conntrack_attr = 34;
pub const ATTR_TCP_MASK_ORIG: nf_conntrack_attr = 35;
pub const ATTR_TCP_MASK_REPL: nf_conntrack_attr = 36;
pub const ATTR_MASTER_IPV4_SRC: nf_conntrack_attr = 37;
pub const ATTR_MASTER_IPV4_DST: nf_conntrack_attr = 38;
pub const ATTR_MASTER_IPV6_SRC: nf_conntrack_attr = 39;
pub const ATTR_MASTER_IPV6_DST: nf_conntrack_attr = 40;
pub const ATTR_MASTER_PORT_SRC: nf_conntrack_attr = 41;
pub const ATTR_MASTER_PORT_DST: nf_conntrack_attr = 42;
pub const ATTR_MASTER_L3PROTO: nf_conntrack_attr = 43;
pub const ATTR_MASTER_L4PROTO: nf_conntrack_attr = 44;
pub const ATTR_SECMARK: nf_conntrack_attr = 45;
pub const ATTR_ORIG_NAT_SEQ_CORRECTION_POS: nf_conntrack_attr = 46;
pub const ATTR_ORIG_NAT_SEQ_OFFSET_BEFORE: nf_conntrack_attr = 47;
pub const ATTR_ORIG_NAT_SEQ_OFFSET_AFTER: nf_conntrack_attr = 48;
pub const ATTR_REPL_NAT_SEQ_CORRECTION_POS: nf_conntrack_attr = 49;
pub const ATTR_REPL_NAT_SEQ_OFFSET_BEFORE: nf_conntrack_attr = 50;
pub const ATTR_REPL_NAT_SEQ_OFFSET_AFTER: nf_conntrack_attr = 51;
pub const ATTR_SCTP_STATE: nf_conntrack_attr = 52;
pub const ATTR_SCTP_VTAG_ORIG: nf_conntrack_attr = 53;
pub const ATTR_SCTP_VTAG_REPL: nf_conntrack_attr = 54;
pub const ATTR_HELPER_NAME: nf_conntrack_attr = 55;
pub const ATTR_DCCP_STATE: nf_conntrack_attr = 56;
pub const ATTR_DCCP_ROLE: nf_conntrack_attr = 57;
pub const ATTR_DCCP_HANDSHAKE_SEQ: nf_conntrack_attr = 58;
pub const ATTR_TCP_WSCALE_ORIG: nf_conntrack_attr = 59;
pub const ATTR_TCP_WSCALE_REPL: nf_conntrack_attr = 60;
pub const ATTR_ZONE: nf_conntrack_attr = 61;
pub const ATTR_SECCTX: nf_conntrack_attr = 62;
pub const ATTR_TIMESTAMP_START: nf_conntrack_attr = 63;
pub const ATTR_TIMESTAMP_STOP: nf_conntrack_attr = 64;
pub const ATTR_HELPER_INFO: nf_conntrack_attr = 65;
pub const ATTR_CONNLABELS: nf_conntrack_attr = 66;
pub const ATTR_CONNLABELS_MASK: nf_conntrack_attr = 67;
pub const ATTR_ORIG_ZONE: nf_conntrack_attr = 68;
pub const ATTR_REPL_ZONE: nf_conntrack_attr = 69;
pub const ATTR_SNAT_IPV6: nf_conntrack_attr = 70;
pub const ATTR_DNAT_IPV6: nf_conntrack_attr = 71;
pub const ATTR_SYNPROXY_ISN: nf_conntrack_attr = 72;
pub const ATTR_SYNPROXY_ITS: nf_conntrack_attr = 73;
pub const ATTR_SYNPROXY_TSOFF: nf_conntrack_attr = 74;
pub const ATTR_MAX: nf_conntrack_attr = 75;
pub type nf_conntrack_attr = ::std::os::raw::c_uint;
unsafe extern "C" {
    pub fn nfct_new() -> *mut nf_conntrack;
}
unsafe extern "C" {
    pub fn nfct_destroy(ct: *mut nf_conntrack);
}
unsafe extern "C" {
    pub fn nfct_set_attr(
        ct: *mut nf_conntrack,
        type_: nf_conntrack_attr,
        value: *const ::std::os::raw::c_void,
    );
}
unsafe extern "C" {
    pub fn nfct_set_attr_u8(ct: *mut nf_conntrack, type_: nf_conntrack_attr, value: u8);
}
unsafe extern "C" {
    pub fn nfct_set_attr_u16(
        ct: *mut nf_conntrack,
        type_: nf_conntrack_attr,
        value: u16,
    );
}
unsafe extern "C" {
    pub fn nfct_set_attr_u32(
        ct: *mut nf_conntrack,
        type_: nf_conntrack_attr,
        value: u32,
    );
}
unsafe extern "C" {
    pub fn nfct_get_attr(
        ct: *const nf_conntrack,
        type_: nf_conntrack_attr,
    ) -> *const ::std::os::raw::c_void;
}
unsafe extern "C" {
    pub fn nfct_nlmsg_build(
        nlh: *mut nlmsghdr,
        ct: *const nf_conntrack,
    ) -> ::std::os::raw::c_int;
}
unsafe extern "C" {
    pub fn nfct_nlmsg_parse(
        nlh: *const nlmsghdr,
        ct: *mut nf_conntrack,
    ) -> ::std::os::raw::c_int;
}
