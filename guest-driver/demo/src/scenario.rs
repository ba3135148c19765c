// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a scenario is, what it found, and how that is judged.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use coax::{Context, Info, PageRange, Policy, MODE_COHERENT, MODE_NUMA, MODE_PRIVATE};
use coax_program::errln;
use serde::Serialize;
use serde_json::{Map, Value};

/// Pages in device memory at the four moments of a scenario, as the driver says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DevicePages {
    /// Before the device touched them.
    pub before: u64,
    /// After it worked on them.
    pub after: u64,
    /// After the CPU read them all.
    pub after_cpu: u64,
    /// After they were evicted.
    pub after_evict: u64,
}

/// What a scenario found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Pages that the scenario works on.
    pub pages: u64,
    /// Where they were.
    pub device_pages: DevicePages,
    /// Result by the independent means.
    pub expected: String,
    /// Result by the device.
    pub actual: String,
    /// What else is wrong.
    pub complaints: Vec<String>,
}

/// One line of JSON.
#[derive(Debug, Serialize)]
pub struct Outcome {
    name: &'static str,
    mode: &'static str,
    translation: String,
    pages: u64,
    device_pages: DevicePages,
    page_requests: u64,
    expected: String,
    actual: String,
    seconds: f64,
    result: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    complaints: Vec<String>,
    counters: Map<String, Value>,
}

impl Outcome {
    /// Whether all was as it should be.
    pub fn passed(&self) -> bool {
        self.complaints.is_empty()
    }
}

/// Tells people how far a scenario is.
#[derive(Debug)]
pub struct Progress {
    name: &'static str,
    since: Instant,
}

impl Progress {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            since: Instant::now(),
        }
    }

    /// Says that a step is done, and how long it took.
    pub fn done(&mut self, step: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        errln!("{}:   {step} ({seconds:.2} s)", self.name);
        self.since = Instant::now();
    }
}

/// Device memory mode in words.
pub fn mode_name(info: &Info) -> &'static str {
    match info.mode {
        MODE_PRIVATE => "private",
        MODE_COHERENT => "coherent",
        MODE_NUMA => "numa",
        _ => "unknown",
    }
}

/// The IOMMU, as a context's translation is told.
const PCIE: &str = "pcie";

/// Who translates for the context, as the driver tells it.
fn translation(context: &Context) -> Result<String> {
    let path = format!("/proc/self/fdinfo/{}", context.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).with_context(|| format!("Cannot read {path}"))?;
    let mut lines = text.lines();
    let told = lines.find_map(|line| line.strip_prefix("coax-translation:"));
    let told = told.with_context(|| format!("{path} does not say who translates"))?;
    Ok(told.trim().to_owned())
}

/// Runs a scenario in a context of its own; an error is a failed scenario.
pub fn run(
    name: &'static str,
    device: &Path,
    scenario: impl FnOnce(&Context, &mut Progress) -> Result<Findings>,
) -> Result<Outcome> {
    let context = Context::open_path(device)?;
    let info = context.info()?;
    let mode = mode_name(&info);
    let translation = translation(&context)?;
    errln!("{name}: in {mode} mode, translation by {translation} …");
    if info.mode == MODE_NUMA {
        // There a context begins with memory that moves on request alone.
        let policy = context.set_policy(Policy::OnFault, None);
        policy.context("Cannot ask for pages to move on fault")?;
    }
    let before = context.stats().context("Cannot read the counters")?;
    let started = Instant::now();
    let mut findings =
        scenario(&context, &mut Progress::new(name)).unwrap_or_else(|error| Findings {
            complaints: vec![format!("{error:#}")],
            ..Findings::default()
        });
    let seconds = started.elapsed().as_secs_f64();
    if findings.expected != findings.actual {
        findings
            .complaints
            .insert(0, "the device's result is wrong".to_owned());
    }
    let stats = context.stats().context("Cannot read the counters")?;
    // The IOMMU's do not pass the driver. Nobody else uses the device meanwhile.
    let page_requests = match translation.as_str() {
        PCIE => stats.device().page_requests.get() - before.device().page_requests.get(),
        _ => stats.context_page_requests,
    };
    let all = stats.driver_counters().chain(
        stats
            .device_counters()
            .filter(|(name, _)| matches!(*name, "copied_bytes" | "fault_median_ns")),
    );
    let mut counters: Map<String, Value> = all
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    counters.insert(
        "boot_to_first_migration_ns".to_owned(),
        stats.first_migration_ns.into(),
    );
    let result = if findings.complaints.is_empty() {
        "pass"
    } else {
        "fail"
    };
    let DevicePages {
        before,
        after,
        after_cpu,
        after_evict,
    } = findings.device_pages;
    errln!(
        "{name}: {result} in {seconds:.1} s; {} pages, on the device {before} before, {after} \
         after, {after_cpu} after the CPU, {after_evict} after evict",
        findings.pages
    );
    for complaint in &findings.complaints {
        errln!("{name}: {complaint}");
    }
    Ok(Outcome {
        name,
        mode,
        translation,
        pages: findings.pages,
        device_pages: findings.device_pages,
        page_requests,
        expected: findings.expected,
        actual: findings.actual,
        seconds,
        result,
        complaints: findings.complaints,
        counters,
    })
}

