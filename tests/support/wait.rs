// SPDX-License-Identifier: GPL-2.0-only
//! Waiting for something to become true, with a limit.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// Polls until `check` is true; tells whether it became true in time.
pub fn becomes_true(limit: Duration, mut check: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if check() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Polls until `check` is true, or panics naming `what` did not happen.
pub fn eventually(limit: Duration, what: &str, check: impl FnMut() -> bool) {
    assert!(becomes_true(limit, check), "not within {limit:?}: {what}");
}
