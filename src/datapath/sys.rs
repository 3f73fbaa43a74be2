// SPDX-License-Identifier: GPL-2.0-only
//! The few calls of libbpf and the kernel that no library wraps safely, each behind a safe function.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use libbpf_rs::{MapCore, MapHandle, MapType};
use nix::libc::{self, c_void};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{SysconfVar, sysconf};

use crate::abi::Pod;

/// Bytes of a frame without content: no kernel takes it for too short.
const EMPTY_FRAME: usize = 64;

/// Where a link attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachType {
    /// XDP, with the flags of linux/if_link.h (`XDP_FLAGS_*`).
    Xdp(u32),
    /// TCX ingress, behind what is there already.
    TcxIngress,
    /// TCX egress, likewise.
    TcxEgress,
}

impl AttachType {
    fn kind_and_flags(self) -> (libbpf_sys::bpf_attach_type, u32) {
        match self {
            Self::Xdp(flags) => (libbpf_sys::BPF_XDP, flags),
            Self::TcxIngress => (libbpf_sys::BPF_TCX_INGRESS, 0),
            Self::TcxEgress => (libbpf_sys::BPF_TCX_EGRESS, 0),
        }
    }
}

/// Attaches a program to an interface, for as long as the returned link is open.
pub fn link_create(program: BorrowedFd<'_>, ifindex: u32, to: AttachType) -> io::Result<OwnedFd> {
    let (kind, flags) = to.kind_and_flags();
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags,
        ..Default::default()
    };
    let target = i32::try_from(ifindex).map_err(io::Error::other)?;
    // SAFETY: the program's descriptor is open while it is borrowed, and libbpf only reads the
    // options, whose size is given.
    let fd = unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), target, kind, &options) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The program's id and the interface's index of a link of XDP. Of a link that was detached, or whose
/// interface is gone, the index is 0.
pub fn xdp_link_target(link: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    // SAFETY: all its members are numbers, for which zeros are valid.
    let mut info: libbpf_sys::bpf_link_info = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut length = size_of_val(&info) as u32;
    // SAFETY: the descriptor is open while it is borrowed; the kernel writes at most `length` bytes.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            link.as_raw_fd(),
            ptr::from_mut(&mut info).cast(),
            &mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    if info.type_ != libbpf_sys::BPF_LINK_TYPE_XDP {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the kernel fills this member in for links of this type; any bytes are a number.
    Ok((info.prog_id, unsafe { info.__bindgen_anon_1.xdp.ifindex }))
}

/// How [`run_once`] runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// As one of TC, on an empty frame.
    Tc,
    /// As one of XDP, on an empty frame that the kernel treats as received (live frames).
    XdpLive,
}

impl Trial {
    fn kind_and_flags(self) -> (libbpf_sys::bpf_prog_type, u32) {
        match self {
            Self::Tc => (libbpf_sys::BPF_PROG_TYPE_SCHED_CLS, 0),
            Self::XdpLive => {
                (libbpf_sys::BPF_PROG_TYPE_XDP, libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES)
            }
        }
    }
}

/// Loads a program of a few instructions.
pub fn load(
    kind: libbpf_sys::bpf_prog_type,
    program: &[libbpf_sys::bpf_insn],
) -> io::Result<OwnedFd> {
    // SAFETY: the instructions live through the call, and their number is given. Name and license
    // are constants that end with 0. No options are given.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            kind,
            c"bpfw_probe".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as libbpf_sys::size_t,
            ptr::null_mut(),
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a program, runs it once, and returns its answer, which live frames do not have: 0.
pub fn run_once(program: &[libbpf_sys::bpf_insn], trial: Trial) -> io::Result<i32> {
    let (kind, flags) = trial.kind_and_flags();
    let fd = load(kind, program)?;
    let frame = [0_u8; EMPTY_FRAME];
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: EMPTY_FRAME as u32,
        repeat: 1,
        flags,
        ..Default::default()
    };
    // SAFETY: the descriptor is open, and frame and options, whose sizes are given, live through
    // the call, which does not write to the frame.
    let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(fd.as_raw_fd(), &mut options) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(options.retval as i32)
}

/// Runs a loaded program of type syscall with this context, and returns its answer. The kernel
/// writes the context back.
pub fn run_syscall(program: BorrowedFd<'_>, context: &mut [u8]) -> io::Result<u32> {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        ctx_in: context.as_mut_ptr().cast(),
        ctx_size_in: u32::try_from(context.len()).map_err(io::Error::other)?,
        ..Default::default()
    };
    // SAFETY: the descriptor is open while it is borrowed; options and context, whose sizes are
    // given, live through the call, which may write to both.
    let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(options.retval)
}

/// As many programs as the kernel lets stand in one place (`BPF_MPROG_MAX`).
const MOST_PROGRAMS: usize = 64;
/// The index of every namespace's loopback interface.
const LOOPBACK: u32 = 1;

/// The ids of an interface's TCX programs on this side, in the order in which they run. None
/// before Linux 6.6, nor if there is no such interface.
pub fn tcx_programs(ifindex: u32, side: AttachType) -> io::Result<Vec<u32>> {
    query_tcx(ifindex, side).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOENT | libc::ENODEV) => Ok(Vec::new()),
        _ => Err(error),
    })
}

