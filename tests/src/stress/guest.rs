// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest half: one stressor after the other, without a storm and in one.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use coax_program::outln;
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use super::event::{Ended, Event, Plan};
use super::stressors::{steps, Step, LEFT_OUT};
use crate::guest::process::{pidfd_of, readable};
use crate::guest::wait::on_this_kernel;
use crate::soak::event::Storm;

/// Where stressors run and files lie: in the guest's memory.
const FOLDER: &str = "/tmp/stress";
/// Longest that stress-ng takes to end when its time is over: it collects what may be many processes,
/// whose memory is on the move.
const END_LIMIT: Duration = Duration::from_secs(120);
/// Lines kept of what it says.
const LINES: usize = 12;

/// Carries the plan in this file out, and tells what happens on standard output.
///
/// # Errors
///
/// stress-ng cannot be run. What goes wrong in it is told.
pub fn run(plan: &Path) -> Result<()> {
    let text = fs::read(plan).with_context(|| format!("Reading {}", plan.display()))?;
    let plan: Plan = serde_json::from_slice(&text).context("The plan")?;
    fs::create_dir_all(FOLDER).with_context(|| format!("Making {FOLDER}"))?;
    let steps = steps()?;
    let mut known = plan.known.clone();
    for (number, step) in steps.iter().enumerate().skip(plan.from) {
        let mut filters = plan.filters.iter();
        if plan.filters.is_empty() || filters.any(|text| step.name.contains(text)) {
            one(&plan, &mut known, step, number, steps.len())?;
        }
    }
    tell(&Event::End)
}

fn one(
    plan: &Plan,
    known: &mut BTreeMap<String, Ended>,
    step: &Step,
    number: usize,
    of: usize,
) -> Result<()> {
    let name = &step.name;
    let left_out = |reason: &str| {
        tell(&Event::LeftOut {
            step: number,
            name: name.clone(),
            reason: reason.to_owned(),
        })
    };
    let begin = |storm| {
        tell(&Event::Begin {
            step: number,
            of,
            name: name.clone(),
            storm,
        })
    };
    if let Some((_, reason)) = LEFT_OUT.iter().find(|(left_out, _)| left_out == name) {
        return left_out(reason);
    }
    if !known.contains_key(name) {
        begin(false)?;
        let ended = stress(plan, step, false)?;
        known.insert(name.clone(), ended.clone());
        tell(&Event::Reference {
            name: name.clone(),
            ended,
        })?;
    }
    let reference = &known[name];
    if let Some(reason) = why_not(reference) {
        return left_out(&reason);
    }
    begin(true)?;
    let ended = stress(plan, step, true)?;
    let mut problems = Vec::new();
    if (ended.status, ended.success) != (reference.status, reference.success) {
        problems.push(format!(
            "it ended with {} and without a storm with {}",
            in_words(&ended),
            in_words(reference)
        ));
        problems.extend(ended.said.iter().map(|line| format!("it said: {line}")));
    }
    let (storm, complaint) = storm(&problems)?;
    problems.extend(complaint);
    tell(&Event::Ran {
        step: number,
        name: name.clone(),
        ended,
        moved: [storm.over.moved, storm.back.moved + storm.by_fault],
        seed: storm.seed,
        problems,
    })
}

/// Why this run says that the stressor does not run here.
fn why_not(without: &Ended) -> Option<String> {
    let said = || without.said.join("; ");
    match (without.status, without.success) {
        // What is not run because something is missing is a success, with a word on it.
        (Some(0), true) => without
            .said
            .iter()
            .find(|line| line.contains("skipped stressor") || line.contains("not implemented"))
            .cloned(),
        _ => Some(format!(
            "without a storm it ends with {}: {}",
            in_words(without),
            said()
        )),
    }
}

fn in_words(ended: &Ended) -> String {
    match (ended.status, ended.success) {
        (None, _) => "having to be killed".to_owned(),
        (Some(status), true) => format!("status {status}, successful"),
        (Some(status), false) => format!("status {status}"),
    }
}

