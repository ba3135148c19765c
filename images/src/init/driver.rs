// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Loads and unloads the driver.

use std::ffi::CString;
use std::fs::File;

use anyhow::{Context, Result};
use coax_images::job::Mode;
use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};

use crate::devices;

const MODULE: &str = "/lib/modules/coax.ko";
const DEVICE: &str = "coax0";

/// Loads the driver and waits for its device.
///
/// # Errors
///
/// The kernel refuses the module, or no device appears.
pub fn load(mode: Mode) -> Result<()> {
    let file = File::open(MODULE).with_context(|| format!("Cannot open {MODULE}"))?;
    let parameters = CString::new(format!("mode={}", mode.parameter()))?;
    finit_module(&file, &parameters, ModuleInitFlags::empty())
        .with_context(|| format!("The kernel refuses {MODULE}"))?;
    devices::named(DEVICE)
        .context("The driver is loaded, but there is no device")
        .map(drop)
}

/// Unloads the driver, which nothing uses any more; that it cannot be is a bug, said so in the
/// words that the host takes for one.
pub fn unload() {
    match delete_module(c"coax", DeleteModuleFlags::O_NONBLOCK) {
        // The job has unloaded it.
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => eprintln!("coax-init: BUG: the driver does not unload: {errno}"),
    }
}