/// Whether this kernel has TCX: others do not know the question.
pub fn has_tcx() -> bool {
    match query_tcx(LOOPBACK, AttachType::TcxIngress) {
        Ok(_) => true,
        // The interface never had a program.
        Err(error) => error.raw_os_error() == Some(libc::ENOENT),
    }
}

fn query_tcx(ifindex: u32, side: AttachType) -> io::Result<Vec<u32>> {
    let (kind, _) = side.kind_and_flags();
    let mut ids = vec![0_u32; MOST_PROGRAMS];
    let mut count = MOST_PROGRAMS as u32;
    let target = i32::try_from(ifindex).map_err(io::Error::other)?;
    // SAFETY: there is room for `count` ids, and all pointers live through the call.
    let result = unsafe {
        libbpf_sys::bpf_prog_query(target, kind, 0, ptr::null_mut(), ids.as_mut_ptr(), &mut count)
    };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    ids.truncate(count as usize);
    Ok(ids)
}

/// `ETHTOOL_GFLAGS` and `ETH_FLAG_RXVLAN` of linux/ethtool.h.
const GET_FLAGS: u32 = 0x25;
const STRIPS_TAGS: u32 = 1 << 8;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Whether the interface's driver takes VLAN tags off the frames that come in. An interface
/// without such settings does not, nor does one that is gone.
pub fn strips_tags(name: &str) -> io::Result<bool> {
    // Any socket will do, and a service needs no sockets of IPv4.
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = EthtoolValue { command: GET_FLAGS, data: 0 };
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: ptr::from_mut(&mut value).cast() },
    };
    let room = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
    room.zip(name.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    // SAFETY: the name ends with 0. The request's pointer leads to the value, which has the size
    // that the kernel expects for this command. Both live through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) };
    if result == 0 {
        return Ok(value.data & STRIPS_TAGS != 0);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENODEV) => Ok(false),
        _ => Err(error),
    }
}

/// The id of an interface's XDP program, 0 if there is none. libbpf dumps all interfaces for it.
pub fn xdp_program(ifindex: u32) -> io::Result<u32> {
    // libbpf asks for the features only if there is room for them.
    let room = offset_of!(libbpf_sys::bpf_xdp_query_opts, feature_flags);
    let mut options =
        libbpf_sys::bpf_xdp_query_opts { sz: room as libbpf_sys::size_t, ..Default::default() };
    let ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
    // SAFETY: the options live through the call, and have at least the size that they say.
    let result = unsafe { libbpf_sys::bpf_xdp_query(ifindex, 0, &mut options) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(options.prog_id)
}

/// One step of a walk through a hash map.
pub struct Batch<'a> {
    /// The place where the walk goes on; `None` at its start.
    pub position: &'a mut Option<u64>,
    /// Room for the keys.
    pub keys: &'a mut [u8],
    /// Room for the values.
    pub values: &'a mut [u8],
    /// How many entries there is room for.
    pub room: u32,
}

/// What becomes of the entries that a walk has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// They stay.
    Stay,
    /// They are taken out.
    Go,
}

/// Reads the next entries of a hash map; `true` as second value says that these are the last.
///
/// libbpf-rs takes a short batch for the end and so loses entries (seen with 0.27). Hash maps hand
/// out whole buckets, and only ENOENT is the end. ENOSPC asks for more room. Maps of other types,
/// and buffers that are too small for the room that they are said to have, are refused.
pub fn next_batch(map: &MapHandle, batch: Batch<'_>, then: Then) -> io::Result<(usize, bool)> {
    let mut count = batch.room;
    // Four bytes are written here; eight leave a margin.
    let mut next = 0_u64;
    let start = batch.position.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    let call = match then {
        Then::Stay => libbpf_sys::bpf_map_lookup_batch,
        Then::Go => libbpf_sys::bpf_map_lookup_and_delete_batch,
    };
    let fits = |buffer: &[u8], size: u32| buffer.len() as u64 >= u64::from(size) * u64::from(count);
    // Other types have positions as large as their keys, or values for each CPU.
    if !matches!(map.map_type(), MapType::Hash | MapType::LruHash)
        || !fits(batch.keys, map.key_size())
        || !fits(batch.values, map.value_size())
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: keys and values have room for `count` entries of this map, and the kernel writes no
    // more; all pointers live through the call.
    let result = unsafe {
        call(
            map.as_fd().as_raw_fd(),
            start.cast(),
            ptr::from_mut(&mut next).cast(),
            batch.keys.as_mut_ptr().cast(),
            batch.values.as_mut_ptr().cast(),
            &mut count,
            ptr::null(),
        )
    };
    match -result {
        0 => {
            *batch.position = Some(next);
            Ok((count as usize, false))
        }
        nix::libc::ENOENT => Ok((count as usize, true)),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Reads values of an array with `BPF_F_MMAPABLE`: of `number` from `first` on, those with the given
/// indices. Where many are wanted, a mapping takes a tenth of the time in which the kernel copies one
/// after the other. Programs go on writing; a value is no less whole than the kernel's copy.
pub fn read_mapped<V: Pod>(
    map: BorrowedFd<'_>,
    first: usize,
    number: usize,
    wanted: impl Iterator<Item = usize>,
    mut each: impl FnMut(V),
) -> io::Result<()> {
    // A mapping begins where a page does.
    let skipped = first * size_of::<V>() % page_size()?;
    let length = skipped + number * size_of::<V>();
    let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
    let offset = first * size_of::<V>() - skipped;
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: a new mapping, for reading only, where the kernel finds room for it.
    let start =
        unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, map, offset) }?;
    for index in wanted.filter(|index| *index < number) {
        // SAFETY: within the mapping; an array's values begin at multiples of 8 bytes, and so are
        // aligned; any bytes are a V. Volatile, because programs write to it.
        each(unsafe { start.byte_add(skipped).cast::<V>().add(index).read_volatile() });
    }
    // SAFETY: nothing refers to the mapping any more.
    unsafe { munmap(start, length.get()) }?;
    Ok(())
}

