// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coaxctl sha256`: what sha256sum prints, computed by the device on mapped files.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context as _, Result};
use coax::Context;

/// Means standard input.
const STDIN: &str = "-";

/// Prints a line for each file; false if there was one that could not be hashed, which is told on
/// standard error.
///
/// # Errors
///
/// The lines cannot be written.
pub fn run(context: &Context, files: &[String], out: &mut impl Write) -> Result<bool> {
    let mut all = true;
    for name in files {
        match digest(context, name) {
            Ok(digest) => {
                writeln!(out, "{}", line(&digest, name)).context("Cannot write the digests")?;
            }
            Err(error) => {
                eprintln!("coaxctl: {name}: {error:#}");
                all = false;
            }
        }
    }
    Ok(all)
}

fn digest(context: &Context, name: &str) -> Result<[u8; 32]> {
    let mut file = if name == STDIN {
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        File::from(stdin.context("Cannot take standard input")?)
    } else {
        File::open(Path::new(name)).context("Cannot open it")?
    };
    Ok(context.sha256_file(&mut file)?)
}

/// A line as sha256sum has it: a name with what would break the line is escaped, and the line then
/// begins with a backslash.
fn line(digest: &[u8; 32], name: &str) -> String {
    let escaped = name
        .replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\r', "\\r");
    let mut line = String::new();
    if escaped != name {
        line.push('\\');
    }
    for byte in digest {
        // A string takes all that is written to it.
        let _ = write!(line, "{byte:02x}");
    }
    line + "  " + &escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_sha256sum() {
        let zeros = "00".repeat(32);
        assert_eq!(line(&[0; 32], "a b"), format!("{zeros}  a b"));
        assert_eq!(line(&[0; 32], "a\nb\\c"), format!("\\{zeros}  a\\nb\\\\c"));
    }
}
