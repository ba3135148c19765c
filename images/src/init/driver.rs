// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Loads and unloads the driver.

use std::ffi::CString;
use std::fs::File;

use anyhow::{Context, Result};
use coax_images::job::Driver;
use coax_program::errln;
use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};

use crate::devices;

const MODULE: &str = "/lib/modules/coax.ko";

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
