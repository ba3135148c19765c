// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coaxctl sha256`: what sha256sum prints, computed by the device on mapped files.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use coax::Context;
use coax_program::errln;
use coax_program::output::OutputError;
use coax_program::stream::Waiting;

/// Means standard input.
const STDIN: &str = "-";

/// Prints a line for each file; the status says whether there was one that could not be hashed, which is
/// told on standard error.
///
/// # Errors
///
/// The lines cannot be written.
pub fn run(context: &Context, files: &[OsString]) -> Result<ExitCode> {
    let mut status = ExitCode::SUCCESS;
    for name in files {
        match digest(context, name) {
            Ok(digest) => {
                let line = line(&digest, name);
                let written = Waiting(io::stdout()).write_all(&line);
                written.map_err(OutputError::stdout)?;
            }
            Err(error) => {
                errln!("coaxctl: {}: {error:#}", name.to_string_lossy());
                status = ExitCode::FAILURE;
            }
        }
    }
    Ok(status)
}

fn digest(context: &Context, name: &OsStr) -> Result<[u8; 32]> {
    let mut file = if name == STDIN {
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        File::from(stdin.context("Cannot take standard input")?)
    } else {
        File::open(name).context("Cannot open it")?
    };
    Ok(context.sha256_file(&mut file)?)
}

/// A line as sha256sum has it: a name with what would break the line is escaped, and the line then
/// begins with a backslash.
fn line(digest: &[u8; 32], name: &OsStr) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in name.as_bytes() {
        match byte {
            b'\\' => escaped.extend(br"\\"),
            b'\n' => escaped.extend(br"\n"),
            b'\r' => escaped.extend(br"\r"),
            byte => escaped.push(*byte),
        }
    }
    let mut line = Vec::new();
    if escaped != name.as_bytes() {
        line.push(b'\\');
    }
    for byte in digest {
        line.extend(format!("{byte:02x}").bytes());
    }
    line.extend(b"  ");
    line.extend(escaped);
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_sha256sum() {
        let zeros = "00".repeat(32);
        let is_line = |name: &[u8], before: &str, after: &[u8]| {
            let expected = [before.as_bytes(), zeros.as_bytes(), b"  ", after, b"\n"].concat();
            assert_eq!(line(&[0; 32], OsStr::from_bytes(name)), expected);
        };
        is_line(b"a b", "", b"a b");
        is_line(b"a\nb\\c", "\\", br"a\nb\\c");
        is_line(b"a\xff", "", b"a\xff");
    }
}
