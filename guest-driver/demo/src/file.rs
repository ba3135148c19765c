// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scenario `file`: the device reads a shared file mapping where it is, and nothing migrates.
#![forbid(unsafe_code)]

use anyhow::Result;
use coax::{Context, PageRange, Residency, Stats};

use crate::args::Input;
use crate::hash::{hexadecimal, known_or_found, read};
use crate::map::{MappedFile, SharedCounters};
use crate::scenario::{device_pages, evict, touch, DevicePages, Findings, Progress};

/// Runs it.
pub fn run(context: &Context, progress: &mut Progress, input: &Input) -> Result<Findings> {
    let digest = known_or_found(input, progress)?;
    let data = read(&input.file)?;
    let expected = describe(&digest, &count(&data));
    drop(data);
    progress.done("CPU counted the file's bytes");

    let mapped = MappedFile::open(&input.file)?;
    // Counters on the heap would migrate, being anonymous memory that the device writes.
    let mut counters = SharedCounters::new()?;
    let ranges = [PageRange::of(mapped.bytes())];
    let stats = context.stats()?;
    let before = device_pages(context, &ranges)?;
    let digest = context.sha256(mapped.bytes())?;
    progress.done("device hashed the mapping");
    context.histogram(mapped.bytes(), counters.get())?;
    progress.done("device counted its bytes");
    let after = context.residency(ranges[0])?;
    let mut complaints = moved(&stats, &context.stats()?);
    touch(mapped.bytes());
    let after_cpu = device_pages(context, &ranges)?;
    evict(context, &ranges)?;
    let after_evict = device_pages(context, &ranges)?;

    let pages = ranges[0].pages();
    let device_pages = DevicePages {
        before,
        after: after.device,
        after_cpu,
        after_evict,
    };
    if after
        != (Residency {
            file: pages,
            ..Residency::default()
        })
    {
        complaints.push(format!(
            "not all of {pages} pages are the file's own: {after:?}"
        ));
    }
    if device_pages != DevicePages::default() {
        complaints.push("pages of the file were on the device".to_owned());
    }
    Ok(Findings {
        pages,
        device_pages,
        expected,
        actual: describe(&hexadecimal(&digest), counters.get()),
        complaints,
    })
}

/// How often each byte value occurs.
fn count(data: &[u8]) -> [u64; 256] {
    let mut counts = [0; 256];
    for byte in data {
        counts[usize::from(*byte)] += 1;
    }
    counts
}

/// Digest and histogram in words: the most frequent byte for the reader, all counts folded into
/// one number so that any difference shows.
fn describe(digest: &str, counts: &[u64; 256]) -> String {
    let (byte, most) = counts
        .iter()
        .enumerate()
        .max_by_key(|(_, count)| **count)
        .unwrap_or((0, &0));
    let fold = counts.iter().fold(0u64, |fold, count| {
        fold.wrapping_mul(0x100_0000_01b3).wrapping_add(*count)
    });
    format!("sha256 {digest}, {most} times byte {byte:#04x}, histogram {fold:#x}")
}

/// What the counters say moved between two readings.
fn moved(earlier: &Stats, later: &Stats) -> Vec<String> {
    let later_values = later.driver_counters();
    earlier
        .driver_counters()
        .zip(later_values)
        .filter(|((name, earlier), (_, later))| name.contains("to_device") && earlier != later)
        .map(|((name, earlier), (_, later))| {
            format!("{name} went from {earlier} to {later}, but nothing should have moved")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_that_differ_read_differently() {
        let mut counts = count(b"mississippi");
        let text = describe("00", &counts);
        assert!(text.contains("4 times byte 0x73"), "{text}");
        counts.swap(0, 1);
        assert_eq!(describe("00", &counts), text);
        counts.swap(usize::from(b'm'), usize::from(b'p'));
        assert_ne!(describe("00", &counts), text);
    }
}
