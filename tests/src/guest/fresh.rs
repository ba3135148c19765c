// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory fresh from the kernel, in which nothing but zeros may ever be found while nobody writes to it:
//! what is there was written to pages that had been let go.

use std::fs;

use anyhow::{Context, Result};

use super::memory::{Mapping, PAGE};

/// The kernel's account of memory.
const MEMINFO: &str = "/proc/meminfo";
/// Before what programs can have, in kB.
const AVAILABLE: &str = "MemAvailable:";

/// Memory that its owner does not write to.
#[derive(Debug)]
pub struct Fresh(Mapping);

/// What was found in it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Foreign {
    /// Bytes that are not zero.
    pub bytes: u64,
    /// Pages with such bytes.
    pub pages: u64,
    /// The first word that is not zero.
    pub word: u64,
}

impl Fresh {
    /// Takes so many bytes, in small pages: those that were just freed are among the first.
    pub fn take(bytes: usize) -> Result<Self> {
        let memory = Mapping::small_pages(bytes / PAGE * PAGE)?;
        // A child that had it too would keep it longer than its owner does.
        memory
            .advise(0..memory.len(), libc::MADV_DONTFORK)
            .context("MADV_DONTFORK")?;
        memory
            .advise(0..memory.len(), libc::MADV_POPULATE_WRITE)
            .context("MADV_POPULATE_WRITE")?;
        Ok(Fresh(memory))
    }

    /// Takes this share, in percent, of what programs can have.
    pub fn take_percent(percent: usize) -> Result<Self> {
        Self::take(available()? / 100 * percent)
    }

    /// Bytes taken.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks at every byte.
    pub fn look(&self) -> Foreign {
        look(&self.0)
    }
}

/// What is not zero in memory that nobody has written to.
pub fn look(memory: &Mapping) -> Foreign {
    let zeros = [0; PAGE];
    let mut page = [0; PAGE];
    let mut found = Foreign::default();
    for offset in (0..memory.len()).step_by(PAGE) {
        memory.read(offset, &mut page);
        if page != zeros {
            found.add(&page);
        }
    }
    found
}

impl Foreign {
    fn add(&mut self, page: &[u8]) {
        self.bytes += page.iter().filter(|byte| **byte != 0).count() as u64;
        self.pages += 1;
        if self.word == 0 {
            let words = page.chunks_exact(8);
            let mut words =
                words.filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)));
            self.word = words.find(|word| *word != 0).unwrap_or(0);
        }
    }
}

/// Bytes that programs can have without anybody else's memory being taken.
fn available() -> Result<usize> {
    let text = fs::read_to_string(MEMINFO).context(MEMINFO)?;
    let kib = available_kib(&text).with_context(|| format!("{MEMINFO} without {AVAILABLE}"))?;
    Ok(kib << 10)
}

fn available_kib(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(AVAILABLE))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_memory_is_zero_and_what_was_written_is_found() -> Result<()> {
        let fresh = Fresh::take(4 * PAGE)?;
        assert_eq!(fresh.look(), Foreign::default());
        fresh.0.store(PAGE + 8, 0x0100_0002);
        fresh.0.store(3 * PAGE, 7);
        let found = Foreign {
            bytes: 3,
            pages: 2,
            word: 0x0100_0002,
        };
        assert_eq!(fresh.look(), found);
        Ok(())
    }

    #[test]
    fn what_programs_can_have_is_read() {
        let text = "MemTotal: 9 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(available_kib(text), Some(2048));
        assert_eq!(available_kib("MemTotal: 9 kB\n"), None);
    }
}
