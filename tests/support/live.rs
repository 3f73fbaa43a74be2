// SPDX-License-Identifier: GPL-2.0-only
//! Whether a test that needs a real kernel and root can run here.

use std::io::Write;

/// True if the live test can run; otherwise it says on standard error why not.
///
/// With `BPFW_REQUIRE_LIVE=1` a test that cannot run fails instead.
pub fn root_or_skip(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    skip(test, "needs root for network namespaces");
    false
}

/// Says on standard error that `test` did not run, past the test harness, which would hide it.
pub fn skip(test: &str, reason: &str) {
    let required = std::env::var_os("BPFW_REQUIRE_LIVE").is_some_and(|value| value == "1");
    assert!(!required, "{test} cannot run, and BPFW_REQUIRE_LIVE=1 asks for it: {reason}");
    lacking(test, reason);
}

/// As `skip`, where the running kernel lacks something: no failure even if `BPFW_REQUIRE_LIVE=1`,
/// because nobody can mend that here. A VM has other kernels (`make test-vm`).
pub fn lacking(test: &str, reason: &str) {
    let line = format!("SKIPPED {test}: {reason}\n");
    // Nothing better can be done if standard error is closed.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
