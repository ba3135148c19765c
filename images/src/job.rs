// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a VM is asked to run, and how that ended.
//!
//! A VM runs one job. The host writes it into the initramfs as [`JOB_PATH`], the guest's init
//! reads it there. Output and end travel over the channel of [`crate::frames`].

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

/// Where modules of the kernel's own lie that are loaded before anything else, in the order of their numbers.
pub const EARLY_MODULES: &str = "/lib/modules/early";
/// Where the guest finds its job.
pub const JOB_PATH: &str = "/coax/job.json";
/// Tag of the virtio-fs device that carries the tree of the host.
pub const TREE_TAG: &str = "coax-tree";
/// Where the small root file system that comes with the guest lies when the root is a tree of the
/// host: its programs are in `bin` there.
pub const OWN_ROOT: &str = "/run/coax";
/// Name of the virtio-serial port that carries the frames.
pub const PORT_NAME: &str = "coax.job";

/// How the driver uses device memory; the numbers are those of its `mode` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A CPU access brings the page back to system memory.
    Private = 0,
    /// The CPU accesses the page where it is.
    Coherent = 1,
    /// Device memory is a memory node of its own, and the kernel moves pages as between any nodes.
    Numa = 2,
}

impl Mode {
    /// All modes, in the order in which reports show them.
    pub const ALL: [Mode; 3] = [Mode::Private, Mode::Coherent, Mode::Numa];
    /// The modes in which the driver moves pages, in the order in which reports show them.
    pub const MOVING: [Mode; 2] = [Mode::Private, Mode::Coherent];

    /// Name as options and reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Private => "private",
            Mode::Coherent => "coherent",
            Mode::Numa => "numa",
        }
    }

    /// Value of the module parameter `mode`.
    pub fn parameter(self) -> u32 {
        self as u32
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Size of the terminal that an interactive job sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// The program a VM runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Program, searched in `PATH` unless it has a slash, and its arguments.
    pub argv: Vec<OsString>,
    /// Environment besides `PATH`, `HOME` and `TERM`.
    pub env: Vec<(OsString, OsString)>,
    /// Where it starts, if that is there, else in `/`; `/root` if it is `None`.
    pub directory: Option<OsString>,
    /// Run it on a terminal of this size instead of pipes; standard error then comes with
    /// standard output.
    pub terminal: Option<TerminalSize>,
}

impl Job {
    /// A job that runs `argv` with pipes for standard input, output and error.
    pub fn new<I>(argv: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        Job {
            argv: argv.into_iter().map(Into::into).collect(),
            ..Job::default()
        }
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// How the driver is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Module parameters, each `name=value`.
    pub parameters: Vec<String>,
    /// Names in `/dev` that must be there before the job starts.
    pub devices: Vec<String>,
}

/// Contents of [`JOB_PATH`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFile {
    /// What to run.
    pub job: Job,
    /// Load the driver like this before the job starts.
    pub driver: Option<Driver>,
    /// The root file system is the tree behind [`TREE_TAG`].
    pub tree: bool,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// It returned this exit status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It never ran: the guest could not be set up, for this reason.
    NotStarted(String),
    /// It never ran: there is no such program, or it cannot be run.
    NoProgram {
        /// Why.
        reason: String,
        /// Whether there is one.
        found: bool,
    },
}

impl Exit {
    /// Whether the job ran and returned 0.
    pub fn success(&self) -> bool {
        *self == Exit::Code(0)
    }

    /// The status a shell would show: the code, 128 plus the signal, 127 for a program that is not
    /// there and 126 for one that cannot be run, or 1 when nothing ran for another reason.
    pub fn shell_status(&self) -> u8 {
        match self {
            Exit::Code(code) => u8::try_from(code & 0xff).unwrap_or(1),
            Exit::Signal(signal) => u8::try_from((128 + signal) & 0xff).unwrap_or(1),
            Exit::NotStarted(_) => 1,
            Exit::NoProgram { found, .. } => 127 - u8::from(*found),
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
            Exit::NotStarted(reason) => write!(f, "not started: {reason}"),
            Exit::NoProgram { reason, .. } => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_status_follows_the_shell() {
        assert_eq!(Exit::Code(3).shell_status(), 3);
        assert_eq!(Exit::Signal(9).shell_status(), 137);
        assert_eq!(Exit::NotStarted(String::new()).shell_status(), 1);
        for (found, status) in [(false, 127), (true, 126)] {
            let reason = String::new();
            assert_eq!(Exit::NoProgram { reason, found }.shell_status(), status);
        }
    }

    #[test]
    fn job_file_survives_the_trip() {
        use std::os::unix::ffi::OsStringExt as _;
        // Names need be no text.
        let name = OsString::from_vec(b"\xff\n\"".to_vec());
        let mut job = Job::new(["sh".into(), "-c".into(), name.clone()]).env("A", name.clone());
        job.directory = Some(name);
        let file = JobFile {
            job,
            driver: Some(Driver {
                parameters: vec!["mode=1".into()],
                devices: vec!["coax0".into()],
            }),
            tree: true,
        };
        let text = serde_json::to_string(&file).expect("plain data");
        assert_eq!(
            serde_json::from_str::<JobFile>(&text).expect("own output"),
            file
        );
    }
}
