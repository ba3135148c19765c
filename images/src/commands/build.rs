// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `coax build`.

use std::process::ExitCode;

use anyhow::{ensure, Context, Result};

use super::test::test_program;
use crate::cli::{Build, Part};
use coax_images::archive;
use coax_images::cache::Lock;
use coax_images::images::Images;
use coax_images::{front_program, guest, virtiofsd};
use coax_program::outln;

/// Programs of the suites that an archive can run, beside `coax`.
const PROGRAMS: [&str; 3] = ["coax-vm-tests", "coax-stress", "coax-trials"];

/// Builds the part asked for, and prints where it is.
pub fn run(options: &Build, install: bool) -> Result<ExitCode> {
    ensure!(
        archive::here()?.is_none(),
        "This is an archive, which builds nothing: build in a checkout"
    );
    let which = options.kernel.ready(install)?;
    if let Some(file) = &options.archive {
        let images = Images::build(which, install)?;
        let mut programs = vec![std::env::current_exe().context("Where this program is")?];
        for name in PROGRAMS {
            programs.push(test_program(name)?);
        }
        archive::write(file, which, &images, &virtiofsd::build(install)?, &programs)?;
        outln!("{}", file.display())?;
        return Ok(ExitCode::SUCCESS);
    }
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
        Part::Driver => {
            Images::build(which, install)?;
            let kernel = which.kernel.built()?;
            outln!("{}", kernel.driver_dir.join("coax.ko").display())?;
        }
        Part::Front => {
            let images = Images::build(which, install)?;
            outln!("{}", front_program::install(&images)?.display())?;
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
