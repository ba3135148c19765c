// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What can be seen from outside: counters, debugfs and tracepoints tell what happened.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::{ensure, Context as _, Result};
use coax::{Command, PageRange, Policy, Stats};
use coax_specification::covers;

use crate::case;
use crate::case::{CaseResult, Mode, Skip, Subject};
use crate::guest::device::{range_of, Device};
use crate::guest::memory::{Mapping, PAGE};
use crate::guest::program::output_of;

/// The cases of this file.
pub const SUBJECT: Subject = Subject {
    name: "observability",
    cases: &[
        case!(
            counters_tell_a_pages_way,
            "statistics of the driver and of the device"
        )
        .modes(&Mode::MOVING),
        case!(
            counters_of_a_context_are_its_own,
            "statistics of one context"
        )
        .modes(&Mode::MOVING),
        case!(
            debugfs_shows_the_drivers_counters,
            "the same numbers for people"
        ),
        case!(
            an_open_file_tells_policy_advice_and_counters,
            "/proc/PID/fdinfo and the list of contexts in debugfs"
        ),
        case!(
            coaxctl_tells_of_a_process_mapping_by_mapping,
            "pages, advice and counters in one report"
        ),
        case!(
            tracepoints_tell_a_pages_way,
            "events of a command from submit to completion"
        )
        .modes(&Mode::MOVING),
        case!(
            a_cpu_fault_is_traced,
            "the event of a page brought back by the CPU"
        )
        .modes(&[Mode::Private]),
    ],
};

const PAGES: u64 = 16;
const LEN: usize = PAGES as usize * PAGE;
const DEBUGFS: &str = "/sys/kernel/debug/coax/coax0/stats";
const CONTEXTS: &str = "/sys/kernel/debug/coax/coax0/contexts";
const TRACING: &str = "/sys/kernel/tracing";

/// A counter's name, how it is read, and by how much at least it must have grown.
type Counter = (&'static str, fn(&Stats) -> u64, u64);

/// A page's way to the device and back: a fault, a command, an eviction.
fn there_and_back(device: &Device) -> Result<()> {
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 1);
    device.digest(&memory)?;
    device.evict(range_of(&memory))?;
    Ok(())
}

fn grown(what: &str, before: u64, after: u64, least: u64) -> Result<()> {
    let grown = after.saturating_sub(before);
    ensure!(
        grown >= least,
        "{what} grew by {grown} from {before}, expected {least} or more"
    );
    Ok(())
}

fn counters_tell_a_pages_way() -> CaseResult {
    covers!("coax.drv.21");
    let device = Device::open()?;
    let before = device.stats()?;
    there_and_back(&device)?;
    let after = device.stats()?;
    let counters: [Counter; 9] = [
        ("page_requests", |stats| stats.page_requests, 1),
        ("responses_success", |stats| stats.responses_success, 1),
        ("to_device_fault", |stats| stats.to_device_fault, PAGES),
        ("to_system_request", |stats| stats.to_system_request, PAGES),
        ("invalidations", |stats| stats.invalidations, 1),
        (
            "device's commands",
            |stats| stats.device().commands.get(),
            1,
        ),
        (
            "device's page requests",
            |stats| stats.device().page_requests.get(),
            1,
        ),
        (
            "device's bytes in device memory",
            |stats| stats.device().device_bytes.get(),
            LEN as u64,
        ),
        (
            "device's bytes copied",
            |stats| stats.device().copied_bytes.get(),
            2 * LEN as u64,
        ),
    ];
    for (what, counter, least) in counters {
        grown(what, counter(&before), counter(&after), least)?;
    }
    ensure!(
        after.first_migration_ns > 0,
        "No time of the first migration"
    );
    ensure!(
        after.device_errors == before.device_errors,
        "The device made errors"
    );
    Ok(())
}

fn counters_of_a_context_are_its_own() -> CaseResult {
    let (busy, idle) = (Device::open()?, Device::open()?);
    there_and_back(&busy)?;
    let (busy, idle) = (busy.stats()?, idle.stats()?);
    ensure!(
        busy.context_commands == 1,
        "{} commands",
        busy.context_commands
    );
    grown(
        "pages of the busy context",
        0,
        busy.context_to_device,
        PAGES,
    )?;
    let quiet = [
        idle.context_commands,
        idle.context_page_requests,
        idle.context_to_device,
    ];
    ensure!(quiet == [0; 3], "The idle context counts {quiet:?}");
    Ok(())
}

fn debugfs_shows_the_drivers_counters() -> CaseResult {
    if !Path::new("/sys/kernel/debug/coax").exists() {
        return Err(Skip("debugfs is not mounted".into()).into());
    }
    let device = Device::open()?;
    there_and_back(&device)?;
    let stats = device.stats()?;
    let text = fs::read_to_string(DEBUGFS).context(DEBUGFS)?;
    let shown = |name: &str| -> Result<u64> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.with_context(|| format!("{DEBUGFS} has no {name}:\n{text}"))?;
        value
            .trim()
            .parse()
            .with_context(|| format!("{name} is {value:?}"))
    };
    ensure!(shown("contexts")? == stats.contexts, "{text}");
    ensure!(shown("to_device_fault")? == stats.to_device_fault, "{text}");
    ensure!(
        shown("to_system_request")? == stats.to_system_request,
        "{text}"
    );
    Ok(())
}

