// SPDX-License-Identifier: GPL-2.0-only
//! What a process and the kernel have used so far.

use std::time::Duration;

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The number in a line of /proc that begins so.
fn number_after(text: &str, start: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(start));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {start} in: {text}"))
}

/// Time that the process's only thread has run, in user space and in the kernel for it.
pub fn cpu_time(pid: u32) -> Duration {
    // Nanoseconds on a CPU come first; /proc/<pid>/stat knows ticks of 10 ms only.
    Duration::from_nanos(number_after(&read(&format!("/proc/{pid}/schedstat")), ""))
}

/// Resident memory in bytes.
pub fn resident(pid: u32) -> u64 {
    number_after(&read(&format!("/proc/{pid}/status")), "VmRSS:") << 10
}

/// The most memory in bytes that has been resident at a time.
pub fn peak(pid: u32) -> u64 {
    number_after(&read(&format!("/proc/{pid}/status")), "VmHWM:") << 10
}

/// Memory in bytes that the kernel has handed out to itself, by the page: slabs, vmalloc.
pub fn kernel_memory() -> u64 {
    let text = read("/proc/meminfo");
    ["SUnreclaim:", "VmallocUsed:"].map(|start| number_after(&text, start) << 10).iter().sum()
}
