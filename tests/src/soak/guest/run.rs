// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs a script, in a storm or without, each time in the same new folder.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use crate::guest::process::{pidfd_of, readable};
use crate::guest::wait::on_this_kernel;
use crate::soak::event::{Plan, Storm};
use crate::soak::workload::SCRIPTS;

/// Longest run of a part, on a base kernel: many times what one takes in a storm on a busy host.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// Between two words on how far it is.
const WORD_INTERVAL: Duration = Duration::from_secs(10);

/// Lines shown of what the kernel said.
const KERNEL_LINES: usize = 20;

/// How a script ended.
#[derive(Debug)]
pub struct Ended {
    /// What it printed, and how it ended.
    pub result: String,
    /// What it wrote to standard error.
    pub errors: String,
    /// How long it took.
    pub duration: Duration,
}

/// Runs scripts.
#[derive(Debug)]
pub struct Runner {
    folder: PathBuf,
    env: Vec<(&'static str, PathBuf)>,
}

impl Runner {
    /// Puts the scripts into `folder`, in which they will run.
    pub fn new(folder: &Path, plan: &Plan) -> Result<Self> {
        let scripts = folder.join("scripts");
        fs::create_dir_all(&scripts).with_context(|| format!("Making {}", scripts.display()))?;
        for (name, text) in SCRIPTS {
            fs::write(scripts.join(name), text).with_context(|| format!("Writing {name}"))?;
        }
        Ok(Runner {
            folder: folder.to_owned(),
            env: vec![
                ("SCRIPTS", scripts),
                ("SQLITE_SOURCE", plan.sqlite_source.clone()),
                ("SQLITE_BUILD", plan.sqlite_build.clone()),
                // The same in all runs: the order of sets, and with it outcomes of tests, follows from it.
                ("PYTHONHASHSEED", "0".into()),
                ("LC_ALL", "C.UTF-8".into()),
            ],
        })
    }

    /// Runs a script with arguments, separated by blanks, to its end; `word` is called now and then.
    pub fn run(
        &self,
        script: &str,
        args: &str,
        storm: bool,
        mut word: impl FnMut(Duration) -> Result<()>,
    ) -> Result<Ended> {
        let work = self.folder.join("work");
        if work.exists() {
            fs::remove_dir_all(&work).with_context(|| format!("Removing {}", work.display()))?;
        }
        fs::create_dir(&work).with_context(|| format!("Making {}", work.display()))?;
        if storm {
            // What is there afterwards is this storm's.
            fs::write(self.report(), "").context("A file for the storm's report")?;
        }
        let (out, errors) = (self.folder.join("out"), self.folder.join("errors"));
        let mut command = if storm {
            let mut storm = Command::new("coaxctl");
            storm.args(["storm", "--json"]).arg(self.report());
            storm.args(["--", "sh"]);
            storm
        } else {
            Command::new("sh")
        };
        let script = self.folder.join("scripts").join(script);
        command.arg(script).args(args.split(' ')).current_dir(&work);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command.stdout(File::create(&out).context("A file for output")?);
        command.stderr(File::create(&errors).context("A file for errors")?);
        let started = Instant::now();
        let mut child = command.process_group(0).spawn().context("Starting it")?;
        let pidfd = pidfd_of(child.id())?;
        let limit = on_this_kernel(LIMIT);
        while !readable(pidfd.as_fd(), WORD_INTERVAL)? {
            word(started.elapsed())?;
            if started.elapsed() > limit {
                stuck(&child, &errors, limit)?;
            }
        }
        let status = child.wait().context("Waiting for it")?;
        let duration = started.elapsed();
        // What it left behind would be in the way of the next.
        kill_group(&child);
        let text = |path: &Path| -> Result<String> {
            let bytes = fs::read(path).with_context(|| format!("Reading {}", path.display()))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Ended {
            result: format!("{}{status}\n", text(&out)?),
            errors: text(&errors)?,
            duration,
        })
    }

    /// What the last storm came to, and what was wrong with it.
    pub fn storm(&self) -> Result<(Storm, Option<String>)> {
        let text = fs::read(self.report()).context("Reading the storm's report")?;
        judge(&text)
    }

    fn report(&self) -> PathBuf {
        self.folder.join("storm.json")
    }
}

/// Reads the report of a storm: it has to have lasted as long as the program, and to have moved pages to
/// and fro.
fn judge(text: &[u8]) -> Result<(Storm, Option<String>)> {
    ensure!(
        !text.is_empty(),
        "There was no storm\n{}",
        kernel_log().join("\n")
    );
    let report: Value = serde_json::from_slice(text).context("The storm's report")?;
    let storm: Storm = serde_json::from_value(report.clone()).context("The storm's report")?;
    let complaint = if !report["error"].is_null() {
        Some(format!("The storm ended early: {}", report["error"]))
    } else if storm.over.moved == 0 || storm.back.moved + storm.by_fault == 0 {
        Some(format!("The storm moved nothing: {report}"))
    } else {
        None
    };
    Ok((storm, complaint))
}

/// Ends what runs too long, after the kernel has printed where everybody waits.
fn stuck(child: &Child, errors: &Path, limit: Duration) -> Result<()> {
    // The kernel may lack it; the console shows what there is.
    let _ = fs::write("/proc/sysrq-trigger", "w");
    kill_group(child);
    let said = fs::read(errors).unwrap_or_default();
    bail!(
        "It was not done after {limit:?}; it said:\n{}",
        String::from_utf8_lossy(&said)
    )
}

/// The end of what the kernel said.
pub fn kernel_log() -> Vec<String> {
    let output = Command::new("dmesg").stdin(Stdio::null()).output();
    // Who has none says so by itself.
    let text = output.map_or_else(
        |error| format!("dmesg: {error}"),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    );
    let skipped = text.lines().count().saturating_sub(KERNEL_LINES);
    let lines = text.lines().skip(skipped);
    lines.map(|line| format!("kernel: {line}")).collect()
}

fn kill_group(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // Fails when no process of the group is left.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(over: u64, back: u64, by_fault: u64, error: &str) -> Option<String> {
        let report = format!(
            r#"{{"seed": 1, "processes": 1, "over": {{"pulls": 9, "moved": {over}}},
                "back": {{"pulls": 9, "moved": {back}}}, "by_fault": {by_fault}, "error": {error}}}"#
        );
        judge(report.as_bytes()).expect("a report").1
    }

    #[test]
    fn a_storm_has_to_move_pages_both_ways_until_the_end() {
        assert_eq!(judged(1, 1, 0, "null"), None);
        assert_eq!(judged(1, 0, 1, "null"), None);
        assert!(judged(0, 1, 1, "null").is_some());
        assert!(judged(1, 0, 0, "null").is_some());
        assert!(judged(1, 1, 1, "\"gone\"").is_some_and(|text| text.contains("gone")));
        assert!(judge(b"").is_err());
    }
}
