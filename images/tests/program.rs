// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax` as a program among others, where no VM is needed.

use std::process::{Command, Output, Stdio};

use coax_program::conventions::Calls;

/// `coax` with a cache of its own.
fn coax(args: &[&str]) -> Command {
    by(env!("CARGO_BIN_EXE_coax"), args)
}

fn by(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");
    command.args(args).stdin(Stdio::null());
    command.env("XDG_CACHE_HOME", cache);
    command
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn words_that_cannot_be_written_are_failures_and_no_panics() {
    Calls {
        program: env!("CARGO_BIN_EXE_coax"),
        answers: &[&["doctor"], &["run", "--help"], &["--version"]],
        failures: &[&["bench", "--no-install", "--json=/nonexistent/json"]],
    }
    .check();
}

#[test]
fn its_programs_are_waited_for_though_sigchld_is_ignored() {
    let script = "trap '' CHLD; exec \"$0\" doctor";
    let output = by("sh", &["-c", script, env!("CARGO_BIN_EXE_coax")]).output();
    let output = output.expect("sh is everywhere");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(text.contains("\nrustc         rustc "), "{text}");
}

#[test]
fn device_memory_that_does_not_fit_is_refused_before_anything_is_built() {
    let args = [
        "run",
        "--memory",
        "512M",
        "--device-memory",
        "64G",
        "--",
        "true",
    ];
    let output = coax(&args).output().expect("it starts");
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("512M") && text.contains("--memory must be"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
}