fn an_open_file_tells_policy_advice_and_counters() -> CaseResult {
    let device = Device::open()?;
    device.set_policy(Policy::OnRequest, Some(4))?;
    let memory = Mapping::small_pages(LEN)?;
    memory.fill(0..LEN, 1);
    device.digest(&memory)?;
    let half = PageRange::new(memory.address(), LEN as u64 / 2);
    device.advise(half, Policy::Never)?;
    let path = format!("/proc/self/fdinfo/{}", device.as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).context(path)?;
    let advice = format!("coax-advice:\t{half} never 0");
    let lines = [
        "coax-policy:\ton_request",
        "coax-fault-around:\t4",
        "coax-advised:\t1",
        "coax-count:\tcommands 1",
        &advice,
    ];
    for line in lines {
        ensure!(
            text.lines().any(|found| found == line),
            "No {line:?} in\n{text}"
        );
    }
    if !Path::new(CONTEXTS).exists() {
        return Err(Skip("debugfs is not mounted".into()).into());
    }
    let text = fs::read_to_string(CONTEXTS).context(CONTEXTS)?;
    let mut rows = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let names = rows.next().context("The list is empty")?;
    let pid = std::process::id().to_string();
    let row = rows.find(|row| row.get(1) == Some(&pid.as_str()));
    let row = row.with_context(|| format!("No process {pid} in\n{text}"))?;
    let expected = [
        ("policy", "on_request"),
        ("fault_around", "4"),
        ("advised", "1"),
        ("commands", "1"),
    ];
    for (name, value) in expected {
        let found = names.iter().position(|known| *known == name);
        let found = found.and_then(|column| row.get(column));
        ensure!(found == Some(&value), "{name} is {found:?} in\n{text}");
    }
    Ok(())
}

fn coaxctl_tells_of_a_process_mapping_by_mapping() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::small_pages(LEN)?;
    memory.fill(0..LEN, 1);
    let half = PageRange::new(memory.at(LEN / 2), LEN as u64 / 2);
    device.advise(half, Policy::Never)?;
    device.prefetch(range_of(&memory))?;
    let pid = std::process::id().to_string();
    let range = range_of(&memory).to_string();
    let text = output_of(&["coaxctl", "residency", &pid, &range, "--json"])?;
    let report: serde_json::Value = serde_json::from_str(&text).context("JSON")?;
    let mapping = &report["mappings"][0];
    ensure!(mapping["device"] == PAGES / 2, "{text}");
    ensure!(mapping["system"] == PAGES / 2, "{text}");
    let advice = &mapping["advice"][0];
    ensure!(advice["range"] == half.to_string(), "{text}");
    ensure!(advice["policy"] == "never", "{text}");
    let context = &report["contexts"][0];
    ensure!(context["advised"] == 1, "{text}");
    let text = output_of(&["coaxctl", "residency", &pid, &range])?;
    ensure!(
        text.contains(&format!("  {half} never (context ")),
        "{text}"
    );
    ensure!(text.contains("to_device"), "{text}");
    Ok(())
}

/// Events of the driver during `work`.
fn traced(work: impl FnOnce() -> Result<()>) -> Result<String> {
    let enable = format!("{TRACING}/events/coax/enable");
    if !Path::new(TRACING).join("trace").exists() {
        return Err(Skip("tracefs is not mounted".into()).into());
    }
    let trace = format!("{TRACING}/trace");
    fs::write(&trace, "").context("Emptying the trace")?;
    fs::write(&enable, "1").with_context(|| enable.clone())?;
    let result = work();
    fs::write(&enable, "0").with_context(|| enable.clone())?;
    result?;
    fs::read_to_string(&trace).context(trace)
}

fn tracepoints_tell_a_pages_way() -> CaseResult {
    let device = Device::open()?;
    let trace = traced(|| there_and_back(&device))?;
    // In the order in which they happen.
    let mut rest = trace.as_str();
    for event in [
        "command:",
        "page_request:",
        "to_device:",
        "command_done:",
        "to_system:",
    ] {
        let at = rest
            .find(event)
            .with_context(|| format!("No {event} where expected:\n{trace}"))?;
        rest = &rest[at..];
    }
    // The device may be done before these are traced.
    for event in ["group_response:", "invalidate:"] {
        ensure!(trace.contains(event), "No {event}\n{trace}");
    }
    Ok(())
}

fn a_cpu_fault_is_traced() -> CaseResult {
    let device = Device::open()?;
    let memory = Mapping::anonymous(LEN)?;
    memory.fill(0..LEN, 1);
    device.take(&memory)?;
    let trace = traced(|| {
        ensure!(memory.load(0) == 0x0101_0101_0101_0101, "Wrong content");
        device.run(Command::nop())?;
        Ok(())
    })?;
    let fault = trace
        .lines()
        .any(|line| line.contains("to_system:") && line.contains("cause=0"));
    ensure!(fault, "No page came back by a CPU fault:\n{trace}");
    Ok(())
}