/// Pages of the ranges that the driver sees in device memory.
pub fn device_pages(context: &Context, ranges: &[PageRange]) -> Result<u64> {
    ranges
        .iter()
        .try_fold(0, |sum, range| Ok(sum + context.residency(*range)?.device))
}

/// Moves the ranges to system memory.
pub fn evict(context: &Context, ranges: &[PageRange]) -> Result<()> {
    for range in ranges {
        context
            .evict(*range)
            .with_context(|| format!("Cannot evict {range}"))?;
    }
    Ok(())
}

/// Reads one element on each page of a slice by the CPU.
pub fn touch<T: Copy>(slice: &[T]) {
    let step = coax::abi::wire::PAGE_SIZE as usize / size_of::<T>();
    for element in slice.iter().step_by(step).chain(slice.last()) {
        std::hint::black_box(*element);
    }
}

/// What is wrong with where pages were, if at least `least` had to move to the device.
pub fn judge(info: &Info, least: u64, pages: DevicePages) -> Vec<String> {
    let DevicePages {
        before,
        after,
        after_cpu,
        after_evict,
    } = pages;
    let mut complaints = Vec::new();
    let mut demand = |fine: bool, complaint: String| {
        if !fine {
            complaints.push(complaint);
        }
    };
    demand(
        before == 0,
        format!("{before} pages were on the device before it touched them"),
    );
    demand(
        after >= least,
        format!("only {after} pages moved, at least {least} had to"),
    );
    if info.mode != MODE_PRIVATE {
        demand(
            after_cpu == after,
            format!("the CPU's reads changed {after} pages to {after_cpu}"),
        );
    } else {
        demand(
            after_cpu == 0,
            format!("{after_cpu} pages stayed although the CPU read them"),
        );
    }
    demand(
        after_evict == 0,
        format!("{after_evict} pages stayed although they were evicted"),
    );
    complaints
}

/// Nine tenths: a page that somebody holds for a moment stays behind, which is no mistake.
pub fn most(pages: u64) -> u64 {
    pages.saturating_mul(9) / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(mode: u32, pages: [u64; 4]) -> usize {
        let [before, after, after_cpu, after_evict] = pages;
        let info = Info {
            mode,
            ..Default::default()
        };
        judge(
            &info,
            90,
            DevicePages {
                before,
                after,
                after_cpu,
                after_evict,
            },
        )
        .len()
    }

    #[test]
    fn private_pages_come_back_to_the_cpu() {
        assert_eq!(judged(MODE_PRIVATE, [0, 100, 0, 0]), 0);
        assert_eq!(judged(MODE_PRIVATE, [0, 100, 1, 0]), 1);
    }

    #[test]
    fn pages_that_the_cpu_reads_in_place_stay_until_evicted() {
        for mode in [MODE_COHERENT, MODE_NUMA] {
            assert_eq!(judged(mode, [0, 100, 100, 0]), 0);
            assert_eq!(judged(mode, [0, 100, 99, 0]), 1);
            assert_eq!(judged(mode, [0, 100, 100, 5]), 1);
        }
    }

    #[test]
    fn pages_that_do_not_move_or_were_there_are_complained_of() {
        assert_eq!(judged(MODE_PRIVATE, [0, 89, 0, 0]), 1);
        assert_eq!(judged(MODE_PRIVATE, [1, 100, 0, 0]), 1);
    }
}
