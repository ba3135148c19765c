// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory on the device counts as the program's memory, and nobody else's memory is on it.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{ensure, Context as _, Result};
use nix::mount::{mount, umount, MsFlags};

use crate::case;
use crate::case::{CaseResult, Mode, Subject};
use crate::guest::cgroup::{get, in_a_group, set};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, PAGE, READ_ONLY};
use crate::guest::pattern::{self, same};

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "accounting",
    cases: &[
        case!(
            ordinary_memory_stays_off_the_device,
            "64 MiB that no device has touched take no device memory"
        )
        .modes(&Mode::MOVING),
        case!(
            device_pages_count_as_resident,
            "RssAnon of the process, before, on the device and after"
        ),
        case!(
            a_cgroup_is_charged_for_device_pages,
            "memory.current, and pages that come back at the limit of memory.max"
        ),
        case!(
            a_cgroup_is_charged_for_files_that_the_device_reads,
            "memory.stat, a file mapping that no CPU touches"
        ),
    ],
};

const LEN: usize = 2048 * PAGE;
/// Bytes by which sums of the kernel may be off: it adds up what each CPU has counted now and then.
const SLACK: u64 = 256 * PAGE as u64;

fn filled(seed: u64) -> Result<(Mapping, Vec<u8>)> {
    let memory = Mapping::small_pages(LEN)?;
    let content = pattern::bytes(seed, LEN);
    memory.write(0, &content);
    Ok((memory, content))
}

fn ordinary_memory_stays_off_the_device() -> CaseResult {
    let device = Device::open()?;
    let before = device.info()?.free_pages;
    let memory = Mapping::small_pages(64 << 20)?;
    memory.fill(0..memory.len(), 1);
    let after = device.info()?.free_pages;
    ensure!(before == after, "{before} free pages became {after}");
    let there = device.device_pages(&memory)?;
    ensure!(there == 0, "{there} pages are on the device");
    Ok(())
}

/// Bytes of anonymous memory that this process has.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let line = line.context("No RssAnon in /proc/self/status")?;
    let kib: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .context("RssAnon")?;
    Ok(kib << 10)
}

fn near(what: &str, before: u64, now: u64) -> Result<()> {
    ensure!(
        before.abs_diff(now) <= SLACK,
        "{what}: {before} bytes became {now}"
    );
    Ok(())
}

fn device_pages_count_as_resident() -> CaseResult {
    let device = Device::open()?;
    let (memory, content) = filled(301)?;
    let before = resident()?;
    device.take(&memory)?;
    near("on the device", before, resident()?)?;
    device.evict(range_of(&memory))?;
    near("back again", before, resident()?)?;
    same("memory", &memory.to_vec(), &content)
}

fn a_cgroup_is_charged_for_device_pages() -> CaseResult {
    in_a_group("memory", "coax-accounting", comes_back_at_the_limit)
}

fn comes_back_at_the_limit(group: &Path) -> CaseResult {
    let charged = || -> Result<u64> {
        let text = get(group, "memory.current")?;
        text.trim().parse().context("memory.current")
    };
    let device = Device::open()?;
    let (memory, content) = filled(302)?;
    let before = charged()?;
    ensure!(before >= LEN as u64, "{before} bytes are charged for {LEN}");
    device.take(&memory)?;
    near("on the device", before, charged()?)?;
    // Coming back takes no more than was charged all along.
    let limit = charged()? + SLACK;
    set(group, "memory.max", &limit.to_string())?;
    let back = device.evict(range_of(&memory))?;
    ensure!(back.left == 0, "{back:?}");
    near("back again", before, charged()?)?;
    // To compare takes memory of its own.
    set(group, "memory.max", "max")?;
    same("memory", &memory.to_vec(), &content)
}

fn a_cgroup_is_charged_for_files_that_the_device_reads() -> CaseResult {
    const MOUNT: &str = "/tmp/coax-ramfs";
    fs::create_dir_all(MOUNT).context(MOUNT)?;
    // A file system whose pages are made when they are read first, of which memory cgroups know nothing.
    let flags = MsFlags::empty();
    mount(Some("none"), MOUNT, Some("ramfs"), flags, None::<&str>).context("ramfs")?;
    let ended = in_a_group("memory", "coax-files", |group| {
        let path = format!("{MOUNT}/file");
        let file = fs::File::create_new(&path).context(path.clone())?;
        file.set_len(LEN as u64)?;
        let file = fs::File::open(path)?;
        let memory = Mapping::file_shared(file.as_fd(), LEN, READ_ONLY)?;
        let charged = || -> Result<u64> {
            let text = get(group, "memory.stat")?;
            let line = text.lines().find_map(|line| line.strip_prefix("file "));
            line.context("No file in memory.stat")?
                .parse()
                .context("memory.stat")
        };
        let before = charged()?;
        let device = Device::open()?;
        ensure!(
            device.digest(&memory)? == pattern::sha256(&vec![0; LEN]),
            "Wrong digest"
        );
        let now = charged()?;
        ensure!(
            now + SLACK >= before + LEN as u64,
            "{} bytes of files are charged for {LEN}",
            now - before
        );
        Ok(())
    });
    umount(MOUNT).context("umount")?;
    ended
}
