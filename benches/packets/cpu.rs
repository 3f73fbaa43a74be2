// SPDX-License-Identifier: GPL-2.0-only
//! Who runs on which CPU. The packets have one for themselves, where there is another for the
//! daemons.

use crate::usage::cpu_time;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A daemon that takes less than this share of a CPU has done what it was told.
const AT_REST: f64 = 0.25;
const LOOK: Duration = Duration::from_millis(250);
const LIMIT: Duration = Duration::from_secs(60);

fn online() -> usize {
    sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(1) as usize
}

fn move_to(pid: u32, cpus: impl IntoIterator<Item = usize>) -> Result<(), String> {
    let mut set = CpuSet::new();
    cpus.into_iter()
        .try_for_each(|cpu| set.set(cpu))
        .and_then(|()| sched_setaffinity(Pid::from_raw(pid as i32), &set))
        .map_err(|error| format!("process {pid}: choosing its CPU: {error}"))
}

/// The caller's thread, and with it all packets, stay on the last CPU: its caches and queues are
/// those of one packet after the other.
pub fn stay_on_the_last() -> Result<(), String> {
    move_to(0, [online() - 1])
}

/// A process that the caller has started goes to the other CPUs.
pub fn leave_the_last(pid: u32) -> Result<(), String> {
    move_to(pid, 0..(online() - 1).max(1))
}

/// Waits for a process that still works on what came at once: it takes memory bandwidth, and the
/// CPU where there is one only.
pub fn wait_for_rest(pid: u32) {
    let end = Instant::now() + LIMIT;
    loop {
        let (start, before) = (Instant::now(), cpu_time(pid));
        sleep(LOOK);
        let share = (cpu_time(pid) - before).as_secs_f64() / start.elapsed().as_secs_f64();
        if share < AT_REST {
            return;
        }
        if Instant::now() > end {
            println!("process {pid} is still busy, and will disturb what is measured");
            return;
        }
    }
}
