// SPDX-License-Identifier: GPL-2.0-only
//! What this kernel can do beyond what bpfw needs: tried, because features are backported. What
//! cannot be tried is not there.

use libbpf_rs::ProgramType;
use libbpf_sys::bpf_insn;
use nix::libc::{AF_INET, EINVAL};

use super::libbpf_error;
use super::sys::{self, Trial};
use crate::error::Result;
use crate::netlink::drivers::Drivers;

/// `BPF_FIB_LOOKUP_MARK` of linux/bpf.h since Linux 6.10.
const LOOK_UP_BY_MARK: i32 = 1 << 5;
/// The size of `struct bpf_fib_lookup`, and where in it the interface's index is.
const PARAMETERS: i16 = 64;
const IFINDEX: i16 = 8;
/// The index of every namespace's loopback interface.
const LOOPBACK: i32 = 1;

/// Where `struct __sk_buff` of linux/bpf.h has a packet's begin and end.
const DATA: i16 = 76;
const DATA_END: i16 = 80;

/// `XDP_DROP` of linux/bpf.h.
const DROP: i32 = 1;

/// Something that a kernel may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// Whether this kernel has it.
    pub is_there: bool,
    /// What follows where a kernel has none.
    pub otherwise: &'static str,
}

/// All that bpfw makes use of.
pub fn features(drivers: &Drivers) -> [Feature; 6] {
    let feature = |name, is_there, otherwise| Feature { name, is_there, otherwise };
    [
        feature("TCX", sys::has_tcx(), "the hook tc adds filters of clsact"),
        feature("route look-ups by mark", look_ups_heed_marks(), "--route-mark-mask has no effect"),
        feature(
            "reads of packets without an Ethernet header",
            can_read_without_header(),
            "PPP, WireGuard and tun are refused",
        ),
        feature(
            "descriptions of drivers",
            drivers.are_described(),
            "native XDP redirects to those only that are known to take it",
        ),
        feature("live frames", has_live_frames(), "packets cannot be measured (make bench)"),
        feature(
            "messages of BPF programs",
            programs_can_log().unwrap_or_default(),
            "--bpf-log-level is refused",
        ),
    ]
}

/// Logs what is there and what is not, with what that means.
pub fn list(drivers: &Drivers) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    for Feature { name, is_there, otherwise } in features(drivers) {
        if is_there {
            tracing::debug!("this kernel has {name}");
        } else {
            tracing::debug!("this kernel has no {name}: {otherwise}");
        }
    }
}

/// Whether programs can write to the trace pipe, at either hook; kernels without `BPF_EVENTS`, such as
/// OpenWrt's, have no `bpf_trace_printk`.
pub fn programs_can_log() -> Result<bool> {
    ProgramType::SchedCls
        .is_helper_supported(libbpf_sys::BPF_FUNC_trace_printk)
        .map_err(|error| libbpf_error("trying bpf_trace_printk", &error))
}

/// Whether `bpf_fib_lookup` heeds a mark; it refuses flags that it does not know.
pub fn look_ups_heed_marks() -> bool {
    sys::run_once(&look_up(LOOK_UP_BY_MARK), Trial::Tc).is_ok_and(|answer| answer != -EINVAL)
}

/// Whether programs may read words of packets that begin with the IP header. Where machines need
/// alignment, the kernel takes all packets to begin with an Ethernet header, two bytes after a word
/// (`NET_IP_ALIGN`).
pub fn can_read_without_header() -> bool {
    sys::load(libbpf_sys::BPF_PROG_TYPE_SCHED_CLS, &read_first_word()).is_ok()
}

/// A program for the TC hook that reads a packet's first word.
fn read_first_word() -> [bpf_insn; 8] {
    use register::*;
    [
        instruction(op::LOAD_U32, ARGUMENT_2, ARGUMENT_1, DATA, 0),
        instruction(op::LOAD_U32, ARGUMENT_3, ARGUMENT_1, DATA_END, 0),
        instruction(op::MOVE, ANSWER, 0, 0, 0),
        instruction(op::MOVE_REGISTER, ARGUMENT_4, ARGUMENT_2, 0, 0),
        instruction(op::ADD, ARGUMENT_4, 0, 0, 4),
        instruction(op::SKIP_IF_GREATER, ARGUMENT_4, ARGUMENT_3, 1, 0),
        instruction(op::LOAD_U32, ANSWER, ARGUMENT_2, 0, 0),
        instruction(op::EXIT, 0, 0, 0, 0),
    ]
}

/// Whether a program can be run on frames that then go their way (Linux 5.18), as the benchmark
/// does it.
pub fn has_live_frames() -> bool {
    let drop =
        [instruction(op::MOVE, register::ANSWER, 0, 0, DROP), instruction(op::EXIT, 0, 0, 0, 0)];
    // Older kernels run it on a frame of theirs, and hand over its answer.
    sys::run_once(&drop, Trial::XdpLive).is_ok_and(|answer| answer != DROP)
}

/// A program for the TC hook that returns what a look-up of 0.0.0.0 says.
fn look_up(flags: i32) -> Vec<bpf_insn> {
    use register::*;
    let parameters = -PARAMETERS;
    let mut program: Vec<_> = (parameters..0)
        .step_by(8)
        .map(|offset| instruction(op::STORE_U64, FRAME, 0, offset, 0))
        .collect();
    program.extend([
        instruction(op::STORE_U8, FRAME, 0, parameters, AF_INET),
        instruction(op::STORE_U32, FRAME, 0, parameters + IFINDEX, LOOPBACK),
        instruction(op::MOVE_REGISTER, ARGUMENT_2, FRAME, 0, 0),
        instruction(op::ADD, ARGUMENT_2, 0, 0, parameters.into()),
        instruction(op::MOVE, ARGUMENT_3, 0, 0, PARAMETERS.into()),
        instruction(op::MOVE, ARGUMENT_4, 0, 0, flags),
        instruction(op::CALL, 0, 0, 0, libbpf_sys::BPF_FUNC_fib_lookup as i32),
        instruction(op::EXIT, 0, 0, 0, 0),
    ]);
    program
}

pub(super) fn instruction(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
    let registers = bpf_insn::new_bitfield_1(to, from);
    bpf_insn { code, _bitfield_1: registers, off, imm, ..Default::default() }
}

/// BPF's instructions (RFC 9669) that are used here.
pub(super) mod op {
    pub const LOAD_U32: u8 = 0x61;
    pub const STORE_U8: u8 = 0x72;
    pub const STORE_U32: u8 = 0x62;
    pub const STORE_U64: u8 = 0x7a;
    pub const MOVE: u8 = 0xb7;
    pub const MOVE_REGISTER: u8 = 0xbf;
    pub const ADD: u8 = 0x07;
    pub const SKIP_IF_GREATER: u8 = 0x2d;
    pub const CALL: u8 = 0x85;
    pub const EXIT: u8 = 0x95;
}

pub(super) mod register {
    pub const ANSWER: u8 = 0;
    pub const ARGUMENT_1: u8 = 1;
    pub const ARGUMENT_2: u8 = 2;
    pub const ARGUMENT_3: u8 = 3;
    pub const ARGUMENT_4: u8 = 4;
    pub const FRAME: u8 = 10;
}