/// All values of an array with `BPF_F_MMAPABLE`, as programs write them.
pub struct Mapped<V> {
    start: NonNull<c_void>,
    number: usize,
    values: PhantomData<V>,
}

impl<V: Pod> Mapped<V> {
    /// Maps an array of so many values.
    pub fn new(map: BorrowedFd<'_>, number: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(number * size_of::<V>());
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, for reading only, where the kernel finds room for it.
        let start =
            unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { start, number, values: PhantomData })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.number
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.number == 0
    }

    /// The value with this index; no less whole than the kernel's copy.
    pub fn get(&self, index: usize) -> Option<V> {
        // SAFETY: within the mapping; an array's values begin at multiples of 8 bytes, and so are
        // aligned; any bytes are a V. Volatile, because programs write to it.
        (index < self.number).then(|| unsafe { self.start.cast::<V>().add(index).read_volatile() })
    }
}

impl<V> Drop for Mapped<V> {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more. It fails only for what is not mapped.
        let _ = unsafe { munmap(self.start, self.number * size_of::<V>()) };
    }
}

/// Ignores a signal from here on.
pub fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: whatever the number, no code of ours runs on a signal.
    match unsafe { libc::signal(signal, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether a signal is ignored.
pub fn is_ignored(signal: i32) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is set, and the kernel's answer fits.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it is filled in.
    Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN)
}

/// The largest MTU with which a frame fits in one page, as native XDP without fragments needs it.
pub fn largest_mtu_of_a_page() -> u32 {
    /// Room before the frame (`XDP_PACKET_HEADROOM`), `struct skb_shared_info` behind it with 64-byte
    /// cache lines, and the Ethernet header.
    const OTHERS: usize = 256 + 320 + 14;
    let page = page_size().unwrap_or(4096);
    u32::try_from(page - OTHERS).unwrap_or(u32::MAX)
}

fn page_size() -> io::Result<usize> {
    let size = sysconf(SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    usize::try_from(size).map_err(io::Error::other)
}

/// How many lines a terminal has.
pub fn terminal_rows(terminal: &impl AsFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills the struct, which lives through the call.
    unsafe { window_size(terminal.as_fd().as_raw_fd(), &mut size) }.ok()?;
    (size.ws_row > 0).then_some(size.ws_row.into())
}

nix::ioctl_read_bad!(
    /// `TIOCGWINSZ` of asm/ioctls.h.
    window_size, libc::TIOCGWINSZ, libc::winsize
);

nix::ioctl_readwrite!(
    /// `PPPIOCNEWUNIT` of linux/ppp-ioctl.h.
    new_ppp_unit, b't', 62, libc::c_int
);
nix::ioctl_write_ptr!(
    /// `PPPIOCSFLAGS` of linux/ppp-ioctl.h.
    set_ppp_flags, b't', 89, libc::c_int
);

nix::ioctl_write_ptr_bad!(
    /// As netdevice(7) has it.
    set_interface_flags, libc::SIOCSIFFLAGS, libc::ifreq
);

/// A new PPP interface, for as long as this is open, and its number. What is sent there can be read here.
pub fn looping_ppp_unit() -> io::Result<(File, i32)> {
    /// `SC_LOOP_TRAFFIC` of linux/ppp-ioctl.h.
    const LOOP_TRAFFIC: libc::c_int = 0x200;
    let ppp = File::options().read(true).write(true).open("/dev/ppp")?;
    // Any number.
    let mut unit = -1;
    // SAFETY: the descriptor is open, and the kernel reads and writes one number.
    unsafe { new_ppp_unit(ppp.as_raw_fd(), &mut unit) }?;
    // SAFETY: the descriptor is open, and the kernel reads one number.
    unsafe { set_ppp_flags(ppp.as_raw_fd(), &LOOP_TRAFFIC) }?;
    Ok((ppp, unit))
}

/// Sets an interface up.
pub fn set_up(name: &str) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all its members are numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    // The last byte stays 0.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the kernel reads a whole `struct ifreq`.
    unsafe { set_interface_flags(socket.as_raw_fd(), &request) }?;
    Ok(())
}
