// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The file to sort: lines of letters at random, the same each time.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Characters of a line, with its end. Shorter ones take longer to sort, and more memory beside them.
const LINE_BYTES: usize = 1000;
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyzABCDEF";

/// Writes the file.
pub fn write(path: &Path, bytes: u64) -> Result<()> {
    let context = || format!("Writing {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(context)?);
    write_lines(&mut file, bytes).with_context(context)?;
    file.flush().with_context(context)
}

fn write_lines(to: &mut impl Write, bytes: u64) -> std::io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut left = bytes;
    let mut line = [b'\n'; LINE_BYTES];
    while left > 0 {
        for group in line[..LINE_BYTES - 1].chunks_mut(12) {
            // Marsaglia's xorshift, and five bits of it a letter.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            for (index, letter) in group.iter_mut().enumerate() {
                *letter = LETTERS[(state >> (5 * index)) as usize % LETTERS.len()];
            }
        }
        let count = left.min(LINE_BYTES as u64);
        to.write_all(&line[LINE_BYTES - count as usize..])?;
        left -= count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_many_as_asked_for_and_differ() {
        let mut text = Vec::new();
        write_lines(&mut text, 5050).expect("a vector takes all");
        assert_eq!(text.len(), 5050);
        let text = String::from_utf8(text).expect("letters");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6);
        assert!(text.ends_with('\n') && lines[0] != lines[1]);
        let mut again = Vec::new();
        write_lines(&mut again, 5050).expect("a vector takes all");
        assert_eq!(text.as_bytes(), again);
    }
}
