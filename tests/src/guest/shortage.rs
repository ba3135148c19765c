// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Allocations that fail, one after another (`Documentation/fault-injection`).

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{bail, Context as _, Result};

use crate::case::Skip;

/// Which allocation of the thread fails; reads as 0 when one has, or none is to.
const NTH: &str = "/proc/thread-self/fail-nth";
/// Where the kernel's knobs are.
const KNOBS: &str = "/sys/kernel/debug";
/// Both allocators, also where they may sleep, for the smallest sizes; none is told of on the console, where
/// it would look like a fault.
const EVERYWHERE: &[(&str, &str)] = &[
    ("failslab/ignore-gfp-wait", "N"),
    ("failslab/verbose", "0"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/min-order", "0"),
    ("fail_page_alloc/verbose", "0"),
];
/// What failing at random takes, beside the probability.
const AT_RANDOM: &[(&str, &str)] = &[
    ("failslab/task-filter", "Y"),
    ("failslab/times", "-1"),
    ("fail_page_alloc/task-filter", "Y"),
    ("fail_page_alloc/times", "-1"),
];
const PROBABILITIES: [&str; 2] = ["failslab/probability", "fail_page_alloc/probability"];

/// Fails one allocation of this thread at a time.
#[derive(Debug)]
pub struct Shortage(File);

impl Shortage {
    /// Of this thread.
    ///
    /// # Errors
    ///
    /// [`Skip`] if the kernel has no fault injection.
    pub fn of_this_thread() -> Result<Self> {
        if !Path::new(NTH).exists() {
            let reason = "this kernel makes no allocation fail: take --kernel debug or kasan";
            return Err(Skip(reason.into()).into());
        }
        set(EVERYWHERE)?;
        let file = OpenOptions::new().read(true).write(true).open(NTH);
        file.map(Shortage).context(NTH)
    }

    /// Calls `body` with the allocation of this number failing, from 1; the answer, and whether there was such an
    /// allocation.
    pub fn at<R>(&self, number: u32, body: impl FnOnce() -> R) -> Result<(R, bool)> {
        self.arm(number)?;
        let result = body();
        let left = self.left();
        self.arm(0)?;
        Ok((result, left? == 0))
    }

    /// Calls `body` with each of its allocations failing in turn, until it makes fewer than that; how many it made.
    /// `body` gets what makes it fail.
    pub fn each(
        &self,
        what: &str,
        most: u32,
        mut body: impl FnMut(&Nth<'_>) -> Result<bool>,
    ) -> Result<u32> {
        for number in 1..=most {
            let nth = Nth {
                shortage: self,
                number,
            };
            let failed = body(&nth).with_context(|| format!("{what}, allocation {number}"))?;
            if !failed {
                return Ok(number - 1);
            }
        }
        bail!("{what}: more than {most} allocations")
    }

    fn arm(&self, number: u32) -> Result<()> {
        let text = number.to_string();
        self.0.write_all_at(text.as_bytes(), 0).context(NTH)
    }

    fn left(&self) -> Result<u32> {
        let mut text = [0; 16];
        let len = self.0.read_at(&mut text, 0).context(NTH)?;
        let text = std::str::from_utf8(&text[..len])?;
        text.trim().parse().context(NTH)
    }
}

/// One allocation that is to fail.
#[derive(Debug)]
pub struct Nth<'a> {
    shortage: &'a Shortage,
    number: u32,
}

impl Nth<'_> {
    /// As [`Shortage::at`].
    pub fn fails<R>(&self, body: impl FnOnce() -> R) -> Result<(R, bool)> {
        self.shortage.at(self.number, body)
    }
}

/// A part of the allocations of the kernel's workers fails, until this goes.
#[derive(Debug)]
pub struct WorkersShortage;

impl WorkersShortage {
    /// This many of a hundred.
    pub fn of(percent: u32) -> Result<Self> {
        Shortage::of_this_thread()?;
        set(AT_RANDOM)?;
        for entry in fs::read_dir("/proc").context("/proc")? {
            let folder = entry.context("/proc")?.path();
            let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
            if name.starts_with("kworker/") {
                // A worker may end meanwhile.
                let _ = fs::write(folder.join("make-it-fail"), "1");
            }
        }
        probability(percent)?;
        Ok(WorkersShortage)
    }
}

impl Drop for WorkersShortage {
    fn drop(&mut self) {
        if let Err(error) = probability(0) {
            panic!("Allocations fail from here on: {error:#}");
        }
    }
}

fn probability(percent: u32) -> Result<()> {
    let percent = percent.to_string();
    PROBABILITIES
        .iter()
        .try_for_each(|knob| set(&[(knob, percent.as_str())]))
}

fn set(knobs: &[(&str, &str)]) -> Result<()> {
    for (knob, value) in knobs {
        let path = Path::new(KNOBS).join(knob);
        fs::write(&path, value).with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}
