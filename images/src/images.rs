// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The finished images that a VM is started from.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Lock;
use crate::guest;
use crate::kernel::{self, Kernel};
use crate::qemu::{self, Form, Qemu};

/// Which kernel and which QEMU are meant.
#[derive(clap::Args, Clone, Debug, Default)]
// Groups have the names of their structures, and this is not the only one of its name.
#[group(skip)]
pub struct Which {
    /// The kernel.
    #[command(flatten)]
    pub kernel: kernel::Which,
    /// QEMU.
    #[command(flatten)]
    pub qemu: qemu::Which,
}

impl Which {
    /// The words that name these on a command line.
    pub fn words(&self) -> impl Iterator<Item = &OsStr> {
        self.kernel.words().into_iter().chain(self.qemu.words())
    }

    /// Refuses what cannot be used, before anything is built or waited for.
    ///
    /// # Errors
    ///
    /// Those of [`kernel::Which::check`] and [`qemu::Which::check`].
    pub fn check(&self) -> Result<()> {
        self.kernel.check()?;
        self.qemu.check()
    }
}

/// Paths of everything a VM needs.
#[derive(Clone, Debug)]
pub struct Images {
    /// Bootable kernel.
    pub kernel: PathBuf,
    /// Version of the kernel, as `uname -r` shows it.
    pub kernel_version: String,
    /// The kernel as options name it: its kind, or its tree's folder.
    pub kernel_name: String,
    /// How many times as long as on a kernel without checks VMs may take.
    pub time_factor: u32,
    /// Words for the kernel's command line that it was built for.
    pub kernel_args: Option<&'static str>,
    /// QEMU.
    pub qemu: PathBuf,
    /// Version of QEMU.
    pub qemu_version: String,
    /// Folders with the firmware that QEMU loads, if it does not know them.
    pub firmware: Vec<PathBuf>,
    /// How QEMU shows the device.
    pub form: Form,
    /// Root file system, without a job.
    pub initramfs: PathBuf,
    /// The back end.
    pub device: PathBuf,
    /// The kernel's own tests, of which there is a copy in the root file system.
    pub hmm_tests: PathBuf,
    /// The program that measures the engine on host memory.
    pub engine_bench: PathBuf,
    /// Seconds that kernel, QEMU and guest took to build, together.
    pub build_seconds: f64,
}

impl Images {
    /// The images of this checkout with this kernel and this QEMU, which must have been built.
    ///
    /// # Errors
    ///
    /// Says which image is missing and how to build it.
    pub fn built(which: &Which) -> Result<Self> {
        let kernel = which.kernel.built()?;
        let guest = guest::built(&kernel)?;
        Self::join(kernel, which.qemu.built()?, guest)
    }

    /// Builds what is missing; packages of the host are installed if `install` says so.
    ///
    /// # Errors
    ///
    /// Those of the builds, each with the place of its log.
    pub fn build(which: &Which, install: bool) -> Result<Self> {
        if let Ok(images) = Self::built(which) {
            return Ok(images);
        }
        which.check()?;
        let _lock = Lock::take()?;
        let kernel = which.kernel.build(install)?;
        let qemu = which.qemu.build(install)?;
        let guest = guest::build(&kernel, install)?;
        Self::join(kernel, qemu, guest)
    }

    fn join(kernel: Kernel, qemu: Qemu, guest: guest::Guest) -> Result<Self> {
        Ok(Images {
            build_seconds: kernel.seconds + qemu.seconds + guest.seconds,
            kernel: kernel.image,
            kernel_version: kernel.version,
            kernel_name: kernel.name,
            time_factor: kernel.config.time_factor(),
            kernel_args: kernel.config.kernel_args(),
            qemu: qemu.program,
            qemu_version: qemu.version,
            firmware: qemu.firmware,
            form: qemu.form,
            initramfs: guest.initramfs,
            device: guest.device,
            hmm_tests: guest.hmm_tests,
            engine_bench: guest.engine_bench,
        })
    }
}
