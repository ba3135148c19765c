// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The programs of the VM tests as programs among others, where no VM is needed.

use coax_program::conventions::Calls;

#[test]
fn words_that_cannot_be_written_are_failures_and_no_panics() {
    let json: &[&str] = &["--json=/nonexistent/json"];
    for program in [
        env!("CARGO_BIN_EXE_coax-soak"),
        env!("CARGO_BIN_EXE_coax-stress"),
    ] {
        Calls {
            program,
            answers: &[&["--version"]],
            failures: &[json],
        }
        .check();
    }
    Calls {
        program: env!("CARGO_BIN_EXE_coax-trials"),
        answers: &[&["--version"], &["kill", "--help"]],
        failures: &[&["stall", json[0]], &["kill", json[0]]],
    }
    .check();
    Calls {
        program: env!("CARGO_BIN_EXE_coax-vm-tests"),
        answers: &[&["--version"], &["--list"], &["--plan", "fork."]],
        failures: &[
            &["--ktap=/nonexistent/ktap"],
            &["--junit=/nonexistent/junit"],
            &["--results=/nonexistent/results"],
        ],
    }
    .check();
    Calls {
        program: env!("CARGO_BIN_EXE_coax-guest-tests"),
        answers: &[&["list"]],
        failures: &[
            &["soak", "/nonexistent/plan"],
            &["trial", "/nonexistent/plan"],
        ],
    }
    .check();
}
