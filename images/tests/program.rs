// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax` as a program among others, where no VM is needed.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

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

fn full() -> File {
    let full = File::options().write(true).open("/dev/full");
    full.expect("every Linux has it")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure_and_one_line() {
    for args in [
        &["doctor"][..],
        &["--help"],
        &["run", "--help"],
        &["--version"],
    ] {
        let output = coax(args).stdout(full()).stderr(Stdio::piped()).output();
        let output = output.expect("it starts");
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(text.contains("standard output: No space left"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn a_reader_that_has_gone_ends_it_as_it_ends_others() {
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    drop(reader);
    let output = coax(&["doctor"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output();
    let output = output.expect("it starts");
    let sigpipe = nix::sys::signal::Signal::SIGPIPE as i32;
    assert_eq!(output.status.signal(), Some(sigpipe), "{}", output.status);
    assert_eq!(errors(&output), "");
}

#[test]
fn an_error_that_cannot_be_written_keeps_its_status() {
    for args in [&["dance"][..], &["run", "--memory", "1X"]] {
        let status = coax(args).stderr(full()).status().expect("it starts");
        assert_eq!(status.code(), Some(2), "{args:?}");
    }
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
