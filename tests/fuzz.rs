// SPDX-License-Identifier: GPL-2.0-only
//! The decoders with spoiled messages of the running kernel, for some seconds. `make fuzz` does
//! the same with coverage as its guide, for as long as it is let.
//!
//! `BPFW_FUZZ_SEED` repeats a run, `BPFW_FUZZ_INPUTS` changes how many inputs each family gets,
//! `BPFW_FUZZ_CORPUS` names a directory to write the unspoiled messages to.

#[path = "../fuzz/src/lib.rs"]
mod properties;
mod support;

use properties::{FAMILIES, Family};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Instant, SystemTime};
use support::live::root_or_skip;
use support::mutate::mutated;
use support::random::Random;
use support::seeds;

/// For each family.
const INPUTS: u64 = 40_000;
/// Far more than all inputs and results take, far less than a length field can ask for.
const MEMORY_KIB: u64 = 64 * 1024;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// Some seed: each run tries other inputs.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("a clock past 1970").as_nanos() as u64
}

/// The most memory that the process ever had, touched or not.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("VmPeak");
    line.split_whitespace().next().expect("a number").parse().expect("a number")
}

fn try_input((name, check): Family, input: &[u8], seed: u64) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        eprintln!("{name} with BPFW_FUZZ_SEED={seed} and {input:02x?}");
        resume_unwind(panic);
    }
}

fn fuzz(family: Family, seeds: &[Vec<u8>], seed: u64) {
    assert!(!seeds.is_empty(), "{}: nothing to begin with", family.0);
    let (began, mut random) = (Instant::now(), Random::new(seed));
    seeds.iter().for_each(|input| try_input(family, input, seed));
    let inputs = number("BPFW_FUZZ_INPUTS").unwrap_or(INPUTS);
    (0..inputs).for_each(|_| try_input(family, &mutated(seeds, &mut random), seed));
    println!("{}: {} seeds, {inputs} inputs in {:.1?}", family.0, seeds.len(), began.elapsed());
}

fn write_corpus(directory: &Path, seeds: &seeds::Seeds) {
    for (place, (name, bytes)) in seeds.iter().enumerate() {
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join(format!("seed-{place}")), bytes).expect("a seed's file");
    }
}

#[test]
fn no_input_breaks_a_decoder() {
    if !root_or_skip("no_input_breaks_a_decoder") {
        return;
    }
    let seeds = seeds::make();
    if let Some(directory) = std::env::var_os("BPFW_FUZZ_CORPUS") {
        write_corpus(Path::new(&directory), &seeds);
    }
    let seed = number("BPFW_FUZZ_SEED").unwrap_or_else(any_seed);
    // Past the test harness: an abort would take with it what the harness keeps.
    let line = format!("fuzz: BPFW_FUZZ_SEED={seed}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error");
    let before = peak_kib();
    for family in FAMILIES {
        let own = seeds.iter().filter(|(name, _)| *name == family.0);
        fuzz(family, &own.map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(), seed);
    }
    let more = peak_kib() - before;
    println!("memory: {more} KiB more than before");
    assert!(more < MEMORY_KIB, "{more} KiB: is a length believed?");
}
