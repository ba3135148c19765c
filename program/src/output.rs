// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a program says. Nothing here panics, whatever its output is connected to.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use crate::stream::Waiting;

/// One saying at a time: a long one takes several writes.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Standard output, or error, does not take what is written.
#[derive(Debug, thiserror::Error)]
#[error("Cannot write to {stream}")]
pub struct OutputError {
    /// Which of them.
    pub stream: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl OutputError {
    /// Of standard output.
    pub fn stdout(source: io::Error) -> Self {
        OutputError {
            stream: "standard output",
            source,
        }
    }

    /// Of standard error.
    pub fn stderr(source: io::Error) -> Self {
        OutputError {
            stream: "standard error",
            source,
        }
    }
}

/// Writes to standard output, at once.
///
/// # Errors
///
/// The disk is full, or nobody reads it any more, or another of `write(2)`.
pub fn say(text: fmt::Arguments<'_>) -> Result<(), OutputError> {
    let text = text.to_string();
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    Waiting(io::stdout())
        .write_all(text.as_bytes())
        .map_err(OutputError::stdout)
}

/// Writes to standard error, at once; what it does not take is lost, since there is nobody to tell.
pub fn complain(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = Waiting(io::stderr()).write_all(text.as_bytes());
}

/// Writes to standard output, as `print!` does, and returns an [`output::OutputError`](OutputError)
/// when it cannot.
#[macro_export]
macro_rules! out {
    ($($word:tt)*) => { $crate::output::say(::std::format_args!($($word)*)) };
}

/// Writes a line to standard output, as `println!` does, and returns an
/// [`output::OutputError`](OutputError) when it cannot.
#[macro_export]
macro_rules! outln {
    () => { $crate::out!("\n") };
    ($($word:tt)*) => {
        $crate::output::say(::std::format_args!("{}\n", ::std::format_args!($($word)*)))
    };
}

/// Writes a line to standard error, as `eprintln!` does, and goes on when it cannot.
#[macro_export]
macro_rules! errln {
    () => { $crate::output::complain(::std::format_args!("\n")) };
    ($($word:tt)*) => {
        $crate::output::complain(::std::format_args!("{}\n", ::std::format_args!($($word)*)))
    };
}
