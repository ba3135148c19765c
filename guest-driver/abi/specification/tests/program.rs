// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax-specification` as a program among others.

use coax_program::conventions::Calls;

#[test]
fn words_that_cannot_be_written_are_failures_and_no_panics() {
    Calls {
        program: env!("CARGO_BIN_EXE_coax-specification"),
        answers: &[&["--version"], &["coverage"]],
        failures: &[&["page", "/nonexistent/page.html"]],
    }
    .check();
}
