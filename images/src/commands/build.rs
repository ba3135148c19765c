// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax build`.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Build, Part};
use coax_images::cache::Lock;
use coax_images::images::Images;
use coax_images::{guest, virtiofsd};
use coax_program::outln;

/// Builds the part asked for, and prints where it is.
pub fn run(options: &Build, install: bool) -> Result<ExitCode> {
    let which = options.kernel.ready(install)?;
    match options.part {
        Part::Kernel => {
            let _lock = Lock::take()?;
            outln!("{}", which.kernel.build(install)?.image.display())?;
        }
        Part::Qemu => {
            let _lock = Lock::take()?;
            outln!("{}", which.qemu.build(install)?.program.display())?;
        }
        Part::Guest => {
            let _lock = Lock::take()?;
            let kernel = which.kernel.build(install)?;
            let guest = match guest::built(&kernel) {
                Ok(guest) => guest,
                Err(_) => guest::build(&kernel, &guest::programs()?, install)?,
            };
            outln!("{}", guest.initramfs.display())?;
        }
        Part::Virtiofsd => outln!("{}", virtiofsd::build(install)?.display())?,
        Part::All => {
            let images = Images::build(which, install)?;
            for path in [images.kernel, images.qemu, images.initramfs, images.device] {
                outln!("{}", path.display())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
