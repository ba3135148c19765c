// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The finished images that a VM is started from.

use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Lock;
use crate::kernel::{self, Variant};
use crate::{guest, qemu};

/// Paths of everything a VM needs.
#[derive(Clone, Debug)]
pub struct Images {
    /// Bootable kernel.
    pub kernel: PathBuf,
    /// Version of the kernel, as `uname -r` shows it.
    pub kernel_version: String,
    /// Which kind of kernel it is.
    pub variant: Variant,
    /// QEMU with the device.
    pub qemu: PathBuf,
    /// Version of QEMU.
    pub qemu_version: String,
    /// Folders with the firmware that QEMU loads.
    pub firmware: Vec<PathBuf>,
    /// Root file system, without a job.
    pub initramfs: PathBuf,
    /// The back end.
    pub device: PathBuf,
    /// The program that measures the engine on host memory.
    pub engine_bench: PathBuf,
    /// Seconds that kernel, QEMU and guest took to build, together.
    pub build_seconds: f64,
}

impl Images {
    /// The images of this checkout with such a kernel, which must have been built.
    ///
    /// # Errors
    ///
    /// Says which image is missing and how to build it.
    pub fn built(variant: Variant) -> Result<Self> {
        let kernel = kernel::built(variant)?;
        Self::join(kernel, qemu::built()?, guest::built(variant)?)
    }

    /// Builds what is missing; packages of the host are installed if `install` says so.
    ///
    /// # Errors
    ///
    /// Those of the builds, each with the place of its log.
    pub fn build(variant: Variant, install: bool) -> Result<Self> {
        if let Ok(images) = Self::built(variant) {
            return Ok(images);
        }
        let _lock = Lock::take()?;
        let kernel = kernel::build(variant, install)?;
        let qemu = qemu::build(install)?;
        let guest = guest::build(&kernel, install)?;
        Self::join(kernel, qemu, guest)
    }

    fn join(kernel: kernel::Kernel, qemu: qemu::Qemu, guest: guest::Guest) -> Result<Self> {
        Ok(Images {
            build_seconds: kernel.seconds + qemu.seconds + guest.seconds,
            kernel: kernel.image,
            kernel_version: kernel.version,
            variant: kernel.variant,
            qemu: qemu.program,
            qemu_version: qemu.version,
            firmware: qemu.firmware,
            initramfs: guest.initramfs,
            device: guest.device,
            engine_bench: guest.engine_bench,
        })
    }
}
