// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The finished images that VMs are started from, and what runs them.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::{anyhow, Result};
use clap::ValueEnum;

use crate::accel::{self, Decision};
use crate::cache::Lock;
use crate::guest;
use crate::job::Mode;
use crate::kernel::{self, Kernel};
use crate::machine::{Machine, Part};
use crate::qemu::{self, Form, Qemu};

/// Which kernel, which QEMU and which acceleration are meant.
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
    /// What runs the guest's code
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub accel: accel::Choice,
}

impl Which {
    /// The words that name these on a command line.
    pub fn words(&self) -> impl Iterator<Item = OsString> {
        let accel = self.accel.to_possible_value();
        let accel = accel.map(|accel| ["--accel".into(), accel.get_name().into()]);
        let parts = self.kernel.words().into_iter().chain(self.qemu.words());
        let parts = parts.map(OsStr::to_owned).collect::<Vec<_>>();
        parts.into_iter().chain(accel.into_iter().flatten())
    }

    /// Refuses what cannot be used, before anything is built or waited for.
    ///
    /// # Errors
    ///
    /// Those of [`kernel::Which::check`] and [`qemu::Which::check`], and KVM that does not work.
    pub fn check(&self) -> Result<()> {
        self.decide()?;
        self.kernel.check()?;
        self.qemu.check()
    }

    /// What runs the guest's code, and why.
    fn decide(&self) -> Result<Decision> {
        accel::decide(self.accel).map_err(|reason| anyhow!("KVM does not work here: {reason}"))
    }
}

/// Paths of everything a VM needs.
#[derive(Clone, Debug)]
pub struct Images {
    /// Bootable kernel.
    pub kernel: PathBuf,
    /// Which kernel that is.
    pub kernel_part: Part,
    /// How many times as long as on a kernel without checks VMs may take.
    pub time_factor: u32,
    /// Words for the kernel's command line that it was built for.
    pub kernel_args: Option<&'static str>,
    /// QEMU.
    pub qemu: PathBuf,
    /// Which QEMU that is.
    pub qemu_part: Part,
    /// Folders with the firmware that QEMU loads, if it does not know them.
    pub firmware: Vec<PathBuf>,
    /// How QEMU shows the device.
    pub form: Form,
    /// What runs the guest's code, and why.
    pub accel: Decision,
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
        Ok(Self::join(
            kernel,
            which.qemu.built()?,
            guest,
            which.decide()?,
        ))
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
        Ok(Self::join(kernel, qemu, guest, which.decide()?))
    }

    /// What VMs in these modes are.
    pub fn machine(&self, modes: &[Mode]) -> Machine {
        Machine::new(self, modes)
    }

    fn join(kernel: Kernel, qemu: Qemu, guest: guest::Guest, accel: Decision) -> Self {
        Images {
            build_seconds: kernel.seconds + qemu.seconds + guest.seconds,
            kernel: kernel.image,
            kernel_part: Part {
                source: kernel.name,
                version: kernel.version,
            },
            time_factor: kernel.config.time_factor(),
            kernel_args: kernel.config.kernel_args(),
            qemu: qemu.program,
            qemu_part: Part {
                source: qemu.name,
                version: qemu.version,
            },
            firmware: qemu.firmware,
            form: qemu.form,
            accel,
            initramfs: guest.initramfs,
            device: guest.device,
            hmm_tests: guest.hmm_tests,
            engine_bench: guest.engine_bench,
        }
    }
}
