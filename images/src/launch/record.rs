// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was seen of a VM, and the judgement on it.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use coax_program::output::OutputError;

use super::evidence::{Evidence, Failure};
use super::lines::LastLines;
use crate::job::Exit;

/// From the job's end to QEMU's: unloading and powering off takes a second under TCG.
pub const POWER_OFF_LIMIT: Duration = Duration::from_secs(20);
/// From the end of QEMU, or of a back end, to that of the other.
pub const PEER_END_LIMIT: Duration = Duration::from_secs(5);

/// Most output of a job that is kept, instead of passed on.
pub const CAPTURED_BYTES: usize = 32 << 20;

/// What has been seen of the VM.
#[derive(Debug, Default)]
pub struct Record {
    /// For people.
    pub evidence: Evidence,
    /// The guest's console.
    pub console: LastLines,
    /// The job's standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// From the start until the job started.
    pub boot: Option<Duration>,
    /// How the job ended, as the guest told it.
    pub exit: Option<Exit>,
    /// First complaint of the kernel.
    pub complaint: Option<String>,
    /// What was wrong with the frames.
    pub channel_error: Option<io::Error>,
    /// What QEMU's monitor refused.
    pub monitor_error: Option<io::Error>,
    /// The first back end that ended while the VM was waited for: what it serves and how.
    pub back_end_left: Option<(String, ExitStatus)>,
    /// The guest has said something.
    pub heard: bool,
    /// The VM lived longer than it was given.
    pub timed_out: Option<Duration>,
    /// The job wrote more than is kept.
    pub too_much_output: bool,
    /// This program's own output takes no more.
    pub output_error: Option<OutputError>,
    /// This program's own input ended too early.
    pub input_error: Option<io::Error>,
    /// The user ended it.
    pub escaped: bool,
    /// Bytes of `stdout` that a watcher has seen.
    watched: usize,
}

impl Record {
    /// A VM that was started by these command lines.
    pub fn new(evidence: Evidence) -> Self {
        Record {
            evidence,
            ..Record::default()
        }
    }

    /// Whether what has been seen is enough to end the VM.
    pub fn is_over(&self) -> bool {
        let lost = self.too_much_output || self.output_error.is_some();
        lost || self.escaped || self.timed_out.is_some()
    }

