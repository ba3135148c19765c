// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the programs of coax have in common as programs.
//!
//! - Answers go to standard output by [`out!`] and [`outln!`], which return an error, and words for
//!   people to standard error by [`errln!`], which never fails. Both wait for a reader of a pipe that
//!   does not block.
//! - `main` returns what [`finish`] makes of a result: an error is one line and the status 1, and a
//!   reader of standard output that has gone ends the program as SIGPIPE ends others.
//! - Signals that were ignored when the program started stay ignored ([`signals::ignored`]), and one
//!   that ends the program shows in its status ([`signals::die_of`]).
//! - Statuses are those of [`status`], and values that several programs take are read by [`args`].
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     coax_program::finish("hello", run())
//! }
//!
//! fn run() -> anyhow::Result<ExitCode> {
//!     coax_program::signals::allow_waiting()?;
//!     coax_program::outln!("hello")?;
//!     Ok(ExitCode::SUCCESS)
//! }
//! ```
#![forbid(unsafe_code)]

pub mod args;
#[cfg(feature = "conventions")]
pub mod conventions;
pub mod output;
pub mod signals;
pub mod status;
pub mod stream;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use nix::sys::signal::Signal;

use output::OutputError;

/// The program's status for `result`; an error is told in one line after the program's name.
///
/// Does not return when nobody reads standard output any more.
pub fn finish(name: &str, result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    if reader_has_gone(&error) {
        signals::die_of(Signal::SIGPIPE);
    }
    errln!("{name}: {error:#}");
    ExitCode::from(status::FAILED)
}

/// Whether the error is that nobody reads standard output, or error, any more.
pub fn reader_has_gone(error: &anyhow::Error) -> bool {
    let output = |cause: &(dyn std::error::Error + 'static)| {
        let output = cause.downcast_ref::<OutputError>();
        output.is_some_and(|error| error.source.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(output)
}

/// The command line, or the status to end with: 0 after help that was asked for, 2 after a line that
/// says what is wrong.
///
/// # Errors
///
/// The command line is wrong, or asks for help or the version.
pub fn parse<C: clap::Parser>(name: &str) -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        if error.use_stderr() {
            if io::stderr().is_terminal() {
                // There is nobody else to tell.
                let _ = error.print();
            } else {
                output::complain(format_args!("{}", error.render()));
            }
            return ExitCode::from(status::USAGE);
        }
        let written = if io::stdout().is_terminal() {
            error.print().map_err(OutputError::stdout)
        } else {
            output::say(format_args!("{}", error.render()))
        };
        finish(
            name,
            written.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        )
    })
}
