// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `/proc/PID/smaps` says of a mapping: the kernel's own witness of huge pages, and of pages that it
//! may drop.
//!
//! `AnonHugePages` counts what one entry of the page middle directory maps, in system memory and
//! in device-private memory alike (`smaps_pmd_entry()`, `fs/proc/task_mmu.c`).

use anyhow::{Context, Result};

use super::memory::{Mapping, HUGE, PAGE};

/// Huge pages in the mappings that this one has a part in. Neighbours of the same kind count too:
/// the kernel makes them one.
pub fn huge_pages(mapping: &Mapping) -> Result<usize> {
    Ok(of(mapping, "AnonHugePages:")? / HUGE)
}

/// Pages, likewise, that the kernel drops rather than swaps out, since nothing was written to them after
/// `MADV_FREE`.
pub fn lazily_free_pages(mapping: &Mapping) -> Result<usize> {
    Ok(of(mapping, "LazyFree:")? / PAGE)
}

fn of(mapping: &Mapping, field: &str) -> Result<usize> {
    let text = std::fs::read_to_string("/proc/self/smaps").context("/proc/self/smaps")?;
    let range = mapping.address()..mapping.address() + mapping.len() as u64;
    bytes_of(&text, field, &range)
}

/// What `field`, a size in kB, comes to.
fn bytes_of(text: &str, field: &str, range: &std::ops::Range<u64>) -> Result<usize> {
    let (mut inside, mut bytes) = (false, 0);
    for line in text.lines() {
        if let Some((start, end)) = bounds(line) {
            inside = start < range.end && range.start < end;
        } else if let Some(size) = line.strip_prefix(field).filter(|_| inside) {
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
        let of = |range| bytes_of(TEXT, "AnonHugePages:", &range).ok();
        assert_eq!(of(0x7f00_0000_0000..0x7f00_0040_0000), Some(2 << 20));
        assert_eq!(of(0x7f00_003f_f000..0x7f00_0040_1000), Some(3 << 20));
        assert_eq!(of(0..0x1000), Some(0));
    }
}
