// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Device memory counts for its cgroup, whose limits hold (the controller "dmem").

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context as _, Result};

use crate::case;
use crate::case::{CaseResult, Mode, Skip, Subject};
use crate::guest::cgroup::{self, get, set};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::pattern::{self, same};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "device_limits",
    cases: &[
        case!(
            a_cgroup_is_charged_for_device_memory,
            "dmem.current, of pages that a program moves and that the device's faults move, and after them"
        )
        .modes(&Mode::MOVING),
        case!(
            beyond_its_limit_a_cgroup_uses_system_memory,
            "dmem.max, faults and requests for more, and no limit any more"
        )
        .modes(&Mode::MOVING),
        case!(
            a_limit_that_is_lowered_brings_pages_home,
            "dmem.max below dmem.current, down to nothing, and pages of another group"
        )
        .modes(&Mode::MOVING),
        case!(
            a_limit_holds_for_the_groups_below,
            "dmem.max of the group above"
        )
        .modes(&Mode::MOVING),
    ],
};

const REGION: &str = "coax/coax0";
const LEN: usize = 2048 * PAGE;
/// Charged beyond the pages there are: memory is charged in units of 16 pages, of which less than two are kept.
const KEPT: u64 = 32 * PAGE as u64;
/// A quarter of the memory.
const LIMIT: u64 = LEN as u64 / 4;

/// Runs `body` in a group of its own whose device memory can be limited.
fn in_a_group(name: &str, body: fn(&Path) -> CaseResult) -> CaseResult {
    if !cgroup::has("dmem")? {
        return Err(Skip("the kernel has no limits of device memory".into()).into());
    }
    cgroup::in_a_group("dmem", name, body)
}

/// Whether a limit that is lowered has pages brought home: since Linux 7.3.
fn demand_reclaim() -> Result<()> {
    const RELEASE: &str = "/proc/sys/kernel/osrelease";
    let text = fs::read_to_string(RELEASE).context(RELEASE)?;
    let mut numbers = text.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("{RELEASE}: {text:?}");
    };
    if (major, minor) < (7, 3) {
        return Err(
            Skip("before Linux 7.3 a limit below what is charged is not taken".into()).into(),
        );
    }
    Ok(())
}

/// Bytes of the device's memory that are charged to the group.
fn charged(group: &Path) -> Result<u64> {
    let text = get(group, "dmem.current")?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = lines
        .find(|(region, _)| *region == REGION)
        .with_context(|| format!("No {REGION} in {text:?}"))?;
    value.parse().context("dmem.current")
}

fn limit(group: &Path, bytes: impl std::fmt::Display) -> Result<()> {
    set(group, "dmem.max", &format!("{REGION} {bytes}"))
}

fn filled(seed: u64) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::small_pages(LEN)?;
    let content = pattern::bytes(seed, LEN);
    memory.write(0, &content);
    Ok((memory, content))
}

/// Demands that this much is charged, and what is kept at most.
fn demand(what: &str, charged: u64, pages: u64) -> Result<()> {
    let bytes = pages * PAGE as u64;
    ensure!(
        (bytes..bytes + KEPT).contains(&charged) && (pages > 0 || charged == 0),
        "{what}: {charged} bytes are charged for {pages} pages"
    );
    Ok(())
}

fn a_cgroup_is_charged_for_device_memory() -> CaseResult {
    in_a_group("coax-charged", |group| {
        let device = Device::open()?;
        demand("at first", charged(group)?, 0)?;
        let (memory, content) = filled(311)?;
        device.take(&memory)?;
        demand("moved on request", charged(group)?, memory.pages())?;
        device.evict(range_of(&memory))?;
        demand("back again", charged(group)?, 0)?;
        let digest = device.digest(&memory)?;
        ensure!(digest == pattern::sha256(&content), "Wrong digest");
        let there = device.device_pages(&memory)?;
        ensure!(there > 0, "Nothing moved by faults");
        demand("moved by faults", charged(group)?, there)?;
        let huge = Mapping::huge(LEN)?;
        device.fill(&huge, 0..LEN, 7)?;
        let there = there + device.device_pages(&huge)?;
        demand("with memory never touched", charged(group)?, there)?;
        drop(huge);
        drop(memory);
        demand("unmapped", charged(group)?, 0)
    })
}

fn beyond_its_limit_a_cgroup_uses_system_memory() -> CaseResult {
    in_a_group("coax-limited", |group| {
        limit(group, LIMIT)?;
        let device = Device::open()?;
        let (memory, content) = filled(312)?;
        for _ in 0..2 {
            let digest = device.digest(&memory)?;
            ensure!(digest == pattern::sha256(&content), "Wrong digest");
            let (there, charged) = (device.device_pages(&memory)?, charged(group)?);
            ensure!(
                there > 0 && there * PAGE as u64 <= charged && charged <= LIMIT,
                "{there} pages are on the device and {charged} bytes charged, {LIMIT} is the limit"
            );
        }
        let migrated = device.prefetch(range_of(&memory))?;
        ensure!(migrated.left > 0, "{migrated:?}");
        let charged_then = charged(group)?;
        ensure!(charged_then <= LIMIT, "{charged_then} bytes are charged");
        same("memory", &memory.to_vec(), &content)?;
        limit(group, "max")?;
        device.take(&memory)?;
        demand("without a limit", charged(group)?, memory.pages())
    })
}

fn a_limit_that_is_lowered_brings_pages_home() -> CaseResult {
    demand_reclaim()?;
    // Of the group above all, which has no limits.
    let device = Device::open()?;
    let (memory, content) = filled(313)?;
    device.take(&memory)?;
    in_a_group("coax-lowered", |group| {
        let device = Device::open()?;
        let (memory, content) = filled(314)?;
        device.take(&memory)?;
        limit(group, LIMIT)?;
        let (there, charged_then) = (device.device_pages(&memory)?, charged(group)?);
        ensure!(
            charged_then <= LIMIT,
            "{charged_then} bytes are charged, {LIMIT} is the limit"
        );
        ensure!(there > 0, "More came home than had to");
        demand("at the limit", charged_then, there)?;
        limit(group, 0)?;
        demand("without any", charged(group)?, 0)?;
        let there = device.device_pages(&memory)?;
        ensure!(there == 0, "{there} pages are on the device");
        let digest = device.digest(&memory)?;
        ensure!(digest == pattern::sha256(&content), "Wrong digest");
        same("memory", &memory.to_vec(), &content)
    })?;
    let there = device.device_pages(&memory)?;
    ensure!(
        there == memory.pages(),
        "{there} of {} pages of another group are on the device",
        memory.pages()
    );
    same("memory", &memory.to_vec(), &content)
}

fn a_limit_holds_for_the_groups_below() -> CaseResult {
    demand_reclaim()?;
    in_a_group("coax-above/coax-below", |group| {
        let above = group.parent().context("A group above")?;
        let device = Device::open()?;
        let (memory, content) = filled(315)?;
        device.take(&memory)?;
        limit(above, LIMIT)?;
        for group in [group, above] {
            let charged = charged(group)?;
            ensure!(charged <= LIMIT, "{}: {charged}", group.display());
        }
        let digest = device.digest(&memory)?;
        ensure!(digest == pattern::sha256(&content), "Wrong digest");
        let charged = charged(above)?;
        ensure!(charged <= LIMIT, "{charged} bytes are charged");
        same("memory", &memory.to_vec(), &content)
    })
}
