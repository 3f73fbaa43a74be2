// SPDX-License-Identifier: GPL-2.0-only
//! The names of the object's maps, as bpf/ has them. Those with a dot are sections with variables.

/// Offloaded connections: what each packet needs.
pub const CONN_CELLS: &str = "conn_cells";
/// The same, what few packets need.
pub const CONN_RESTS: &str = "conn_rests";
/// Offloaded connections that find no free cell.
pub const CONN_MAP: &str = "conn_map";
/// What becomes of the packets of translated IPv6 connections.
pub const TRANSLATION_MAP: &str = "translation_map";
/// Connections to look at.
pub const NEW_CONN_MAP: &str = "new_conn_map";
/// Connections that are not to be signaled for now.
pub const REFUSED_MAP: &str = "refused_map";
/// Where frames come in.
pub const LINK_MAP: &str = "link_map";
/// How packets leave.
pub const EGRESS_MAP: &str = "egress_map";
/// The slot of each next hop.
pub const HOP_INDEX: &str = "hop_index";
/// How many slots are taken.
pub const HOP_COUNT: &str = "hop_count";
/// When the XDP program last ran for an interface's frames; at the hook xdp only.
pub const SEEN_MAP: &str = "seen_map";
/// What the datapath is told before it is loaded.
pub const SETTINGS: &str = ".rodata.settings";
/// The last heartbeat.
pub const BEAT: &str = ".data.beat";
/// Packets by verdict.
pub const COUNTERS: &str = ".data.counters";
/// Whether priorities follow the type of service; at the hook tc only.
pub const PRIORITY: &str = ".data.priority";
/// The number of signals.
pub const SIGNALS: &str = ".data.signals";
/// The generation.
pub const TOPOLOGY: &str = ".data.topology";
