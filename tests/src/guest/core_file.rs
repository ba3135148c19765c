// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a program's core file holds of its memory (`elf(5)`, 64 bits).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

/// Offsets in the file's header.
const TABLE: usize = 0x20;
const HEADER_BYTES: usize = 0x36;
const HEADERS: usize = 0x38;
const FILE_HEADER: usize = 0x40;
/// Offsets in a program header, and its size.
const OFFSET: usize = 0x08;
const ADDRESS: usize = 0x10;
const IN_FILE: usize = 0x20;
const PROGRAM_HEADER: usize = 0x38;
/// A part of memory.
const PT_LOAD: u32 = 1;

/// Bytes at an address of the program.
pub fn memory(core: &Path, address: u64, len: usize) -> Result<Vec<u8>> {
    let file = File::open(core).with_context(|| format!("{}", core.display()))?;
    let mut header = [0; FILE_HEADER];
    file.read_exact_at(&mut header, 0).context("ELF header")?;
    ensure!(header.starts_with(b"\x7fELF"), "No ELF file");
    let table = word(&header, TABLE);
    let (bytes, count) = (half(&header, HEADER_BYTES), half(&header, HEADERS));
    for number in 0..u64::from(count) {
        let mut part = [0; PROGRAM_HEADER];
        let at = table + number * u64::from(bytes);
        file.read_exact_at(&mut part, at)
            .context("Program header")?;
        let start = word(&part, ADDRESS);
        let held = start..start + word(&part, IN_FILE);
        let is_memory = part.starts_with(&PT_LOAD.to_le_bytes());
        if is_memory && held.contains(&address) && address + len as u64 <= held.end {
            let mut out = vec![0; len];
            let at = word(&part, OFFSET) + (address - start);
            file.read_exact_at(&mut out, at).context("Memory")?;
            return Ok(out);
        }
    }
    bail!("{address:#x} is in none of {count} parts of the core file")
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
