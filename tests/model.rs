// SPDX-License-Identifier: GPL-2.0-only
//! Random sequences of packets, policy changes, routing changes and accidents of the daemon. After
//! each step packets fare as without bpfw, and nothing is on the fast path that may not be. What
//! may be is written down in a small model.
//!
//! A sequence that fails is made as short as possible, and printed such that it can be pasted below
//! as a test of its own.

mod support;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::cell::RefCell;
use std::time::Instant;
use support::model::op::{CONNS, Conn, End, Link, Op, Way, sequences};
use support::model::operate::run;
use support::model::world::Seen;

/// How long a failing sequence is made shorter, in milliseconds.
const SHRINK_FOR: u32 = 120_000;

on_both_hooks!(
    random_sequences_keep_the_promises,
    a_rst_counts_soon_after_the_start,
    connections_are_fast_again_by_interfaces_that_come_back,
);

/// A value of the environment, or the default.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn random_sequences_keep_the_promises(hook: &str, test: &str) {
    let (cases, seed) = (setting("BPFW_MODEL_CASES", 8), setting("BPFW_MODEL_SEED", 1));
    let config = Config {
        cases: u32::try_from(cases).expect("not so many"),
        failure_persistence: None,
        max_shrink_time: SHRINK_FOR,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..8 + hook.len()].copy_from_slice(hook.as_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let (started, all) = (Instant::now(), RefCell::new(Seen::default()));
    let result = TestRunner::new_with_rng(config, random).run(&sequences(), |ops| {
        let seen = run(hook, test, &ops).map_err(TestCaseError::fail)?;
        all.borrow_mut().add(&seen);
        Ok(())
    });
    println!("{hook}, seed {seed}, {:?}: {}", started.elapsed(), all.borrow());
    if let Err(TestError::Fail(reason, ops)) = result {
        panic!("{reason}\nBPFW_MODEL_SEED={seed}, and the shortest sequence that fails:\n{ops:?}");
    }
    result.expect("the search runs");
}

/// Of a connection's first segments the last ones pass up while it is being offloaded.
fn a_rst_counts_soon_after_the_start(hook: &str, test: &str) {
    let ops = [Conn::TcpSnat, Conn::TcpPlain]
        .map(|conn| [Op::Close(conn, End::Rst(Way::Original)), Op::Exchange(conn)])
        .concat()
        .repeat(8);
    let seen = run(hook, test, &ops).unwrap_or_else(|error| panic!("{error}"));
    println!("{hook}: {seen}");
}

/// Also while the daemon is stopped, and hears of all that only afterwards.
fn connections_are_fast_again_by_interfaces_that_come_back(hook: &str, test: &str) {
    let exchanges = CONNS.map(Op::Exchange);
    let vanish = |link| [&[Op::Vanish(link)][..], &exchanges].concat();
    let stopped = [&[Op::Pause], &vanish(Link::Wan)[..], &[Op::Resume], &exchanges].concat();
    let ops = [vanish(Link::Wan), vanish(Link::Lan), stopped].concat();
    let seen = run(hook, test, &ops).unwrap_or_else(|error| panic!("{error}"));
    println!("{hook}: {seen}");
}
