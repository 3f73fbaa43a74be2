// SPDX-License-Identifier: GPL-2.0-only
//! What a process has used so far.

use std::time::Duration;

fn read(pid: u32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Time that the process's only thread has run, in user space and in the kernel for it.
pub fn cpu_time(pid: u32) -> Duration {
    // Nanoseconds on a CPU come first; /proc/<pid>/stat knows ticks of 10 ms only.
    let text = read(pid, "schedstat");
    let word = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(word.expect("schedstat begins with a number"))
}
