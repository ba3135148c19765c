// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest program: runs each case in a process of its own and prints KTAP.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use coax_program::output::OutputError;
use coax_program::{errln, outln};
use coax_results::ktap::{one_line, ResultLine, VERSION_LINE};
use coax_results::Outcome;
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;

use super::process::readable;
use super::wait::on_this_kernel;
use crate::case::{Case, Entry, Skip};

/// Exit status of a case process that does not apply, as in the kernel's selftests.
const STATUS_SKIP: u8 = 4;
/// Marks the reason of a skip on the case's standard error.
const SKIP_MARK: &str = "SKIP ";
/// Longest wait for a killed case to be gone, 20 s: its device pages have to be freed.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// How a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Nothing failed.
    Passed,
    /// Something failed.
    Failed,
}

/// Runs the cases one after the other and prints their results.
pub fn run(entries: &[Entry]) -> Result<Verdict> {
    outln!("{VERSION_LINE}\n1..{}", entries.len())?;
    let mut verdict = Verdict::Passed;
    for (index, entry) in entries.iter().enumerate() {
        let name = entry.full_name();
        let started = Instant::now();
        let ended = run_one(&name, entry.case)?;
        let outcome = match ended {
            Ended::With(outcome) => outcome,
            Ended::Never => {
                print_stacks()?;
                outln!("Bail out! {name} cannot be killed")?;
                return Ok(Verdict::Failed);
            }
        };
        if outcome == Outcome::Failed {
            verdict = Verdict::Failed;
            outln!("# {name} shows: {}", entry.case.shows)?;
        }
        outln!(
            "{}",
            ResultLine {
                number: index + 1,
                name: &name,
                outcome: &outcome,
                seconds: Some(started.elapsed().as_secs_f64()),
            }
        )?;
    }
    Ok(verdict)
}

/// The other side of [`run`]: runs one case in this process and says how to exit.
pub fn run_here(case: &Case) -> ExitCode {
    match (case.run)() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(Skip(reason)) => {
                errln!("{SKIP_MARK}{}", one_line(reason));
                ExitCode::from(STATUS_SKIP)
            }
            None => {
                errln!("{error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

/// How a case's process ended.
enum Ended {
    With(Outcome),
    /// It is stuck in the kernel.
    Never,
}

fn run_one(name: &str, case: &Case) -> Result<Ended> {
    let mut child = Command::new("/proc/self/exe")
        .args(["case", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The case's own children are ended with it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("Starting {name}"))?;
    let (sender, lines) = mpsc::channel();
    forward(child.stdout.take(), sender.clone());
    forward(child.stderr.take(), sender);

    let limit = on_this_kernel(case.limit);
    let status = wait(&mut child, limit)?;
    let timed_out = status.is_none();
    let status = match status {
        Some(status) => status,
        None => {
            outln!("# {name} ran into its limit of {limit:?}")?;
            kill_group(&child);
            match wait(&mut child, on_this_kernel(KILL_LIMIT))? {
                Some(status) => status,
                None => return Ok(Ended::Never),
            }
        }
    };
    // Children that the case left behind hold the pipes open and would disturb the next case.
    kill_group(&child);
    let skip = lines
        .iter()
        .find_map(|line| line.strip_prefix(SKIP_MARK).map(str::to_owned));
    let outcome = outcome(status, timed_out, skip);
    if outcome == Outcome::Failed && !timed_out && status.code() != Some(1) {
        let (code, signal) = (status.code(), status.signal());
        outln!("# ended with status {code:?}, signal {signal:?}")?;
    }
    Ok(Ended::With(outcome))
}

fn outcome(status: ExitStatus, timed_out: bool, skip: Option<String>) -> Outcome {
    match (status.code(), skip) {
        _ if timed_out => Outcome::Failed,
        (Some(0), _) => Outcome::Passed,
        (Some(code), Some(reason)) if code == i32::from(STATUS_SKIP) => Outcome::Skipped(reason),
        _ => Outcome::Failed,
    }
}

/// Waits for the process, `None` if the limit passes first.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let pidfd = super::process::pidfd_of(child.id())?;
    if readable(pidfd.as_fd(), limit)? {
        child.wait().map(Some).context("wait")
    } else {
        Ok(None)
    }
}

fn kill_group(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // Fails when no process of the group is left.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Prints what the case says as diagnostics, at once, and hands the lines on.
fn forward(pipe: Option<impl Read + Send + 'static>, sender: mpsc::Sender<String>) {
    let Some(pipe) = pipe else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            // Output that takes no more ends this program with the next line of its own.
            let shown = line.starts_with(SKIP_MARK) || outln!("# {line}").is_ok();
            if !shown || sender.send(line).is_err() {
                return;
            }
        }
    });
}

/// Has the kernel print the stack of each blocked task.
fn print_stacks() -> Result<(), OutputError> {
    match std::fs::write("/proc/sysrq-trigger", "w") {
        Ok(()) => Ok(()),
        Err(error) => outln!("# no stacks: /proc/sysrq-trigger: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(wait_status: i32, skip: Option<&str>) -> Outcome {
        outcome(
            ExitStatus::from_raw(wait_status),
            false,
            skip.map(str::to_owned),
        )
    }

    #[test]
    fn the_exit_status_tells_the_outcome() {
        assert_eq!(ended(0, None), Outcome::Passed);
        assert_eq!(ended(1 << 8, None), Outcome::Failed);
        let skipped = ended(i32::from(STATUS_SKIP) << 8, Some("no swap"));
        assert_eq!(skipped, Outcome::Skipped("no swap".into()));
    }

    #[test]
    fn a_signal_a_time_out_and_a_skip_without_reason_are_failures() {
        assert_eq!(ended(11, None), Outcome::Failed);
        assert_eq!(ended(i32::from(STATUS_SKIP) << 8, None), Outcome::Failed);
        assert_eq!(
            outcome(ExitStatus::from_raw(0), true, None),
            Outcome::Failed
        );
    }
}
