// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What it costs to move memory, by its size, the size of its pages, and the number of devices.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{ensure, Context as _, Result};
use coax::abi::wire::PAGE_SIZE;
use coax::{Context, Direction, PageRange};
use coax_program::errln;

use super::samples::Samples;
use crate::args::Bench;
use crate::map::PrivateMemory;
use crate::output::Output;

/// Bytes moved each way for a size: small sizes are moved more often.
const WORK: usize = 1 << 30;
/// Least and most times that memory is moved each way.
const ROUNDS: (usize, usize) = (5, 50);

/// Measures each size, with large pages and without.
pub fn run(device: &Path, options: &Bench, output: &mut Output) -> Result<()> {
    let contexts = devices(device, options.at_once)?
        .iter()
        .map(|path| {
            Context::open_path(path).with_context(|| format!("Cannot open {}", path.display()))
        })
        .collect::<Result<Vec<_>>>()?;
    for &bytes in &options.migrate_sizes {
        for huge in [true, false] {
            errln!("bench: {bytes} bytes, large pages: {huge} …");
            measure(&contexts, bytes, huge, output)?;
        }
    }
    Ok(())
}

/// The device file given and those numbered after it.
fn devices(first: &Path, count: u32) -> Result<Vec<PathBuf>> {
    if count == 1 {
        return Ok(vec![first.to_owned()]);
    }
    let name = first.as_os_str().as_bytes();
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit());
    let (prefix, digits) = name.split_at(name.len() - digits.count());
    let number: Option<u32> = String::from_utf8_lossy(digits).parse().ok();
    let end = number.and_then(|number| Some((number, number.checked_add(count)?)));
    let (number, end) =
        end.with_context(|| format!("{} has no number to count from", first.display()))?;
    let named = |number: u32| {
        let mut name = OsStr::from_bytes(prefix).to_owned();
        name.push(number.to_string());
        name.into()
    };
    Ok((number..end).map(named).collect())
}

fn measure(contexts: &[Context], bytes: usize, huge: bool, output: &mut Output) -> Result<()> {
    let memory = contexts
        .iter()
        .map(|_| PrivateMemory::new(bytes, huge))
        .collect::<Result<Vec<_>>>()?;
    let mut to_device = Samples::default();
    let mut to_system = Samples::default();
    // The first time, the kernel's own lists are cold.
    move_all(contexts, &memory, Direction::ToDevice)?;
    move_all(contexts, &memory, Direction::ToSystem)?;
    for _ in 0..(WORK / bytes).clamp(ROUNDS.0, ROUNDS.1) {
        to_device.add(move_all(contexts, &memory, Direction::ToDevice)?);
        to_system.add(move_all(contexts, &memory, Direction::ToSystem)?);
    }
    for (direction, samples) in [("to_device", to_device), ("to_system", to_system)] {
        let mut line = samples.summary("migrate_sizes", "GB/s");
        line["bytes"] = bytes.into();
        line["thp"] = huge.into();
        line["devices"] = contexts.len().into();
        line["direction"] = direction.into();
        output.line(&line)?;
    }
    Ok(())
}

/// Moves the memory of all at once and returns their speed together in GB (10⁹ bytes) a second.
fn move_all(contexts: &[Context], memory: &[PrivateMemory], to: Direction) -> Result<f64> {
    let ranges = memory.iter().map(|memory| PageRange::of(memory.bytes()));
    let mut work: Vec<_> = contexts.iter().zip(ranges).collect();
    // This thread does the last share: what one device costs is measured without any other.
    let last = work.pop().context("There is no device")?;
    let ready = Barrier::new(contexts.len());
    thread::scope(|scope| {
        let others: Vec<_> = work
            .into_iter()
            .map(|(context, range)| {
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    move_one(context, range, to)
                })
            })
            .collect();
        ready.wait();
        let started = Instant::now();
        let mut moved = move_one(last.0, last.1, to)?;
        for other in others {
            moved += other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok((moved * PAGE_SIZE) as f64 / started.elapsed().as_nanos() as f64)
    })
}

fn move_one(context: &Context, range: PageRange, to: Direction) -> Result<u64> {
    let result = match to {
        Direction::ToDevice => context.prefetch(range),
        Direction::ToSystem => context.evict(range),
    }?;
    // Speed is only worth something for all of it.
    ensure!(
        result.moved == range.pages(),
        "of {} pages {} moved, {} were there, {} stayed",
        range.pages(),
        result.moved,
        result.already,
        result.left
    );
    Ok(result.moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_counted_from_the_one_given() {
        let named = |text: &str, count| devices(Path::new(text), count);
        let two = named("/dev/coax1", 2).expect("numbered");
        assert_eq!(two, [Path::new("/dev/coax1"), Path::new("/dev/coax2")]);
        let one = named("/tmp/device", 1).expect("as it is");
        assert_eq!(one, [Path::new("/tmp/device")]);
        assert!(named("/tmp/device", 2).is_err());
        assert!(named("/dev/coax4294967295", 2).is_err());
        let odd = |name: &'static [u8]| Path::new(OsStr::from_bytes(name));
        let two = devices(odd(b"\xff7"), 2).expect("numbered");
        assert_eq!(two, [odd(b"\xff7"), odd(b"\xff8")]);
        let one = devices(odd(b"\xff"), 1).expect("as it is");
        assert_eq!(one, [odd(b"\xff")]);
    }
}
