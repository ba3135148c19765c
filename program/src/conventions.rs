// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What every program has to do when its words cannot be written, for the tests of each.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;

use crate::status;

/// Calls of a program that need nothing but the program.
#[derive(Debug)]
pub struct Calls<'a> {
    /// Its path.
    pub program: &'a str,
    /// Arguments on which it answers, besides `--help`.
    pub answers: &'a [&'a [&'a str]],
    /// Arguments on which it fails with one line and [`status::FAILED`].
    pub failures: &'a [&'a [&'a str]],
}

impl Calls<'_> {
    /// Makes all of them with output that cannot be written.
    ///
    /// # Panics
    ///
    /// The program does not keep to a convention; says which call shows it.
    pub fn check(&self) {
        let help: &[&str] = &["--help"];
        for args in self.answers.iter().chain([&help]) {
            self.answer(args);
        }
        for args in self.failures {
            self.failure(args);
        }
        // No text in any encoding, and nothing that a program knows.
        let unknown = OsStr::from_bytes(b"--\xff");
        let output = output_of(Command::new(self.program).arg(unknown));
        let expected = Some(i32::from(status::USAGE));
        assert_eq!(output.status.code(), expected, "{unknown:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{unknown:?}: {output:?}");
        for stderr in unwritable() {
            let output = output_of(Command::new(self.program).arg(unknown).stderr(stderr));
            assert_eq!(output.status.code(), expected, "{unknown:?}: {output:?}");
        }
    }

    fn call(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(args);
        command
    }

    /// What cannot be written is a failure and one line, or an end as by SIGPIPE.
    fn answer(&self, args: &[&str]) {
        let [full, gone] = unwritable();
        let output = output_of(self.call(args).stdout(full));
        let said = one_line(&output);
        let failed = output.status.code() == Some(i32::from(status::FAILED));
        let why = said.is_some_and(|line| line.contains("standard output: No space left"));
        assert!(failed && why, "{args:?} to a full disk: {output:?}");

        let output = output_of(self.call(args).stdout(gone));
        let ended = output.status.signal() == Some(Signal::SIGPIPE as i32);
        let silent = output.stderr.is_empty();
        assert!(ended && silent, "{args:?} to nobody: {output:?}");
    }

    /// The status is the same whether or not the line can be written.
    fn failure(&self, args: &[&str]) {
        let output = output_of(&mut self.call(args));
        let failed = |output: &Output| output.status.code() == Some(i32::from(status::FAILED));
        let told = one_line(&output).is_some();
        assert!(failed(&output) && told, "{args:?}: {output:?}");
        for stderr in unwritable() {
            let output = output_of(self.call(args).stderr(stderr));
            assert!(failed(&output), "{args:?}, unheard: {output:?}");
        }
    }
}

/// A full disk, and a pipe whose reader has gone.
fn unwritable() -> [OwnedFd; 2] {
    let full = File::options().write(true).open("/dev/full");
    let (reader, gone) = UnixStream::pair().expect("a pair of sockets");
    drop(reader);
    [full.expect("every Linux has it").into(), gone.into()]
}

/// Runs it, with pipes for what is not connected yet.
fn output_of(command: &mut Command) -> Output {
    command.stdin(Stdio::null());
    command.output().expect("the program starts")
}

fn one_line(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.strip_suffix('\n')?;
    (!line.contains('\n')).then(|| line.to_owned())
}