/// Runs stress-ng to its end.
fn stress(plan: &Plan, step: &Step, storm: bool) -> Result<Ended> {
    let out = Path::new(FOLDER).join("out");
    let mut command = if storm {
        fs::write(report(), "").context("A file for the storm's report")?;
        let mut command = Command::new("coaxctl");
        command.arg("storm").arg("--json").arg(report());
        command.args(["--", "stress-ng"]);
        command
    } else {
        Command::new("stress-ng")
    };
    command
        .args(&step.args)
        .args(["--timeout", &plan.seconds.to_string()]);
    command
        .arg("--verify")
        .current_dir(FOLDER)
        .stdin(Stdio::null());
    let file = File::create(&out).context("A file for output")?;
    command
        .stdout(file.try_clone().context("A file for output")?)
        .stderr(file);
    let mut child = command
        .process_group(0)
        .spawn()
        .context("Starting stress-ng")?;
    let pidfd = pidfd_of(child.id())?;
    let limit = Duration::from_secs(plan.seconds) + on_this_kernel(END_LIMIT);
    let ended = readable(pidfd.as_fd(), limit)?;
    if !ended {
        // The kernel may lack it; the console shows what there is.
        let _ = fs::write("/proc/sysrq-trigger", "w");
    }
    // What it left behind would be in the way of the next.
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let status = child.wait().context("Waiting for stress-ng")?;
    let text = fs::read(&out).context("Reading what it said")?;
    let text = String::from_utf8_lossy(&text);
    let signal = status.signal().map(|signal| 128 + signal);
    Ok(Ended {
        status: status.code().or(signal).filter(|_| ended),
        success: ended && is_success(&text),
        said: complaints(&text),
    })
}

fn is_success(text: &str) -> bool {
    let mut lines = text.lines();
    lines.any(|line| line.contains("successful run completed") && !line.contains("unsuccessful"))
}

/// What stress-ng said besides what it always says.
fn complaints(text: &str) -> Vec<String> {
    const USUAL: [&str; 4] = [
        "setting to a",
        "dispatching hogs",
        "successful run completed",
        "note: ",
    ];
    let lines = text
        .lines()
        .filter(|line| !USUAL.iter().any(|usual| line.contains(usual)));
    let lines = lines.map(|line| {
        // `stress-ng: info:  [123] text`
        line.split_once("] ")
            .map_or(line, |(_, text)| text)
            .to_owned()
    });
    lines.take(LINES).collect()
}

/// What the storm came to, and what was wrong with it.
fn storm(problems: &[String]) -> Result<(Storm, Option<String>)> {
    let text = fs::read(report()).context("Reading the storm's report")?;
    if text.is_empty() {
        let complaint = problems.is_empty().then(|| "There was no storm".to_owned());
        return Ok((Storm::default(), complaint));
    }
    let report: Value = serde_json::from_slice(&text).context("The storm's report")?;
    let error = &report["error"];
    let complaint = (!error.is_null()).then(|| format!("The storm ended early: {error}"));
    let storm = serde_json::from_value(report).context("The storm's report")?;
    Ok((storm, complaint))
}

fn report() -> std::path::PathBuf {
    Path::new(FOLDER).join("storm.json")
}

fn tell(event: &Event) -> Result<()> {
    let line = serde_json::to_string(event).context("An event")?;
    outln!("{line}").context("Telling the host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_of_stress_ng_are_read() {
        let good = "stress-ng: info:  [7] successful run completed in 10.01s\n";
        let bad = "stress-ng: info:  [7] unsuccessful run completed in 10.01s\n";
        assert!(is_success(good) && !is_success(bad));
        let skipped = "stress-ng: info:  [7] dispatching hogs: 1 numa\n\
                       stress-ng: info:  [9] numa: less than 2 NUMA nodes, skipped stressor\n";
        assert_eq!(
            complaints(skipped),
            ["numa: less than 2 NUMA nodes, skipped stressor"]
        );
    }

    #[test]
    fn what_does_not_run_without_a_storm_is_left_out_with_what_it_said() {
        let ended = |status, success, said: &[&str]| Ended {
            status,
            success,
            said: said.iter().map(|line| (*line).to_owned()).collect(),
        };
        assert_eq!(why_not(&ended(Some(0), true, &["vm: using 256M"])), None);
        let skipped = why_not(&ended(Some(0), true, &["numa: skipped stressor"]));
        assert_eq!(skipped, Some("numa: skipped stressor".into()));
        assert!(
            why_not(&ended(Some(4), false, &["no"])).is_some_and(|text| text.contains("status 4"))
        );
        assert!(why_not(&ended(None, false, &[])).is_some());
    }
}
