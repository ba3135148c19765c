// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Loads modules: the kernel's own that a VM starts with, and the driver, which is unloaded too.

use std::ffi::CString;
use std::fs::File;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use coax_images::job::{Driver, EARLY_MODULES};
use coax_program::errln;
use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};

use crate::devices;

const MODULE: &str = "/lib/modules/coax.ko";

/// Loads modules of the kernel's own, where it has built in what a VM starts with only in part.
///
/// # Errors
///
/// The kernel refuses one.
pub fn load_early() -> Result<()> {
    for number in 0.. {
        let path = format!("{EARLY_MODULES}/{number}.ko");
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            other => other.with_context(|| format!("Cannot open {path}"))?,
        };
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("The kernel refuses {path}"))?;
    }
    Ok(())
}

/// Loads the driver and waits for its devices.
///
/// # Errors
///
/// The kernel refuses the module, or a device does not appear.
pub fn load(driver: &Driver) -> Result<()> {
    let file = File::open(MODULE).with_context(|| format!("Cannot open {MODULE}"))?;
    let parameters = CString::new(driver.parameters.join(" "))?;
    finit_module(&file, &parameters, ModuleInitFlags::empty())
        .with_context(|| format!("The kernel refuses {MODULE}"))?;
    for device in &driver.devices {
        devices::named(device).context("The driver is loaded, but there is no device")?;
    }
    Ok(())
}

/// Unloads the driver, which nothing uses any more; that it cannot be is a bug, said so in the
/// words that the host takes for one.
pub fn unload() {
    match delete_module(c"coax", DeleteModuleFlags::O_NONBLOCK) {
        // The job has unloaded it.
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => errln!("coax-init: BUG: the driver does not unload: {errno}"),
    }
}
