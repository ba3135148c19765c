// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One VM, and its start.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::action::Step;
use super::back_end::BackEnd;
use super::config::{Output, VmConfig};
use super::ends::own;
use super::evidence::{Evidence, LaunchError};
use super::flow::Flow;
use super::qemu_args::{self, Sockets};
use super::record::Record;
use super::terminal::RawMode;
use crate::accel::Accel;
use crate::archive;
use crate::images::Images;
use crate::initramfs;
use crate::job::{Job, JobFile, TerminalSize};
use crate::machine::Translation;
use crate::process::Group;
use crate::qemu::Form;
use crate::temporary::TemporaryFolder;

/// Socket of the guest's port, in the VM's folder.
const JOB_SOCKET: &str = "job.sock";
/// Socket of QEMU's monitor.
pub const MONITOR_SOCKET: &str = "monitor.sock";
/// What QEMU writes.
pub const QEMU_LOG: &str = "qemu.log";

/// A running VM; dropping it kills it. The thread that started it must live as long.
#[derive(Debug)]
pub struct Vm {
    // Dropped in this order: QEMU first, so that the back ends see their front end leave.
    pub(super) qemu: Group,
    pub(super) devices: Vec<BackEnd>,
    pub(super) tree: Option<BackEnd>,
    pub(super) folder: TemporaryFolder,
    pub(super) flow: Flow,
    pub(super) raw_mode: Option<RawMode>,
    /// What the job's terminal was last told, if it has one and so has the user.
    pub(super) terminal: Option<TerminalSize>,
    pub(super) accel: Accel,
    pub(super) started: Instant,
    pub(super) time_factor: u32,
    /// When the VM is to have ended, for a reason of its own, and the time that it was given.
    pub(super) end: Option<(Instant, Duration)>,
    pub(super) config: VmConfig,
    /// How the devices are shown to the guest.
    pub(super) form: Form,
    /// What is still to be done to the processes, and when.
    pub(super) steps: Vec<(Instant, Step)>,
    /// Times that the first device was plugged in.
    pub(super) plugged: u32,
    /// Until the guest has it.
    pub(super) initramfs: Option<File>,
    pub(super) record: Record,
}

impl Vm {
    /// Starts back ends and QEMU, which runs `job`.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Config`], [`LaunchError::Prepare`], [`LaunchError::Start`].
    pub fn start(images: &Images, config: &VmConfig, job: &Job) -> Result<Self, LaunchError> {
        config.check().map_err(LaunchError::Config)?;
        let accel = images.accel.accel;
        check_kernel(&images.kernel)?;
        let form = config.form.unwrap_or(images.form);
        if config.translation == Translation::Pcie && form == Form::TwoFunctions {
            return Err(LaunchError::Config(
                "A device in two functions has no IOMMU translate for it: --translation pcie needs a QEMU with our \
                 patches"
                    .into(),
            ));
        }
        let able = images.check(config.translation);
        able.map_err(|error| LaunchError::Config(format!("{error:#}")))?;
        let folder = prepare("a folder for the VM", TemporaryFolder::new)?;
        let file = JobFile {
            job: job.clone(),
            driver: config.driver(),
            tree: config.tree.is_some(),
        };
        let initramfs = prepare("the initramfs", || {
            let unnamed = folder.unnamed_file()?;
            initramfs::with_job(&images.initramfs, &unnamed, &file, &config.files)
                .map_err(|error| folder.explain(error))?;
            Ok(unnamed)
        })?;
        let listener = prepare("the job's socket", || folder.listen(JOB_SOCKET))?;
        let qemu_log = prepare("QEMU's log", || {
            File::create(folder.path().join(QEMU_LOG)).map_err(|error| folder.explain(error))
        })?;

        let started = Instant::now();
        let devices = BackEnd::of_devices(images, config, &folder)?;
        let tree = config.tree.as_ref();
        let tree = tree
            .map(|tree| BackEnd::of_tree(tree, &folder))
            .transpose()?;
        let sockets = Sockets {
            devices: devices.iter().map(BackEnd::socket).collect(),
            tree: tree.as_ref().map(BackEnd::socket),
            job: JOB_SOCKET.as_ref(),
            monitor: MONITOR_SOCKET.as_ref(),
            initramfs: &TemporaryFolder::path_of_unnamed(&initramfs),
        };
        let args = qemu_args::qemu(images, config, form, &sockets);
        let command_line = qemu_args::shell_line(&images.qemu, &args);
        let mut qemu = start(
            &images.qemu,
            Command::new(&images.qemu)
                .args(&args)
                // Names of sockets have 107 bytes at most, those of folders do not.
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(qemu_log),
        )?;
        let console = qemu.child().stdout.take().map(OwnedFd::from);
        let mut flow = prepare("the VM's console", || {
            Flow::new(console.ok_or(io::ErrorKind::NotFound)?, listener)
        })?;

        let mut raw_mode = None;
        if config.output == Output::Interactive {
            prepare("this program's output", || {
                flow.write_output(own(io::stdout())?, own(io::stderr())?)
            })?;
            if job.terminal.is_some() {
                raw_mode = prepare("the terminal", RawMode::enter)?;
            }
        }
        let evidence = Evidence {
            command_line: format!("cd {} && {command_line}", folder.path().display()),
            ..Evidence::default()
        };
        Ok(Vm {
            qemu,
            devices,
            tree,
            folder,
            flow,
            terminal: job.terminal.filter(|_| raw_mode.is_some()),
            raw_mode,
            accel,
            started,
            time_factor: images.time_factor,
            end: None,
            config: config.clone(),
            form,
            steps: Vec::new(),
            plugged: 0,
            initramfs: Some(initramfs),
            record: Record::new(evidence),
        })
    }

    /// Process numbers of the devices' back ends.
    pub fn device_ids(&mut self) -> Vec<u32> {
        self.devices.iter_mut().map(BackEnd::id).collect()
    }
}

/// Refuses a kernel that has gone since it was chosen, as one in a tree of the user's can.
fn check_kernel(image: &Path) -> Result<(), LaunchError> {
    let what = format!("a VM with the kernel {}", image.display());
    prepare(&what, || File::open(image).map(drop))
}

/// Makes something that a VM needs.
pub fn prepare<T>(what: &str, make: impl FnOnce() -> io::Result<T>) -> Result<T, LaunchError> {
    make().map_err(|source| LaunchError::Prepare {
        what: what.to_owned(),
        source,
    })
}

/// Starts a program in a group of its own.
pub fn start(program: &Path, command: &mut Command) -> Result<Group, LaunchError> {
    if let Some(libraries) = archive::libraries_of(program) {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    Group::start(command, Signal::SIGKILL).map_err(|source| LaunchError::Start {
        program: program.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_has_gone_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        check_kernel(file.path()).expect("it is there");
        let path = file.into_temp_path().to_path_buf();
        let error = check_kernel(&path).expect_err("it has gone");
        let text = format!("{:#}", anyhow::Error::from(error));
        let told = format!("kernel {}: No such file", path.display());
        assert!(text.contains(&told), "{text}");
    }
}
