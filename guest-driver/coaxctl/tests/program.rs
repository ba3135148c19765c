// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coaxctl` as a program among others, where no device is needed.

use coax_program::conventions::Calls;

#[test]
fn words_that_cannot_be_written_are_failures_and_no_panics() {
    let device = "--device=/nonexistent/coax0";
    Calls {
        program: env!("CARGO_BIN_EXE_coaxctl"),
        answers: &[&["--version"], &["storm", "--help"]],
        failures: &[
            &["info", device],
            &["stats", device, "--json"],
            &["residency", device, "1"],
            &["evict", device, "1", "all"],
            &["sha256", device, "-"],
        ],
    }
    .check();
}
