// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a VM ended, and what is shown when it did not end well.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use coax_program::output::OutputError;

use crate::job::Exit;

/// Lines of the guest's console shown with a failure: an oops with its trace has about 60.
const CONSOLE_LINES: usize = 80;
/// Lines of the back end's and QEMU's log shown with a failure.
const LOG_LINES: usize = 30;

/// Last bytes of a log that are kept.
const LOG_BYTES: u64 = 1 << 20;

/// The end of a log; nothing if there is none.
pub fn tail_of(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// What was recorded of a VM.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The guest kernel's console.
    pub console: String,
    /// What QEMU wrote.
    pub qemu_log: String,
    /// QEMU's command line, ready for a shell.
    pub command_line: String,
    /// The back ends: those of the devices in their order, then that of the root file system.
    pub back_ends: Vec<BackEndEvidence>,
    /// What the job wrote to standard error, unless it went to the terminal.
    pub stderr: String,
}

/// What was recorded of a back end.
#[derive(Clone, Debug, Default)]
pub struct BackEndEvidence {
    /// What it serves.
    pub name: String,
    /// What it wrote.
    pub log: String,
    /// Its command line; its standard input is the socket it listens on.
    pub command_line: String,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut part = |title: &str, text: &str, most: usize| {
            let lines: Vec<&str> = text.trim_end().lines().collect();
            if lines.is_empty() {
                return writeln!(f, "--- {title}: empty");
            }
            let left_out = lines.len().saturating_sub(most);
            match left_out {
                0 => writeln!(f, "--- {title}:")?,
                _ => writeln!(f, "--- {title} (last {most} of {} lines):", lines.len())?,
            }
            lines
                .iter()
                .skip(left_out)
                .try_for_each(|line| writeln!(f, "{line}"))
        };
        part("standard error of the job", &self.stderr, LOG_LINES)?;
        part("guest console", &self.console, CONSOLE_LINES)?;
        for back_end in &self.back_ends {
            part(
                &format!("log of {}", back_end.name),
                &back_end.log,
                LOG_LINES,
            )?;
        }
        part("QEMU", &self.qemu_log, LOG_LINES)?;
        for back_end in &self.back_ends {
            let title = format!("command line of {}", back_end.name);
            part(&title, &back_end.command_line, LOG_LINES)?;
        }
        part("QEMU command line", &self.command_line, LOG_LINES)
    }
}

/// A job that ended, in a VM that ended well.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How the job ended: a code or a signal, or that there is no such program.
    pub exit: Exit,
    /// Its standard output, unless it went to the terminal.
    pub stdout: Vec<u8>,
    /// Its standard error, unless it went to the terminal.
    pub stderr: Vec<u8>,
    /// What was recorded.
    pub evidence: Evidence,
    /// From the start of the back end until everything had ended.
    pub duration: Duration,
    /// From the start of QEMU until the job started.
    pub boot: Duration,
    /// KVM or TCG.
    pub accel: &'static str,
}

impl Outcome {
    /// Standard output as text; bytes that are none are replaced.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text; bytes that are none are replaced.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Why a VM's run is not to be trusted, whatever its job says.
#[derive(Debug)]
pub enum Failure {
    /// Its job wrote more than so many bytes, where output is kept.
    TooMuchOutput(usize),
    /// Its kernel said nothing for so long.
    Silent(Duration),
    /// It lived longer than its limit.
    TimedOut(Duration),
    /// The kernel complained; this is its first line.
    KernelComplaint(String),
    /// The guest could not be set up for the job.
    NotStarted(String),
    /// The machine ended before the job's end was known.
    NoVerdict,
    /// QEMU ended badly.
    Qemu(ExitStatus),
    /// The back end of this name ended badly.
    BackEnd(String, ExitStatus),
    /// It ended, not badly, before the job did.
    BackEndLeft(String, ExitStatus),
    /// It was still running this long after QEMU had ended.
    BackEndStayed(String, Duration),
    /// The channel to the guest broke.
    Channel(io::Error),
    /// QEMU did not do what its monitor was asked for.
    Monitor(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::TooMuchOutput(most) => {
                write!(f, "the job wrote more than {} MiB", most >> 20)
            }
            Failure::Silent(limit) => write!(
                f,
                "the guest kernel said nothing within {limit:?}: it cannot start with that memory or with \
                 that command line"
            ),
            Failure::TimedOut(limit) => write!(f, "the VM was not done after {limit:?}"),
            Failure::KernelComplaint(line) => write!(f, "the guest kernel complained: {line}"),
            Failure::NotStarted(reason) => write!(f, "the job was not started: {reason}"),
            Failure::NoVerdict => f.write_str("the VM ended without a verdict of its job"),
            Failure::Qemu(status) => write!(f, "QEMU ended with {status}"),
            Failure::BackEnd(name, status) => {
                write!(f, "the back end of {name} ended with {status}")
            }
            Failure::BackEndLeft(name, status) => write!(
                f,
                "the back end of {name} ended before the job did, with {status}"
            ),
            Failure::BackEndStayed(name, limit) => write!(
                f,
                "the back end of {name} was still running {limit:?} after QEMU had ended"
            ),
            Failure::Channel(error) => write!(f, "the channel to the guest broke: {error}"),
            Failure::Monitor(error) => write!(f, "QEMU's monitor refused: {error}"),
        }
    }
}

/// Why there is no [`Outcome`].
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The parts do not fit together.
    #[error("{0}")]
    Config(String),
    /// This program's own output takes no more, so that what came of the job is lost.
    #[error("Output of the VM is lost")]
    Output(#[source] OutputError),
    /// This program's own input ended before its end.
    #[error("The job's input was cut short: cannot read standard input")]
    Input(#[source] io::Error),
    /// A folder, a file or a socket of the VM could not be made.
    #[error("Cannot prepare {what}")]
    Prepare {
        /// What it was.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The back end or QEMU could not be started.
    #[error("Cannot start {program}")]
    Start {
        /// Its path.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ran and failed.
    #[error("{failure}\n{evidence}")]
    Failed {
        /// In a word.
        failure: Failure,
        /// What was recorded.
        evidence: Box<Evidence>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_shows_the_end_of_a_long_console() {
        let console: String = (0..200).map(|i| format!("line {i}\n")).collect();
        let text = Evidence {
            console,
            back_ends: vec![BackEndEvidence {
                name: "device 1".into(),
                ..BackEndEvidence::default()
            }],
            ..Evidence::default()
        }
        .to_string();
        assert!(text.contains("line 199"));
        assert!(!text.contains("line 100\n"));
        assert!(text.contains("of 200 lines"));
        assert!(text.contains("log of device 1: empty"));
        assert!(text.contains("QEMU command line: empty"));
    }
}