    /// The next complete line of standard output that no watcher has seen.
    pub fn next_line(&mut self) -> Option<String> {
        let rest = self.stdout.get(self.watched..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(rest.get(..length)?).into_owned();
        self.watched += length + 1;
        Some(line)
    }
}

/// The most telling reason to distrust the run, if there is one. `None` stands for a process that is
/// still running; of the back ends, those that were killed on purpose are left out.
pub fn judge(
    record: &mut Record,
    qemu: Option<ExitStatus>,
    back_ends: &[(String, Option<ExitStatus>)],
) -> Option<Failure> {
    if let Some(line) = record.complaint.take() {
        return Some(Failure::KernelComplaint(line));
    }
    if let Some(Exit::NotStarted(reason)) = &record.exit {
        return Some(Failure::NotStarted(reason.clone()));
    }
    if record.escaped {
        return None;
    }
    if let Some(error) = record.monitor_error.take() {
        return Some(Failure::Monitor(error));
    }
    if record.too_much_output {
        return Some(Failure::TooMuchOutput(CAPTURED_BYTES));
    }
    let failed = |status: &ExitStatus| !status.success();
    for (name, status) in back_ends {
        if let Some(status) = status.filter(failed) {
            return Some(Failure::BackEnd(name.clone(), status));
        }
    }
    // One that lived too long was killed, which says nothing about QEMU.
    if let Some(status) = qemu.filter(failed).filter(|_| record.timed_out.is_none()) {
        return Some(Failure::Qemu(status));
    }
    if let Some(limit) = record.timed_out {
        return Some(match record.back_end_left.take() {
            // QEMU ended by itself otherwise, and back ends end with it.
            Some((name, status)) if record.exit.is_none() => Failure::BackEndLeft(name, status),
            _ if !record.heard => Failure::Silent(limit),
            _ => Failure::TimedOut(limit),
        });
    }
    if let Some(error) = record.channel_error.take() {
        return Some(Failure::Channel(error));
    }
    if record.exit.is_none() {
        return Some(Failure::NoVerdict);
    }
    let (stayed, _) = back_ends.iter().find(|(_, status)| status.is_none())?;
    Some(Failure::BackEndStayed(stayed.clone(), PEER_END_LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn ended(code: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(code << 8))
    }

    fn judged(
        mut record: Record,
        qemu: Option<ExitStatus>,
        device: Option<ExitStatus>,
    ) -> Option<Failure> {
        // The first device is always well.
        let back_ends = [("device 0".into(), ended(0)), ("device 1".into(), device)];
        judge(&mut record, qemu, &back_ends)
    }

    #[test]
    fn a_told_exit_and_clean_ends_are_no_failure() {
        let record = Record {
            exit: Some(Exit::Code(3)),
            ..Record::default()
        };
        assert!(judged(record, ended(0), ended(0)).is_none());
    }

    #[test]
    fn a_missing_verdict_is_a_failure() {
        assert!(matches!(
            judged(Record::default(), ended(0), ended(0)),
            Some(Failure::NoVerdict)
        ));
    }

    #[test]
    fn a_kernel_complaint_outweighs_success() {
        let record = Record {
            exit: Some(Exit::Code(0)),
            complaint: Some("WARNING: x".into()),
            ..Record::default()
        };
        assert!(matches!(
            judged(record, ended(0), ended(0)),
            Some(Failure::KernelComplaint(_))
        ));
    }

    #[test]
    fn a_back_end_that_left_early_is_not_blamed_on_the_time_limit() {
        let record = Record {
            timed_out: Some(PEER_END_LIMIT),
            back_end_left: ended(0).map(|status| ("device 1".into(), status)),
            ..Record::default()
        };
        assert!(matches!(
            judged(record, None, ended(0)),
            Some(Failure::BackEndLeft(name, _)) if name == "device 1"
        ));
    }

    #[test]
    fn a_guest_that_says_nothing_is_told_from_one_that_is_not_done() {
        for heard in [false, true] {
            let record = Record {
                timed_out: Some(PEER_END_LIMIT),
                heard,
                ..Record::default()
            };
            let failure = judged(record, None, ended(0));
            assert!(match heard {
                true => matches!(failure, Some(Failure::TimedOut(PEER_END_LIMIT))),
                false => matches!(failure, Some(Failure::Silent(PEER_END_LIMIT))),
            });
        }
    }

    #[test]
    fn a_qemu_that_crashed_is_not_blamed_on_the_back_end_that_ended_with_it() {
        let record = Record {
            back_end_left: ended(0).map(|status| ("device 1".into(), status)),
            ..Record::default()
        };
        assert!(matches!(
            judged(record, ended(1), ended(0)),
            Some(Failure::Qemu(_))
        ));
    }

    #[test]
    fn a_guest_that_reboots_is_not_blamed_on_the_back_end_that_ended_with_it() {
        let record = Record {
            back_end_left: ended(0).map(|status| ("device 1".into(), status)),
            ..Record::default()
        };
        assert!(matches!(
            judged(record, ended(0), ended(0)),
            Some(Failure::NoVerdict)
        ));
    }

    #[test]
    fn a_back_end_that_crashed_or_stayed_is_a_failure() {
        let record = || Record {
            exit: Some(Exit::Code(0)),
            ..Record::default()
        };
        assert!(matches!(
            judged(record(), ended(0), ended(1)),
            Some(Failure::BackEnd(name, _)) if name == "device 1"
        ));
        assert!(matches!(
            judged(record(), ended(0), None),
            Some(Failure::BackEndStayed(name, _)) if name == "device 1"
        ));
    }
}
