// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `/proc/PID/smaps` says of a mapping: the kernel's own witness of huge pages.
//!
//! `AnonHugePages` counts what one entry of the page middle directory maps, in system memory and
//! in device-private memory alike (`smaps_pmd_entry()`, `fs/proc/task_mmu.c`).

use anyhow::{Context, Result};

use super::memory::{Mapping, HUGE};

/// Before the size, in kB.
const HUGE_FIELD: &str = "AnonHugePages:";

/// Huge pages in the mappings that this one has a part in. Neighbours of the same kind count too:
/// the kernel makes them one.
pub fn huge_pages(mapping: &Mapping) -> Result<usize> {
    let text = std::fs::read_to_string("/proc/self/smaps").context("/proc/self/smaps")?;
    let range = mapping.address()..mapping.address() + mapping.len() as u64;
    huge_bytes(&text, &range).map(|bytes| bytes / HUGE)
}

fn huge_bytes(text: &str, range: &std::ops::Range<u64>) -> Result<usize> {
    let (mut inside, mut bytes) = (false, 0);
    for line in text.lines() {
        if let Some((start, end)) = bounds(line) {
            inside = start < range.end && range.start < end;
        } else if let Some(size) = line.strip_prefix(HUGE_FIELD).filter(|_| inside) {
            let kib = size.trim().trim_end_matches(" kB");
            let kib: usize = kib.parse().with_context(|| line.to_owned())?;
            bytes += kib << 10;
        }
    }
    Ok(bytes)
}

/// The range that the first line of a mapping names.
fn bounds(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0 
Size:               4096 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me ac hg 
7f0000400000-7f0000600000 r--p 00000000 00:00 0    [name]
AnonHugePages:      1024 kB
";

    #[test]
    fn only_mappings_in_the_range_count() {
        let of = |range| huge_bytes(TEXT, &range).ok();
        assert_eq!(of(0x7f00_0000_0000..0x7f00_0040_0000), Some(2 << 20));
        assert_eq!(of(0x7f00_003f_f000..0x7f00_0040_1000), Some(3 << 20));
        assert_eq!(of(0..0x1000), Some(0));
    }
}
