// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax-demo` as a program among others, where no device is needed.

use coax_program::conventions::Calls;

#[test]
fn words_that_cannot_be_written_are_failures_and_no_panics() {
    let device = "--device=/nonexistent/coax0";
    Calls {
        program: env!("CARGO_BIN_EXE_coax-demo"),
        answers: &[&["--version"], &["bench", "--help"]],
        failures: &[
            &["hash", device],
            &["all", device, "--file=/nonexistent/file"],
            &["bench", device],
            &["bench", device, "--busy=1"],
            &["bench", device, "--contexts=1"],
            &["bench", device, "--migrate-sizes=4K"],
            &["hash", "--json=/nonexistent/json"],
        ],
    }
    .check();
}
